//! tap and macvtap: the descriptors of /dev/net/tun and of a macvtap's own character device.
#![allow(unsafe_code)] // ioctls

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::{self, c_int, ifreq};
use nix::sys::stat::{self, Mode, SFlag, major, makedev, minor, mknod};

use super::link::{Link, Netlink};
use super::{HEADER_LEN, Opened, SEND_BUFFER, SocketFault, SocketKind, SocketOptions, set_non_blocking};

const TUN: &str = "/dev/net/tun";
/// Its device number, fixed by the kernel's list of devices.
const TUN_DEVICE: (u64, u64) = (10, 200);
/// What we need of every tap: layer 2, frames alone, our header in front.
const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, ifreq);
nix::ioctl_read_bad!(tun_get_iff, libc::TUNGETIFF, ifreq);
nix::ioctl_write_int_bad!(tun_set_owner, libc::TUNSETOWNER);
nix::ioctl_write_int_bad!(tun_set_group, libc::TUNSETGROUP);
nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);
nix::ioctl_write_ptr_bad!(tun_set_header_size, libc::TUNSETVNETHDRSZ, c_int);
nix::ioctl_write_ptr_bad!(tun_set_little_endian, libc::TUNSETVNETLE, c_int);
nix::ioctl_write_ptr_bad!(tun_set_send_buffer, libc::TUNSETSNDBUF, c_int);
nix::ioctl_none_bad!(tun_namespace, libc::TUNGETDEVNETNS);

/// Opens a tap's queues by its name; creates it if there is none.
pub(super) fn open(
    netlink: Netlink,
    interface: &str,
    found: Option<Link>,
    options: &SocketOptions,
) -> Result<Opened, SocketFault> {
    if let Some(link) = &found {
        check_existing(link, options.queues)?;
    }
    let multi_queue = options.queues > 1 || found.as_ref().is_some_and(|link| link.tun.multi_queue);
    let flags = if multi_queue { FLAGS | libc::IFF_MULTI_QUEUE } else { FLAGS };
    let mut fds = Vec::new();
    for _ in 0..options.queues {
        let hint = "; is the module tun loaded?";
        let fd = open_node(TUN.into(), hint)?;
        attach(&fd, interface, flags).map_err(|errno| refused(errno, found.as_ref(), options.queues))?;
        prepare(&fd)?;
        fds.push(fd);
    }
    set_owner(&fds[0], options)?;
    let created = found.is_none();
    let look = || netlink.by_name(interface).map_err(SocketFault::io("ask about the interface"));
    let link = look()?.ok_or(SocketFault::NoSuchInterface)?;
    if created {
        netlink.set_up(link.index).map_err(SocketFault::privileged("set it up"))?;
    }
    let link = look()?.ok_or(SocketFault::NoSuchInterface)?;
    Ok(Opened { kind: SocketKind::Tap, created, fds, netlink, link })
}

fn check_existing(link: &Link, queues: u16) -> Result<(), SocketFault> {
    let another = |what: &str| Err(SocketFault::NotATap(what.to_owned()));
    match link.kind.as_str() {
        "tun" if i32::from(link.tun.layer) != libc::IFF_TAP => {
            another("a tun, which carries no Ethernet frames")
        }
        // One of a single queue says so itself: EBUSY.
        "tun" if link.tun.queues > 0 => Err(SocketFault::Busy),
        "tun" if queues > 1 && !link.tun.multi_queue => Err(SocketFault::SingleQueue(queues)),
        "tun" => Ok(()),
        "" => another("a network card or the loopback"),
        kind => another(&format!("of kind {kind}")),
    }
}

/// What the kernel means by refusing a queue.
fn refused(errno: Errno, found: Option<&Link>, queues: u16) -> SocketFault {
    let tun = found.map(|link| link.tun);
    match errno {
        Errno::EBUSY => SocketFault::Busy,
        Errno::E2BIG => SocketFault::TooManyQueues(queues),
        Errno::EPERM if found.is_none() => SocketFault::privileged("create it")(errno),
        Errno::EPERM => match tun.map(|tun| (tun.owner, tun.group)) {
            Some((Some(owner), _)) => SocketFault::Owned(format!("user {owner}")),
            Some((None, Some(group))) => SocketFault::Owned(format!("group {group}")),
            _ => SocketFault::privileged("use it")(errno),
        },
        _ => SocketFault::io("get a queue of it")(errno),
    }
}

