//! `fleet affected`: which nodes run a release that has a vulnerability. What releases contain is what was signed
//! with them; what nodes run is what they report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use formats::oci::{annotation, media_type};
use formats::reference::Reference;
use formats::release::ATTACHMENT_LIMIT;
use formats::tuf::UnixTime;
use serde::{Deserialize, Serialize};
use storage::log::printable;

use super::{asked, authority, failed, odd_answer};
use crate::attachment;
use crate::commands::{Report, counted};
use crate::error::SignerError;
use crate::published::{self, PublishedError};
use crate::repository::{ClientOptions, Registry, RegistryError};
use crate::state::State;
use crate::verify::{Release, VerifyError, read_release, verify_offline};
use crate::vulnerability::{
    Judged, Named, NodeRow, Paper, Question, Running, Subject, Verdict, judge, running,
};

/// 1 MiB: two hundred nodes on a page have a tenth of it.
const LIMIT: usize = 1 << 20;
/// Ten times the largest fleet that was measured; bounds an endless list.
const NODES_LIMIT: usize = 100_000;
/// Nodes and reasons of a list for people; `--json` has all.
const SHOWN: usize = 20;

/// What is asked.
#[derive(Debug, Clone)]
pub struct AffectedRequest {
    /// Name of the vulnerability, such as `CVE-2024-3094`.
    pub vulnerability: String,
    /// The trust root to begin with.
    pub root: Vec<u8>,
    /// OSV records.
    pub osv: Vec<PathBuf>,
    /// VEX documents.
    pub vex: Vec<PathBuf>,
    /// The distribution of packages whose SBOM does not say it: `debian-13`.
    pub distro: Option<String>,
}

