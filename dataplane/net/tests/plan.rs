//! What is refused and why, and who has to do what.

mod common;

use common::{ECN, HEADER_MAX, Network, Shape, TCPV4, TCPV6, Transport, UDP, UDP_L4, put};
use net::{Action, BadOffload, Offload, Plan, Takes, decide};

const CWR: u8 = 0x80;
const ACK: u8 = 0x10;

fn v4() -> Network {
    Network::V4 { options: 0 }
}

fn v6(extensions: &[(u8, u8)]) -> Network {
    Network::V6 { extensions: extensions.to_vec() }
}

fn tcp(network: Network) -> Shape {
    let transport = Transport::Tcp { options: 3, flags: ACK };
    Shape { vlan_tags: 0, network, transport, payload: 5000, seed: 11 }
}

fn udp(network: Network) -> Shape {
    Shape { transport: Transport::Udp, ..tcp(network) }
}

fn check(offload: Offload, frame: &[u8]) -> Result<Plan, BadOffload> {
    check_as(offload, frame, Takes::ALL)
}

fn check_as(offload: Offload, frame: &[u8], allowed: Takes) -> Result<Plan, BadOffload> {
    offload.check(&frame[..frame.len().min(HEADER_MAX)], frame.len(), allowed)
}

/// A frame, its header, and a change that makes them wrong.
fn refused(shape: Shape, gso_type: u8, change: impl Fn(&mut Offload, &mut Vec<u8>)) -> BadOffload {
    let (mut offload, mut frame) = (shape.offload(gso_type, 1000), shape.partial());
    assert!(check(offload, &frame).is_ok());
    change(&mut offload, &mut frame);
    check(offload, &frame).expect_err("it is wrong")
}

#[test]
fn values_outside_the_frame_are_refused() {
    let shape = || tcp(v4());
    let len = shape().partial().len();
    let long = len as u16 + 1;
    assert_eq!(
        refused(shape(), 0, |offload, _| offload.hdr_len = long),
        BadOffload::HeaderLength { hdr_len: long, frame_len: len }
    );
    for (start, offset) in [(34, long - 35), (u16::MAX, u16::MAX), (long - 2, 0), (0, 16), (19, 0)] {
        let error = refused(shape(), 0, |it, _| (it.csum_start, it.csum_offset) = (start, offset));
        assert_eq!(error, BadOffload::ChecksumOutside { start, offset, frame_len: len });
    }
    // The last two bytes are inside.
    let last = Offload { csum_start: 34, csum_offset: long - 37, ..shape().offload(0, 0) };
    assert!(check(last, &shape().partial()).is_ok());
}

#[test]
fn segmentation_that_makes_no_sense_is_refused() {
    let gso_type = |kind| refused(tcp(v4()), TCPV4, |offload, _| offload.gso_type = kind);
    for kind in [2, 6, 0x40, ECN, ECN | UDP, ECN | UDP_L4, 0xff] {
        assert_eq!(gso_type(kind), BadOffload::GsoType(kind));
    }
    for kind in [TCPV6, UDP, UDP_L4] {
        assert_eq!(gso_type(kind), BadOffload::GsoHeaders(kind));
    }
    let size = |shape, kind, size| refused(shape, kind, |offload, _| offload.gso_size = size);
    assert_eq!(size(tcp(v4()), TCPV4, 0), BadOffload::GsoSize { size: 0, len: 5000 });
    assert_eq!(size(tcp(v6(&[])), TCPV6, 3), BadOffload::GsoSize { size: 3, len: 5000 });
    assert_eq!(size(udp(v4()), UDP_L4, 3), BadOffload::GsoSize { size: 3, len: 5000 });
    // No fragment but the last is shorter than 8 bytes.
    assert_eq!(size(udp(v4()), UDP, 7), BadOffload::GsoSize { size: 7, len: 5008 });
    let error = refused(tcp(v4()), TCPV4, |offload, _| offload.csum_offset = 6);
    assert_eq!(error, BadOffload::GsoChecksum { gso_type: TCPV4, start: 34, offset: 6 });
    let error = refused(tcp(v4()), TCPV4, |offload, _| offload.csum_start = 54);
    assert_eq!(error, BadOffload::GsoChecksum { gso_type: TCPV4, start: 54, offset: 16 });
    let error = refused(udp(v4()), UDP_L4, |offload, _| offload.flags = 0);
    assert_eq!(error, BadOffload::GsoChecksum { gso_type: UDP_L4, start: 0, offset: 0 });
    // Behind a routing header with a segment left, the pseudo header must come from the sender.
    let error = refused(tcp(v6(&[(43, 2)])), TCPV6, |offload, _| offload.flags = 0);
    assert_eq!(error, BadOffload::GsoChecksum { gso_type: TCPV6, start: 0, offset: 0 });
    assert!(
        check(
            Offload { flags: 0, ..tcp(v6(&[(43, 1)])).offload(TCPV6, 1000) },
            &tcp(v6(&[(43, 1)])).complete()
        )
        .is_ok()
    );
}

