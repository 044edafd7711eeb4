//! Whatever can be wrong is one line that names port, interface and what to do.

use std::fs::{File, OpenOptions};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use port::socket::{SocketKind, SocketOptions, SocketPort};

use crate::stage::{alone, as_nobody, by_name, cable, handed_in, open, refused, run};

fn tap(interface: &str, queues: u16) -> SocketOptions {
    by_name(SocketKind::Tap, interface, queues)
}

#[test]
fn names_that_are_none_or_of_something_else() {
    if !alone() {
        return;
    }
    assert_eq!(
        refused(&tap("sixteen-bytes-xx", 1)),
        "port0: interface sixteen-bytes-xx: no interface can have this name: it is longer than 15 bytes"
    );
    assert_eq!(
        refused(&by_name(SocketKind::Raw, "eth9", 1)),
        "port0: interface eth9: there is no such interface"
    );
    cable("va", "vb");
    run("ip tuntap add l3 mode tun");
    assert_eq!(
        refused(&by_name(SocketKind::Raw, "l3", 1)),
        "port0: interface l3: it carries no Ethernet frames"
    );
    for (interface, what) in [
        ("va", "of kind veth"),
        ("lo", "a network card or the loopback"),
        ("l3", "a tun, which carries no Ethernet frames"),
    ] {
        assert_eq!(
            refused(&tap(interface, 1)),
            format!("port0: interface {interface}: it exists, and is no tap or macvtap but {what}")
        );
    }
}

#[test]
fn taps_that_somebody_else_has_open_or_that_are_of_another_shape() {
    if !alone() {
        return;
    }
    let _single = open(SocketKind::Tap, "t0");
    let _many = SocketPort::open(&tap("t1", 2)).unwrap();
    for (interface, queues) in [("t0", 1), ("t1", 1), ("t1", 2)] {
        assert_eq!(
            refused(&tap(interface, queues)),
            format!("port0: interface {interface}: another process has it open")
        );
    }
    run("ip tuntap add t2 mode tap");
    assert_eq!(
        refused(&tap("t2", 4)),
        "port0: interface t2: it exists with a single queue, and 4 are asked for: ask for 1, or create it with \
         `multi_queue` (ip tuntap)"
    );
    assert_eq!(refused(&tap("t3", 257)), "port0: interface t3: it cannot have 257 queues");
    // What was created for the attempt is gone.
    assert!(refused(&by_name(SocketKind::Raw, "t3", 1)).ends_with("there is no such interface"));
}

#[test]
fn without_privileges() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    run("ip tuntap add t0 mode tap user 1234 && ip tuntap add t1 mode tap group 4321");
    as_nobody(65534, || {
        let advice = |capability: &str| {
            format!(
                "takes {capability}: run as root, or give it that (AmbientCapabilities={capability} in a systemd \
                 unit, setcap {}+ep on the program)",
                capability.to_lowercase()
            )
        };
        for (options, text) in [
            (tap("t9", 1), format!("interface t9: to create it {}", advice("CAP_NET_ADMIN"))),
            (
                by_name(SocketKind::Raw, "va", 1),
                format!("interface va: to open a raw socket {}", advice("CAP_NET_RAW")),
            ),
            (
                tap("t0", 1),
                "interface t0: it belongs to user 1234: run as that, or with CAP_NET_ADMIN".to_owned(),
            ),
            (
                tap("t1", 1),
                "interface t1: it belongs to group 4321: run as that, or with CAP_NET_ADMIN".to_owned(),
            ),
        ] {
            assert_eq!(refused(&options), format!("port0: {text}"));
        }
    });
    // Its owner needs no privileges, but for what changes the interface.
    as_nobody(1234, || {
        let (port, _pair) = open(SocketKind::Tap, "t0");
        assert!(!port.created);
        drop((port, _pair));
        let error = refused(&SocketOptions { mtu: Some(1400), ..tap("t0", 1) });
        assert!(error.starts_with("port0: interface t0: to set its MTU takes CAP_NET_ADMIN: "), "{error}");
    });
}

