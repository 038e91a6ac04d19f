//! An update, as a line of stations. Each is a value that only the station before it can make, and
//! takes what it needs: none of them has the agent.
//!
//! ```text
//!  Sources ─refresh─► Refreshed ─decide─► Offer ─resolve─► Plan ─install─► Installed
//!  opened once        verified            the rules'       documents,      read back (StagedSlot),
//!  per attempt        metadata            decision         proof           next when asked for
//!                                                                             │ restart
//!                                               Confirmed | Failed ◄─probe─ Trial
//! ```
//!
//! Everything up to [`Plan`] only reads: what speaks against an update ends it before a byte of an
//! image is fetched or a slot is touched. [`Plan::install`] and [`Trial::probe`] run the update
//! machine ([`update_core::update`]), which orders flags, writes and the record, and activates a slot
//! only for the [`StagedSlot`](update_core::image::StagedSlot) that its read-back made.
//!
//! An attempt has one start time (TUF §5.1), one refresh, one decision and one set of connections.

mod install;
mod judge;
mod resolve;
mod trial;

use formats::boot_record::{ReleaseId, Slot};
use formats::reason::Reason;
use update_core::chooser::Proof;
use update_core::update::{Node, Outcome, Task, begin};
use update_core::withheld::withheld;

use super::judged::JudgedRelease;
use super::node::NodeParts;
use super::report::Wish;
use super::withdrawn;
use crate::config::Config;
use crate::environment::Environment;
use crate::error::AgentError;
use crate::release::{Resolved, identity};
use crate::source::Source;
use crate::stage::Written;
use crate::state::{State, StateGuard};
use crate::trust::{self, Trusted};

pub(super) use self::judge::judge;
pub(crate) use self::judge::{installed_version, version_of_os_release};

/// The sources of one attempt, and when it began.
pub(super) struct Sources {
    all: Vec<Box<dyn Source>>,
    /// Unix seconds.
    started: u64,
}

/// Verified, unexpired metadata, and the source that served it.
pub(super) struct Refreshed<'a> {
    trusted: Trusted<'a>,
    best: &'a dyn Source,
    sources: &'a Sources,
}

/// What is offered to this node.
pub(super) struct Offer<'a> {
    refreshed: Refreshed<'a>,
    judged: JudgedRelease,
}

/// A release that may be installed, with every document of it and the proof for the chooser.
pub(super) struct Plan<'a> {
    judged: JudgedRelease,
    resolved: Resolved,
    sources: Vec<&'a dyn Source>,
    proof: Option<Proof>,
}

/// A release in the inactive slot, read back.
pub(super) struct Installed {
    slot: Slot,
    activated: bool,
    written: Written,
    judged: JudgedRelease,
}

/// The booted slot is on trial.
pub(super) struct Trial {
    slot: Slot,
    version: Option<String>,
    tries_left: u8,
    counted: bool,
}

/// How a trial ended.
pub(super) enum Probed {
    /// The slot is confirmed, durably.
    Confirmed(Slot),
    /// A check failed, for that reason; the machine is restarting.
    Failed(String),
}

impl Sources {
    /// Opens the source that was named, or the configured ones. A registry is not contacted yet.
    pub(super) fn open(
        environment: &dyn Environment,
        config: &Config,
        named: Option<&str>,
        now: u64,
    ) -> Result<Self, AgentError> {
        Ok(Sources { all: environment.sources(config, named)?, started: now })
    }

    /// Refreshes the trusted metadata from the first source that has a verified repository.
    pub(super) fn refresh<'a>(
        &'a self,
        state: &'a State,
        held: &StateGuard,
        root: &[u8],
    ) -> Result<Refreshed<'a>, AgentError> {
        let (trusted, best) = trust::refresh(state, held, root, &self.all, self.started)?;
        Ok(Refreshed { trusted, best, sources: self })
    }
}

impl<'a> Refreshed<'a> {
    /// The source that served the metadata, without credentials.
    pub(super) fn source(&self) -> String {
        self.best.describe()
    }

    /// Why a release that the channel offered before must not be tried for now.
    pub(super) fn withheld(
        &mut self,
        node: NodeParts<'_>,
        held: &StateGuard,
        release: &ReleaseId,
    ) -> Result<Option<String>, AgentError> {
        let own = &node.config.node;
        let channel = self.trusted.channel(held, &own.product, &own.channel)?;
        Ok(withheld(&channel, release))
    }

    /// Finds the release that is wished for, and asks the rules. `None`: the channel offers nothing.
    pub(super) fn decide(
        mut self,
        node: NodeParts<'_>,
        held: &StateGuard,
        wish: &Wish,
    ) -> Result<Option<Offer<'a>>, AgentError> {
        // A bundle that was carried here means its own content; configured sources go by the channel.
        let bundle = wish.from.as_ref().map(|_| self.best.bundled()).transpose()?.flatten();
        let started = self.sources.started;
        withdrawn::note(node, held, &mut self.trusted)?;
        let judged = judge(node, held, &mut self.trusted, wish, bundle.as_deref(), started)?;
        Ok(judged.map(|judged| Offer { refreshed: self, judged }))
    }
}

impl Offer<'_> {
    /// The release, and what was decided.
    pub(super) fn judged(&self) -> &JudgedRelease {
        &self.judged
    }
}

impl JudgedRelease {
    fn task(&self, config: &Config, stage_only: bool) -> Task {
        let release: ReleaseId = identity(&self.signed);
        let (tries, named) = (config.boot.tries, self.named);
        Task::Apply { release, tries, activate: !stage_only, named }
    }

    /// Refuses what no source has a part in: a node that stands like `now` cannot install anything, or
    /// not this.
    pub(super) fn check_node(&self, node: NodeParts<'_>, now: Node) -> Result<(), AgentError> {
        node.config.health.usable()?;
        node.check()?;
        node.floor().check(self.signed.summary.security_version)?;
        begin(now, self.task(node.config, false))?;
        Ok(())
    }
}

pub(super) fn unexpected(what: &str, outcome: &Outcome) -> AgentError {
    AgentError::new(Reason::BootRecord, format!("the {what} ended unexpectedly: {outcome:?}"))
}