/// A change of one field in the frame; where it is, counted from the IP header.
#[test]
fn frames_that_are_not_what_is_to_be_segmented_are_refused() {
    let ip = 14;
    let headers = |shape: Shape, kind, at: usize, byte: u8| {
        assert_eq!(refused(shape, kind, |_, frame| frame[at] = byte), BadOffload::GsoHeaders(kind), "{at}");
    };
    headers(tcp(v4()), TCPV4, 13, 6); // ARP
    headers(tcp(v4()), TCPV4, ip, 0x65); // version
    headers(tcp(v4()), TCPV4, ip, 0x44); // header length
    headers(tcp(v4()), TCPV4, ip + 6, 0x20); // more fragments
    headers(tcp(v4()), TCPV4, ip + 7, 1); // fragment offset
    headers(tcp(v4()), TCPV4, ip + 9, 17); // protocol
    headers(tcp(v4()), TCPV4, ip + 20 + 12, 0x40); // data offset
    headers(tcp(v6(&[])), TCPV6, ip, 0x45);
    headers(tcp(v6(&[])), TCPV6, ip + 6, 44); // fragment
    headers(tcp(v6(&[(60, 0)])), TCPV6, ip + 41, 255); // the extension header is longer than the frame
    headers(tcp(v6(&[(0, 1), (60, 0)])), TCPV6, ip + 41, 26); // or than headers may be
    let error = refused(tcp(v4()), TCPV4, |_, frame| frame.truncate(14 + 20 + 18));
    assert!(matches!(error, BadOffload::HeaderLength { .. }));
    // Headers that end behind the frame, though hdr_len does not.
    let error = refused(tcp(v4()), TCPV4, |offload, frame| {
        frame.truncate(14 + 20 + 31);
        offload.hdr_len = 0;
    });
    assert_eq!(error, BadOffload::GsoHeaders(TCPV4));
    // A third VLAN tag.
    let error = refused(Shape { vlan_tags: 2, ..tcp(v4()) }, TCPV4, |_, frame| {
        frame.splice(12..12, [0x81, 0, 0, 9]);
    });
    assert_eq!(error, BadOffload::GsoHeaders(TCPV4));
}

#[test]
fn lengths_in_the_frame_are_its_own() {
    let length = |shape: Shape, kind, at: usize, change: i16| {
        let error = refused(shape, kind, |_, frame| {
            let word = common::get(frame, at);
            put(frame, at, word.wrapping_add_signed(change));
        });
        assert_eq!(error, BadOffload::GsoLengths(kind), "{at}");
    };
    for change in [-1, 1] {
        length(tcp(v4()), TCPV4, 14 + 2, change);
        length(tcp(v6(&[])), TCPV6, 14 + 4, change);
        length(udp(v4()), UDP, 14 + 2, change);
        length(udp(v4()), UDP, 14 + 20 + 4, change);
        length(udp(v6(&[])), UDP_L4, 14 + 40 + 4, change);
    }
    // Whoever segments TCP fills them in.
    for (shape, kind, at) in [(tcp(v4()), TCPV4, 16), (tcp(v6(&[])), TCPV6, 18)] {
        let mut frame = shape.partial();
        put(&mut frame, at, 0);
        let plan = check(shape.offload(kind, 1000), &frame).expect("segments have a length");
        let segments = common::in_software(&plan, &frame);
        shape.outline().assert_segments(&frame, kind, 1000, &segments);
        // But what is one segment only is as the sender wrote it.
        let one = check(shape.offload(kind, 5000), &frame);
        assert_eq!(one.unwrap_err(), BadOffload::GsoLengths(kind));
    }
}

