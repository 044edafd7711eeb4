# shellcheck shell=bash
# A wire to play with: a veth pair whose near end is here, for a DPDK vdev, and whose far end is
# alone in a network namespace. Needs tools/lib/common.sh and root.

# make_wire NAMESPACE NEAR FAR ADDRESS/LEN: gone again when the script ends.
make_wire() {
    local namespace=$1 near=$2 far=$3 address=$4
    ip netns add "$namespace"
    # The pair goes with the namespace, but only some time after: the next run may be quicker.
    at_exit "ip link del $near 2>/dev/null; ip netns del $namespace"
    ip link add "$near" type veth peer name "$far" netns "$namespace"
    quiet_end "$near"
    quiet_end "$far" "$namespace"
    ip -n "$namespace" addr add "$address" dev "$far"
    ip link set "$near" up
    ip -n "$namespace" link set "$far" up
}

# A veth hands on packets whose checksums and segments are still to be made by hardware that is
# not there, and Linux sends IPv6 housekeeping of its own: without both, what is sent is what is
# asked for, and it adds up.
quiet_end() {
    local interface=$1 in=()
    [[ -z ${2:-} ]] || in=(ip netns exec "$2")
    "${in[@]}" ethtool -K "$interface" tx off tso off gso off gro off >/dev/null
    "${in[@]}" sh -c "echo 1 >/proc/sys/net/ipv6/conf/$interface/disable_ipv6" 2>/dev/null || true
}

# wire_count NAMESPACE FAR rx|tx packets|bytes: as seen by the namespace.
wire_count() { ip netns exec "$1" cat "/sys/class/net/$2/statistics/$3_$4"; }
