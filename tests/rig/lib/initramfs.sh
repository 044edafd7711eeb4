# shellcheck shell=bash
# Building blocks of an initramfs. Archives made here may be concatenated (cat a b): the
# kernel unpacks one after the other, which is how a test adds its own files to the common guest.

# initramfs_skeleton ROOT: the merged-/usr layout that Debian's programs expect.
initramfs_skeleton() {
    local root=$1 name
    mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{proc,sys,dev,run,tmp,etc,var}
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
    ln -s ../run "$root/var/run"
}

# initramfs_copy ROOT PATH: copies PATH to the same place under ROOT, and, if it is a symbolic
# link, every link on the way to the file. Flattening the links would give one shared object
# several names, and the dynamic loader several copies of it.
initramfs_copy() {
    local root=$1 path=$2 target
    while :; do
        # The real directory, with the last component as it is: /lib/x.so -> /usr/lib/x.so
        path=$(realpath -e "$(dirname "$path")")/$(basename "$path")
        [[ ! -e $root$path && ! -L $root$path ]] || return 0
        mkdir -p "$root$(dirname "$path")"
        cp -a "$path" "$root$path"
        [[ -L $path ]] || return 0
        target=$(readlink "$path")
        [[ $target = /* ]] || target=$(dirname "$path")/$target
        path=$target
    done
}

# initramfs_add_libraries ROOT FILE...: all shared libraries the files need, loader included.
initramfs_add_libraries() {
    local root=$1 library
    shift
    # "libx.so => /path/libx.so (0x...)" or "/lib64/ld-linux-x86-64.so.2 (0x...)"; nothing and
    # an error status for a static program or a script
    { ldd "$@" 2>/dev/null || true; } | sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p' | sort -u | while read -r library; do
        initramfs_copy "$root" "$library"
    done
}

# initramfs_add_program ROOT PROGRAM DESTINATION: the program with its libraries.
initramfs_add_program() {
    local root=$1 program=$2 destination=$3
    ! ldd "$program" 2>/dev/null | grep 'not found' || die "$program needs libraries that are not installed"
    install -D -m 755 "$program" "$root$destination"
    initramfs_add_libraries "$root" "$program"
}

# initramfs_pack ROOT FILE. The root directory itself is packed too: without it, / would be
# world-writable, and EAL loads no driver from below such a directory. Not compressed: without KVM
# a guest would spend a quarter of a second on that.
initramfs_pack() {
    (cd "$1" && find . -print0 | LC_ALL=C sort -z |
        cpio --null --create --format=newc --owner=0:0 --quiet) >"$2"
}
