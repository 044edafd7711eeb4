//! The pages are there, and what reads them has nothing against them; a shell completes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn written() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pages")).arg(directory.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    directory
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn names(directory: PathBuf) -> BTreeSet<String> {
    let files =
        std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// `None`, with a word about it, if there is no such program here.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    let output =
        Command::new(program).args(arguments).env("MANROFFOPT", "-ww").env("MAN_KEEP_STDERR", "1").output();
    if output.is_err() {
        println!("skipped: no {program}");
    }
    output.ok()
}

/// Nothing is wrong, and nothing was said.
fn assert_silent(output: &Output, what: &Path) {
    let said = text(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}{}", what.display(), text(&output.stdout));
}

#[test]
fn every_command_has_a_page() {
    let directory = written();
    let pages = names(directory.path().join("man/man1"));
    for page in [
        "ringwire.1",
        "ringwire-status.1",
        "ringwire-port.1",
        "ringwire-port-add.1",
        "ringwire-port-add-tap.1",
        "ringwire-completions.1",
        "ringwire-pktgen.1",
        "ringwire-pktgen-run.1",
    ] {
        assert!(pages.contains(page), "{page} is not among {pages:?}");
    }
    assert!(!pages.iter().any(|page| page.contains("help")), "{pages:?}");
    assert_eq!(names(directory.path().join("man/man8")), BTreeSet::from(["ringwired.8".to_owned()]));
    // Each command that a page lists has its own.
    for page in &pages {
        let source = std::fs::read_to_string(directory.path().join("man/man1").join(page)).unwrap();
        let (_, commands) = source.split_once(".SH SUBCOMMANDS").unwrap_or(("", ""));
        for listed in commands.lines().filter(|line| line.ends_with("(1)")) {
            let name = listed.replace("\\-", "-").replace("(1)", ".1");
            assert!(pages.contains(&name), "{page} lists {name}, which is not among {pages:?}");
        }
    }
}

#[test]
fn man_has_nothing_against_the_pages() {
    let directory = written();
    for section in ["man1", "man8"] {
        let section = directory.path().join("man").join(section);
        for page in names(section.clone()) {
            let page = section.join(page);
            let file = page.to_str().unwrap();
            let arguments = ["--warnings", "-E", "UTF-8", "-l", "-Tutf8", file];
            let Some(output) = run("man", &arguments) else { return };
            assert_silent(&output, &page);
            assert!(!output.stdout.is_empty(), "{file}");
        }
    }
}

#[test]
fn bash_completes() {
    let directory = written();
    let completions = directory.path().join("bash-completion/completions");
    for program in ["ringwired", "ringwire", "ringwire-pktgen"] {
        let file =
            names(completions.clone()).into_iter().find(|name| name.trim_end_matches(".bash") == program);
        let file = completions.join(file.unwrap_or_else(|| panic!("no completions of {program}")));
        let Some(output) = run("bash", &["-n", file.to_str().unwrap()]) else { return };
        assert_silent(&output, &file);
    }
    let file = completions.join("ringwire.bash");
    for (words, wanted) in [
        ("ringwire po", "port"),
        ("ringwire port add ta", "tap"),
        ("ringwire port show --js", "--json"),
        ("ringwire completions ba", "bash"),
    ] {
        assert_eq!(completed(&file, words), wanted, "{words}");
    }
}

/// What bash offers behind `line`, but for options that were not begun, and help.
fn completed(file: &Path, line: &str) -> String {
    let script = "source \"$1\"; read -ra COMP_WORDS <<<\"$2\"; [[ $2 != *' ' ]] || COMP_WORDS+=('')\n\
                  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); cur=${COMP_WORDS[COMP_CWORD]}\n\
                  _ringwire ringwire \"$cur\" \"${COMP_WORDS[COMP_CWORD - 1]}\"\n\
                  for word in \"${COMPREPLY[@]}\"; do [[ $word = help || ($word = -* && -z $cur) ]] || echo \"$word\"; done";
    let output = Command::new("bash").args(["-c", script, "bash"]).arg(file).arg(line).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut words: Vec<String> = text(&output.stdout).split_whitespace().map(str::to_owned).collect();
    words.sort();
    words.join(" ")
}

#[test]
fn zsh_and_fish_read_their_completions() {
    let directory = written();
    for (shell, arguments, place, file) in [
        ("zsh", vec!["-n"], "zsh/site-functions", "_ringwire"),
        ("fish", vec!["--no-execute"], "fish/vendor_completions.d", "ringwire.fish"),
    ] {
        let path = directory.path().join(place).join(file);
        assert!(path.exists(), "{}", path.display());
        let arguments: Vec<&str> = arguments.into_iter().chain([path.to_str().unwrap()]).collect();
        if let Some(output) = run(shell, &arguments) {
            assert_silent(&output, &path);
        }
    }
}
