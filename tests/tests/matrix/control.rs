//! The judge, judged: it finds whatever is wrong, and nothing else.

use tests::offload_guest::{NetHeader, Packet};

use crate::cells::{Cell, Kind, Size};
use crate::verdict::{judge, table, without_scapy, write_packets};
use crate::want::Want;

/// What arrives of a frame, and what the judge has to say of it: a part of its words, or nothing.
struct Control {
    cell: Cell,
    want: Want,
    arrived: Vec<Packet>,
    wrong: Option<&'static str>,
}

fn control(
    kind: Kind,
    size: Size,
    want: Want,
    arrived: impl Fn(&Cell) -> Vec<Packet>,
    wrong: Option<&'static str>,
) -> Control {
    let all = Cell::all();
    let cell = *all.iter().find(|cell| (cell.kind, cell.size) == (kind, size)).expect("a cell");
    Control { cell, want, arrived: arrived(&cell), wrong }
}

/// Its segments, after something was done to them.
fn segments(spoil: impl Fn(&mut Vec<Vec<u8>>)) -> impl Fn(&Cell) -> Vec<Packet> {
    move |cell| {
        let mut segments = cell.segments();
        spoil(&mut segments);
        segments.into_iter().map(|frame| (NetHeader::default(), frame)).collect()
    }
}

/// The frame as it was sent, after something was done to its header.
fn whole(spoil: impl Fn(&mut NetHeader)) -> impl Fn(&Cell) -> Vec<Packet> {
    move |cell| {
        let (mut header, frame) = cell.packet();
        spoil(&mut header);
        vec![(header, frame)]
    }
}

fn controls() -> Vec<Control> {
    use Kind::*;
    use Size::*;
    let flip = |at: usize| move |frames: &mut Vec<Vec<u8>>| frames[2][at] ^= 1;
    // Two bytes that are not the same change places: no checksum notices.
    let swap = |frames: &mut Vec<Vec<u8>>| {
        let payload = &mut frames[1][200..];
        let at = (0..).find(|at| payload[*at] != payload[at + 2]).expect("different bytes");
        payload.swap(at, at + 2);
    };
    vec![
        control(Tcp4, Cut, Want::Cut, segments(|_| ()), None),
        control(Tcp6, Cut, Want::Cut, segments(flip(14 + 40 + 16)), Some("checksum is wrong")),
        control(VlanTcp4, Cut, Want::Cut, segments(flip(18 + 10)), Some("checksum is wrong")),
        control(ExtTcp6, Cut, Want::Cut, segments(swap), Some("payload differs")),
        control(
            Tcp4,
            CutJumbo,
            Want::Cut,
            segments(|frames| drop(frames.remove(3))),
            Some("sequence number"),
        ),
        control(Tcp6, CutJumbo, Want::Cut, segments(|frames| frames.swap(3, 4)), Some("sequence number")),
        control(VlanTcp4, CutJumbo, Want::Cut, segments(|frames| drop(frames.pop())), Some("bytes of")),
        control(ExtTcp6, CutJumbo, Want::Same, segments(|_| ()), Some("flags=0")),
        control(Tcp4, Least, Want::Same, whole(|header| header[6] += 1), Some("csum_start")),
        control(Tcp6, Least, Want::Cut, whole(|_| ()), Some("left to do")),
        control(Udp4, Least, Want::Any, whole(|header| header[0] = 2), Some("checksum is wrong")),
        control(Udp6, Least, Want::Plain, whole(|_| ()), Some("flags=1")),
        control(Udp4, Mtu, Want::Same, whole(|_| ()), None),
        control(Udp6, Mtu, Want::Same, whole(|header| header[1] = 5), Some("gso_size 0")),
        control(Udp4, Cut, Want::Same, whole(|header| header[4] += 1), Some("gso_size")),
        control(Udp6, Cut, Want::Same, whole(|_| ()), None),
        control(ExtUdp6, Cut, Want::Any, |_| Vec::new(), Some("nothing arrived")),
        control(ExtUdp6, CutJumbo, Want::Any, whole(|header| header[1] = 0), Some("a frame of")),
    ]
}

#[test]
fn judge_finds_what_is_wrong() {
    if without_scapy() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let controls = controls();
    let sent: Vec<Packet> = controls.iter().map(|control| control.cell.packet()).collect();
    write_packets(directory.path(), "sent", &sent);
    let wants: Vec<(Cell, Want)> = controls.iter().map(|control| (control.cell, control.want)).collect();
    let arrived: Vec<Packet> = controls.iter().flat_map(|control| control.arrived.clone()).collect();
    let verdicts = judge(directory.path(), true, &wants, &arrived);
    println!("{}", table("What was spoiled", &verdicts));
    for (control, verdict) in controls.iter().zip(&verdicts) {
        match (control.wrong, &verdict.found) {
            (None, Ok(_)) => (),
            (Some(wrong), Err(error)) if error.contains(wrong) => (),
            (wrong, found) => panic!("{:?}: {wrong:?} is wrong, but the judge says {found:?}", control.cell),
        }
    }
}
