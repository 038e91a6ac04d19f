//! All rows of the tables, by their names.

use anyhow::{Result, bail};

use crate::case::Case;
use crate::node::Backend;
use crate::scenario::{self, Row, Scenario};
use crate::store::{self, StoreRow, StoreScenario};

/// A row that is not prepared yet.
#[derive(Clone, Copy)]
pub enum Name {
    /// A node on a boot backend.
    Node(&'static Scenario, Backend),
    /// A publisher or a server.
    Store(&'static StoreScenario),
}

impl Name {
    /// All of them.
    pub fn all() -> Vec<Name> {
        let node = |s: &'static Scenario| Backend::ALL.map(|backend| Name::Node(s, backend));
        let nodes = scenario::ALL.iter().flat_map(node);
        nodes.chain(store::ALL.iter().map(Name::Store)).collect()
    }

    /// The work.
    pub fn scenario(self) -> &'static str {
        match self {
            Name::Node(scenario, _) => scenario.name,
            Name::Store(scenario) => scenario.name,
        }
    }

    /// What it runs on.
    pub fn place(self) -> &'static str {
        match self {
            Name::Node(_, backend) => backend.name(),
            Name::Store(scenario) => scenario.place,
        }
    }

    /// As the tables have it.
    pub fn text(self) -> String {
        format!("{} / {}", self.scenario(), self.place())
    }

    /// Prepares it, and runs it uncut.
    pub fn ready(self) -> Result<Box<dyn Case>, String> {
        Ok(match self {
            Name::Node(scenario, backend) => Box::new(Row::new(scenario, backend)?),
            Name::Store(scenario) => Box::new(StoreRow::new(scenario)?),
        })
    }
}

/// The row of that name, ready.
pub fn ready(scenario: &str, place: &str) -> Result<Box<dyn Case>> {
    let found = Name::all().into_iter().find(|it| (it.scenario(), it.place()) == (scenario, place));
    match found {
        Some(name) => name.ready().map_err(anyhow::Error::msg),
        None => bail!("there is no {scenario:?} on {place:?} any more"),
    }
}
