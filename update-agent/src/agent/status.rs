//! `status`: the node as it stands, without a network and without the lock.

mod report;
mod words;

use std::collections::BTreeMap;

use formats::boot_record::{PerSlot, Slot, Update};
use update_core::update::{Node, Standing, next_slot, stand};

use super::{Agent, FloorReport, Pending, version_of_os_release};
use crate::error::AgentError;
use crate::{progress, reporting, restart};

pub use self::report::{PendingUpdate, RestartReport, SlotReport, StatusReport};
pub(crate) use self::words::word;

impl Agent {
    /// The node as it stands. Changes nothing, and waits for no other agent.
    pub fn status(&self) -> Result<StatusReport, AgentError> {
        self.keeping_error(|| self.status_now())
    }

    fn status_now(&self) -> Result<StatusReport, AgentError> {
        let (node, floor) = self.node_to_show()?;
        let report = self.state.report();
        let standing = stand(&node);
        let older_since = self.state.floor_record().ok().and_then(|file| file.older_since);
        // What cannot be asked now is `doctor`'s to tell.
        let mixed = self.disk.running_in(node.booted.other(), node.flags).unwrap_or_default();
        let foreign = |slot| node.evidence.foreign.of(slot).map(|how| how.to_string());
        let running = progress::running(&self.config.state_dir);
        let config = &self.config;
        Ok(StatusReport {
            product: config.node.product.clone(),
            channel: config.node.channel.clone(),
            hardware: config.node.hardware.clone(),
            backend: config.boot.backend.name(),
            node_id: self.node_id(),
            booted: node.booted,
            next: next_slot(node.flags),
            runs: self.runs(&node),
            pending: node.record.update.as_ref().map(|update| pending(&node, update)),
            restart: self.restart_to_show(&standing),
            restart_lock: self.state.restart_lock(),
            slots: PerSlot { a: slot_report(&node, Slot::A), b: slot_report(&node, Slot::B) },
            floor: FloorReport::new(&floor, older_since),
            chooser_floor: self.disk.chooser_floor(),
            refused_by_chooser: by_slot(|slot| self.disk.refused_by_chooser(slot)),
            mixed: mixed.into_iter().cloned().collect(),
            foreign: by_slot(foreign),
            counting: node.record.counting,
            last_check: report.last_success,
            last_error: report.last_error,
            metadata: report.metadata,
            offer: report.offer,
            withdrawn: self.withdrawn(),
            in_progress: running.clone(),
            running,
            example_keys: self.trusts_example_keys(),
            unread: self.state.unread(),
            reports: reporting::ledger::standing(self.host.as_ref(), &self.config),
            sentence: words::sentence(&config.boot, &node, &standing),
            now: self.state.now(),
            failures: node.record.failures,
            standing,
        })
    }

    /// The version that runs, as far as anybody knows.
    fn runs(&self, node: &Node) -> Option<String> {
        match node.record.slots.of(node.booted) {
            Some(content) => Some(content.release.version.to_string()),
            None => version_of_os_release(&self.config.node.os_release)
                .map(|version| version.to_string()),
        }
    }

    /// In a boot that has nothing to leave and nothing to try, an earlier request is history.
    fn restart_to_show(&self, standing: &Standing) -> Option<RestartReport> {
        let pending = self.restart_pending().filter(|pending| match standing {
            Standing::OnTrial { .. } | Standing::Leaving => pending.leaves(),
            Standing::AwaitingReboot => !pending.leaves(),
            _ => false,
        })?;
        let next_in = pending.wait().as_secs();
        let Pending { asked, means, .. } = pending;
        Some(RestartReport {
            next: restart::shown(&self.config.boot, asked.purpose, means),
            next_in,
            why: asked.why,
            at: asked.at,
            times: asked.times,
            refused: asked.refused,
        })
    }
}

/// What is so of some slots, by their names.
fn by_slot(text: impl Fn(Slot) -> Option<String>) -> BTreeMap<String, String> {
    Slot::BOTH.into_iter().filter_map(|slot| Some((slot.to_string(), text(slot)?))).collect()
}

fn pending(node: &Node, update: &Update) -> PendingUpdate {
    PendingUpdate {
        slot: update.slot,
        version: update.release.version.clone(),
        security_version: update.release.security_version,
        phase: words::of_phase(&update.phase).to_owned(),
        tries_left: node.flags.of(update.slot).tries,
        failed: words::failed_check(&update.phase).map(str::to_owned),
        passed_over: update.passed_over,
        withheld: update.withheld.clone(),
    }
}

fn slot_report(node: &Node, slot: Slot) -> SlotReport {
    let flags = *node.flags.of(slot);
    let release = node.record.slots.of(slot).as_ref().map(|content| &content.release);
    SlotReport {
        priority: flags.priority,
        tries: flags.tries,
        successful: flags.successful,
        bootable: flags.bootable(),
        version: release.map(|release| release.version.to_string()),
        security_version: release.map(|release| release.security_version),
        index: release.map(|release| format!("sha256:{}", release.index)),
        confirmed: flags.confirmed(),
    }
}
