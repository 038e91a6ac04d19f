//! What a reader of the demo may try next in its folder, and the scripts that make it short.

use std::ffi::OsStr;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use racklet_tools::cmd::{Cmd, quoted};
use racklet_tools::rig::{Rig, Server, blob_name, image, serve_arguments};
use racklet_tools::show;

use super::node::HARDWARE;
use super::story::Told;

/// A line for a shell in the demo's folder, what it shows, and whether it only reads.
struct Line {
    command: String,
    shows: &'static str,
    reads: bool,
}

/// In the order in which they make sense.
fn lines() -> Vec<Line> {
    let reads = |command: &str, shows| Line { command: command.to_owned(), shows, reads: true };
    let acts = |command: &str, shows| Line { command: command.to_owned(), shows, reads: false };
    let publish = format!(
        "./signer publish --product demo --version 1.3.0 --channel stable \
         --component os={},hw={HARDWARE} --component firmware={},hw={HARDWARE}",
        image("v2"),
        blob_name(1),
    );
    vec![
        reads("./node-1/agent status", "both slots, and why 1.2.0 failed"),
        reads("./node-1/agent explain", "which rule decides, and what would change it"),
        reads("./node-1/agent history", "everything that happened on this node"),
        reads("cgpt show node-1/disk.img", "the same boot attributes, by ChromeOS' own reader"),
        acts("./serve & sleep 1", "the repository again, where it was; `kill %1` ends it"),
        acts(&publish, "v2 once more, as 1.3.0"),
        acts("./node-1/agent check", "is it offered, rule by rule"),
        acts("./node-1/agent apply", "mostly from the disk itself; then it is next"),
        acts("./node-1/agent boot-select --simulate", "a boot: one try is spent"),
        acts("./node-1/agent run --once", "the system's own checks, then confirm"),
    ]
}

/// `serve`, and `signer` with the repository, keys and token of this demo. (Each node has its `agent`.)
pub(super) fn scripts(rig: &Rig, server: &Server) -> Result<()> {
    let serve = serve_arguments(&server.address).map(OsStr::new);
    rig.script("serve", "repo-server", &serve)?;
    let repository = quoted(&server.reference());
    let options = "--keys keys --ca ca.pem --token-file push-token";
    // The command comes first, its options may stand anywhere after it.
    rig.write_script("signer", "signer", &format!(" \"$@\" --repo {repository} {options}"))
}

/// Runs the lines that only read: what is printed at the end works.
pub(super) fn check(rig: &Rig) -> Result<Told> {
    let mut told = String::new();
    for line in lines().iter().filter(|line| line.reads) {
        let done = Cmd::new("sh").args(["-c", &line.command]).current_dir(&rig.dir).run()?;
        let first = done.stdout.lines().next().context("it prints something")?;
        writeln!(told, "$ {}\n{first} …", line.command)?;
    }
    Ok(Told::line(told.trim_end()))
}

/// The end of the demo: where everything is, what to try, how to remove it.
pub(super) fn tell(rig: &Rig) -> Result<()> {
    let dir = quoted(&rig.dir.to_string_lossy());
    let used = Cmd::new("du").arg("-sk").arg(&rig.dir).read()?;
    let used = used.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
    println!("\nTry next:\n");
    println!("  # signer, repo-server and update-agent on PATH\n  cd {dir} && . ./env");
    for Line { command, shows, .. } in lines() {
        println!("  # {shows}\n  {command}");
    }
    let used = show::bytes(used.unwrap_or_default() << 10);
    println!("\nEverything lies in this folder ({used}); remove it with: rm -r {dir}\n");
    Ok(())
}
