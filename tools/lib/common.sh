# shellcheck shell=bash
# What every script of this repository shares: progress lines, packages, clean-up, cores.
# Source it; it starts nothing. Progress goes to stderr, so that a script's stdout is its result.

say() { printf '%s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# --- clean-up ---------------------------------------------------------------------------------
# at_exit COMMAND: run when the script ends, however it ends, last registered first.
# Only the process that sourced this file cleans up: a background subshell that dies must not.

RW_AT_EXIT=()
RW_AT_EXIT_OWNER=$BASHPID
at_exit() { RW_AT_EXIT+=("$*"); }

run_at_exit() {
    local status=$? i
    [[ $BASHPID = "$RW_AT_EXIT_OWNER" ]] || return "$status"
    trap - EXIT ERR
    trap '' INT TERM HUP # a second Ctrl-C must not cut the clean-up short
    set +e
    for ((i = ${#RW_AT_EXIT[@]} - 1; i >= 0; i--)); do eval "${RW_AT_EXIT[i]}"; done
    exit "$status"
}

# `set -e` alone ends a script without a word.
report_errors() {
    set -o errtrace
    trap 'say "error: status $? from: $BASH_COMMAND (${BASH_SOURCE[0]##*/}, line $LINENO)"' ERR
}

clean_up_on_exit() {
    report_errors
    trap run_at_exit EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}

# make_temp_dir VARIABLE: a directory that is gone when the script ends.
make_temp_dir() {
    local -n _dir=$1
    _dir=$(mktemp -d "${TMPDIR:-/tmp}/ringwire.XXXXXX")
    at_exit "rm -rf '$_dir'"
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# Not just any process that has got the number since.
is_child() { [[ $(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null) = "$$" ]]; }

# stop_process PID [SECONDS]: TERM, wait, KILL; returns once it is gone. The PID must be the
# program's own: a shell function in the background is a shell with the program as its child.
stop_process() {
    local pid=$1 tenths=$((${2:-5} * 10))
    is_child "$pid" || return 0
    kill -TERM "$pid" 2>/dev/null
    until gone "$pid"; do
        if ((tenths-- <= 0)); then
            warn "process $pid did not stop on SIGTERM; killing it"
            kill -KILL "$pid" 2>/dev/null
            break
        fi
        sleep 0.1
    done
    wait "$pid" 2>/dev/null
    return 0
}

# wait_until SECONDS COMMAND...: polls; false when the time is over.
wait_until() {
    local tenths=$(($1 * 10))
    shift
    until "$@"; do
        ((tenths-- > 0)) || return 1
        sleep 0.1
    done
}

# --- progress ---------------------------------------------------------------------------------

# step TEXT COMMAND...: runs it with its output kept back, says how long it took, and shows the
# end of that output if it fails. The command runs in a subshell in the foreground: Ctrl-C reaches
# it, variables it sets are lost. Call it as a statement of its own, not before `||` or in `if`:
# there bash would run a function on past its errors.
step() {
    local text=$1 start=$SECONDS status
    shift
    if [[ -z $RW_STEP_LOG ]]; then
        RW_STEP_LOG=$(mktemp "${TMPDIR:-/tmp}/ringwire.XXXXXX")
        # shellcheck disable=SC2016 # expanded when it runs
        at_exit 'rm -f "$RW_STEP_LOG"; stop_ticker'
    fi
    say "==> $text"
    tick_every 10 "$text" "$start" &
    RW_TICKER=$!
    trap - ERR
    set +e
    (
        report_errors
        set -e
        "$@"
    ) >"$RW_STEP_LOG" 2>&1
    status=$?
    stop_ticker
    if ((status == 0)); then
        say "    done in $((SECONDS - start)) s"
    else
        say "    FAILED after $((SECONDS - start)) s (status $status); the end of what it said:"
        tail -n 25 "$RW_STEP_LOG" | sed 's/^/    | /' >&2
    fi
    report_errors
    set -e
    return "$status"
}

RW_STEP_LOG='' RW_TICKER=''
stop_ticker() {
    [[ -n $RW_TICKER ]] || return 0
    kill "$RW_TICKER" 2>/dev/null
    wait "$RW_TICKER" 2>/dev/null
    RW_TICKER=''
}

# Waits on a pipe nobody writes to instead of calling sleep(1): killed, it leaves no child behind.
tick_every() {
    local seconds=$1 text=$2 start=$3 silence
    trap - EXIT INT TERM HUP
    exec {silence}<> <(:)
    while ! read -rt "$seconds" -u "$silence"; do say "    ... $text, $((SECONDS - start)) s"; done
}

# --- packages ---------------------------------------------------------------------------------

# What to ask for, by purpose. Names are the same on Debian 12 and 13.
# (Used by the scripts that source this file.)
# shellcheck disable=SC2034
{
    RW_BUILD_PACKAGES=(build-essential pkg-config libclang-dev libdpdk-dev libpcap-dev)
    RW_GUEST_PACKAGES=(qemu-system-x86 busybox-static cpio kmod lz4 zstd xz-utils iperf3 ethtool tcpdump)
    RW_NET_PACKAGES=(iproute2 iputils-ping ethtool iperf3 jq tcpdump tshark python3-scapy tmux)
    RW_TESTPMD_PACKAGES=(dpdk-dev)
    RW_COUNT_PACKAGES=(valgrind)
    RW_API_PACKAGES=(python3-venv)
    # Not a package of Debian: from Python's own index.
    RW_SCHEMATHESIS=4.32.5
}

# installed_packages NAME...: those of them that are. dpkg reads its whole database each time it is asked.
installed_packages() {
    # An error status if it does not know one.
    { dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null || true; } | sed -n 's/^ii *//p'
}

# need_packages NAME...: installs those that are missing, and says which.
need_packages() {
    local missing
    mapfile -t missing < <(comm -23 <(printf '%s\n' "$@" | sort -u) <(installed_packages "$@" | sort -u))
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || die "missing packages; install them with: apt-get install ${missing[*]}"
    say "installing missing packages: ${missing[*]}"
    apt_update_once
    step "apt-get install ${#missing[@]} packages" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 install "${missing[@]}"
}

# Exported, so that scripts called by this one do not update again.
apt_update_once() {
    [[ -z ${RW_APT_UPDATED:-} ]] || return 0
    step "apt-get update" apt-get -q -o DPkg::Lock::Timeout=300 update
    export RW_APT_UPDATED=1
}

# --- cores ------------------------------------------------------------------------------------
# ringwired's worker polls, so it gets the last core we may use to itself and everything else
# (QEMU, traffic tools) the others. On a single core they share it: slow, but it works.

allowed_cores() {
    local range first last
    for range in $(taskset -pc $$ | sed 's/.*: //; s/,/ /g'); do
        first=${range%-*} last=${range#*-}
        seq "$first" "$last"
    done
}
worker_core() { allowed_cores | tail -n 1; }
other_cores() {
    local cores
    mapfile -t cores < <(allowed_cores)
    ((${#cores[@]} > 1)) && unset 'cores[-1]'
    local IFS=,
    printf '%s\n' "${cores[*]}"
}
