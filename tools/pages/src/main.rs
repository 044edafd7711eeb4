//! Writes man pages and shell completions of all programs, made of their command lines, into a directory as it is laid
//! out below `/usr/share`: `cargo run -p pages -- DIRECTORY`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory, Parser};
use clap_complete::Shell;
use clap_mangen::Man;

/// Writes man pages and shell completions of ringwired, ringwire and ringwire-pktgen.
#[derive(Parser)]
struct Args {
    /// Where to: it gets man/man1, man/man8, bash-completion/completions, zsh/site-functions and
    /// fish/vendor_completions.d.
    directory: PathBuf,
}

/// The programs, and the sections of the manual they are in.
fn programs() -> [(Command, &'static str); 3] {
    [
        (ringwired::args::Args::command().name("ringwired"), "8"),
        (ringwire::command(), "1"),
        (ringwire_pktgen::command(), "1"),
    ]
}

fn main() -> ExitCode {
    let directory = Args::parse().directory;
    match programs().into_iter().try_for_each(|(program, section)| write(&directory, program, section)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: cannot write into {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path, program: Command, section: &str) -> io::Result<()> {
    let name = program.get_name().to_owned();
    // Before it gets its help commands, which need no pages.
    let mut documented = program.clone().disable_help_subcommand(true);
    documented.build();
    let mut program = program;
    for (shell, place) in [
        (Shell::Bash, "bash-completion/completions"),
        (Shell::Zsh, "zsh/site-functions"),
        (Shell::Fish, "fish/vendor_completions.d"),
    ] {
        let place = directory.join(place);
        fs::create_dir_all(&place)?;
        clap_complete::generate_to(shell, &mut program, &name, place)?;
    }
    let pages = directory.join("man").join(format!("man{section}"));
    fs::create_dir_all(&pages)?;
    write_pages(&pages, &documented, &name, section)
}

/// The command's page, and those of what is below it: `ringwire-port-add-tap.1`.
fn write_pages(directory: &Path, command: &Command, name: &str, section: &str) -> io::Result<()> {
    let mut page = Vec::new();
    // Called as it is typed, not as its page.
    let titled = command.clone().display_name(name.to_owned());
    let version = concat!("ringwire ", env!("CARGO_PKG_VERSION"));
    Man::new(titled).section(section).source(version).manual("ringwire").render(&mut page)?;
    fs::write(directory.join(format!("{name}.{section}")), page)?;
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    below
        .into_iter()
        .try_for_each(|below| write_pages(directory, below, &format!("{name}-{}", below.get_name()), section))
}
