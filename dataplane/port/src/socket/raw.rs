//! raw: AF_PACKET sockets on an interface.
//!
//! A frame with a VLAN tag loses it on its way to such a socket: the kernel keeps the tag beside the frame, and tells
//! it with each message (PACKET_AUXDATA). [`receive`] says which, and the pair puts it back.
#![allow(unsafe_code)] // socket options and messages

use std::fs::File;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_uint, iovec};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, setsockopt, socket, sockopt};

use super::link::{Link, Netlink};
use super::{Opened, SEND_BUFFER, SocketFault, SocketKind, set_non_blocking};

/// Memory for what was received and not read, in bytes (the kernel counts its own overhead in): some thousands of
/// ordinary frames, or some fifty of 64 KiB.
const RECEIVE_BUFFER: usize = 4 << 20;

nix::ioctl_none_bad!(socket_namespace, libc::SIOCGSKNS);

/// Opens an interface's sockets; several share what arrives, each flow at one of them.
pub(super) fn open(netlink: Netlink, link: Link, queues: u16) -> Result<Opened, SocketFault> {
    check(&link)?;
    let mut fds = Vec::new();
    for _ in 0..queues {
        // Without a protocol it receives nothing before it is bound.
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|errno| SocketFault::without("CAP_NET_RAW", "open a raw socket", errno.into()))?;
        prepare(&fd, link.index)?;
        fds.push(fd);
    }
    if queues > 1 {
        share(&fds).map_err(SocketFault::io("share it among several sockets"))?;
    }
    Ok(Opened { kind: SocketKind::Raw, created: false, fds, netlink, link })
}

/// Makes a socket ready, and binds it if it receives nothing yet.
pub(super) fn prepare(fd: &OwnedFd, index: u32) -> Result<(), SocketFault> {
    set(fd, libc::PACKET_VNET_HDR, &1).map_err(SocketFault::io("have virtio-net headers"))?;
    set(fd, libc::PACKET_AUXDATA, &1).map_err(SocketFault::io("be told VLAN tags"))?;
    set(fd, libc::PACKET_IGNORE_OUTGOING, &1).map_err(|errno| match errno {
        Errno::ENOPROTOOPT => SocketFault::OldKernel,
        errno => SocketFault::io("not read what the host sends")(errno),
    })?;
    // A guest has an address of its own.
    let mut member: libc::packet_mreq = zeroed();
    member.mr_ifindex = index as c_int;
    member.mr_type = libc::PACKET_MR_PROMISC as u16;
    set(fd, libc::PACKET_ADD_MEMBERSHIP, &member)
        .map_err(SocketFault::io("receive frames of all addresses"))?;
    set_non_blocking(fd)?;
    // Beyond what is allowed to everyone, if we may; else as much as that is.
    if setsockopt(fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(fd, sockopt::RcvBuf, &RECEIVE_BUFFER);
    }
    if setsockopt(fd, sockopt::SndBufForce, &(SEND_BUFFER as usize)).is_err() {
        let _ = setsockopt(fd, sockopt::SndBuf, &(SEND_BUFFER as usize));
    }
    match bound(fd.as_fd()).map_err(SocketFault::io("look at it"))?.sll_protocol {
        0 => bind(fd, index).map_err(SocketFault::io("bind to it")),
        _ => Ok(()),
    }
}

fn bind(fd: &OwnedFd, index: u32) -> nix::Result<()> {
    let mut address: libc::sockaddr_ll = zeroed();
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as c_int;
    let len = size_of_val(&address) as u32;
    // SAFETY: an address of that length.
    Errno::result(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
}

/// What it is bound to.
fn bound(fd: BorrowedFd<'_>) -> nix::Result<libc::sockaddr_ll> {
    let mut address: libc::sockaddr_ll = zeroed();
    let mut len = size_of_val(&address) as u32;
    // SAFETY: room for an address of that length.
    let status = unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &mut len) };
    Errno::result(status).map(|_| address)
}

/// Distributes what arrives by its flow (PACKET_FANOUT). What came before this came to each of them: it is thrown
/// away when a guest is connected, as whatever nobody waited for.
fn share(fds: &[OwnedFd]) -> nix::Result<()> {
    let how = libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
    // The first has the kernel choose a group's number.
    set(&fds[0], libc::PACKET_FANOUT, &((how | libc::PACKET_FANOUT_FLAG_UNIQUEID) << 16))?;
    let group: c_uint = get(fds[0].as_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT)?;
    fds[1..].iter().try_for_each(|fd| set(fd, libc::PACKET_FANOUT, &(how << 16 | group & 0xffff)))
}

/// How many frames it lost for want of room since this was last asked.
pub(super) fn take_drops(fd: BorrowedFd<'_>) -> u64 {
    let stats: nix::Result<libc::tpacket_stats> = get(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS);
    stats.map_or(0, |stats| stats.tp_drops.into())
}