fn set_owner(fd: &OwnedFd, options: &SocketOptions) -> Result<(), SocketFault> {
    if let Some(user) = options.user {
        // SAFETY: takes a number.
        unsafe { tun_set_owner(fd.as_raw_fd(), user as c_int) }.map_err(SocketFault::io("set its owner"))?;
    }
    if let Some(group) = options.group {
        // SAFETY: takes a number.
        unsafe { tun_set_group(fd.as_raw_fd(), group as c_int) }.map_err(SocketFault::io("set its group"))?;
    }
    Ok(())
}

/// Opens a macvtap's queues.
pub(super) fn open_macvtap(netlink: Netlink, link: Link, queues: u16) -> Result<Opened, SocketFault> {
    let mut fds = Vec::new();
    for _ in 0..queues {
        let fd = open_macvtap_node(&link)?;
        attach(&fd, &link.name, FLAGS | libc::IFF_MULTI_QUEUE)
            .map_err(SocketFault::io("get a queue of it"))?;
        prepare(&fd)?;
        fds.push(fd);
    }
    Ok(Opened { kind: SocketKind::Macvtap, created: false, fds, netlink, link })
}

/// Opens /dev/tapN, N the interface's index. In a container there may be no such node, or (indices repeat in other
/// network namespaces) one of another interface: then by a node of our own, which is gone when it is open.
fn open_macvtap_node(link: &Link) -> Result<OwnedFd, SocketFault> {
    let node = format!("tap{}", link.index);
    let sysfs = format!("/sys/class/net/{}/{node}/dev", link.name);
    let numbers = fs::read_to_string(sysfs).map_err(SocketFault::io("read its device number in /sys"))?;
    let numbers = numbers.trim().split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let malformed =
        || SocketFault::io("read its device number in /sys")(io::Error::from(io::ErrorKind::InvalidData));
    let numbers: (u64, u64) = numbers.ok_or_else(malformed)?;
    let usual = Path::new("/dev").join(&node);
    if stat::stat(&usual).is_ok_and(|found| (major(found.st_rdev), minor(found.st_rdev)) == numbers) {
        return open_node(usual, "");
    }
    let own = Path::new("/dev").join(format!(".ringwire-{}-{node}", std::process::id()));
    mknod(&own, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(numbers.0, numbers.1))
        .map_err(|errno| no_node(usual, errno.into(), "; there is none, and none can be made"))?;
    let opened = open_node(own.clone(), "");
    let _ = fs::remove_file(own);
    opened
}

fn open_node(path: PathBuf, hint: &'static str) -> Result<OwnedFd, SocketFault> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path);
    opened.map(OwnedFd::from).map_err(|source| no_node(path, source, hint))
}

fn no_node(path: PathBuf, source: io::Error, hint: &'static str) -> SocketFault {
    SocketFault::Node { path, source, hint }
}

/// A queue of the interface: what is read from and written to the descriptor from now on.
fn attach(fd: &OwnedFd, interface: &str, flags: c_int) -> nix::Result<()> {
    let mut request = request();
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: reads (and writes the name of) one request, which lives on.
    unsafe { tun_set_iff(fd.as_raw_fd(), &request) }.map(drop)
}

fn request() -> ifreq {
    // SAFETY: numbers only: all zeroes is a request.
    unsafe { std::mem::zeroed() }
}

/// The interface's present name, and the flags of this queue. An error means that there is no interface (any more).
pub(super) fn attached(fd: BorrowedFd<'_>) -> nix::Result<(String, c_int)> {
    let mut request = request();
    // SAFETY: fills in one request.
    unsafe { tun_get_iff(fd.as_raw_fd(), &mut request) }?;
    // A name of 15 bytes has a zero behind it, by the kernel's rules for names.
    let bytes = request.ifr_name.map(|c| c as u8);
    let name = CStr::from_bytes_until_nul(&bytes).unwrap_or_default().to_string_lossy().into_owned();
    // SAFETY: the kernel has filled in the flags.
    Ok((name, c_int::from(unsafe { request.ifr_ifru.ifru_flags } as u16)))
}

