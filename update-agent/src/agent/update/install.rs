//! What an update would fetch and write, and doing it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use formats::boot_record::Slot;
use formats::release::ComponentName;
use update_core::update::{Node, Outcome, begin};

use super::super::driver::{ApplyInputs, Driver, Ended};
use super::super::node::NodeParts;
use super::super::report::{ApplyReport, ComponentPlan, PlanReport, Verdict, rules};
use super::super::reuse::{ReuseFinder, operator_seeds};
use super::{Installed, Plan, installed_version, unexpected};
use crate::config::Config;
use crate::error::AgentError;
use crate::events::{Event, Why};
use crate::progress::{Progress, Recorded};

impl Plan<'_> {
    /// What [`Plan::install`] would fetch and write on a node that stands like `now`.
    pub(in crate::agent) fn preview(
        &self,
        node: NodeParts<'_>,
        now: Node,
        seeds: &[PathBuf],
        stage_only: bool,
        progress: &dyn Progress,
    ) -> Result<PlanReport, AgentError> {
        let slot = now.booted.other();
        let capacity: BTreeMap<ComponentName, u64> = node.disk.capacities(slot)?;
        begin(now, self.judged.task(node.config, stage_only))?;
        let seeds =
            operator_seeds(node.host, &seed_paths(node.config, seeds), node.state, progress);
        let product = &node.config.node.product;
        let finder = ReuseFinder { product, state: node.state, disk: node.disk };
        let mut components = Vec::new();
        for component in &self.resolved.components {
            let name = component.identity.name.clone();
            let planned = finder.planned(component, &seeds, &self.sources, progress)?;
            components.push(ComponentPlan {
                raw_size: component.identity.raw_size,
                capacity: capacity.get(&name).copied(),
                fetch: planned.fetch,
                delta: planned.delta,
                reuse: planned.reuse,
                zeros: planned.zeros,
                name,
            });
        }
        Ok(PlanReport {
            version: self.judged.signed.summary.version.clone(),
            slot,
            decision: Verdict::from(&self.judged.decided.decision),
            rules: rules(&self.judged.decided),
            components,
            sources: self.sources.iter().map(|source| source.describe()).collect(),
        })
    }

    /// Writes the inactive slot, reads it back and, unless it shall only be staged, makes it next.
    ///
    /// A crash leaves a slot that is not next, which the next attempt completes, or one that is.
    pub(in crate::agent) fn install(
        self,
        driver: &Driver<'_>,
        seeds: &[PathBuf],
        stage_only: bool,
        progress: &dyn Progress,
    ) -> Result<Installed, AgentError> {
        let progress = Recorded::new(progress, &driver.parts.config.state_dir);
        let inputs = ApplyInputs {
            resolved: &self.resolved,
            sources: &self.sources,
            seeds: &seed_paths(driver.parts.config, seeds),
            progress: &progress,
            order: &self.judged.signed.summary.order,
            proof: self.proof.as_ref(),
        };
        // What cannot begin is no business of a hook, and nothing that was begun.
        begin(driver.parts.node()?, self.judged.task(driver.parts.config, stage_only))?;
        driver.check_room()?;
        driver.before_apply(&self.judged, stage_only)?;
        self.tell_begin(driver);
        let performed = self.perform(driver, &inputs, stage_only).map_err(|error| {
            let version = self.judged.version().to_string();
            let why = Why { code: error.reason().code(), text: &error.chain() };
            Event::InstallFailed { version: &version, why }.tell();
            error.told()
        });
        let (ended, slot, activated) = performed?;
        Ok(Installed { slot, activated, written: ended.written, judged: self.judged })
    }

    /// Runs the update machine: how it ended, the slot, and whether that is next.
    fn perform(
        &self,
        driver: &Driver<'_>,
        inputs: &ApplyInputs<'_>,
        stage_only: bool,
    ) -> Result<(Ended, Slot, bool), AgentError> {
        driver.parts.single_banks().prepare(driver.held)?;
        let ended = driver.run(self.judged.task(driver.parts.config, stage_only), Some(inputs));
        let sent = self.sources.iter().map(|source| (source.describe(), source.bytes_fetched()));
        let written = ended.as_ref().ok().map(|ended| &ended.written);
        driver.parts.state.count_received(driver.held, sent, written);
        let ended = ended?;
        driver.parts.state.save_journal(driver.held, None)?;
        match &ended.outcome {
            Outcome::Activated(slot) => Ok((*slot, true)),
            Outcome::Staged(slot) => Ok((*slot, false)),
            Outcome::Failed { reason, detail } => Err(AgentError::new(*reason, detail.clone())),
            other => Err(unexpected("apply", other)),
        }
        .map(|(slot, activated)| (ended, slot, activated))
    }

    fn tell_begin(&self, driver: &Driver<'_>) {
        let (Ok(booted), Ok(record)) =
            (driver.parts.disk.booted(), driver.parts.state.boot_record())
        else {
            return;
        };
        let from = installed_version(driver.parts.config, &record, booted);
        Event::Installing {
            version: &self.judged.version().to_string(),
            from: from.map(|version| version.to_string()).as_deref(),
            slot: booted.other(),
            source: &self.sources.first().map_or_else(String::new, |source| source.describe()),
        }
        .tell();
    }
}

/// What the operator named, then what is configured.
fn seed_paths<'a>(config: &'a Config, named: &'a [PathBuf]) -> Vec<&'a Path> {
    let configured = config.seeds.iter().map(|seed| seed.path.as_path());
    named.iter().map(PathBuf::as_path).chain(configured).collect()
}

impl Installed {
    /// What was done.
    pub(in crate::agent) fn report(self) -> ApplyReport {
        let written = self.written;
        ApplyReport {
            slot: self.slot,
            version: self.judged.signed.summary.version,
            activated: self.activated,
            fetched: written.fetched,
            written: written.written,
            reused: written.reused_seed + written.reused_target,
            zeroed: written.zeroed,
            notes: self.judged.decided.notes,
        }
    }
}