#[test]
fn an_mtu_that_the_interface_cannot_have() {
    if !alone() {
        return;
    }
    let error = refused(&SocketOptions { mtu: Some(10), ..tap("t0", 1) });
    assert!(error.starts_with("port0: interface t0: cannot set its MTU: Invalid argument"), "{error}");
}

#[test]
fn no_device_node_to_open_it_by() {
    if !alone() {
        return;
    }
    run("mount -t tmpfs none /dev");
    assert_eq!(
        refused(&tap("t0", 1)),
        "port0: interface t0: cannot open /dev/net/tun: No such file or directory (os error 2); is the module tun \
         loaded?"
    );
}

#[test]
fn a_macvtap_without_a_node_where_none_can_be_made() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    run("ip link add link va name m0 type macvtap mode passthru && ip link set m0 up");
    run("mount -t tmpfs -o ro none /dev");
    let error = refused(&tap("m0", 1));
    assert!(error.starts_with("port0: interface m0: cannot open /dev/tap"), "{error}");
    assert!(
        error.ends_with(": Read-only file system (os error 30); there is none, and none can be made"),
        "{error}"
    );
}

/// The three that the kernel's vhost-net tells apart, as ENOTSOCK, ESOCKTNOSUPPORT and EPFNOSUPPORT.
#[test]
fn descriptors_that_are_no_backend() {
    if !alone() {
        return;
    }
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let raw_ip =
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp).unwrap();
    let (pipe, _) = nix::unistd::pipe().unwrap();
    let cases: [(OwnedFd, &str); 5] = [
        (
            File::open("/dev/null").unwrap().into(),
            "it is neither a socket nor a tap or macvtap, but /dev/null",
        ),
        (pipe, "it is neither a socket nor a tap or macvtap, but pipe:["),
        (udp.into(), "it is a socket, and not of type SOCK_RAW but SOCK_DGRAM"),
        (
            TcpListener::bind("127.0.0.1:0").unwrap().into(),
            "it is a socket, and not of type SOCK_RAW but SOCK_STREAM",
        ),
        (raw_ip, "it is a raw socket, and not of family AF_PACKET but AF_INET"),
    ];
    for (fd, text) in cases {
        let error = refused(&handed_in(vec![fd]));
        assert!(error.starts_with(&format!("port0: descriptor: {text}")), "{error}");
    }
    assert_eq!(refused(&handed_in(Vec::new())), "port0: descriptor: none was given");
}

#[test]
fn descriptors_that_lack_something() {
    if !alone() {
        return;
    }
    let unbound_raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
    assert_eq!(
        refused(&handed_in(vec![unbound_raw])),
        "port0: descriptor: it is a raw socket that no interface was given to yet"
    );
    let unbound_tap = tun("t0", None);
    assert_eq!(
        refused(&handed_in(vec![unbound_tap])),
        "port0: descriptor: it is a tap that no interface was given to yet"
    );
    for (flags, missing) in [
        (libc::IFF_TAP | libc::IFF_NO_PI, "IFF_VNET_HDR"),
        (libc::IFF_TAP, "IFF_NO_PI and IFF_VNET_HDR"),
        (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR, "IFF_TAP"),
    ] {
        assert_eq!(
            refused(&handed_in(vec![tun("t0", Some(flags))])),
            format!(
                "port0: descriptor: it is a tap without {missing}, which must be asked for where it is opened"
            )
        );
    }
    let fds = ["t0", "t1"].map(|name| tun(name, Some(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)));
    assert_eq!(
        refused(&handed_in(fds.into())),
        "port0: descriptor: the descriptors are not all of the same interface, in the same way"
    );
}

/// A descriptor of /dev/net/tun as somebody else might open it.
fn tun(name: &str, flags: Option<libc::c_int>) -> OwnedFd {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
    if let Some(flags) = flags {
        // SAFETY: numbers only: all zeroes is a request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: reads one request.
        let status = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::TUNSETIFF, &request) };
        assert_eq!(status, 0);
    }
    file.into()
}
