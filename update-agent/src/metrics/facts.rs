//! What a page is made of, as it is read from a node.

use formats::boot_record::History;
use formats::release::ComponentName;
use formats::tuf::{Envelope, Header, Metadata, Role, Root, Snapshot, Targets, Timestamp};
use update_core::floor::Judged;
use update_core::trust::Stored;
use update_core::update::Node;

use crate::agent::{Agent, version_of_os_release};
use crate::reporting::ledger::{self, ReportsTo};
use crate::state::Report;

/// A node as its metrics show it. `None` and empty: not known.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) product: String,
    pub(super) channel: String,
    /// Who keeps the boot flags.
    pub(super) backend: &'static str,
    /// Seconds between two polls.
    pub(super) interval: u64,
    /// Whether a published example key is trusted.
    pub(super) example_keys: bool,
    /// Record and boot flags; `None` where one of them cannot be read.
    pub(super) node: Option<Node>,
    /// Components of a slot.
    pub(super) components: Vec<ComponentName>,
    /// Those of them that still run from the slot that is not booted.
    pub(super) mixed: Vec<ComponentName>,
    /// The version of a booted system that no agent installed.
    pub(super) os_version: Option<String>,
    pub(super) floor: Option<Judged>,
    pub(super) report: Report,
    /// Sources that get reports, and how it stands with each.
    pub(super) reports: Vec<ReportsTo>,
    /// Whether the release that runs was withdrawn.
    pub(super) withdrawn: bool,
    pub(super) history: History,
    pub(super) metadata: Vec<RoleFacts>,
    /// Unix seconds of the last check of this process, and of its last success.
    pub(super) checked: Option<u64>,
    pub(super) succeeded: Option<u64>,
}

/// Trusted metadata of a top-level role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoleFacts {
    pub(super) role: String,
    pub(super) version: u64,
    /// Unix seconds.
    pub(super) expires: i64,
}

impl Facts {
    /// Reads them without a lock, each for itself: what cannot be read is not known.
    pub(super) fn of(agent: &Agent) -> Self {
        let config = &agent.config;
        let node = agent.node().ok();
        let mixed = node.as_ref().and_then(|node| {
            let running = agent.disk.running_in(node.booted.other(), node.flags).ok()?;
            Some(running.into_iter().cloned().collect())
        });
        Facts {
            product: config.node.product.clone(),
            channel: config.node.channel.clone(),
            backend: config.boot.backend.name(),
            interval: config.policy.interval.as_secs(),
            example_keys: agent.trusts_example_keys(),
            node,
            components: config.slots.a.keys().cloned().collect(),
            mixed: mixed.unwrap_or_default(),
            os_version: version_of_os_release(&config.node.os_release)
                .map(|version| version.to_string()),
            floor: agent.judged_floor().ok(),
            report: agent.state.report(),
            reports: ledger::standing(agent.host.as_ref(), &agent.config),
            withdrawn: agent.withdrawn().is_some(),
            history: agent.state.history().unwrap_or_default(),
            metadata: agent.state.trust().map(|stored| roles(&stored)).unwrap_or_default(),
            checked: agent.last_check.last(),
            succeeded: agent.last_check.last_success(),
        }
    }
}

/// The top-level roles that are stored.
fn roles(stored: &Stored) -> Vec<RoleFacts> {
    [
        header::<Root>(stored, &Role::Root),
        header::<Timestamp>(stored, &Role::Timestamp),
        header::<Snapshot>(stored, &Role::Snapshot),
        header::<Targets>(stored, &Role::Targets),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Verified when it was stored, and nothing is decided by it here.
fn header<M: Metadata>(stored: &Stored, role: &Role) -> Option<RoleFacts> {
    let envelope = Envelope::parse(stored.file(role)?).ok()?;
    let metadata = M::parse(envelope.signed()).ok()?;
    let Header { version, expires, .. } = metadata.header();
    Some(RoleFacts { role: role.name().to_owned(), version: *version, expires: expires.secs() })
}
