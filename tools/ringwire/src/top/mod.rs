//! `ringwire top`: a live view, refreshed each second.

mod screen;
mod state;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};
use snapshot::Status;

use crate::client::{self, ClientError};
use state::Top;

/// Time between two looks.
const REFRESH: Duration = Duration::from_secs(1);
/// A key is obeyed after this time at most, and a look shown.
const PATIENCE: Duration = Duration::from_millis(100);
/// Width of a frame that goes to a script.
const WIDTH: usize = 100;

/// Shows it until somebody says `q`; or, with `once`, gives one frame as text.
pub fn run(api: &Path, once: bool) -> Result<(String, u8), ClientError> {
    if once {
        return Ok((frame(api)?, 0));
    }
    if !io::stdout().is_terminal() {
        let problem = "top needs a terminal: with --once it prints one frame";
        return Err(ClientError::Refused(problem.to_owned()));
    }
    // Before the screen is taken: what is wrong stays to be read.
    look(api)?;
    let shown = ratatui::try_init().and_then(|mut terminal| show(&mut terminal, looks(api.to_owned())));
    ratatui::restore();
    shown.map_err(|error| ClientError::Refused(format!("the terminal fails: {error}")))?;
    Ok((String::new(), 0))
}

/// One frame with everything in it, after two looks.
fn frame(api: &Path) -> Result<String, ClientError> {
    let mut top = Top::default();
    top.observe(Ok(look(api)?), Instant::now());
    std::thread::sleep(REFRESH);
    top.observe(Ok(look(api)?), Instant::now());
    let lines = screen::lines(&top, WIDTH, usize::MAX);
    Ok(lines.iter().map(|line| format!("{}\n", line.to_string().trim_end())).collect())
}

fn look(api: &Path) -> Result<Status, ClientError> {
    let body = client::get(api, "/v1/status")?;
    serde_json::from_str(&body).map_err(|error| ClientError::not_understood(api, &error))
}

type Look = (Result<Status, String>, Instant);

/// Looks each second on a thread of its own: a daemon that does not answer must not keep a key from being obeyed.
fn looks(api: PathBuf) -> Receiver<Look> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        loop {
            let looked = look(&api).map_err(|error| error.to_string());
            if sender.send((looked, Instant::now())).is_err() {
                return;
            }
            std::thread::sleep(REFRESH);
        }
    });
    receiver
}

fn show(terminal: &mut DefaultTerminal, looks: Receiver<Look>) -> io::Result<()> {
    let mut top = Top::default();
    loop {
        if let Ok((looked, at)) = looks.try_recv() {
            top.observe(looked, at);
        }
        terminal.draw(|frame| draw(&top, frame))?;
        if event::poll(PATIENCE)? && is_quit(&mut top, event::read()?) {
            return Ok(());
        }
    }
}

fn draw(top: &Top, frame: &mut Frame) {
    let area = frame.area();
    let lines = screen::lines(top, area.width.into(), area.height.into());
    frame.render_widget(Paragraph::new(lines), area);
}

/// Does what a key says; whether it says to end.
fn is_quit(top: &mut Top, event: Event) -> bool {
    let Event::Key(key) = event else { return false };
    if key.kind == KeyEventKind::Release {
        return false;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('s') => top.sort_otherwise(),
        KeyCode::Down => top.scroll(1),
        KeyCode::Up => top.scroll(-1),
        KeyCode::PageDown => top.scroll(10),
        KeyCode::PageUp => top.scroll(-10),
        _ => {}
    }
    false
}
