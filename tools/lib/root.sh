# shellcheck shell=bash
# A Debian root in a directory, for what cannot be tried on this host. Source it behind common.sh.

# debian_root ROOT SUITE PACKAGES...: makes it, and installs what it has not yet, with the caller's
# `in_root`. It is kept. With a proxy, `http_proxy` is set afterwards: apt's own, unless there was one.
debian_root() {
    local root=$1 suite=$2 proxy=
    shift 2
    if [[ -z ${http_proxy:-} ]]; then
        eval "$(apt-config shell proxy Acquire::http::Proxy)"
        [[ -z $proxy || $proxy = DIRECT ]] || export http_proxy=$proxy
    fi
    if [[ ! -d $root ]]; then
        # Renamed when it is whole: an interrupted one is made again.
        rm -rf "$root.partial"
        step "debootstrap $suite" debootstrap --variant=minbase "$suite" "$root.partial" \
            "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
        mv "$root.partial" "$root"
    fi
    [[ "$(cat "$root/packages" 2>/dev/null)" != "$*" ]] || return 0
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    step "apt-get update (inside)" in_root apt-get -q update
    step "apt-get install $# packages (inside)" in_root apt-get -q -y --no-install-recommends install "$@"
    echo "$*" >"$root/packages"
}
