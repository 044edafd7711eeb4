//! `ringwire`: the control client. Asks ringwired over its API socket and prints what it says.
//!
//! It is a program: all of it is behind [`main`]. [`command`] is for its man pages.

mod args;
mod capture;
mod client;
mod configuration;
mod descriptors;
mod doctor;
mod explain;
mod host;
mod live;
mod notes;
mod table;
mod top;
mod units;
mod views;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use serde::de::DeserializeOwned;
use snapshot::{Account, Backend, NewPort, Offloads, Port, PortKind};

use args::{
    AddCommand, BackendCommand, Cli, Command, ConfigCommand, GuestCommand, NewSocket, NewTap, Output,
    PortCommand,
};
use client::{ClientError, path_element};

/// The program's command line, for what is written about it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program, from its command line to its exit status.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let printed = run(&cli.api, &cli.command)
        .map(|(text, status)| (io::stdout().write_all(text.as_bytes()), ExitCode::from(status)));
    match printed {
        Ok((Ok(()), status)) => status,
        // Whoever reads us, `head` for one, has seen enough.
        Ok((Err(error), status)) if error.kind() == io::ErrorKind::BrokenPipe => status,
        Ok((Err(error), _)) => failure(&format!("cannot print: {error}"), 1),
        Err(error @ ClientError::Refused(_)) => failure(&error.to_string(), 1),
        Err(error @ ClientError::Unreachable { .. }) => failure(&error.to_string(), 3),
    }
}

fn failure(problem: &str, status: u8) -> ExitCode {
    eprintln!("ringwire: {problem}");
    ExitCode::from(status)
}

/// What to print, and the exit status.
fn run(api: &Path, command: &Command) -> Result<(String, u8), ClientError> {
    let port = |name: &str| format!("/v1/ports/{}", path_element(name));
    let text = match command {
        Command::Explain { name, output } => return explain::run(api, name, output.json),
        Command::Top { once } => return top::run(api, *once),
        Command::Capture(arguments) => {
            return capture::run(api, arguments).map(|said| {
                // Standard output may be where the packets go.
                eprint!("{said}");
                (String::new(), 0)
            });
        }
        Command::Doctor { cores, output } => return Ok(doctor::run(api, cores, output.json)),
        Command::Completions { shell } => return Ok((completions(*shell), 0)),
        Command::Status(output) => show(api, "/v1/status", output, views::status),
        Command::Port(PortCommand::List(output)) => {
            show(api, "/v1/ports", output, |ports: &Vec<Port>| views::ports(ports))
        }
        Command::Port(PortCommand::Show { name, output }) => show(api, &port(name), output, views::port),
        Command::Port(PortCommand::Add(AddCommand::Guest(new))) => live::add_guest(api, new),
        Command::Port(PortCommand::Add(AddCommand::Nic(new))) => live::add_nic(api, new),
        Command::Port(PortCommand::Add(AddCommand::Tap(new))) => {
            let NewTap { socket, user, group } = new;
            add(api, PortKind::Tap, socket, [user, group])
        }
        Command::Port(PortCommand::Add(AddCommand::Raw(new))) => add(api, PortKind::Raw, new, [&None, &None]),
        Command::Port(PortCommand::Remove { name, output }) => {
            view_answer(api, client::delete(api, &port(name))?, output, |port: &Port| {
                format!("{}: removed\n", port.name)
            })
        }
        Command::Worker(command) => live::worker(api, command),
        Command::Idle(command) => live::idle(api, command),
        Command::Backend(BackendCommand::Set { guest, port, output }) => {
            let path = format!("/v1/guests/{}/backend", path_element(guest));
            let answer = client::put(api, &path, &Backend { backend: port.clone() }, Vec::new())?;
            view_answer(api, answer, output, views::connected)
        }
        Command::Guest(GuestCommand::Offloads { guest, offloads, output }) => {
            let path = format!("/v1/guests/{}/offloads", path_element(guest));
            let answer = client::put(api, &path, &Offloads { offloads: offloads.clone() }, Vec::new())?;
            view_answer(api, answer, output, views::offloads)
        }
        Command::Config(ConfigCommand::Dump(output)) => configuration::dump(api, output),
        Command::Reload { dry_run, output } => configuration::reload(api, *dry_run, output),
        Command::Log { filter, output } => configuration::log(api, filter.as_deref(), output),
        Command::Stats { name, explain: true, output } => {
            let view = if output.json { views::explained_json } else { views::explained };
            let text = &Output { json: false };
            match name {
                None => show(api, "/v1/ports", text, |ports: &Vec<Port>| view(ports)),
                Some(name) => show(api, &port(name), text, |port| view(std::slice::from_ref(port))),
            }
        }
        Command::Stats { name: None, explain: false, output } => {
            show(api, "/v1/ports", output, |ports: &Vec<Port>| views::stats(ports))
        }
        Command::Stats { name: Some(name), explain: false, output } => {
            show(api, &port(name), output, views::stats_of)
        }
    };
    Ok((text?, 0))
}

/// What is to be read by a shell.
fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "ringwire", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Adds a tap or raw port. `accounts` are the user and the group who may open it, too.
fn add(
    api: &Path,
    kind: PortKind,
    new: &NewSocket,
    accounts: [&Option<String>; 2],
) -> Result<String, ClientError> {
    let path = format!("/v1/ports/{}", path_element(&new.name));
    let NewSocket { interface, queues, fds, output, .. } = new;
    let [user, group] = accounts.map(|account| account.clone().map(Account::Name));
    let body = NewPort { kind, interface: interface.clone(), queues: *queues, user, group };
    let answer = client::put(api, &path, &body, descriptors::inherited(fds)?)?;
    view_answer(api, answer, output, views::port)
}

/// The answer to `GET path`: as it came, or as `view` puts it.
fn show<T: DeserializeOwned>(
    api: &Path,
    path: &str,
    output: &Output,
    view: impl FnOnce(&T) -> String,
) -> Result<String, ClientError> {
    view_answer(api, client::get(api, path)?, output, view)
}

fn view_answer<T: DeserializeOwned>(
    api: &Path,
    body: String,
    output: &Output,
    view: impl FnOnce(&T) -> String,
) -> Result<String, ClientError> {
    if output.json {
        return Ok(body);
    }
    match serde_json::from_str(&body) {
        Ok(answer) => Ok(view(&answer)),
        Err(error) => Err(ClientError::not_understood(api, &error)),
    }
}