#[test]
fn only_what_was_negotiated_is_done() {
    let csum = Takes::TCP_CSUM | Takes::UDP_CSUM | Takes::ANY_CSUM;
    let (shape, frame) = (tcp(v4()), tcp(v4()).partial());
    let (plain, tso) = (shape.offload(0, 0), shape.offload(TCPV4, 1000));
    let no = |offload: Offload| {
        Some(BadOffload::NotNegotiated { flags: offload.flags, gso_type: offload.gso_type })
    };
    assert_eq!(check_as(plain, &frame, Takes::NOTHING).err(), no(plain));
    assert_eq!(check_as(plain, &frame, csum).err(), None);
    assert_eq!(check_as(tso, &frame, csum | Takes::TSO6).err(), no(tso));
    assert_eq!(check_as(tso, &frame, csum | Takes::TSO4).err(), None);
    assert_eq!(check_as(Offload::default(), &frame, Takes::NOTHING).err(), None);
}

/// The sender's word that checksums are right counts if it may, and reaches who may have it.
#[test]
fn data_valid_goes_from_who_may_say_it_to_who_may_hear_it() {
    let offload = Offload { flags: 2 | 4, csum_start: 9, hdr_len: 3, ..Offload::default() };
    let frame = tcp(v4()).complete();
    let passed = |allowed, takes| decide(&check_as(offload, &frame, allowed).unwrap(), takes);
    let valid = Offload { flags: 2, ..Offload::default() };
    assert_eq!(passed(Takes::ALL, Takes::ALL), Action::PassOn(valid));
    assert_eq!(passed(Takes::ALL, Takes::NOTHING), Action::PassOn(Offload::default()));
    assert_eq!(passed(Takes::ALL.without(Takes::DATA_VALID), Takes::ALL), Action::PassOn(Offload::default()));
    // A NIC with LRO.
    let lro = Offload { flags: 2, gso_type: TCPV4, gso_size: 1000, ..Offload::default() };
    let plan = check(lro, &frame).unwrap();
    assert_eq!(decide(&plan, Takes::ALL), Action::PassOn(Offload { hdr_len: 66, ..lro }));
}

#[test]
fn every_pair_of_ports_is_decided_in_one_place() {
    let csum = Takes::TCP_CSUM | Takes::UDP_CSUM | Takes::ANY_CSUM;
    let nothing = Takes::NOTHING;
    let segment = |partial| Action::Segment { partial };
    let decided = |shape: &Shape, gso_type, takes| {
        let plan = check(shape.offload(gso_type, 1000), &shape.partial()).unwrap();
        match decide(&plan, takes) {
            Action::PassOn(offload) => {
                assert_eq!(offload, plan.offload());
                None
            }
            action => Some(action),
        }
    };
    let cases = [
        (tcp(v4()), TCPV4, Takes::TSO4, Takes::TSO6),
        (tcp(v6(&[])), TCPV6, Takes::TSO6, Takes::TSO4),
        (udp(v4()), UDP_L4, Takes::USO4, Takes::USO6),
        (udp(v6(&[])), UDP_L4, Takes::USO6, Takes::USO4),
        (udp(v6(&[(60, 0)])), UDP, Takes::UFO, Takes::USO6),
    ];
    for (shape, gso_type, right, wrong) in cases {
        assert_eq!(decided(&shape, gso_type, csum | right), None);
        assert_eq!(decided(&shape, gso_type, Takes::ALL), None);
        assert_eq!(decided(&shape, gso_type, csum | wrong), Some(segment(gso_type != UDP)));
        assert_eq!(decided(&shape, gso_type, nothing), Some(segment(false)));
        assert!(matches!(decided(&shape, 0, nothing), Some(Action::Checksum(_))));
        assert_eq!(decided(&shape, 0, csum), None);
    }
}

