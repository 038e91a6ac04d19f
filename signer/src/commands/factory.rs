//! `factory`: the first disk of a node.

use std::path::{Path, PathBuf};

use formats::boot_record::Slot;
use formats::release::ComponentSummary;
use formats::tuf::UnixTime;
use formats::version::Version;
use serde::Serialize;

use super::select::{Wanted, select};
use super::{Report, bytes, has_example_key, read_trusted};
use crate::error::SignerError;
use crate::factory::board::Board;
use crate::factory::identity::Seed;
use crate::factory::layout::{Holds, Layout};
use crate::factory::node::Node;
use crate::factory::plan::{Image, plan};
use crate::factory::{FactoryError, Inputs, build, choose};
use crate::progress::Show;
use crate::published::{self, Files, PublishedError};
use crate::repository::Registry;
use crate::state::{ListedRelease, State};
use crate::verify::{read_release, verify_offline};

/// The variable of reproducible builds (reproducible-builds.org) that gives the time of everything made.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What a disk is made of.
#[derive(Debug, Clone)]
pub struct FactoryRequest {
    /// The trust root that the node is given.
    pub root: Vec<u8>,
    /// The release; `None`: what the node's channel offers.
    pub version: Option<Version>,
    /// The node's configuration.
    pub config: PathBuf,
    /// The board profile.
    pub board: PathBuf,
    /// What else is on the data partition.
    pub data: Option<PathBuf>,
    /// What GUIDs are drawn from; `None`: all other inputs.
    pub seed: Option<String>,
    /// The time of all files, Unix seconds; `None`: when the release was signed.
    pub epoch: Option<u64>,
    /// The file to be made; `None`: only the plan is wanted.
    pub output: Option<PathBuf>,
}

/// The disk that was made, or would be.
#[derive(Debug, Serialize)]
pub struct FactoryReport {
    /// `None`: it was not made.
    output: Option<PathBuf>,
    target: String,
    /// Digest of the release index.
    index: String,
    security_version: u64,
    /// Bytes of the disk.
    size: u64,
    /// Digest of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    disk_guid: String,
    partitions: Vec<PartitionReport>,
    /// Components that are on no part of this disk.
    elsewhere: Vec<String>,
    notes: Vec<String>,
    /// Unix seconds, the time of all files.
    epoch: u64,
    example_keys: bool,
}

/// A partition, as reports write it.
#[derive(Debug, Serialize)]
struct PartitionReport {
    number: usize,
    label: String,
    offset: u64,
    size: u64,
    #[serde(rename = "type")]
    type_guid: String,
    guid: String,
    /// What is in it, for people.
    holds: String,
}

