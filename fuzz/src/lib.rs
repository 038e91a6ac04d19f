//! What is fuzzed: every parser of bytes from outside, and whole updates.
//!
//! A [`Target`] takes bytes, parses them as the product does, and asserts what must hold of whatever was
//! accepted. It may panic on nothing and may allocate no more than its bound. `cargo xtask fuzz` drives all of
//! them with libFuzzer; the test `replay` runs their seeds, which lie in `corpus/TARGET/`.
//!
//! | module | bytes from |
//! |---|---|
//! | [`metadata`] | TUF repositories: unsigned until proven otherwise |
//! | [`registry`] | registries and removable media: manifests, archives, answers over HTTP |
//! | [`image`] | images: chunk lists, deltas, compressed frames |
//! | [`boot`] | disks, flash, boot loaders, the TPM |
//! | [`tools`] | people: configurations, references, keys, staged changes; clients of `repo-server` |

pub mod boot;
pub mod image;
pub mod metadata;
pub mod registry;
pub mod seeds;
pub mod tools;
mod update;

pub use racklet_memory::Counting;
use racklet_memory::peak_of;

/// One thing that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of the folder of its seeds.
    pub name: &'static str,
    /// Parses and asserts; whether the bytes were accepted.
    pub run: fn(&[u8]) -> bool,
    /// The longest input that is tried, in bytes.
    pub longest: usize,
    /// What it may allocate beside [`BASE`] for each byte of its input.
    pub growth: usize,
}

/// What any target may allocate, in bytes, however short its input is: tables, decompressors, keys.
pub const BASE: usize = 1 << 20;

/// The most a parsed document may take for each of its bytes.
const GROWTH: usize = 64;

impl Target {
    const fn new(name: &'static str, run: fn(&[u8]) -> bool) -> Self {
        Target { name, run, longest: 64 << 10, growth: GROWTH }
    }

    const fn longest(self, longest: usize) -> Self {
        Target { longest, ..self }
    }

    /// Runs it, and asserts that it allocated no more than it may: [`Counting`] has to be the allocator.
    ///
    /// # Panics
    ///
    /// On every finding.
    pub fn check(&self, data: &[u8]) -> bool {
        let (accepted, taken) = peak_of(|| (self.run)(data));
        let bound = BASE + self.growth * data.len();
        assert!(
            taken <= bound,
            "{} bytes took {taken} bytes of memory, at most {bound} are allowed",
            data.len()
        );
        accepted
    }
}

/// Every target, the most exposed first.
pub const TARGETS: &[Target] = &[
    Target::new("canonical_json", metadata::canonical_json),
    Target::new("envelope", metadata::envelope),
    Target::new("root", metadata::root),
    Target::new("timestamp", metadata::timestamp),
    Target::new("snapshot", metadata::snapshot),
    Target::new("targets", metadata::targets),
    Target::new("delegated", metadata::delegated),
    Target::new("key_and_signature", metadata::key_and_signature),
    Target::new("trusted_state", metadata::trusted_state),
    // A whole repository with its keys is made for each input.
    Target { growth: 64 << 10, ..Target::new("whole_update", update::whole_update).longest(256) },
    Target::new("manifest", registry::manifest),
    Target::new("layout_index", registry::layout_index),
    Target::new("archive", registry::archive),
    Target::new("challenge", registry::challenge),
    Target::new("auth_file", registry::auth_file),
    Target::new("url", registry::url),
    Target::new("byte_range", registry::byte_range),
    Target::new("release_index", registry::release_index),
    Target::new("component_manifest", registry::component_manifest),
    Target::new("release_summary", registry::release_summary),
    Target::new("channel", registry::channel),
    Target::new("report", registry::report).longest(5 << 10),
    Target::new("chunk_list", image::chunk_list),
    Target::new("delta_list", image::delta_list),
    // The decompressor takes a window of 8 MiB, whatever comes.
    Target { growth: 16 << 20, ..Target::new("frame", image::frame) },
    Target::new("chooser_proof", boot::chooser_proof),
    Target::new("partition_table", boot::partition_table),
    Target::new("uboot_environment", boot::uboot_environment),
    Target::new("grub_environment", boot::grub_environment),
    Target::new("autoboot", boot::autoboot),
    Target::new("fat", boot::fat),
    Target::new("loader_entry", boot::loader_entry),
    Target::new("device_tree", boot::device_tree),
    Target::new("record", boot::record),
    Target::new("tpm", boot::tpm),
    Target::new("route", tools::route_of),
    Target::new("reference", tools::reference),
    Target::new("version", tools::version),
    Target::new("key_document", tools::key_document),
    Target::new("key_location", tools::key_location),
    Target::new("staged_change", tools::staged_change),
    Target::new("agent_config", tools::agent_config),
];

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

/// Splits an input at its first line end: what a test would pass as two arguments.
fn two_parts(data: &[u8]) -> Option<(&str, &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    let (first, rest) = data.split_at(end);
    Some((str::from_utf8(first).ok()?, rest.get(1..)?))
}
