# shellcheck shell=bash
# A guest without a VM: DPDK's virtio-user driver under testpmd, on a vhost-user socket.
# Needs tools/lib/common.sh.

# start_testpmd_guest SOCKET LOG QUEUES MRG FORWARD_ARGS...: sets TESTPMD_GUEST. LOG is in a
# temporary directory.
# Both lcores on one core beside the worker's: the guest's other thread only prints.
start_testpmd_guest() {
    local socket=$1 log=$2 queues=$3 mrg=$4 core runtime
    shift 4
    core=$(allowed_cores | sed -n 1p)
    # EAL never removes its runtime directory (default: below /var/run): give it one that goes.
    runtime=$(dirname "$log")
    RUNTIME_DIRECTORY=$runtime \
        dpdk-testpmd --lcores "0@$core,1@$core" --no-huge -m 128 --file-prefix="guest-$RANDOM" \
        --no-pci --no-telemetry --log-level=warning \
        --vdev "net_virtio_user0,path=$socket,queues=$queues,queue_size=1024,mac=52:54:00:00:00:02,mrg_rxbuf=$mrg" \
        -- --rxq="$queues" --txq="$queues" --stats-period=1 --total-num-mbufs=16384 --auto-start "$@" \
        >"$log" 2>&1 </dev/null &
    TESTPMD_GUEST=$!
    at_exit "stop_process $TESTPMD_GUEST"
    wait_until 20 testpmd_runs_or_ended "$log" || true
    testpmd_runs "$log" || {
        say "error: testpmd did not start; the end of what it said:"
        tail -n 20 "$log" | sed 's/^/    | /' >&2
        exit 1
    }
}

testpmd_runs() { grep -q 'Port statistics' "$1"; }
testpmd_runs_or_ended() { testpmd_runs "$1" || gone "$TESTPMD_GUEST"; }

# testpmd ends cleanly, with its sums, on SIGINT; bash starts background processes with SIGINT
# ignored, but testpmd sets its own handler.
stop_testpmd_guest() {
    kill -INT "$TESTPMD_GUEST" 2>/dev/null || true
    wait_until 10 gone "$TESTPMD_GUEST" || stop_process "$TESTPMD_GUEST" 1
    wait "$TESTPMD_GUEST" 2>/dev/null || true
}

# testpmd_sum LOG RX|TX: packets over all ports, from the sums printed at the end.
testpmd_sum() {
    awk -v count="$2-packets:" '/Accumulated forward statistics/ { sums = 1 }
        sums && $1 == count { print $2; exit }' "$1"
}
