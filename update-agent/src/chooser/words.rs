//! The command line of the slot's kernel.

use formats::boot_record::Slot;
use formats::gpt::Partition;
use formats::reason::Reason;
use update_core::chooser::{Approved, Attempt, ChooserFloor, Root};

use super::watchdog::Watchdog;
use crate::config::Config;

/// What this boot found before and beside the slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    /// The floor of the TPM.
    pub(super) floor: ChooserFloor,
    /// Slots that were refused.
    pub(super) refused: &'a [(Slot, Reason)],
}

/// What the kernel is told.
pub(super) struct Words<'a> {
    pub(super) config: &'a Config,
    pub(super) attempt: Attempt,
    pub(super) approved: &'a Approved,
    pub(super) partition: &'a Partition,
    pub(super) told: Told<'a>,
}

impl Words<'_> {
    /// The slot's options, those of the chooser's configuration, and what this boot found.
    pub(super) fn command_line(&self, options: &str, watchdog: &Watchdog) -> String {
        let slot = self.attempt.slot;
        let flags = self.attempt.flags.of(slot);
        let kind = if flags.successful { "confirmed" } else { "trial" };
        let (guid, verity) = (self.partition.guid, self.approved.verity());
        let mut words = vec![options.trim().to_owned(), self.config.chooser.append.clone()];
        words.push(format!(
            "racklet.slot={slot} racklet.boot={kind} racklet.tries={} racklet.version={}",
            flags.tries,
            self.approved.version(),
        ));
        let refused = self.told.refused.iter();
        words.extend(refused.map(|(slot, why)| format!("racklet.refused={slot}:{why}")));
        words.extend(self.told.floor.word());
        if let Some(timeout) = watchdog.armed() {
            words.push(format!("racklet.watchdog={}", timeout.as_secs()));
        }
        words.push(format!(
            "roothash={} systemd.verity_root_data=PARTUUID={guid} \
             systemd.verity_root_hash=PARTUUID={guid} \
             systemd.verity_root_options=hash-offset={}",
            verity.root_hash, verity.hash_offset,
        ));
        words.push(Root { slot, partition: guid, verity: verity.clone() }.word());
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }
}
