//! What a refused update must not have changed, byte for byte (`docs/threat-model.md`).
//!
//! | set | is |
//! |---|---|
//! | M | the trusted metadata |
//! | S | the whole disk: both slots and both partition tables |
//! | B | the boot record, the floor and the boot attributes |
//! | F | everything else in the node's folder, a sentinel tree included |
//!
//! The booted slot is compared whatever sets are named (S1), and so is F: the agent has nothing to
//! write there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use formats::digest::Sha256;

use super::disk::Flags;
use super::must;
use super::node::Node;

/// The untouched sets of a node at one moment.
#[derive(Debug)]
pub struct Before {
    booted: String,
    slot: BTreeMap<String, Sha256>,
    attributes: [Flags; 2],
    disk: Sha256,
    trust: BTreeMap<String, String>,
    boot: BTreeMap<String, String>,
    outside: BTreeMap<String, String>,
}

impl Before {
    /// Takes the sets of a node whose slot `booted` runs.
    #[track_caller]
    pub fn of(node: &Node, booted: &str) -> Self {
        let label = |kind: &str| format!("{kind}-{booted}");
        let slot = ["root", "fw"].map(|kind| (label(kind), node.disk.digest(&label(kind))));
        let disk = must(fs::read(node.disk.path()), "read the disk");
        let mut outside = BTreeMap::new();
        list(&node.path("."), "", &mut outside);
        let state = |names: &[&str]| {
            let mut found = BTreeMap::new();
            if node.state().exists() {
                list(&node.state(), "", &mut found);
            }
            found.retain(|file, _| names.iter().any(|name| file.starts_with(&format!("{name}."))));
            found
        };
        Before {
            booted: booted.to_owned(),
            slot: slot.into(),
            attributes: [node.disk.flags("root-a"), node.disk.flags("root-b")],
            disk: Sha256::of(&disk),
            trust: state(&["trust"]),
            boot: state(&["boot-record", "floor"]),
            outside,
        }
    }

    /// Requires that these sets (letters of `MSBF`), the booted slot and F are as they were.
    #[track_caller]
    pub fn untouched(&self, node: &Node, sets: &str) {
        let now = Before::of(node, &self.booted);
        assert_eq!(self.slot, now.slot, "S1: the booted slot has changed");
        assert_eq!(self.outside, now.outside, "F: files outside of the state have changed");
        for set in sets.chars() {
            match set {
                'M' => assert_eq!(self.trust, now.trust, "M: the trusted metadata has changed"),
                'S' => assert_eq!(self.disk, now.disk, "S: the disk has changed"),
                'B' => {
                    assert_eq!(self.boot, now.boot, "B: boot record or floor have changed");
                    assert_eq!(self.attributes, now.attributes, "B: boot attributes have changed");
                }
                'F' => {}
                other => panic!("{other:?} is not one of MSBF"),
            }
        }
    }
}

/// Every file below a folder with its mode and content, but for the agent's state and the disk.
fn list(dir: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    for entry in must(fs::read_dir(dir), "list a folder") {
        let entry = must(entry, "list a folder");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if name == "state" || name == "disk.img" {
            continue;
        }
        let metadata = must(entry.metadata(), "stat a file");
        let mut what = format!("{:o}", metadata.mode());
        if metadata.is_dir() {
            list(&entry.path(), &format!("{name}/"), found);
        } else if metadata.is_file() {
            let bytes = must(fs::read(entry.path()), "read a file");
            what = format!("{what} {}", Sha256::of(&bytes).to_hex());
        }
        found.insert(name, what);
    }
}
