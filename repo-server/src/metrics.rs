//! Figures for the operator, in OpenMetrics text.
//!
//! Labels are of fixed sets, but for the names of TUF repositories and of groups: no client makes the text grow.

use std::fmt::Write as _;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::alarm::Freshness;
use crate::fill::{Fills, Part};
use crate::fleet::{GroupLocks, Overview};
use crate::refresh::RefreshStatus;

/// The media type of the text.
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A word that stands in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: Word,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    repository: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unsigned {
    repository: String,
    reason: Word,
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    answered: Family<Answered, Counter>,
    seconds: Histogram,
    limited: Family<Reason, Counter>,
    collections: Family<Outcome, Counter>,
    reloads: Family<Outcome, Counter>,
    expires: Family<Named, Gauge>,
    version: Family<Named, Gauge>,
    stale: Family<Named, Gauge>,
    refused: Family<Unsigned, Gauge>,
    /// Connections now.
    pub(crate) connections: Gauge,
    /// Bytes that came and went through sockets, TLS included.
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    /// Upload sessions now.
    pub(crate) uploads: Gauge,
    pub(crate) repositories: Gauge,
    /// Bytes of blobs and uploads, where quotas make us count them.
    pub(crate) stored: Gauge,
    /// Bytes of garbage removed.
    pub(crate) collected: Counter,
    /// Bytes of `index.json`, and the most that it may have.
    index: Gauge,
    index_limit: Gauge,
    /// Bytes of the largest metadata that lists releases, and the most that are published.
    targets: Gauge,
    targets_limit: Gauge,
    tags: Gauge,
    reports: Family<Outcome, Counter>,
    locks: Family<Outcome, Counter>,
    holders: Family<InGroup, Gauge>,
    nodes: Family<InState, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InGroup {
    group: String,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let seconds =
            [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0].into_iter();
        let mut metrics = Metrics {
            registry: Registry::with_prefix("repo_server"),
            answered: Family::default(),
            seconds: Histogram::new(seconds),
            limited: Family::default(),
            collections: Family::default(),
            reloads: Family::default(),
            expires: Family::default(),
            version: Family::default(),
            stale: Family::default(),
            refused: Family::default(),
            connections: Gauge::default(),
            received: Counter::default(),
            sent: Counter::default(),
            uploads: Gauge::default(),
            repositories: Gauge::default(),
            stored: Gauge::default(),
            collected: Counter::default(),
            index: Gauge::default(),
            index_limit: Gauge::default(),
            targets: Gauge::default(),
            targets_limit: Gauge::default(),
            tags: Gauge::default(),
            reports: Family::default(),
            locks: Family::default(),
            holders: Family::default(),
            nodes: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let to = &mut self.registry;
        to.register("requests", "Requests answered", self.answered.clone());
        let text = "Time from a request's head to the head of its answer";
        to.register_with_unit("answer_time", text, Unit::Seconds, self.seconds.clone());
        to.register("limited", "Connections and requests that a limit ended", self.limited.clone());
        to.register("connections", "Connections now", self.connections.clone());
        to.register_with_unit("received", "Read from sockets", Unit::Bytes, self.received.clone());
        to.register_with_unit("sent", "Written to sockets", Unit::Bytes, self.sent.clone());
        to.register("uploads", "Open upload sessions", self.uploads.clone());
        to.register("repositories", "Repositories now", self.repositories.clone());
        let text = "Blobs and uploads; 0 without quotas";
        to.register_with_unit("stored", text, Unit::Bytes, self.stored.clone());
        to.register("collections", "Garbage collections", self.collections.clone());
        let text = "Garbage removed";
        to.register_with_unit("collected", text, Unit::Bytes, self.collected.clone());
        to.register("reloads", "Reloads of certificates and tokens", self.reloads.clone());
        let text = "When the TUF timestamp expires, in Unix time";
        to.register_with_unit("timestamp_expiry", text, Unit::Seconds, self.expires.clone());
        to.register("timestamp_version", "Version of the TUF timestamp", self.version.clone());
        let text = "1 when the TUF timestamp has expired or soon will: look at the signer";
        to.register("timestamp_stale", text, self.stale.clone());
        let text = "index.json, which lists all tags";
        to.register_with_unit("index", text, Unit::Bytes, self.index.clone());
        let text = "The most that index.json may have: then no tag can be pushed";
        to.register_with_unit("index_limit", text, Unit::Bytes, self.index_limit.clone());
        let text = "The largest metadata that lists releases, in the repository under /metadata";
        to.register_with_unit("targets", text, Unit::Bytes, self.targets.clone());
        let text = "The most that it may have: then no release can be published";
        to.register_with_unit("targets_limit", text, Unit::Bytes, self.targets_limit.clone());
        to.register("tags", "Tags of all repositories", self.tags.clone());
        to.register("reports", "Reports of nodes, by what became of them", self.reports.clone());
        let text = "Requests for the restart lock, by what became of them";
        to.register("restart_lock_requests", text, self.locks.clone());
        let text = "Nodes that hold the restart lock now, by group";
        to.register("restart_lock_holders", text, self.holders.clone());
        let text = "Nodes by what they do; those that wait for approval and silent ones apart";
        to.register("fleet_nodes", text, self.nodes.clone());
        let text = "1 while the server's own key signs nothing, by the reason; see /healthz";
        to.register("refresh_refused", text, self.refused.clone());
    }

    /// A request was answered.
    pub(crate) fn answered(&self, route: &'static str, status: u16, took: Duration) {
        self.answered.get_or_create(&Answered { route: Word(route), status }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// A limit ended something.
    pub(crate) fn limited(&self, reason: &'static str) {
        self.limited.get_or_create(&Reason { reason: Word(reason) }).inc();
    }

    /// A collection of garbage ended.
    pub(crate) fn collection(&self, good: bool, bytes: u64) {
        self.collections.get_or_create(&outcome(good)).inc();
        self.collected.inc_by(bytes);
    }

    /// A report came.
    pub(crate) fn reported(&self, outcome: &'static str) {
        self.reports.get_or_create(&Outcome { outcome: Word(outcome) }).inc();
    }

    /// A request for the restart lock was answered.
    pub(crate) fn locked(&self, outcome: &'static str) {
        self.locks.get_or_create(&Outcome { outcome: Word(outcome) }).inc();
    }

    /// Who may restart now.
    pub(crate) fn holders(&self, locks: &[GroupLocks]) {
        self.holders.clear();
        for it in locks {
            let group = it.group.as_str().to_owned();
            let count = i64::try_from(it.holders.len()).unwrap_or(i64::MAX);
            self.holders.get_or_create(&InGroup { group }).set(count);
        }
    }

    /// What all nodes do now.
    pub(crate) fn fleet(&self, all: &Overview) {
        let set = |state: &'static str, nodes: usize| {
            let nodes = i64::try_from(nodes).unwrap_or(i64::MAX);
            self.nodes.get_or_create(&InState { state: Word(state) }).set(nodes);
        };
        for (state, nodes) in all.states() {
            set(state.word(), nodes);
        }
        set("silent", all.silent);
        set("waiting_for_approval", all.waiting.len());
    }

    /// Certificates and tokens were read again, or could not be.
    pub(crate) fn reloaded(&self, good: bool) {
        self.reloads.get_or_create(&outcome(good)).inc();
    }

    /// How fresh the TUF repositories are now.
    pub(crate) fn fresh(&self, found: &[Freshness]) {
        for family in [&self.expires, &self.version, &self.stale] {
            family.clear();
        }
        for it in found {
            let named = Named { repository: it.repository.clone() };
            self.expires.get_or_create(&named).set(it.expires.secs());
            let version = i64::try_from(it.version).unwrap_or(i64::MAX);
            self.version.get_or_create(&named).set(version);
            self.stale.get_or_create(&named).set(i64::from(it.is_stale()));
        }
    }

    /// How full `index.json` and the list of releases are now.
    pub(crate) fn fills(&self, found: &Fills) {
        let number = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
        for fill in &found.parts {
            let (bytes, limit) = match fill.part {
                Part::Index => (&self.index, &self.index_limit),
                Part::Targets => (&self.targets, &self.targets_limit),
            };
            bytes.set(number(fill.bytes));
            limit.set(number(fill.limit));
        }
        self.tags.set(number(found.tags));
    }

    /// What the server's own key signs now, and why not.
    pub(crate) fn signs(&self, found: &[RefreshStatus]) {
        self.refused.clear();
        for it in found {
            if let Some(reason) = it.code {
                let repository = it.repository.clone();
                let refused = Unsigned { repository, reason: Word(reason.code()) };
                self.refused.get_or_create(&refused).set(1);
            }
        }
    }

    /// The text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn outcome(good: bool) -> Outcome {
    Outcome { outcome: Word(if good { "done" } else { "failed" }) }
}