#[test]
fn a_first_segment_with_cwr_needs_ecn() {
    let transport = Transport::Tcp { options: 0, flags: ACK | CWR };
    let shape = Shape { transport, ..tcp(v4()) };
    let without = Takes::ALL.without(Takes::ECN);
    for (shape, gso_type) in [(&shape, TCPV4), (&shape, TCPV4 | ECN), (&tcp(v4()), TCPV4 | ECN)] {
        // Even if the sender did not negotiate it.
        let plan = check_as(shape.offload(gso_type, 1000), &shape.partial(), without).unwrap();
        assert_eq!(decide(&plan, without), Action::Segment { partial: true });
        assert_eq!(plan.offload().gso_type, TCPV4 | ECN);
        assert_eq!(decide(&plan, Takes::ALL), Action::PassOn(plan.offload()));
    }
}

/// Linux takes no more than 128 datagrams in one: nobody gets them whole.
#[test]
fn too_many_datagrams_are_cut_for_everybody() {
    let shape = udp(v4());
    let decided = |size| decide(&check(shape.offload(UDP_L4, size), &shape.partial()).unwrap(), Takes::ALL);
    assert!(matches!(decided(40), Action::PassOn(_))); // 125
    assert_eq!(decided(38), Action::Segment { partial: true }); // 132
}

/// A NIC that sums TCP and UDP is not told to sum anything else.
#[test]
fn a_checksum_elsewhere_is_not_the_nics() {
    let nic = Takes::TCP_CSUM | Takes::UDP_CSUM;
    let shape = tcp(v6(&[]));
    let frame = shape.partial();
    let usual = shape.offload(0, 0);
    let plan = check(usual, &frame).unwrap();
    let layers = plan.layers().expect("TCP");
    assert_eq!((layers.l2_len, layers.l3_len, layers.l4_len), (14, 40, 32));
    assert!(matches!(decide(&plan, nic), Action::PassOn(_)));
    // Behind extension headers, a NIC would sum another protocol, another length, or even another destination.
    for extension in [0, 60, 43] {
        let extended = tcp(v6(&[(extension, 2)]));
        let plan = |gso_type| check(extended.offload(gso_type, 1000), &extended.partial()).unwrap();
        let decided = |gso_type, takes| decide(&plan(gso_type), takes);
        assert!(matches!(decided(0, nic), Action::Checksum(_)));
        assert_eq!(plan(0).layers(), None);
        assert!(matches!(decided(TCPV6, nic | Takes::TSO6), Action::Segment { partial: false }));
        assert!(matches!(decided(TCPV6, Takes::ALL), Action::PassOn(_)));
    }
    // So it would where the IP header leaves the length open.
    let mut open = frame.clone();
    put(&mut open, 18, 0);
    let plan = check(shape.offload(TCPV6, 1000), &open).unwrap();
    assert!(matches!(decide(&plan, nic | Takes::TSO6), Action::Segment { partial: false }));
    // A tunnel's inner packet; an IP header that says the packet is longer than the frame.
    let inner = Offload { csum_start: usual.csum_start + 40, ..usual };
    let mut cut = frame.clone();
    cut.truncate(200);
    for (offload, frame) in [(inner, &frame), (usual, &cut)] {
        let plan = check(offload, frame).unwrap();
        assert_eq!(plan.layers(), None);
        assert!(matches!(decide(&plan, nic), Action::Checksum(_)));
        assert!(matches!(decide(&plan, nic | Takes::ANY_CSUM), Action::PassOn(_)));
    }
}
