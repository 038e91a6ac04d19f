//! `cargo xtask book`: `docs/` as a book that is read in a browser, without a network.
//!
//! ```text
//! docs/ ─────────────────────────────┐
//! racklet-manual ── every command ───┴─► target/book-pages ── mdbook ─► target/book ── check
//! ```
//!
//! A line `<!-- commands: PROGRAM -->` of a page is replaced by what the command line of that program defines, so that
//! no page has to be written anew when an option changes. The same sources give the same book.

mod check;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::{cache, paths};

/// The version of mdBook, which its own lock file pins in turn.
const MDBOOK: &str = "0.5.4";
/// Of [`MDBOOK`]: neither its server nor its watcher are built.
const FEATURES: [&str; 3] = ["--no-default-features", "--features", "search"];

/// Of `cargo xtask book`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build the book once more, and compare.
    #[arg(long)]
    reproduce: bool,
}

/// `cargo xtask book`
pub(crate) fn run(options: &Options) -> Result<()> {
    let book = paths::target().join("book");
    let pages = build(&book)?;
    println!("{pages} pages: open {}", book.join("index.html").display());
    if options.reproduce {
        let again = paths::target().join("book-again");
        build(&again)?;
        let differ = check::differences(&book, &again)?;
        fs::remove_dir_all(&again).with_context(|| format!("remove {}", again.display()))?;
        ensure!(differ.is_empty(), "two builds differ: {}", differ.join(", "));
        println!("built again: the same bytes");
    }
    Ok(())
}

/// Builds the book into a folder and reads it once; how many pages it has.
pub(crate) fn build(book: &Path) -> Result<usize> {
    let sources = sources()?;
    let tool = mdbook()?;
    let done = Cmd::new(tool).arg("build").arg(&sources).arg("--dest-dir").arg(book).run()?;
    let said = done.output();
    let warnings: Vec<&str> = said.lines().filter(|line| warns(line)).collect();
    ensure!(warnings.is_empty(), "mdbook is not content:\n{}", warnings.join("\n"));
    let (pages, faults) = check::whole(book)?;
    ensure!(faults.is_empty(), "{} faults in the book:\n{}", faults.len(), faults.join("\n"));
    Ok(pages)
}

/// Whether a line that mdBook prints is a warning or an error: each begins with its level, after a time or not.
fn warns(line: &str) -> bool {
    line.split_whitespace()
        .take(4)
        .any(|word| matches!(word, "WARN" | "ERROR" | "[WARN]" | "[ERROR]"))
}

/// The pages as mdBook gets them: those of `docs/` that git knows or will know, with the commands of the programs.
fn sources() -> Result<PathBuf> {
    let (pages, commands) =
        (paths::target().join("book-pages"), paths::target().join("book-commands"));
    for folder in [&pages, &commands] {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
        }
    }
    let manual = Cmd::cargo().args(["run", "--locked", "--bin", "racklet-manual", "--"]);
    manual.arg(&commands).args(["--date", "1970-01-01"]).watch()?;
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "docs"];
    let files = Cmd::new("git").args(list).current_dir(&paths::root()).read()?;
    for file in files.split('\0').filter(|file| !file.is_empty()) {
        let from = paths::root().join(file);
        let to = pages.join(file.strip_prefix("docs/").unwrap_or(file));
        if !from.is_file() {
            continue;
        }
        let bytes = fs::read(&from).with_context(|| format!("read {file}"))?;
        let bytes = match file.ends_with(".md") {
            true => with_commands(&String::from_utf8(bytes)?, &commands)?.into_bytes(),
            false => bytes,
        };
        let folder = to.parent().context("a page lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        fs::write(&to, bytes).with_context(|| format!("write {}", to.display()))?;
    }
    Ok(pages)
}

/// A page with the commands that it asks for, which lie in `commands/book`.
fn with_commands(text: &str, commands: &Path) -> Result<String> {
    let mut whole = String::new();
    for line in text.lines() {
        let asked = line.strip_prefix("<!-- commands: ").and_then(|rest| rest.strip_suffix(" -->"));
        let Some(program) = asked else {
            whole.push_str(line);
            whole.push('\n');
            continue;
        };
        let file = commands.join("book").join(format!("{program}.md"));
        let text = fs::read_to_string(&file);
        whole.push_str(&text.with_context(|| format!("the commands of {program}"))?);
    }
    Ok(whole)
}

/// mdBook, which is built once (some minutes) and kept in the cache.
fn mdbook() -> Result<PathBuf> {
    let folder = cache::entry(&format!("mdbook-{MDBOOK}"), |folder| {
        println!("building mdBook {MDBOOK}, once");
        let cargo = Cmd::cargo().args(["install", "mdbook", "--version", MDBOOK, "--locked"]);
        // Of no use to other builds: neither its features nor its lock file are ours.
        let work = tempfile::tempdir()?;
        let cargo = cargo.args(FEATURES).args(["--debug", "--root"]).arg(folder);
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_TARGET_DIR", work.path()).watch()
    })?;
    Ok(folder.join("bin/mdbook"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_where_a_page_asks_for_them() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("book")).expect("made");
        fs::write(dir.path().join("book/signer.md"), "## signer init\n").expect("written");
        let page = "# A\n\n<!-- after: B -->\n<!-- commands: signer -->\nend\n";
        let whole = with_commands(page, dir.path()).expect("there are commands");
        assert_eq!(whole, "# A\n\n<!-- after: B -->\n## signer init\nend\n");
        assert!(with_commands("<!-- commands: none -->\n", dir.path()).is_err());
    }

    #[test]
    fn warnings_of_mdbook_are_found() {
        assert!(warns(" WARN unclosed HTML tag `<p>`"));
        assert!(warns("2026-11-29 10:00:00 [WARN] (mdbook): something"));
        assert!(warns("ERROR no such file"));
        assert!(!warns(" INFO HTML book written to `/target/book`"));
    }
}