/// Sets what each of our queues has: our header, a bounded queue into the kernel, never to block.
pub(super) fn prepare(fd: &OwnedFd) -> Result<(), SocketFault> {
    set_non_blocking(fd)?;
    let raw = fd.as_raw_fd();
    // SAFETY: each reads one number.
    unsafe { tun_set_header_size(raw, &(HEADER_LEN as c_int)) }.map_err(SocketFault::io("set its header"))?;
    // SAFETY: likewise.
    unsafe { tun_set_little_endian(raw, &1) }.map_err(SocketFault::io("set its byte order"))?;
    // SAFETY: likewise.
    unsafe { tun_set_send_buffer(raw, &SEND_BUFFER) }.map_err(SocketFault::io("set its buffer"))?;
    Ok(())
}

/// What the kernel may hand out: TUN_F_ bits.
pub(super) fn set_offloads(fd: BorrowedFd<'_>, offloads: u32) -> nix::Result<()> {
    // SAFETY: takes a number.
    unsafe { tun_set_offload(fd.as_raw_fd(), offloads as c_int) }.map(drop)
}

/// What a descriptor that was handed in is, with its interface.
pub(super) fn inspect(fd: BorrowedFd<'_>) -> Result<(SocketKind, Netlink, Link), SocketFault> {
    let kind = kind(fd)?;
    let (name, flags) = attached(fd).map_err(|_| SocketFault::Unbound(kind.name()))?;
    let asked = SocketFault::io("ask about its interface");
    // In our own namespace if the kernel does not tell: a macvtap, or before 5.2, or without privileges.
    let netlink = namespace(fd).map_or_else(|_| Netlink::new(), Netlink::within).map_err(&asked)?;
    let link = netlink.by_name(&name).map_err(&asked)?.ok_or(SocketFault::NoSuchInterface)?;
    let has = |flag| flags & flag != 0;
    let needed = [
        (has(libc::IFF_TAP), "IFF_TAP"),
        // The bit of that name means something else here (IFF_NOFILTER).
        (!link.tun.info, "IFF_NO_PI"),
        (has(libc::IFF_VNET_HDR), "IFF_VNET_HDR"),
    ];
    let missing: Vec<&str> = needed.into_iter().filter_map(|(has, name)| (!has).then_some(name)).collect();
    match missing.as_slice() {
        [] => Ok((kind, netlink, link)),
        missing => Err(SocketFault::Lacks { kind, missing: missing.join(" and ") }),
    }
}

/// By its device number: an ioctl to whatever else it might be could do anything.
fn kind(fd: BorrowedFd<'_>) -> Result<SocketKind, SocketFault> {
    let stat = stat::fstat(fd).map_err(SocketFault::io("look at it"))?;
    let device = (major(stat.st_rdev), minor(stat.st_rdev));
    let character = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    match device {
        TUN_DEVICE if character => Ok(SocketKind::Tap),
        (major, _) if character && Some(major) == macvtap_major() => Ok(SocketKind::Macvtap),
        _ => {
            let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            let what = link.map_or_else(|_| "something else".to_owned(), |link| link.display().to_string());
            Err(SocketFault::NotASocket(what))
        }
    }
}

/// The major number that the kernel gave to macvtaps.
fn macvtap_major() -> Option<u64> {
    let devices = fs::read_to_string("/proc/devices").ok()?;
    let mut words = devices.lines().map(str::split_ascii_whitespace);
    words.find_map(|mut line| {
        let major = line.next()?.parse().ok()?;
        (line.next()? == "macvtap").then_some(major)
    })
}

/// The network namespace that a tap is in now: it may have been moved since it was opened.
pub(super) fn namespace(fd: BorrowedFd<'_>) -> nix::Result<File> {
    // SAFETY: no argument.
    let namespace = unsafe { tun_namespace(fd.as_raw_fd()) }?;
    // SAFETY: the kernel has just opened it, for us.
    Ok(unsafe { File::from_raw_fd(namespace) })
}