impl Report for FactoryReport {
    fn text(&self) -> String {
        let mut text = match &self.output {
            Some(output) => format!(
                "{} holds {} in slot a, confirmed, security version {}",
                output.display(),
                self.target,
                self.security_version
            ),
            None => format!("a disk of {} would hold {} in slot a", bytes(self.size), self.target),
        };
        for part in &self.partitions {
            text.push_str(&format!(
                "\n  {} {:<10} {:>10} at {:>10}  {}",
                part.number,
                part.label,
                bytes(part.size),
                bytes(part.offset),
                part.holds
            ));
        }
        if !self.elsewhere.is_empty() {
            text.push_str(&format!(
                "\nnot on this disk: {}; the first update writes it",
                self.elsewhere.join(", ")
            ));
        }
        for note in &self.notes {
            text.push_str(&format!("\nnote: {note}"));
        }
        if let Some(sum) = &self.sha256 {
            text.push_str(&format!("\n{sum}"));
        }
        text
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

/// The time that the environment gives to what is made.
pub fn source_date_epoch() -> Result<Option<u64>, SignerError> {
    let Some(text) = std::env::var_os(EPOCH) else { return Ok(None) };
    let text = text.to_string_lossy().into_owned();
    let seconds = text.parse().map_err(|_| FactoryError::Epoch(text))?;
    Ok(Some(seconds))
}

/// Lays out the disk of a node and makes it, if it is wanted.
///
/// A release that is named is verified from the trust root, whatever its metadata's expiry: a disk can be made again
/// when the bundle it was made of is old. What a channel offers is taken only of metadata that nodes take `now`.
pub fn factory(
    registry: &dyn Registry,
    request: &FactoryRequest,
    now: UnixTime,
    show: Show,
) -> Result<FactoryReport, SignerError> {
    let board_bytes = read(&request.board)?;
    let board = board_of(&request.board, &board_bytes)?;
    let config = read_trusted(&request.config, "the node's configuration")?;
    let node =
        Node::read(&String::from_utf8_lossy(&config), &board.config).map_err(FactoryError::from)?;

    let nothing = || PublishedError::Nothing(registry.reference().to_string());
    let found = published::fetch(registry)?.ok_or_else(nothing)?;
    let state = State::verify(&found.files, Some(&request.root)).map_err(PublishedError::from)?;
    let listed = listed(registry, &state, &found, &node, request, now)?;
    let release = read_release(registry, &state, &listed)?;
    let chosen = choose(&node, &listed.summary);
    let image = |one: &ComponentSummary| {
        (one.name.clone(), Image { len: one.raw_size, verity: one.verity.is_some() })
    };
    let images = chosen.iter().map(image).collect();
    let index = release.index.to_string();
    let seed = match &request.seed {
        Some(text) => Seed::of(&[text.as_bytes()]),
        None => Seed::of(&[index.as_bytes(), &config, &board_bytes, &request.root]),
    };
    let layout = plan(&board, &node, &images, seed).map_err(FactoryError::from)?;

    let epoch = request.epoch.unwrap_or_else(|| signed_at(&state, &listed));
    let mut report = FactoryReport {
        output: request.output.clone(),
        target: listed.target.clone(),
        index,
        security_version: listed.summary.security_version,
        size: layout.len,
        sha256: None,
        disk_guid: layout.guid.to_string(),
        partitions: partitions(&layout),
        elsewhere: layout.elsewhere.iter().map(ToString::to_string).collect(),
        notes: Vec::new(),
        epoch,
        example_keys: has_example_key(&state.root),
    };
    if let Some(output) = &request.output {
        let inputs = Inputs {
            board: &board,
            node: &node,
            config: &config,
            root: &request.root,
            data: request.data.as_deref(),
            state: &state,
            release: &release,
            chosen: &chosen,
            layout: &layout,
            seed,
            epoch,
        };
        let built = build(registry, &inputs, output, show)?;
        report.sha256 = Some(built.digest.to_string());
        report.notes = built.notes;
    }
    Ok(report)
}

fn read(path: &Path) -> Result<Vec<u8>, SignerError> {
    let failed = |source| SignerError::File { action: "read", path: path.to_owned(), source };
    std::fs::read(path).map_err(failed)
}

fn board_of(path: &Path, bytes: &[u8]) -> Result<Board, FactoryError> {
    let base = path.parent().unwrap_or(Path::new(""));
    let wrong = |why: String| FactoryError::Board { path: path.to_owned(), why };
    let text = std::str::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
    Board::parse(text, base).map_err(|error| wrong(error.to_string().trim_end().to_owned()))
}

/// The release that the disk gets.
fn listed(
    registry: &dyn Registry,
    state: &State,
    found: &Files,
    node: &Node,
    request: &FactoryRequest,
    now: UnixTime,
) -> Result<ListedRelease, SignerError> {
    if request.version.is_none() {
        let statement = published::offline_statement(registry)?;
        verify_offline(&found.files, &request.root, statement.as_deref(), now)?;
    }
    let Node { product, channel, .. } = node;
    let version = request.version.as_ref();
    select(state, &Wanted { product, channel, version })
}

/// When the role that lists a release signed it; 0 when it does not say.
fn signed_at(state: &State, listed: &ListedRelease) -> u64 {
    let signed = state.targets_of(&listed.role).map(|signed| &signed.data);
    let at = signed.and_then(|targets| targets.header.signed_at(&targets.unknown));
    at.and_then(|at| u64::try_from(at.secs()).ok()).unwrap_or(0)
}

fn partitions(layout: &Layout) -> Vec<PartitionReport> {
    let row = |(number, part): (usize, &crate::factory::layout::Partition)| PartitionReport {
        number,
        label: part.label.clone(),
        offset: part.offset,
        size: part.len,
        type_guid: part.type_guid.to_string(),
        guid: part.guid.to_string(),
        holds: holds(layout, &part.holds),
    };
    (1..).zip(&layout.partitions).map(row).collect()
}

fn holds(layout: &Layout, holds: &Holds) -> String {
    match holds {
        Holds::Esp => {
            let files: Vec<&str> = layout.esp_files.iter().map(|file| file.path.as_str()).collect();
            format!("boot loader; {}", files.join(", "))
        }
        Holds::Component(name, Slot::A) => format!("{name} of slot a"),
        Holds::Component(name, Slot::B) => format!("{name} of slot b, empty"),
        Holds::Data => "kept through updates: state, floor, history".to_owned(),
    }
}
