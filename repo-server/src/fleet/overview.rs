//! The sums of all nodes: what the pages show. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use formats::digest::Sha256;
use formats::report::BytesBySource;
use formats::version::Version;

use super::approved::Approved;
use super::brief::{Brief, Text};
use super::state::{State, expected, silent_since};
use super::table::Table;

/// 1 h: no time zone, no daylight saving, no slow clock. Metadata expires by the node's clock.
const CLOCK: u64 = 3600;
/// 7 days: two machines with one key are shown for so long after they were seen last.
const CLONED: u64 = 7 * 86_400;

/// A node as it is shown at a time.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) brief: Arc<Brief>,
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
    /// A node at a time.
    pub(crate) fn of(brief: Arc<Brief>, approved: bool, now: u64) -> Self {
        let Brief { received, interval, clock, cloned, .. } = *brief;
        Seen {
            approved,
            silent: silent_since(received, interval, now),
            expected: expected(received, interval),
            clock: (clock.unsigned_abs() > CLOCK).then_some(clock),
            cloned: cloned.is_some_and(|at| now.saturating_sub(at) < CLONED),
            brief,
        }
    }

    /// Its state, as it is counted: a silent node is in none that it reported.
    pub(crate) fn state(&self) -> Option<State> {
        self.silent.is_none().then_some(self.brief.state)
    }

    /// Why it does what it does: code and sentence, in its own words.
    pub(crate) fn reason(&self) -> Option<(&str, &str)> {
        self.brief.reason.as_ref().map(|(code, sentence)| (&**code, &**sentence))
    }

    /// Whether somebody has to do something about it.
    pub(crate) fn needs_somebody(&self) -> bool {
        let Brief { floor_is_lost, state, .. } = *self.brief;
        self.cloned || floor_is_lost || matches!(state, State::Reverted | State::Other)
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
    /// Adds all nodes up, as they are at a time.
    pub(crate) fn of(table: &Table, listed: &Approved, now: u64) -> Self {
        let mut all = Overview { now, ..Overview::default() };
        let mut sums = Sums::default();
        for (brief, approved) in table.nodes(listed) {
            let seen = Seen::of(Arc::clone(brief), approved, now);
            if approved {
                all.count(&seen, &mut sums);
                all.nodes.push(seen);
            } else {
                all.waiting.push(seen);
            }
        }
        all.waiting.sort_by_key(|seen| std::cmp::Reverse(seen.brief.received));
        let channels = sums.channels.into_iter();
        all.channels = channels
            .map(|((product, channel), sums)| ((product.to_string(), channel.to_string()), sums))
            .collect();
        all.reasons = sums.reasons.into_values().collect();
        all.reasons.sort_by(|a, b| b.nodes.len().cmp(&a.nodes.len()).then(a.code.cmp(&b.code)));
        all
    }

    fn count(&mut self, seen: &Seen, all: &mut Sums) {
        let brief = &*seen.brief;
        let key = (Arc::clone(&brief.product), Arc::clone(&brief.channel));
        let sums = all.channels.entry(key).or_default();
        sums.nodes += 1;
        if seen.silent.is_none() && !brief.runs.is_empty() {
            *of(&mut sums.runs, &brief.runs) += 1;
        }
        if let Some(version) = &brief.offered {
            *of(&mut sums.offered, version) += 1;
        }
        let release = of(&mut sums.releases, &brief.release);
        match seen.state() {
            Some(state) => {
                release.states[state as usize] += 1;
                match state {
                    State::Confirmed => release.confirmed.push(brief.since),
                    State::Reverted => release.reverted.push(brief.since),
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
        if let Some(bytes) = &brief.bytes {
            add(&mut self.bytes, bytes);
        }
        if let Some((code, sentence)) = &brief.reason {
            let sums = all.reasons.entry(Arc::clone(code)).or_insert_with(|| ReasonSums {
                code: code.to_string(),
                sentence: sentence.to_string(),
                nodes: Vec::new(),
            });
            sums.nodes.push(brief.node);
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

/// What is being added up, by the texts that nodes share: nothing is copied for each of them.
#[derive(Default)]
struct Sums {
    channels: HashMap<(Text, Text), ChannelSums>,
    reasons: HashMap<Text, ReasonSums>,
}

/// The sum of a version, which is copied the first time only.
fn of<'a, T: Default>(sums: &'a mut BTreeMap<String, T>, version: &str) -> &'a mut T {
    if !sums.contains_key(version) {
        sums.insert(version.to_owned(), T::default());
    }
    sums.get_mut(version).expect("it was put there")
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
