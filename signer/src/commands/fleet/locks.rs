//! Who may restart now, as the server tells it.

use formats::tuf::UnixTime;
use serde::Deserialize;

use super::DIGITS;
use super::status::{SHOWN, more};

/// Nodes of which so many may restart at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Group {
    group: String,
    /// Absent for one that the server has no more, and of which somebody still holds a lock.
    #[serde(default)]
    budget: Option<u64>,
    #[serde(default)]
    holders: Vec<Holder>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Holder {
    id: String,
    /// Of a node that reports.
    #[serde(default)]
    name: Option<String>,
    /// Unix seconds.
    since: i64,
    until: i64,
}

impl Group {
    /// The group, and a line for each that holds a lock.
    pub(super) fn lines(&self) -> Vec<String> {
        let held = self.holders.len();
        let budget = self.budget.map_or_else(
            || ", not configured any more".to_owned(),
            |budget| format!(" of {budget}"),
        );
        let mut lines = vec![format!("  {}  {held}{budget}", self.group)];
        lines.extend(self.holders.iter().take(SHOWN).map(Holder::line));
        lines.extend(more(held, "nodes"));
        lines
    }
}

impl Holder {
    fn line(&self) -> String {
        let who = match &self.name {
            Some(name) => format!("{name} [{}]", self.id.chars().take(DIGITS).collect::<String>()),
            None => self.id.clone(),
        };
        let [since, until] = [self.since, self.until].map(UnixTime::from_secs);
        format!("    {who} since {since}, until {until} at the latest")
    }
}
