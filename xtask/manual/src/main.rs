//! Writes the manual pages and the shell completions of the three programs, for packages, and their commands for the
//! book.
//!
//! ```text
//! DIR/man/update-agent.8, update-agent-apply.8, signer.1, …     a page for each program and each command
//! DIR/completions/bash/…, zsh/…, fish/…                         named as the shells look for them
//! DIR/book/                                                     the commands of each program, parts of pages
//! ```
//!
//! Everything comes from the definitions of the command lines; [`programs`] adds what they do not hold: examples,
//! files, the environment. It is not part of `cargo xtask`, which links none of our crates.

mod markdown;
mod page;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use clap_complete::Shell;

use programs::{PROGRAMS, Program};

#[derive(Parser)]
#[command(name = "racklet-manual", about = "Write manual pages and completions")]
struct Cli {
    /// The folder to write to; it is created.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The date in the pages; that of the sources, so that the same sources give the same pages.
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match write(&cli.dir, &cli.date) {
        Ok(pages) => {
            println!("{pages} pages in {}", cli.dir.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("racklet-manual: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes everything; how many pages there are.
fn write(dir: &Path, date: &str) -> Result<usize> {
    let mut count = 0;
    for program in &PROGRAMS {
        let pages = page::all(program, date)?;
        count += pages.len();
        for page in pages {
            save(&dir.join("man").join(&page.name), &page.text)?;
        }
        let commands = markdown::commands(program);
        save(&dir.join("book").join(format!("{}.md", program.name)), commands.as_bytes())?;
        for (shell, folder) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
            let (name, script) = completions(program, shell);
            save(&dir.join("completions").join(folder).join(name), &script)?;
        }
    }
    Ok(count)
}

/// What `PROGRAM completions SHELL` prints, and the name of the file in which that shell looks for it.
fn completions(program: &Program, shell: Shell) -> (String, Vec<u8>) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut (program.command)(), program.name, &mut script);
    let name = match shell {
        Shell::Zsh => format!("_{}", program.name),
        Shell::Fish => format!("{}.fish", program.name),
        _ => program.name.to_owned(),
    };
    (name, script)
}

fn save(file: &Path, text: &[u8]) -> Result<()> {
    let folder = file.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use racklet_tools::cmd::{Cmd, which};

    use super::*;

    const DATE: &str = "2026-11-29";

    /// The names of a command and of all below it, as their pages are called.
    fn names(command: &clap::Command, above: &str, found: &mut BTreeSet<String>) {
        for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
            let name = format!("{above}-{}", command.get_name());
            names(command, &name, found);
            found.insert(name);
        }
    }

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let count = write(dir.path(), DATE).expect("written");
        let mut expected = BTreeSet::new();
        for program in &PROGRAMS {
            let mut found = BTreeSet::from([program.name.to_owned()]);
            names(&(program.command)(), program.name, &mut found);
            expected.extend(found.into_iter().map(|name| format!("{name}.{}", program.section)));
            for file in ["bash/NAME", "zsh/_NAME", "fish/NAME.fish"] {
                let file = dir.path().join("completions").join(file.replace("NAME", program.name));
                assert!(fs::metadata(&file).expect("it is there").len() > 1000, "{file:?}");
            }
        }
        let pages = fs::read_dir(dir.path().join("man")).expect("the pages").flatten();
        let pages: BTreeSet<String> =
            pages.map(|page| page.file_name().to_string_lossy().into_owned()).collect();
        assert_eq!(pages, expected);
        assert_eq!(pages.len(), count);
        assert!(pages.contains("signer-stage-publish.1") && pages.contains("update-agent-run.8"));
    }

    /// The same sources give the same pages, and `man` has nothing to say of any of them.
    #[test]
    fn man_reads_every_page_without_a_warning() {
        let (one, other) =
            (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        for dir in [&one, &other] {
            write(dir.path(), DATE).expect("written");
        }
        if which("man").is_none() {
            eprintln!("man is not installed: its warnings are not looked for");
        }
        for page in fs::read_dir(one.path().join("man")).expect("the pages").flatten() {
            let again = fs::read(other.path().join("man").join(page.file_name())).expect("again");
            assert!(fs::read(page.path()).expect("a page") == again, "{:?} differs", page.path());
            if which("man").is_some() {
                let man = Cmd::new("man").args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]);
                let done =
                    man.arg(page.path()).env("LC_ALL", "C.UTF-8").finish().expect("man runs");
                assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{:?}", page.path());
            }
        }
    }
}
