# shellcheck shell=bash
# Booting the rig's guest (make-guest) in QEMU without KVM, and learning how its script ended.
# Needs tools/lib/common.sh.

# Found by measurement: what the guest would spend its first seconds on, it does not need.
RW_KERNEL_ARGS="console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests \
tsc=reliable no_timer_check"

qemu_major_version() {
    qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p'
}

# kernel_args SCRIPT_FILE: the kernel command line that makes guest-init run the script.
kernel_args() {
    local script args
    script=$(gzip -9n <"$1" | base64 -w 0)
    args="$RW_KERNEL_ARGS rw.script=$script"
    # x86 Linux cuts its command line at 2048 bytes, and half a script is worse than none.
    ((${#args} < 2000)) || die "$1 is too long for a kernel command line (${#args} bytes)"
    printf '%s\n' "$args"
}

# start_guest TIMEOUT CONSOLE QEMU_LOG QEMU_ARGS...: boots in the background, sets GUEST_PID.
# A guest that hangs is killed by timeout(1), whatever becomes of this script. With
# RW_GUEST_WRAPPER set, QEMU runs under it ("ip netns exec NAME").
start_guest() {
    local seconds=$1 console=$2 log=$3 wrapper
    shift 3
    read -ra wrapper <<<"${RW_GUEST_WRAPPER:-}"
    : >"$console"
    timeout --kill-after=2 "$seconds" "${wrapper[@]}" taskset -c "${RW_GUEST_CORES:-$(other_cores)}" \
        qemu-system-x86_64 -accel tcg,thread=multi -nodefaults -display none -no-reboot \
        -serial "file:$console" "$@" </dev/null >"$log" 2>&1 &
    GUEST_PID=$!
    at_exit "stop_process $GUEST_PID 3"
}

# guest_status CONSOLE: the script's exit status, or nothing when the guest never got there.
guest_status() {
    tr -d '\r' <"$1" | sed -n 's/^RW-GUEST: exit \([0-9]*\)$/\1/p' | tail -n 1
}

# wait_for_guest CONSOLE QEMU_LOG: waits for power-off, sets GUEST_STATUS (125: it never said).
wait_for_guest() {
    local console=$1 log=$2 qemu=0
    wait "$GUEST_PID" || qemu=$?
    GUEST_STATUS=$(guest_status "$console")
    [[ -z $GUEST_STATUS ]] || return 0
    GUEST_STATUS=125
    case $qemu in
        124 | 137) say "the guest did not finish in time and was killed" ;;
        0) say "the guest powered off without saying how its script ended" ;;
        *) say "QEMU ended with status $qemu" ;;
    esac
    say "the end of its console:"
    tail -n 25 "$console" | tr -d '\r' | sed 's/^/    | /' >&2
    [[ ! -s $log ]] || sed 's/^/    QEMU: /' "$log" >&2
}
