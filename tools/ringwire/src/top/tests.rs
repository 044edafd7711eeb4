//! Frames at the sizes that a terminal has.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use snapshot::{Rates, WorkerRates};

use super::state::Sort;
use super::*;

fn rates(busy_percent: f64, rounds_per_second: f64) -> WorkerRates {
    let cycles_per_packet = (rounds_per_second > 0.0).then_some(163.4);
    WorkerRates {
        busy_percent,
        rounds_per_second,
        utilisation_percent: busy_percent,
        pps: 0.0,
        cycles_per_packet,
    }
}

/// A datapath with much to show: long names and numbers, and drops that go on.
fn status(look: u64) -> Status {
    let text = include_str!("../../../ringwired/tests/common/status.json");
    let mut status: Status = serde_json::from_str(text).unwrap();
    status.workers[0].rates = Some(rates(37.2, 1_234_567.0));
    let busy = snapshot::Worker {
        name: "worker:1023".into(),
        rates: Some(rates(100.0, 0.0)),
        ..status.workers[0].clone()
    };
    status.workers.push(busy);
    for (port, factor) in status.ports.iter_mut().zip([1.0, 0.0, 0.5, 0.1, 0.0, 2.0]) {
        let (pps, bps) = (14_880_952.0 * factor, 9_999_999_999.0 * factor);
        port.rates = Some(Rates { rx_pps: pps, rx_bps: bps, tx_pps: pps / 3.0, tx_bps: bps / 3.0 });
    }
    status.ports[5].name = "a-name-that-is-much-too-long".into();
    *status.ports[3].drops.entry("bad-chain".into()).or_default() += 1500 * look;
    status
}

fn observed(looks: u64) -> Top {
    let mut top = Top::default();
    let start = Instant::now();
    (0..looks).for_each(|look| top.observe(Ok(status(look)), start + REFRESH * look as u32));
    top
}

fn drawn(top: &Top, width: u16, height: u16) -> (Vec<String>, Buffer) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(top, frame)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    ((0..height).map(line).collect(), buffer)
}

#[test]
fn eighty_by_twenty_four_is_enough() {
    let (lines, buffer) = drawn(&observed(3), 80, 24);
    let expected = include_str!("expected/80x24.txt");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(text.trim_end(), expected.trim_end(), "\n{text}");
    // vm2 drops: in red, others not.
    let row = lines.iter().position(|line| line.starts_with("vm2 ")).unwrap() as u16;
    let column = lines[usize::from(row)].find("1.50 k").unwrap() as u16;
    assert_eq!(buffer[(column, row)].fg, Color::Red);
    assert_eq!(buffer[(0, row)].fg, Color::Reset);
}

#[test]
fn two_hundred_by_fifty_shows_more_history() {
    let (lines, _) = drawn(&observed(130), 200, 50);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let vm1 = lines.iter().find(|line| line.starts_with("vm1 ")).unwrap();
    assert_eq!(vm1.matches('█').count(), 120, "{text}");
    assert!(lines[0].ends_with("q: quit") && lines[0].chars().count() == 200, "{text}");
}

/// At any size each line fits, so that nothing wraps or overlaps.
#[test]
fn lines_fit_every_screen() {
    let mut top = observed(70);
    for problem in [None, Some("no answer ".repeat(30))] {
        top.problem = problem;
        for (width, height) in [(80, 24), (200, 50), (1, 1), (20, 5), (40, 3), (79, 24), (500, 200)] {
            let lines = screen::lines(&top, width, height);
            assert!(lines.len() <= height, "{width}x{height}");
            // A terminal cuts what is narrower than the fixed columns.
            let longest = lines.iter().map(|line| line.width()).max().unwrap();
            assert!(longest <= width.max(80), "{longest} at {width}x{height}");
            drawn(&top, width as u16, height as u16);
        }
    }
}

#[test]
fn many_workers_leave_room_for_ports() {
    let mut top = observed(2);
    let workers = &mut top.status.as_mut().unwrap().workers;
    *workers = vec![workers[0].clone(); 64];
    let (lines, _) = drawn(&top, 80, 24);
    assert!(lines.iter().any(|line| line.starts_with("... and 54 more workers")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("vm3 ")), "{lines:?}");
}

#[test]
fn keys_sort_scroll_and_end() {
    let mut top = observed(2);
    let key = |code| Event::Key(event::KeyEvent::new(code, KeyModifiers::NONE));
    let first = |top: &Top| top.ports()[0].name.clone();
    let mut orders = vec![(top.sort, first(&top))];
    for _ in 0..4 {
        assert!(!is_quit(&mut top, key(KeyCode::Char('s'))));
        orders.push((top.sort, first(&top)));
    }
    let long = "a-name-that-is-much-too-long";
    let expected = [
        (Sort::Listed, "wire0"),
        (Sort::Rx, long),
        (Sort::Tx, long),
        (Sort::Drops, "vm2"),
        (Sort::Listed, "wire0"),
    ];
    assert_eq!(orders, expected.map(|(sort, name)| (sort, name.to_owned())));
    for (code, skipped) in [
        (KeyCode::Down, 1),
        (KeyCode::PageDown, 5),
        (KeyCode::Down, 5),
        (KeyCode::Up, 4),
        (KeyCode::PageUp, 0),
    ] {
        assert!(!is_quit(&mut top, key(code)));
        assert_eq!(top.skipped, skipped, "{code:?}");
    }
    assert!(is_quit(&mut top, key(KeyCode::Char('q'))) && is_quit(&mut top, key(KeyCode::Esc)));
    let interrupt = Event::Key(event::KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(is_quit(&mut top, interrupt) && !is_quit(&mut top, key(KeyCode::Char('c'))));
}

#[test]
fn what_is_wrong_is_said_and_the_last_look_stays() {
    let mut top = observed(2);
    top.observe(Err("cannot reach ringwired on /run/x".into()), Instant::now());
    let (lines, buffer) = drawn(&top, 80, 24);
    let row = lines.iter().position(|line| line.starts_with("cannot reach ringwired")).unwrap();
    assert_eq!(buffer[(0, row as u16)].fg, Color::Red);
    assert!(lines.iter().any(|line| line.starts_with("wire0 ")));
    top.observe(Ok(status(3)), Instant::now());
    assert_eq!(top.problem, None);
}
