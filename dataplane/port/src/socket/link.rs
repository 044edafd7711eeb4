//! Asks the kernel about an interface, and changes it: rtnetlink's RTM_GETLINK and RTM_NEWLINK, of which only the few
//! attributes that matter here are read.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// Bytes of `struct nlmsghdr`, and of `struct ifinfomsg` behind it.
const MESSAGE: usize = 16;
const INFO: usize = 16;
/// Room for an answer: an interface with everything the kernel may say about it.
const ANSWER: usize = 32 << 10;

// Attributes within attributes (linux/if_link.h).
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_OWNER: u16 = 1;
const IFLA_TUN_GROUP: u16 = 2;
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_PI: u16 = 4;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
/// Of an attribute's type, the bits that are not flags.
const TYPE: u16 = 0x3fff;

/// What an interface is like.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    /// "tun", "macvtap", "veth", ...; empty for a NIC.
    pub kind: String,
    /// Whether its frames are Ethernet's.
    pub ethernet: bool,
    pub flags: u32,
    pub mtu: u32,
    pub mac: [u8; 6],
    pub counters: InterfaceCounters,
    /// What only a tun or tap has.
    pub tun: Tun,
}

/// What only a tun or tap has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tun {
    /// IFF_TUN or IFF_TAP.
    pub layer: u8,
    pub owner: Option<u32>,
    pub group: Option<u32>,
    /// Without IFF_NO_PI: frames have yet another header.
    pub info: bool,
    pub multi_queue: bool,
    /// How many are in use.
    pub queues: u32,
}

/// The kernel's counters of an interface, from its own point of view: what it transmits to a tap is what we read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets transmitted.
    pub tx_packets: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Not transmitted.
    pub tx_dropped: u64,
    /// Received and bad.
    pub rx_errors: u64,
    /// Could not be transmitted.
    pub tx_errors: u64,
}

/// A netlink socket in one network namespace.
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    /// One in the namespace of this thread.
    pub fn new() -> io::Result<Netlink> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Netlink(fd))
    }

    /// One in another namespace. A thread is in one, so it is made by a thread that ends then.
    pub fn within(namespace: File) -> io::Result<Netlink> {
        let enter = || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Netlink::new()
        };
        let failed = |_| Err(io::ErrorKind::Other.into());
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap_or_else(failed))
    }

    /// The interface of that name, if there is one.
    pub fn by_name(&self, name: &str) -> io::Result<Option<Link>> {
        let mut value = name.as_bytes().to_vec();
        value.push(0);
        self.get(0, &attribute(libc::IFLA_IFNAME, &value))
    }

    /// The interface of that index, if there still is one.
    pub fn by_index(&self, index: u32) -> io::Result<Option<Link>> {
        self.get(index, &[])
    }

    /// Sets an interface up, as `ip link set up`.
    pub fn set_up(&self, index: u32) -> io::Result<()> {
        self.set(index, libc::IFF_UP as u32, &[])
    }

    /// Sets an interface's MTU.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        self.set(index, 0, &attribute(libc::IFLA_MTU, &mtu.to_ne_bytes()))
    }

    fn get(&self, index: u32, attributes: &[u8]) -> io::Result<Option<Link>> {
        match self.ask(libc::RTM_GETLINK, index, 0, attributes) {
            Ok(answer) => Ok(Some(parse(&answer))),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set(&self, index: u32, flags: u32, attributes: &[u8]) -> io::Result<()> {
        self.ask(libc::RTM_NEWLINK, index, flags, attributes).map(drop)
    }

    /// Sends one request, and gives what is in the answer behind the message's header. An acknowledgement is empty.
    fn ask(&self, request: u16, index: u32, flags: u32, attributes: &[u8]) -> io::Result<Vec<u8>> {
        // A question is answered; an order is acknowledged if that is asked for.
        let ack = if request == libc::RTM_GETLINK { 0 } else { libc::NLM_F_ACK };
        let mut message = Vec::with_capacity(MESSAGE + INFO + attributes.len());
        message.extend(((MESSAGE + INFO + attributes.len()) as u32).to_ne_bytes());
        message.extend(request.to_ne_bytes());
        message.extend(((libc::NLM_F_REQUEST | ack) as u16).to_ne_bytes());
        message.extend([0; 8]); // sequence number, port
        message.extend([0; 4]); // family, padding, type
        message.extend(index.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(flags.to_ne_bytes()); // which of them to change
        message.extend(attributes);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
        // The kernel has answered by now.
        let mut answer = vec![0; ANSWER];
        let len = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        answer.truncate(len);
        if u16_at(&answer, 4) == libc::NLMSG_ERROR as u16 {
            match u32_at(&answer, MESSAGE) as i32 {
                0 => return Ok(Vec::new()),
                errno => return Err(io::Error::from_raw_os_error(-errno)),
            }
        }
        Ok(answer.split_off(MESSAGE.min(len)))
    }
}

/// An attribute, padded to a multiple of 4 bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The attributes in `bytes`, as type and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0));
        let value = bytes.get(4..len)?;
        let kind = u16_at(bytes, 2) & TYPE;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// What is in a `struct ifinfomsg` and the attributes behind it.
fn parse(answer: &[u8]) -> Link {
    let ethernet = [libc::ARPHRD_ETHER, libc::ARPHRD_LOOPBACK].contains(&u16_at(answer, 2));
    let (index, flags) = (u32_at(answer, 4), u32_at(answer, 8));
    let mut link = Link { index, flags, ethernet, ..Link::default() };
    for (kind, value) in attributes(answer.get(INFO..).unwrap_or_default()) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0),
            libc::IFLA_ADDRESS => link.mac = value.try_into().unwrap_or_default(),
            libc::IFLA_STATS64 => link.counters = counters(value),
            libc::IFLA_LINKINFO => {
                for (kind, value) in attributes(value) {
                    match kind {
                        IFLA_INFO_KIND => link.kind = text(value),
                        IFLA_INFO_DATA if link.kind == "tun" => link.tun = tun(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

/// Of a `struct rtnl_link_stats64`, the first words.
fn counters(value: &[u8]) -> InterfaceCounters {
    let word = |n: usize| {
        value.get(8 * n..8 * n + 8).map_or(0, |word| u64::from_ne_bytes(word.try_into().unwrap_or_default()))
    };
    InterfaceCounters {
        rx_packets: word(0),
        tx_packets: word(1),
        rx_errors: word(4),
        tx_errors: word(5),
        rx_dropped: word(6),
        tx_dropped: word(7),
    }
}

fn tun(value: &[u8]) -> Tun {
    let mut tun = Tun::default();
    for (kind, value) in attributes(value) {
        match kind {
            IFLA_TUN_TYPE => tun.layer = value.first().copied().unwrap_or_default(),
            IFLA_TUN_OWNER => tun.owner = Some(u32_at(value, 0)),
            IFLA_TUN_GROUP => tun.group = Some(u32_at(value, 0)),
            IFLA_TUN_PI => tun.info = value.first() == Some(&1),
            IFLA_TUN_MULTI_QUEUE => tun.multi_queue = value.first() == Some(&1),
            IFLA_TUN_NUM_QUEUES => tun.queues = u32_at(value, 0),
            _ => {}
        }
    }
    tun
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |word| u16::from_ne_bytes(word.try_into().unwrap_or_default()))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |word| u32::from_ne_bytes(word.try_into().unwrap_or_default()))
}
