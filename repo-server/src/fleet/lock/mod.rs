//! The restart lock: at most so many nodes of a group restart at once. Pure: the clock is an argument.
//!
//! Nodes speak the FleetLock protocol, as Zincati does
//! (<https://coreos.github.io/zincati/development/fleetlock/protocol/>):
//!
//! | request | the node | answer | the table |
//! |---|---|---|---|
//! | `pre-reboot` | holds nothing, and a place is free | granted | holds from now on |
//! | | holds already | granted | `since` stays, `until` counts from now |
//! | | holds nothing, and no place is free | refused, with those who hold | stays |
//! | | is of a group that is not configured | refused | stays |
//! | `steady-state` | holds | released | forgets it |
//! | | holds nothing, whatever the group | released | stays |
//!
//! A place is free when fewer than the budget of the group hold one; who has held longer than the configured age holds
//! none. There is no queue: of those who wait, whoever asks first once a place is free gets it.
//!
//! A node that asks again is told anew that it may restart, and so has its whole age again: an answer cannot
//! say that only a part of it is left. What a clock that was set back would prolong ends an age from then.
//!
//! No more than the budget hold, whatever is lost and whoever is killed (`explore`): provided that the table is
//! durable before an answer leaves, and that no request is handled after its client has given it up and asked
//! for something else. The second is up to the protocol, which numbers nothing. A node whose restart takes
//! longer than the age restarts without a lock.

mod message;

#[cfg(test)]
mod explore;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub(crate) use self::message::{BODY_LIMIT, HEADER, Refusal, parse};

/// Characters of the name of a group.
const GROUP_LIMIT: usize = 64;
/// Bytes of a client's id: twice those of the name of a node.
const CLIENT_LIMIT: usize = 128;
/// Groups of a server: each is a line of the first page.
const GROUPS: usize = 100;
/// Nodes of a group that may restart at once: each is a row of the database and of the first page.
const BUDGET_LIMIT: usize = 1000;
/// 5 min: a restart with a trial takes minutes.
const SHORTEST: u64 = 300;
/// 7 days: a lock that nobody releases lasts so long.
const LONGEST: u64 = 7 * 86_400;
/// 1 h: three trials, a check of the disk between two of them, and a node that a person has to look at.
pub(crate) const AGE: u64 = 3600;

/// The name of a group: letters, digits, dots and hyphens, as the protocol has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Group(String);

impl Group {
    /// The group of that name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        if text.is_empty() || text.len() > GROUP_LIMIT || !text.bytes().all(good) {
            return Err(format!(
                "a group is named by 1 to {GROUP_LIMIT} letters, digits, dots and hyphens"
            ));
        }
        Ok(Group(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client calls itself: of our nodes, the name in their reports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(String);

impl ClientId {
    /// The id that is spelled so. One that cannot be shown on a line is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let shown = formats::report::shown(text, usize::MAX);
        if text.is_empty() || text.len() > CLIENT_LIMIT || shown != text {
            return Err(format!("an id has 1 to {CLIENT_LIMIT} bytes, all of which can be shown"));
        }
        Ok(ClientId(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many of which group, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    groups: BTreeMap<Group, usize>,
    /// Seconds after which a lock ends by itself.
    age: u64,
}

impl Rules {
    /// Rules under which every group can be served.
    pub(crate) fn new(groups: &[(String, usize)], age: u64) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        for (name, budget) in groups {
            let group = Group::parse(name).map_err(|why| format!("group {name:?}: {why}"))?;
            match *budget {
                0 => {
                    let text = "with a budget of 0 no node of it would ever restart";
                    return Err(format!(
                        "group {group}: {text}; to stop a roll-out, hold the channel"
                    ));
                }
                budget if budget > BUDGET_LIMIT => {
                    return Err(format!("group {group}: a budget is at most {BUDGET_LIMIT}"));
                }
                budget => {
                    if found.insert(group.clone(), budget).is_some() {
                        return Err(format!("group {group} is given more than once"));
                    }
                }
            }
        }
        if found.len() > GROUPS {
            return Err(format!("there are at most {GROUPS} groups"));
        }
        if !(SHORTEST..=LONGEST).contains(&age) {
            let text = "longer than a restart with all its trials, and no longer than a dead node may block others";
            return Err(format!("a lock lasts from 5m to 7d: {text}"));
        }
        Ok(Rules { groups: found, age })
    }

    /// How many of a group may hold at once.
    pub(crate) fn budget(&self, group: &Group) -> Option<usize> {
        self.groups.get(group).copied()
    }

    /// All groups, by name.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&Group, usize)> {
        self.groups.iter().map(|(group, budget)| (group, *budget))
    }
}

/// A node that may restart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Holder {
    pub(crate) client: ClientId,
    /// When it was granted, in Unix seconds by the clock of the server.
    pub(crate) since: u64,
    /// When it ends by itself.
    pub(crate) until: u64,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// A lock: `RecursiveLock` of the protocol.
    PreReboot,
    /// To have none: `UnlockIfHeld`.
    SteadyState,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) asked: Asked,
    pub(crate) group: Group,
    pub(crate) client: ClientId,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// It holds a lock from now on.
    Granted,
    /// It held one already.
    Kept,
    /// It holds none, and held one if that is true.
    Released(bool),
    /// As many as may hold one.
    Full(Vec<Holder>),
    /// No such group is configured.
    UnknownGroup,
}

/// The holders of a group after a request, and the answer to it. Holders are in the order in which they came.
pub(crate) fn step(
    holders: &[Holder],
    rules: &Rules,
    request: &Request,
    now: u64,
) -> (Vec<Holder>, Answer) {
    let until = now.saturating_add(rules.age);
    let held = holders.iter().filter(|it| it.until > now).cloned();
    let mut next: Vec<Holder> =
        held.map(|it| Holder { until: it.until.min(until), ..it }).collect();
    let own = next.iter().position(|it| it.client == request.client);
    let answer = match (request.asked, own) {
        (Asked::SteadyState, own) => {
            own.map(|at| next.remove(at));
            Answer::Released(own.is_some())
        }
        (Asked::PreReboot, own) => match rules.budget(&request.group) {
            None => Answer::UnknownGroup,
            Some(budget) => lock(&mut next, own, budget, &request.client, now, until),
        },
    };
    (next, answer)
}

fn lock(
    holders: &mut Vec<Holder>,
    own: Option<usize>,
    budget: usize,
    client: &ClientId,
    now: u64,
    until: u64,
) -> Answer {
    if let Some(own) = own.and_then(|at| holders.get_mut(at)) {
        own.until = until;
        return Answer::Kept;
    }
    if holders.len() >= budget {
        return Answer::Full(holders.clone());
    }
    holders.push(Holder { client: client.clone(), since: now, until });
    Answer::Granted
}
