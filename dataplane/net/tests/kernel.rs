//! Software segmentation beside Linux's own: a frame is written into a tap, bridged, and read from another tap whose
//! reader takes no offloads. What we make of the frame must be the same, byte for byte.
//!
//! Where Linux does something else, and we do not follow:
//! - it takes another identification for IPv6 fragments (as we do for each datagram), so these are masked;
//! - it counts the length of IPv6 extension headers into the offset of each fragment, which makes the datagram
//!   impossible to put together: such cases are left out here, and judged by scapy in `judges.rs`;
//! - it cuts fragments that are no multiple of 8 bytes long if a hostile `gso_size` asks for it, which nobody can put
//!   together either: `matrix` has multiples of 8 only.
//!
//! IPv4 identifications are compared: both count them up, with DF set as well.

#![allow(unsafe_code)] // ioctls on taps

mod common;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use common::{Case, Network, Shape, Transport, UDP, UDP_L4, in_software, matrix, partial_segments, plan};
use net::{Action, Offload, Takes, decide};
use nix::libc::{IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, O_NONBLOCK, c_int, ifreq};
use nix::sched::{CloneFlags, unshare};

nix::ioctl_write_ptr_bad!(
    /// TUNSETIFF
    tun_set_iff, nix::request_code_write!(b'T', 202, size_of::<c_int>()), ifreq);
nix::ioctl_write_int_bad!(
    /// TUNSETOFFLOAD
    tun_set_offload, nix::request_code_write!(b'T', 208, size_of::<c_int>()));

const TUN_F_CSUM: c_int = 1;

/// Two taps on a bridge, in a network namespace of this thread's own, which ends with it.
struct Bridge {
    into: File,
    from: File,
}

impl Bridge {
    /// With `offloads` (TUN_F_*) taken by who reads. The error says why there is none.
    fn new(offloads: c_int) -> Result<Bridge, String> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
            .map_err(|error| error.to_string())?;
        let (into, from) = (tap("into")?, tap("from")?);
        // SAFETY: the argument is a number.
        unsafe { tun_set_offload(from.as_raw_fd(), offloads) }.map_err(|error| error.to_string())?;
        run("ip link add bridge type bridge");
        for interface in ["bridge", "into", "from"] {
            run(&format!("ip link set {interface} mtu 65521"));
        }
        for port in ["into", "from"] {
            run(&format!("ip link set {port} master bridge up"));
        }
        run("ip link set bridge up");
        Ok(Bridge { into, from })
    }

    /// What comes out, and is to whom the frame is (multicast is the bridge's own). A frame is forwarded before the
    /// write of it returns.
    fn pass(&mut self, case: &Case) -> Vec<(Offload, Vec<u8>)> {
        self.write(case.offload, &case.frame).unwrap_or_else(|error| panic!("{}: {error}", case.name()));
        let received = std::iter::from_fn(|| read(&mut self.from));
        received.filter(|(_, frame)| frame[..6] == case.frame[..6]).collect()
    }

    fn write(&mut self, offload: Offload, frame: &[u8]) -> io::Result<usize> {
        self.into.write(&[&offload.to_bytes()[..], frame].concat())
    }
}

fn tap(name: &str) -> Result<File, String> {
    let mut options = OpenOptions::new();
    let tap = options.read(true).write(true).custom_flags(O_NONBLOCK).open("/dev/net/tun");
    let tap = tap.map_err(|error| format!("/dev/net/tun: {error}"))?;
    // SAFETY: all fields may be zero.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as _;
    }
    request.ifr_ifru.ifru_flags = (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) as i16;
    // SAFETY: it is an ifreq.
    unsafe { tun_set_iff(tap.as_raw_fd(), &request) }.map_err(|error| format!("TUNSETIFF: {error}"))?;
    Ok(tap)
}