/// A release that runs somewhere.
#[derive(Debug, Serialize)]
struct Row {
    product: String,
    version: String,
    #[serde(flatten)]
    judged: Judged,
    #[serde(flatten)]
    running: Running,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct AffectedReport {
    vulnerability: String,
    server: String,
    repository: String,
    /// Nodes that count.
    nodes: usize,
    /// Those of them that run an affected release.
    affected: usize,
    /// Those that run one of which it is not known.
    unknown: usize,
    /// Affected ones first.
    releases: Vec<Row>,
    /// Nodes that do not say what they run.
    without_release: BTreeSet<Named>,
}

/// Reads the nodes of a server, verifies the repository as nodes do, and judges each release that runs.
///
/// # Errors
///
/// A document does not fit the question, the server does not answer, or the metadata is not valid `now`.
pub fn fleet_affected(
    server: &Reference,
    options: &ClientOptions,
    registry: &dyn Registry,
    request: &AffectedRequest,
    now: UnixTime,
) -> Result<AffectedReport, SignerError> {
    let vulnerability = &request.vulnerability;
    let (osv, vex) = (papers(&request.osv)?, papers(&request.vex)?);
    let question = Question::new(vulnerability, &osv, vex, request.distro.clone())
        .map_err(|error| SignerError::Usage(error.to_string()))?;
    let nodes = nodes(server, options)?;
    let count = nodes.len();
    let (releases, without_release) = running(nodes);

    let nothing = || PublishedError::Nothing(registry.reference().to_string());
    let found = published::fetch(registry)?.ok_or_else(nothing)?;
    let statement = published::offline_statement(registry)?;
    verify_offline(&found.files, &request.root, statement.as_deref(), now)?;
    let state = State::verify(&found.files, Some(&request.root)).map_err(PublishedError::from)?;
    let mut rows = Vec::new();
    for ((product, version), running) in releases {
        let judged = judged(&question, registry, &state, (&product, &version))?;
        rows.push(Row { product, version, judged, running });
    }
    // Stable: by product and version among those of one verdict.
    rows.sort_by_key(|row| row.judged.verdict);
    let sum = |verdict| {
        let such = rows.iter().filter(|row| row.judged.verdict == verdict);
        such.map(|row| row.running.nodes()).sum::<usize>()
    };
    Ok(AffectedReport {
        vulnerability: vulnerability.clone(),
        server: authority(server),
        repository: registry.reference().to_string(),
        nodes: count,
        affected: sum(Verdict::Affected),
        unknown: sum(Verdict::Unknown) + without_release.len(),
        releases: rows,
        without_release,
    })
}

fn papers(paths: &[PathBuf]) -> Result<Vec<Paper>, SignerError> {
    let paper = |path: &PathBuf| {
        let bytes = attachment::read(path)?;
        Ok(Paper { title: attachment::title(path), media_type: String::new(), bytes })
    };
    paths.iter().map(paper).collect()
}

#[derive(Deserialize)]
struct Page {
    nodes: Vec<NodeRow>,
    #[serde(default)]
    next: Option<String>,
}

/// All nodes that count, each once.
fn nodes(server: &Reference, options: &ClientOptions) -> Result<Vec<NodeRow>, SignerError> {
    let (mut found, mut from) = (BTreeMap::new(), 0);
    loop {
        let path = format!("fleet/nodes?from={from}");
        let bytes = asked(server, &path, LIMIT, options)?;
        let page: Page =
            serde_json::from_slice(&bytes).map_err(|error| odd_answer(server, &path, &error))?;
        let more = page.next.is_some() && !page.nodes.is_empty();
        from += page.nodes.len();
        found.extend(page.nodes.into_iter().map(|row| (row.node().to_owned(), row)));
        if !more {
            return Ok(found.into_values().collect());
        }
        if from > NODES_LIMIT {
            let message = format!("it lists more than {NODES_LIMIT} nodes, the most that are read");
            return Err(failed(server, &path, message, ""));
        }
    }
}

/// The verdict on a release that nodes run.
fn judged(
    question: &Question,
    registry: &dyn Registry,
    state: &State,
    (product, version): (&str, &str),
) -> Result<Judged, SignerError> {
    let unknown = |why: &str| Judged { verdict: Verdict::Unknown, why: vec![why.to_owned()] };
    let releases = state.releases().map_err(PublishedError::from)?;
    let mut releases = releases.iter();
    let listed =
        releases.find(|it| it.product == product && it.summary.version.as_str() == version);
    let Some(listed) = listed else { return Ok(unknown("it is not in this repository")) };
    let release = match read_release(registry, state, listed) {
        Ok(release) => release,
        Err(VerifyError::Registry(RegistryError::Missing { .. })) => {
            return Ok(unknown("it is signed, but not in this repository any more"));
        }
        Err(error) => return Err(error.into()),
    };
    let attached = attached(registry, &release)?;
    let index = release.index.hex();
    Ok(judge(question, &Subject { product, version, index: &index, attached: &attached }))
}

/// SBOMs and in-toto statements that were signed with a release.
fn attached(registry: &dyn Registry, release: &Release) -> Result<Vec<Paper>, SignerError> {
    const KNOWN: [&str; 6] = [
        media_type::SPDX,
        media_type::SPDX_TEXT,
        media_type::CYCLONEDX,
        media_type::CYCLONEDX_XML,
        media_type::IN_TOTO,
        media_type::DSSE,
    ];
    let layers = release.attachments.iter().flat_map(|(_, blobs)| blobs.iter().skip(1));
    let mut papers = Vec::new();
    for layer in layers.filter(|layer| KNOWN.contains(&layer.media_type.as_str())) {
        let bytes = registry.blob(&release.repository, layer, "attachment", ATTACHMENT_LIMIT)?;
        let title = layer.annotations.get(annotation::TITLE);
        let title = title.map_or_else(|| layer.digest.to_string(), Clone::clone);
        papers.push(Paper { title, media_type: layer.media_type.clone(), bytes });
    }
    Ok(papers)
}

impl Row {
    fn lines(&self) -> Vec<String> {
        let Row { product, version, judged, running } = self;
        let nodes = counted(running.nodes() as u64, "node");
        let mut lines = vec![format!("{}: {product} {version} on {nodes}", judged.verdict.shown())];
        lines.extend(judged.why.iter().take(SHOWN).map(|why| format!("  {why}")));
        lines.extend(more(judged.why.len()).map(|more| format!("  {more}")));
        for (word, nodes) in [("confirmed", &running.confirmed), ("on trial", &running.on_trial)] {
            lines.extend((!nodes.is_empty()).then(|| format!("  {word}: {}", named(nodes))));
        }
        lines
    }
}

fn more(all: usize) -> Option<String> {
    (all > SHOWN).then(|| format!("and {} more: see --json", all - SHOWN))
}

/// `pc-1, pc-2 (silent), 3f9a0c1b2d4e`
fn named(nodes: &BTreeSet<Named>) -> String {
    let name = |it: &Named| {
        let short = || it.node.chars().take(super::DIGITS).collect();
        let name = if it.name.is_empty() { short() } else { it.name.clone() };
        if it.silent { format!("{name} (silent)") } else { name }
    };
    let shown = nodes.iter().take(SHOWN).map(name);
    shown.chain(more(nodes.len())).collect::<Vec<_>>().join(", ")
}

impl Report for AffectedReport {
    fn text(&self) -> String {
        let AffectedReport { vulnerability, nodes, affected, unknown, .. } = self;
        let all = counted(*nodes as u64, "node");
        let mut lines =
            vec![format!("{vulnerability}: {affected} of {all} affected, {unknown} unknown")];
        lines.extend(self.releases.iter().flat_map(Row::lines));
        let others = &self.without_release;
        if !others.is_empty() {
            let nodes = counted(others.len() as u64, "node");
            lines.push(format!("unknown: {nodes} that do not say what they run"));
            lines.push(format!("  {}", named(others)));
        }
        lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
    }
}
