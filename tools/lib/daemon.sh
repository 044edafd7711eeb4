# shellcheck shell=bash
# One ringwired of the calling script: started, asked, stopped. Needs tools/lib/common.sh.
# The caller sets RINGWIRED and RINGWIRE (the programs), and RW_API (the API socket).

# start_ringwired CONFIG LOG SOCKET: returns once SOCKET is there and the API answers.
start_ringwired() {
    local config=$1 socket=$3
    RW_DAEMON_LOG=$2
    "$RINGWIRED" --config "$config" >"$RW_DAEMON_LOG" 2>&1 </dev/null &
    RW_DAEMON=$!
    at_exit stop_ringwired
    wait_until 30 daemon_ready_or_gone "$socket" || daemon_failed "ringwired did not get ready within 30 s"
    daemon_ready "$socket" || daemon_failed "ringwired ended while starting"
}
daemon_ready() { [[ -S $1 ]] && "$RINGWIRE" --api "$RW_API" status >/dev/null 2>&1; }
daemon_ready_or_gone() { daemon_ready "$1" || gone "$RW_DAEMON"; }

stop_ringwired() {
    [[ -n ${RW_DAEMON:-} ]] || return 0
    stop_process "$RW_DAEMON" 10
    RW_DAEMON=
}

# daemon_failed TEXT: the end of the log, what to try, and out.
daemon_failed() {
    say "error: $1; the end of ringwired's log:"
    tail -n 30 "$RW_DAEMON_LOG" | sed 's/^/    | /' >&2
    say "what to try:"
    if grep -qiE 'affinity|refused pin|pin(ned|ning)' "$RW_DAEMON_LOG"; then
        say "  - may this process use the core it is configured for? (taskset -pc \$\$)"
    fi
    if grep -qiE 'cannot allocate|no memory|not enough memory|mempool' "$RW_DAEMON_LOG"; then
        say "  - is there memory? (free -m; in a container also its limit and 'ulimit -l')"
    fi
    if grep -qiE 'operation not permitted|permission denied' "$RW_DAEMON_LOG"; then
        say "  - in a container: it needs CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK and CAP_SYS_NICE"
    fi
    say "  - run the same again with --keep-logs DIR and look at ringwired.toml and ringwired.log there"
    exit 1
}

# port_stat JSON NAME FILTER: a value out of `ringwire stats --json`, wherever the port stands in it.
port_stat() {
    jq -r --arg name "$2" "[.. | objects | select(.name? == \$name and has(\"rx_packets\"))][0] | $3" "$1"
}

# port_losses JSON NAME: "none", or "held 1, dropped: reason 3, other 4"
port_losses() {
    port_stat "$1" "$2" '
        [(.held // 0 | select(. > 0) | "held \(.)"),
         (.drops // {} | to_entries[] | select(.value > 0) | "\(.key) \(.value)")]
        | if . == [] then "none" else join(", ") end'
}

# books_balance JSON A B: for both ends of a wire, whatever entered there left at the other end,
# is held, or was dropped for a reason that has a name. Says so if not.
books_balance() {
    local json=$1 in out entered left rest balance=0
    for in in "$2" "$3"; do
        [[ $in = "$2" ]] && out=$3 || out=$2
        entered=$(port_stat "$json" "$in" '.rx_packets // 0')
        left=$(port_stat "$json" "$out" '.tx_packets // 0')
        rest=$(port_stat "$json" "$in" '(.held // 0) + ([.drops // {} | .[]] | add // 0)')
        ((entered == left + rest)) || {
            say "$entered packets entered at $in, but $left left at $out and $rest were held or dropped"
            balance=1
        }
    done
    return "$balance"
}
