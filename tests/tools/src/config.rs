//! The configuration of a node, as the demo and the end-to-end tests write it.

use std::path::Path;

/// A node with a GPT disk whose slots have an OS and a firmware partition each. Paths may be relative to the
/// file's folder.
#[derive(Debug)]
pub struct Node<'a> {
    /// The agent's state folder.
    pub state: &'a Path,
    /// What its releases are called.
    pub product: &'a str,
    /// The hardware id that images are for.
    pub hardware: &'a str,
    /// Further lines of `[node]`.
    pub identity: &'a str,
    /// The trust root it was given.
    pub root: &'a Path,
    /// Its repository; none for a machine without a network.
    pub source: Option<Source<'a>>,
    /// The disk, as a device or a file.
    pub disk: &'a Path,
    /// Boots that an unconfirmed slot gets.
    pub tries: u8,
    /// Stands for the kernel's command line.
    pub cmdline: &'a Path,
    /// Stands for the kernel's number of this boot.
    pub boot_id: &'a Path,
    /// Appears when the agent asks for a reboot.
    pub reboot: &'a Path,
    /// How long a trial may take, and how often its check is made: `6s`, `1s`.
    pub trial: [&'a str; 2],
    /// The name of the check, and its command as TOML has it.
    pub check: [&'a str; 2],
}

/// Where releases come from.
#[derive(Debug)]
pub struct Source<'a> {
    /// A reference as the agent reads it.
    pub url: &'a str,
    /// Of the registry's certificate, where it is not the system's.
    pub ca: Option<&'a Path>,
}

impl Node<'_> {
    /// The text of the file.
    pub fn text(&self) -> String {
        let source = self.source.as_ref().map_or_else(String::new, Source::text);
        let Self { state, product, hardware, identity, root, disk, tries, .. } = self;
        let Self { cmdline, boot_id, reboot, trial, check, .. } = self;
        let ([deadline, interval], [name, command]) = (trial, check);
        format!(
            r#"state_dir = {state:?}

[node]
product = {product:?}
channel = "stable"
hardware = [{hardware:?}]
{identity}
[trust]
root = {root:?}

{source}[boot]
backend = "gpt-attributes"
disk = {disk:?}
component = "os"
tries = {tries}
cmdline = {cmdline:?}
boot_id = {boot_id:?}
reboot_command = ["touch", {reboot:?}]

[slots.a]
os = "root-a"
firmware = "fw-a"

[slots.b]
os = "root-b"
firmware = "fw-b"

[health]
deadline = {deadline:?}
interval = {interval:?}
passes = 2

[[health.check]]
name = {name:?}
command = {command}
timeout = "5s"

[policy]
mode = "notify"
interval = "1h"
"#
        )
    }
}

impl Source<'_> {
    fn text(&self) -> String {
        let Self { url, ca } = self;
        let ca = ca.map_or_else(String::new, |ca| format!("ca = {ca:?}\n"));
        format!("[[source]]\nurl = {url:?}\n{ca}\n")
    }
}