fn read(tap: &mut File) -> Option<(Offload, Vec<u8>)> {
    let mut buffer = vec![0; 1 << 17];
    match tap.read(&mut buffer) {
        Ok(len) => {
            let header = buffer[..Offload::LEN].try_into().expect("ten bytes");
            Some((Offload::from_bytes(header), buffer[Offload::LEN..len].to_vec()))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().expect("a program")).args(words).output().expect(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What differs by intent: IPv6 fragments' identification.
fn masked(shape: &Shape, gso_type: u8, frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mask = |mut frame: Vec<u8>| {
        if !shape.is_v4() && gso_type == UDP && frame[shape.l2() + 6] == 44 {
            frame[shape.l4() + 4..shape.l4() + 8].fill(0);
        }
        frame
    };
    frames.into_iter().map(mask).collect()
}

fn has_extensions(shape: &Shape) -> bool {
    matches!(&shape.network, Network::V6 { extensions } if !extensions.is_empty())
}

fn assert_same(what: &str, ours: &[Vec<u8>], theirs: &[Vec<u8>]) {
    let lengths = |frames: &[Vec<u8>]| frames.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(ours), lengths(theirs), "{what}: lengths of our segments, and of Linux's");
    for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let differing: Vec<usize> = (0..ours.len()).filter(|at| ours[*at] != theirs[*at]).collect();
        assert!(
            differing.is_empty(),
            "{what}: segment {number} differs at {differing:?}\n{:02x?}\n{:02x?}",
            &ours[..ours.len().min(160)],
            &theirs[..theirs.len().min(160)],
        );
    }
}

#[test]
fn linux_makes_the_same_of_a_frame() {
    let mut bridge = match Bridge::new(0) {
        Ok(bridge) => bridge,
        Err(why) => return println!("skipped: {why}"),
    };
    let (mut frames, mut segments) = (0, 0);
    for case in matrix() {
        if case.offload.gso_type == UDP && has_extensions(&case.shape) {
            continue;
        }
        let (gso_type, shape) = (case.offload.gso_type, &case.shape);
        let theirs = bridge.pass(&case).into_iter().map(|(_, frame)| frame).collect();
        let ours = in_software(&plan(case.offload, &case.frame), &case.frame);
        let (ours, theirs) = (masked(shape, gso_type, ours), masked(shape, gso_type, theirs));
        assert_same(&case.name(), &ours, &theirs);
        (frames, segments) = (frames + 1, segments + ours.len());
    }
    println!("{frames} frames, {segments} segments: byte for byte as Linux's");
    assert!(frames > 400 && segments > 4500);
}

/// The destination takes checksums, but no segments: Linux leaves these partial, and so do we.
#[test]
fn linux_leaves_the_same_checksums() {
    let mut bridge = match Bridge::new(TUN_F_CSUM) {
        Ok(bridge) => bridge,
        Err(why) => return println!("skipped: {why}"),
    };
    let takes = Takes::TCP_CSUM | Takes::UDP_CSUM | Takes::ANY_CSUM;
    let mut segments = 0;
    for case in matrix().iter().filter(|case| case.offload.gso_type != UDP) {
        let plan = plan(case.offload, &case.frame);
        let ours = match decide(&plan, takes) {
            Action::Segment { partial: true } => partial_segments(&plan, &case.frame),
            Action::PassOn(offload) => vec![(offload, case.frame.clone())],
            action => panic!("{}: {action:?}", case.name()),
        };
        let (our_headers, ours): (Vec<_>, Vec<_>) = ours.into_iter().unzip();
        let (their_headers, theirs): (Vec<_>, Vec<_>) = bridge.pass(case).into_iter().unzip();
        assert_same(&case.name(), &ours, &theirs);
        assert_eq!(our_headers, their_headers, "{}", case.name());
        segments += ours.len();
    }
    println!("{segments} segments with partial checksums: byte for byte as Linux's");
    assert!(segments > 4000);
}

/// Checksums that no TCP or UDP header has: in a tunnel, in a protocol of its own, where there is no IP.
#[test]
fn linux_completes_any_checksum_the_same() {
    let mut bridge = match Bridge::new(0) {
        Ok(bridge) => bridge,
        Err(why) => return println!("skipped: {why}"),
    };
    let network = Network::V4 { options: 0 };
    let shape = Shape { vlan_tags: 1, network, transport: Transport::Udp, payload: 701, seed: 3 };
    let mut unknown = shape.partial();
    unknown[shape.l2() - 2..shape.l2()].copy_from_slice(&[0x88, 0xb5]); // ethertype for local experiments
    let whole = shape.partial();
    for (frame, start, offset) in [(&whole, 100, 20), (&whole, 101, 6), (&whole, 745, 0), (&unknown, 40, 300)]
    {
        let offload = Offload { flags: 1, csum_start: start, csum_offset: offset, ..Offload::default() };
        let case = Case { shape: shape.clone(), offload, frame: frame.clone() };
        let theirs: Vec<_> = bridge.pass(&case).into_iter().map(|(_, frame)| frame).collect();
        assert_ne!(theirs[0], *frame);
        assert_same(&format!("{offload:?}"), &in_software(&plan(offload, frame), frame), &theirs);
    }
    for csum_start in 0..30 {
        let offload = Offload { flags: 1, csum_start, ..Offload::default() };
        let ours = offload.check(&whole[..common::HEADER_MAX], whole.len(), Takes::ALL);
        assert_eq!(ours.is_ok(), bridge.write(offload, &whole).is_ok(), "csum_start {csum_start}");
    }
}

/// Frames with complete checksums, to be segmented none the less.
#[test]
fn linux_segments_complete_frames_the_same() {
    let mut bridge = match Bridge::new(0) {
        Ok(bridge) => bridge,
        Err(why) => return println!("skipped: {why}"),
    };
    let mut segments = 0;
    for mut case in matrix() {
        // Datagrams must leave it to us, and behind a routing header the destination is another.
        if matches!(case.offload.gso_type, 0 | UDP_L4) || has_extensions(&case.shape) {
            continue;
        }
        (case.offload.flags, case.frame) = (0, case.shape.complete());
        let theirs = bridge.pass(&case).into_iter().map(|(_, frame)| frame).collect();
        let ours = in_software(&plan(case.offload, &case.frame), &case.frame);
        let (shape, gso_type) = (&case.shape, case.offload.gso_type);
        let (ours, theirs) = (masked(shape, gso_type, ours), masked(shape, gso_type, theirs));
        assert_same(&case.name(), &ours, &theirs);
        segments += ours.len();
    }
    assert!(segments > 2500, "{segments}");
}

/// What passes our checks, whatever its sender wrote, a tap behind us does not refuse.
#[test]
fn linux_takes_what_we_let_pass() {
    let mut bridge = match Bridge::new(0) {
        Ok(bridge) => bridge,
        Err(why) => return println!("skipped: {why}"),
    };
    let (mut passed, mut refused, mut stricter) = (0, 0, 0);
    for case in matrix().iter().filter(|case| case.frame.len() < 3000) {
        for (at, change) in (0..10).flat_map(|at| [1u8, 2, 5, 16, 0x80, 0xff].map(move |change| (at, change)))
        {
            let mut header = case.offload.to_bytes();
            header[at] ^= change;
            let offload = Offload::from_bytes(&header);
            let header = &case.frame[..case.frame.len().min(common::HEADER_MAX)];
            match offload.check(header, case.frame.len(), Takes::ALL).map(|plan| decide(&plan, Takes::ALL)) {
                Ok(Action::PassOn(ours)) => {
                    let written = bridge.write(ours, &case.frame);
                    assert!(written.is_ok(), "{}: {offload:?} -> {ours:?}: {written:?}", case.name());
                    passed += 1;
                }
                Ok(_) => (),
                Err(_) if bridge.write(offload, &case.frame).is_ok() => stricter += 1,
                Err(_) => refused += 1,
            }
            std::iter::from_fn(|| read(&mut bridge.from)).for_each(drop);
        }
    }
    println!("{passed} taken by both, {refused} refused by both, {stricter} refused by us only");
    assert!(passed > 1000 && refused > 1000);
}
