//! A frame of `ringwire top`, as lines that fit a width and a height.

use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use snapshot::{Port, PortKind, Status, Worker};

use super::state::Top;
use crate::units::{NOTHING, count, duration, rate};

/// Widths of the columns, and what stands above them; a gap of one follows each. What is left is the history's.
const COLUMNS: [(usize, &str); 8] = [
    (12, "PORT"),
    (5, "KIND"),
    (12, "STATE"),
    (7, "RX PPS"),
    (8, "RX BIT/S"),
    (7, "TX PPS"),
    (8, "TX BIT/S"),
    (7, "DROPS/S"),
];
/// The first of them that hold numbers.
const NUMBERS: usize = 3;
/// Characters of a worker's name, and of what follows its bar.
const NAME: usize = 12;
const REST: usize = 48;

/// The frame; lines beyond `height` are left out, ports before workers.
pub fn lines(top: &Top, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = vec![head(top, width)];
    if let Some(status) = &top.status {
        // At least as much room for ports as for workers.
        let most = (height.saturating_sub(4) / 2).max(1);
        lines.extend(status.workers.iter().take(most).map(|one| worker(one, width)));
        if status.workers.len() > most {
            lines.push(Line::from(format!("... and {} more workers", status.workers.len() - most)).dim());
        }
        lines.push(Line::default());
        lines.push(titles(width));
        lines.extend(top.ports().into_iter().skip(top.skipped).map(|one| port(top, one, width)));
    }
    if let Some(problem) = &top.problem {
        lines.truncate(height.saturating_sub(1));
        lines.push(Line::from(cut(problem, width)).red());
    }
    lines.truncate(height);
    lines
}

fn head(top: &Top, width: usize) -> Line<'static> {
    let left = match &top.status {
        Some(Status { version, pid, uptime_seconds, .. }) => {
            format!("ringwired {version}  pid {pid}  up {}", duration(*uptime_seconds))
        }
        None => "ringwired".to_owned(),
    };
    let right = format!("s: sort ({})  q: quit", top.sort.name());
    let gap = width.saturating_sub(left.chars().count() + right.chars().count());
    let text = if gap > 0 { format!("{left}{}{right}", " ".repeat(gap)) } else { left };
    Line::from(cut(&text, width)).bold()
}

fn worker(worker: &Worker, width: usize) -> Line<'static> {
    let rates = worker.rates.unwrap_or_default();
    let bar = width.saturating_sub(NAME + REST + 2).clamp(4, 60);
    let used = rates.utilisation_percent;
    let full = (used / 100.0 * bar as f64).round().clamp(0.0, bar as f64) as usize;
    let color = match used {
        90.0.. => Color::Red,
        60.0.. => Color::Yellow,
        _ => Color::Green,
    };
    let cycles = rates.cycles_per_packet.map_or(NOTHING.to_owned(), |cycles| match cycles {
        0.0..100_000.0 => format!("{cycles:.0}"),
        _ => rate(cycles, "").trim_end().to_owned(),
    });
    let rounds = rate(rates.rounds_per_second, "r/s");
    let rest = format!(" {used:>5.1} %  lanes {:>3}  {rounds:>10}  {cycles:>6} cyc/pkt", worker.lanes);
    let name = format!("{:<NAME$} ", cut(&worker.name, NAME));
    let room = width.saturating_sub(name.chars().count() + bar);
    Line::from(vec![
        Span::raw(name),
        Span::styled("█".repeat(full), Style::new().fg(color)),
        Span::raw("░".repeat(bar - full)).dim(),
        Span::raw(cut(&rest, room)),
    ])
}

fn titles(width: usize) -> Line<'static> {
    const LAST: &str = " HISTORY";
    let titles = COLUMNS.iter().enumerate().map(|(at, (_, title))| cell(at, title));
    let mut text = titles.collect::<Vec<_>>().join(" ");
    if text.chars().count() + LAST.len() <= width {
        text.push_str(LAST);
    }
    Line::from(Span::styled(cut(&text, width), Style::new().add_modifier(Modifier::BOLD)))
}

fn port(top: &Top, port: &Port, width: usize) -> Line<'static> {
    let kind = match port.kind {
        PortKind::Guest => "guest",
        PortKind::Nic => "nic",
        PortKind::Tap => "tap",
        PortKind::Raw => "raw",
    };
    let rates = port.rates.unwrap_or_default();
    let numbers = [rates.rx_pps, rates.rx_bps, rates.tx_pps, rates.tx_bps, top.drop_rate(port)];
    let texts = numbers.map(|number| rate(number, "").trim_end().to_owned());
    let cells = [port.name.as_str(), kind, port.state.as_str()];
    let cells = cells.into_iter().chain(texts.iter().map(String::as_str));
    let mut spans: Vec<Span> =
        cells.enumerate().map(|(at, text)| Span::raw(format!("{} ", cell(at, text)))).collect();
    if port.state != "up" {
        spans[2] = spans[2].clone().yellow();
    }
    let drops = COLUMNS.len() - 1;
    if top.drop_rate(port) > 0.0 {
        spans[drops] = spans[drops].clone().red().bold();
    } else if port.drops.values().any(|packets| *packets > 0) {
        // They are history, but not forgotten.
        let total = format!("({})", count(port.drops.values().sum()));
        let total = if total.len() <= COLUMNS[drops].0 { total } else { "(old)".to_owned() };
        spans[drops] = Span::raw(format!("{} ", cell(drops, &total))).yellow();
    }
    let used: usize = COLUMNS.iter().map(|(width, _)| width + 1).sum();
    spans.push(Span::raw(sparkline(&top.history(port, width.saturating_sub(used)))).cyan());
    Line::from(spans)
}

/// A text in column `at`.
fn cell(at: usize, text: &str) -> String {
    let (width, _) = COLUMNS[at];
    let text = cut(text, width);
    if at < NUMBERS { format!("{text:<width$}") } else { format!("{text:>width$}") }
}

/// Not more than `width` characters of a text.
fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        false => text.to_owned(),
        true if width == 0 => String::new(),
        true => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

/// One character a number, the largest of all as high as it goes.
fn sparkline(numbers: &[f64]) -> String {
    const STEPS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = numbers.iter().copied().fold(0.0, f64::max);
    let step = |number: &f64| match most > 0.0 && *number > 0.0 {
        true => STEPS[((number / most * 8.0).ceil() as usize).clamp(1, 8)],
        false => STEPS[0],
    };
    numbers.iter().map(step).collect()
}