/// Whether a descriptor is a socket at all.
pub(super) fn is_socket(fd: BorrowedFd<'_>) -> bool {
    get::<c_int>(fd, libc::SOL_SOCKET, libc::SO_TYPE).is_ok()
}

/// What a descriptor that was handed in is, with its interface.
pub(super) fn inspect(fd: BorrowedFd<'_>) -> Result<(SocketKind, Netlink, Link), SocketFault> {
    let option = |name| get::<c_int>(fd, libc::SOL_SOCKET, name).map_err(SocketFault::io("look at it"));
    match option(libc::SO_TYPE)? {
        libc::SOCK_RAW => {}
        libc::SOCK_STREAM => return Err(SocketFault::NotRaw("SOCK_STREAM".to_owned())),
        libc::SOCK_DGRAM => return Err(SocketFault::NotRaw("SOCK_DGRAM".to_owned())),
        other => return Err(SocketFault::NotRaw(other.to_string())),
    }
    match option(libc::SO_DOMAIN)? {
        libc::AF_PACKET => {}
        libc::AF_INET => return Err(SocketFault::NotPacket("AF_INET".to_owned())),
        libc::AF_INET6 => return Err(SocketFault::NotPacket("AF_INET6".to_owned())),
        libc::AF_NETLINK => return Err(SocketFault::NotPacket("AF_NETLINK".to_owned())),
        other => return Err(SocketFault::NotPacket(other.to_string())),
    }
    let asked = SocketFault::io("ask about its interface");
    let index = bound(fd).map_err(SocketFault::io("look at it"))?.sll_ifindex as u32;
    if index == 0 {
        return Err(SocketFault::Unbound("raw socket"));
    }
    let netlink = namespace(fd).map_or_else(|_| Netlink::new(), Netlink::within).map_err(&asked)?;
    let link = netlink.by_index(index).map_err(&asked)?.ok_or(SocketFault::NoSuchInterface)?;
    check(&link)?;
    Ok((SocketKind::Raw, netlink, link))
}

fn check(link: &Link) -> Result<(), SocketFault> {
    if link.ethernet { Ok(()) } else { Err(SocketFault::NotEthernet) }
}

/// The network namespace that a socket is of.
fn namespace(fd: BorrowedFd<'_>) -> nix::Result<File> {
    // SAFETY: no argument.
    let namespace = unsafe { socket_namespace(fd.as_raw_fd()) }?;
    // SAFETY: the kernel has just opened it, for us.
    Ok(unsafe { File::from_raw_fd(namespace) })
}

/// Reads one message. Returns its length, cut to the room there is, and the VLAN tag that the kernel took out of it,
/// as it stands in a frame.
///
/// # Safety
/// Each piece must be mapped and writable for the duration of the call.
pub(super) unsafe fn receive(fd: BorrowedFd<'_>, pieces: &[iovec]) -> io::Result<(usize, Option<[u8; 4]>)> {
    // Aligned as a `struct cmsghdr` has to be, with room for one and what is in it.
    let mut control = [0u64; 8];
    let mut message: libc::msghdr = zeroed();
    message.msg_iov = pieces.as_ptr().cast_mut();
    message.msg_iovlen = pieces.len() as _;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the caller vouches for the pieces; the rest is our own, and as long as is said.
    let len =
        Errno::result(unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT.bits()) })?;
    let mut tag = None;
    // SAFETY: the kernel has filled in the message; what it says of control data is within `control`.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if !header.is_null()
            && ((*header).cmsg_level, (*header).cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
        {
            let auxiliary = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
            tag = vlan_tag(&auxiliary);
        }
    }
    Ok((len as usize, tag))
}

fn vlan_tag(auxiliary: &libc::tpacket_auxdata) -> Option<[u8; 4]> {
    if auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let known = auxiliary.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let protocol = if known { auxiliary.tp_vlan_tpid } else { libc::ETH_P_8021Q as u16 };
    let ([a, b], [c, d]) = (protocol.to_be_bytes(), auxiliary.tp_vlan_tci.to_be_bytes());
    Some([a, b, c, d])
}

/// For the plain structures of the kernel's interface.
fn zeroed<T>() -> T {
    // SAFETY: used for structures of numbers and pointers, of which all zeroes is one.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn set<T>(fd: &OwnedFd, name: c_int, value: &T) -> nix::Result<()> {
    let (value, len) = ((&raw const *value).cast(), mem::size_of::<T>() as u32);
    // SAFETY: a value of that length.
    Errno::result(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, name, value, len) }).map(drop)
}

fn get<T>(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> nix::Result<T> {
    let mut value: T = zeroed();
    let mut len = mem::size_of::<T>() as u32;
    // SAFETY: room for a value of that length.
    let status = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &mut len) };
    Errno::result(status).map(|_| value)
}
