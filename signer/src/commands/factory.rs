//! `factory`: the first disk of a node.

mod report;

use std::path::{Path, PathBuf};

use formats::release::ComponentSummary;
use formats::tuf::UnixTime;
use formats::version::Version;

pub use self::report::FactoryReport;
use self::report::{partitions, raw_report};
use super::select::{Wanted, select};
use super::{has_example_key, read_trusted};
use crate::error::SignerError;
use crate::factory::board::{Board, Raw};
use crate::factory::identity::Seed;
use crate::factory::loader::uboot::env_config;
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
    let node = node.on_board(&board).map_err(FactoryError::from)?;

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
    let len = |raw: &Raw| std::fs::metadata(&raw.file).map(|about| about.len());
    let raw = board.raw.iter().map(|raw| len(raw).map_err(FactoryError::file("read", &raw.file)));
    let raw = raw.collect::<Result<Vec<u64>, _>>()?;
    let layout = plan(&board, &node, &images, &raw, seed).map_err(FactoryError::from)?;

    let epoch = request.epoch.unwrap_or_else(|| signed_at(&state, &listed));
    let mut report = FactoryReport {
        output: request.output.clone(),
        target: listed.target.clone(),
        index,
        security_version: listed.summary.security_version,
        size: layout.len,
        sha256: None,
        disk_guid: layout.guid.to_string(),
        partitions: partitions(&board, &layout),
        raw: layout.raw.iter().map(raw_report).collect(),
        env_config: board.env.as_ref().map(|env| env_config(&node, env)),
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
