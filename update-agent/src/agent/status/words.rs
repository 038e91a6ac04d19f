//! Where a node stands, in a word and in a sentence.

use formats::boot_record::Phase;
use serde::Serializer;
use update_core::update::{Node, Standing};

use crate::boot::bypass;
use crate::config::BootConfig;

/// The stable word of `status` and of the metrics.
pub(crate) fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Idle => "idle",
        Standing::Interrupted => "interrupted",
        Standing::Staged => "staged",
        Standing::AwaitingReboot | Standing::PassedOver => "awaiting_reboot",
        Standing::OnTrial { .. } => "on_trial",
        Standing::ConfirmUnfinished => "confirm_unfinished",
        Standing::Lost { .. } => "lost",
        Standing::RevertUnfinished => "revert_unfinished",
        Standing::Leaving => "leaving",
    }
}

pub(super) fn of_standing<S: Serializer>(
    standing: &Standing,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word(standing))
}

pub(super) fn of_phase(phase: &Phase) -> &str {
    match phase {
        Phase::Staging => "staging",
        Phase::Staged => "staged",
        Phase::Trial { .. } => "trial",
        Phase::Reverting { .. } => "reverting",
        Phase::Unknown { name } => name,
    }
}

/// Why the last trial boot failed, where it could say so.
pub(super) fn failed_check(phase: &Phase) -> Option<&str> {
    match phase {
        Phase::Trial { failed, .. } => failed.as_deref(),
        _ => None,
    }
}

/// What is under way, and what to do about it.
pub(super) fn sentence(boot: &BootConfig, node: &Node, standing: &Standing) -> String {
    let what = node.record.update.as_ref().map_or_else(String::new, |update| {
        format!("{} in slot {}", update.release.version, update.slot)
    });
    let sentence = match standing {
        Standing::Idle => "none under way".to_owned(),
        Standing::Interrupted => format!("{what}: writing was interrupted; `apply` resumes it"),
        Standing::Staged => {
            let withheld = node.record.update.as_ref().and_then(|update| update.withheld.as_ref());
            let why = withheld.map_or_else(String::new, |why| format!(" for now: {why}"));
            format!("{what}: written and verified, not next{why}")
        }
        Standing::PassedOver | Standing::AwaitingReboot if passed_over(node, standing) => {
            format!("{what}: {}", bypass::sentence(boot, node.booted.other()))
        }
        Standing::PassedOver | Standing::AwaitingReboot => {
            format!("{what}: next; {} to try it", boot.how_to_try())
        }
        Standing::OnTrial { tries_left, .. } => {
            let failed = node.record.update.as_ref().and_then(|own| failed_check(&own.phase));
            let failed = failed.map_or_else(String::new, |why| format!("; it failed: {why}"));
            format!("{what}: on trial, {tries_left} tries left after this boot{failed}")
        }
        Standing::ConfirmUnfinished => format!("{what}: confirmed; the record follows"),
        Standing::Lost { detail, .. } => format!("{what}: reverted ({detail})"),
        Standing::RevertUnfinished => format!("{what}: being reverted"),
        Standing::Leaving => format!("slot {} was marked bad; reboot to leave it", node.booted),
    };
    match node.record.update.as_ref().map(|update| &update.phase) {
        Some(Phase::Unknown { name }) => {
            format!("{sentence} (by the flags; phase {name:?} is not known to this version)")
        }
        _ => sentence,
    }
}

/// Whether something else than the boot loader's choice started this boot.
fn passed_over(node: &Node, standing: &Standing) -> bool {
    *standing == Standing::PassedOver
        || node.record.update.as_ref().is_some_and(|update| update.passed_over > 0)
}
