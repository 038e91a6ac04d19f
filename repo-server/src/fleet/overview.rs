//! The sums of all nodes: what the pages show. Pure, but for reading the rows.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use formats::digest::Sha256;
use formats::report::{BytesBySource, Report, shown};
use formats::version::Version;

use super::approved::Approved;
use super::state::{State, expected, silent_since};
use super::store::{FleetStore, NodeRow, StoreFailure};

/// 1 h: no time zone, no daylight saving, no slow clock. Metadata expires by the node's clock.
const CLOCK: u64 = 3600;
/// 7 days: two machines with one key are shown for so long after they were seen last.
const CLONED: u64 = 7 * 86_400;
/// Characters of a node's sentence on a page.
pub(crate) const SENTENCE: usize = 200;

/// A node as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) row: NodeRow,
    pub(crate) report: Report,
    /// Whether an operator approved it: others count for nothing.
    pub(crate) approved: bool,
    /// Since when its report is missing.
    pub(crate) silent: Option<u64>,
    /// When its next report is expected.
    pub(crate) expected: u64,
    /// Seconds by which its clock was ahead of ours, where that is much.
    pub(crate) clock: Option<i64>,
    /// Two machines share its key.
    pub(crate) cloned: bool,
}

impl Seen {
    /// What is kept of a node, at a time.
    pub(crate) fn of(row: NodeRow, approved: bool, now: u64) -> Self {
        // It was verified before it was kept; what cannot be read any more says nothing.
        let report = Report::of_document(&row.document).unwrap_or_default();
        let received = row.known.received;
        let difference = i128::from(report.at) - i128::from(received);
        let clock = i64::try_from(difference).unwrap_or(i64::MAX);
        Seen {
            approved,
            silent: silent_since(received, report.interval, now),
            expected: expected(received, report.interval),
            clock: (clock.unsigned_abs() > CLOCK).then_some(clock),
            cloned: row.known.cloned.is_some_and(|at| now.saturating_sub(at) < CLONED),
            report,
            row,
        }
    }

    /// Where it says what this version does not know.
    pub(crate) fn unread(&self) -> Vec<String> {
        self.report.unread_of(&self.row.document)
    }

    /// What people call it, or the beginning of its name.
    pub(crate) fn name(&self) -> String {
        match &self.report.name {
            Some(name) if !name.as_str().trim().is_empty() => name.to_string(),
            _ => self.row.node.to_hex().chars().take(12).collect(),
        }
    }

    /// Its state, as it is counted: a silent node is in none that it reported.
    pub(crate) fn state(&self) -> Option<State> {
        self.silent.is_none().then_some(self.row.known.doing.state)
    }

    /// Why it does what it does: code and sentence, in its own words.
    pub(crate) fn reason(&self) -> Option<(String, String)> {
        let report = &self.report;
        let doing = &self.row.known.doing;
        let sentence = match doing.state {
            State::Reverted => report.failure.as_ref().map(|it| &it.sentence),
            State::Waiting => report.decision.as_ref().map(|it| &it.sentence),
            _ => None,
        };
        let named = (!doing.code.is_empty()).then(|| {
            let sentence = sentence.map(|it| shown(it, SENTENCE)).unwrap_or_default();
            (shown(&doing.code, 64), sentence)
        });
        named.or_else(|| {
            let error = report.error.as_ref()?;
            Some((error.code.to_string(), shown(&error.sentence, SENTENCE)))
        })
    }

    /// Whether somebody has to do something about it.
    pub(crate) fn needs_somebody(&self) -> bool {
        let state = self.row.known.doing.state;
        self.cloned || self.floor_is_lost() || matches!(state, State::Reverted | State::Other)
    }

    /// Whether nothing keeps it from an older release any more.
    pub(crate) fn floor_is_lost(&self) -> bool {
        self.report.floor.as_ref().is_some_and(|floor| floor.kept == "lost")
    }
}

/// Nodes of one release, by what they do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReleaseSums {
    /// Nodes in each state about this release, in the order of [`State::ALL`].
    pub(crate) states: [usize; State::ALL.len()],
    /// Silent nodes that last did something about it.
    pub(crate) silent: usize,
    /// Since when each of those that are confirmed is, in Unix seconds by the clock of the server; not sorted.
    pub(crate) confirmed: Vec<u64>,
    /// The same of those that reverted.
    pub(crate) reverted: Vec<u64>,
}

impl ReleaseSums {
    pub(crate) fn of(&self, state: State) -> usize {
        self.states.get(state as usize).copied().unwrap_or(0)
    }

    pub(crate) fn total(&self) -> usize {
        self.states.iter().sum::<usize>() + self.silent
    }
}

/// A product on a channel.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChannelSums {
    /// Approved nodes.
    pub(crate) nodes: usize,
    /// Nodes that run what they confirmed, by version: the silent ones apart.
    pub(crate) runs: BTreeMap<String, usize>,
    /// By version, what nodes do about it.
    pub(crate) releases: BTreeMap<String, ReleaseSums>,
    /// Versions that nodes say were offered to them, with how many say so.
    pub(crate) offered: BTreeMap<String, usize>,
}

