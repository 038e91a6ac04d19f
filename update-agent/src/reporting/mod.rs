//! Reports of this node: what it says of itself, to servers that collect it and into files.
//!
//! ```text
//!  state, flags ─► describe ─► Report ─► key: sign ─► document ─┬─► PUT to each source with `reports = true`
//!                                ▲                              └─► `report -o FILE`
//!                             ledger: sequence, what was acknowledged
//! ```
//!
//! A thread of the daemon sends them ([`Reporter`]): it only looks at the node, has a directory and a
//! lock of its own (`reports/` in the state directory), and nothing waits for it. When a report is due
//! is [`update_core::reporting`]'s to say. A report that cannot be made or sent is told by `report`, by
//! the metrics and in the log, and changes nothing else.

mod describe;
mod key;
pub(crate) mod ledger;
mod reporter;
mod send;
#[cfg(test)]
mod tests;

use formats::digest::Sha256;
use formats::report::node_of;

pub(crate) use self::reporter::Reporter;

use self::describe::describe;
use self::key::NodeKey as _;
use self::ledger::Ledger;

use crate::agent::Agent;
use crate::error::AgentError;

/// A signed report of this moment, for a file, and the name by which servers know this node.
pub(crate) fn document(agent: &Agent) -> Result<(Sha256, Vec<u8>), AgentError> {
    let ledger = Ledger::of(agent)?;
    let key = ledger.key()?;
    let sequence = *ledger.reserve(1)?.start();
    Ok((node_of(&key.public()), key.document(describe(agent, sequence))))
}

/// The name by which servers know this node. Makes its key, if there is none.
pub(crate) fn node(agent: &Agent) -> Result<Sha256, AgentError> {
    Ok(node_of(&Ledger::of(agent)?.key()?.public()))
}