/// Why nodes do not do what is offered, with the nodes behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReasonSums {
    pub(crate) code: String,
    /// The sentence of one of them.
    pub(crate) sentence: String,
    pub(crate) nodes: Vec<Sha256>,
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overview {
    /// Approved nodes, by name.
    pub(crate) nodes: Vec<Seen>,
    /// Nodes that wait for approval, those heard last first.
    pub(crate) waiting: Vec<Seen>,
    /// By product and channel.
    pub(crate) channels: BTreeMap<(String, String), ChannelSums>,
    /// Largest first.
    pub(crate) reasons: Vec<ReasonSums>,
    /// Approved nodes in each state, in the order of [`State::ALL`]; and the silent ones.
    states: [usize; State::ALL.len()],
    pub(crate) silent: usize,
    /// Nodes about which somebody has to do something.
    pub(crate) need_somebody: usize,
    /// Bytes of all approved nodes.
    pub(crate) bytes: BytesBySource,
    /// The time of all this.
    pub(crate) now: u64,
}

impl Overview {
    /// Reads all rows, and adds them up.
    pub(crate) fn of(
        store: &dyn FleetStore,
        listed: &Approved,
        now: u64,
    ) -> Result<Self, StoreFailure> {
        let (rows, by_hand) = (store.nodes()?, store.approved()?);
        Ok(Self::sum(rows, &by_hand, listed, now))
    }

    /// Adds them up.
    pub(super) fn sum(
        rows: Vec<NodeRow>,
        by_hand: &HashSet<Sha256>,
        listed: &Approved,
        now: u64,
    ) -> Self {
        let mut all = Overview { now, ..Overview::default() };
        let mut reasons: BTreeMap<String, ReasonSums> = BTreeMap::new();
        for row in rows {
            let approved = by_hand.contains(&row.node) || listed.contains(&row.node);
            let seen = Seen::of(row, approved, now);
            if approved {
                all.count(&seen, &mut reasons);
                all.nodes.push(seen);
            } else {
                all.waiting.push(seen);
            }
        }
        all.nodes.sort_by_cached_key(|seen| (seen.name(), seen.row.node));
        all.waiting.sort_by_key(|seen| std::cmp::Reverse(seen.row.known.received));
        all.reasons = reasons.into_values().collect();
        all.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.nodes.len()));
        all
    }

    fn count(&mut self, seen: &Seen, reasons: &mut BTreeMap<String, ReasonSums>) {
        let (report, doing) = (&seen.report, &seen.row.known.doing);
        let key = (report.product.to_string(), report.channel.to_string());
        let sums = self.channels.entry(key).or_default();
        sums.nodes += 1;
        let version = shown(&doing.release, 64);
        let release = sums.releases.entry(version).or_default();
        if seen.silent.is_none() && !doing.runs.is_empty() {
            *sums.runs.entry(shown(&doing.runs, 64)).or_default() += 1;
        }
        if let Some(decision) = &report.decision {
            *sums.offered.entry(decision.version.to_string()).or_default() += 1;
        }
        match seen.state() {
            Some(state) => {
                release.states[state as usize] += 1;
                match state {
                    State::Confirmed => release.confirmed.push(seen.row.known.since),
                    State::Reverted => release.reverted.push(seen.row.known.since),
                    _ => {}
                }
                self.states[state as usize] += 1;
            }
            None => {
                release.silent += 1;
                self.silent += 1;
            }
        }
        self.need_somebody += usize::from(seen.needs_somebody());
        if let Some(bytes) = &report.bytes {
            add(&mut self.bytes, bytes);
        }
        if let Some((code, sentence)) = seen.reason() {
            let sums = reasons.entry(code.clone());
            let sums = sums.or_insert(ReasonSums { code, sentence, nodes: Vec::new() });
            sums.nodes.push(seen.row.node);
        }
    }

    /// The approved nodes about which somebody has to do something.
    pub(crate) fn needing(&self) -> impl Iterator<Item = &Seen> {
        self.nodes.iter().filter(|seen| seen.needs_somebody())
    }

    /// How many approved nodes are in each state, silent ones apart.
    pub(crate) fn states(&self) -> impl Iterator<Item = (State, usize)> {
        State::ALL.into_iter().zip(self.states)
    }

    /// Product and version of everything that nodes name, for a look whether it was published.
    pub(crate) fn named(&self) -> BTreeSet<(String, String)> {
        let of = |((product, _), sums): (&(String, String), &ChannelSums)| {
            let versions = sums.releases.keys().chain(sums.offered.keys());
            versions.map(|version| (product.clone(), version.clone())).collect::<Vec<_>>()
        };
        self.channels.iter().flat_map(of).collect()
    }

    /// The release that the sentence of a channel is about: the newest one that was offered to a node and
    /// that `published` knows; without one, the one that most nodes run.
    pub(crate) fn subject(sums: &ChannelSums, published: impl Fn(&str) -> bool) -> Option<&str> {
        let parsed = |text: &&String| text.parse::<Version>().ok();
        let known = sums.offered.keys().filter(|text| published(text));
        let newest = known.filter(|text| parsed(text).is_some()).max_by(|a, b| {
            match (parsed(a), parsed(b)) {
                (Some(a), Some(b)) => a.compare(&b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            }
        });
        let most = || sums.runs.iter().max_by_key(|(_, nodes)| **nodes).map(|(version, _)| version);
        newest.or_else(most).map(String::as_str)
    }
}

fn add(to: &mut BytesBySource, bytes: &BytesBySource) {
    let sum = |a: Option<u64>, b: Option<u64>| {
        (a.is_some() || b.is_some()).then(|| a.unwrap_or(0).saturating_add(b.unwrap_or(0)))
    };
    to.registry = to.registry.saturating_add(bytes.registry);
    to.bundle = to.bundle.saturating_add(bytes.bundle);
    to.delta = sum(to.delta, bytes.delta);
    to.reuse = sum(to.reuse, bytes.reuse);
}
