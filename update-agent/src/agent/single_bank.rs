//! A component that starts from its only bank: `[single.NAME]`.
//!
//! ```toml
//! [slots.a]
//! bmc = { device = "/data/bmc-a.img" }      # a copy: a file as long as the bank, or a partition
//! [slots.b]
//! bmc = { device = "/data/bmc-b.img" }
//! [single.bmc]
//! bank = { device = "/dev/mtd0" }
//! accept_no_fallback = true
//! recovered_by = "U-Boot: run bmc_recover, which flashes /data/bmc-a.img"
//! ```
//!
//! ```text
//! stage      the release ─► copy of the inactive slot, read back
//! before     copy of the booted slot = recovery image: hashed, or taken from the bank and read back
//! activate   copy of the new slot, hashed ─► bank: first block erased, …, its header last ─► read back
//! given up   recovery image, hashed ─► bank ─► read back
//! ```
//!
//! Activation writes the bank as the last thing before the boot flags move, when nothing else can fail
//! any more. A cut in it leaves a bank from which the component does not start; the booted slot and its
//! copy are whole, so the next run of the agent puts the recovery image back. A system that does not
//! start without the component needs something else that can: `recovered_by` says what.

use formats::boot_record::{BootRecord, Slot};
use formats::digest::Digest;
use formats::reason::Reason;
use formats::release::ComponentName;
use storage::block::{Access, BlockDevice};
use update_core::image::chunk_matches;
use update_core::single::{Known, Recovery, recovery};
use update_core::update::Order;

use crate::config::SingleBank;
use crate::disk::Disk;
use crate::error::AgentError;
use crate::list::List;
use crate::place::Owner;
use crate::state::{BankBackup, State, StateGuard};

/// 256 KiB: a block of most flashes.
const PIECE: usize = 256 << 10;

/// What a copy and the bank have to hold.
enum Content {
    /// Chunks of a release.
    Release(List),
    /// What was found in the bank.
    Backup(BankBackup),
}

impl Content {
    fn len(&self) -> u64 {
        match self {
            Content::Release(list) => list.raw_size(),
            Content::Backup(taken) => taken.len,
        }
    }

    fn known(content: Option<&Content>) -> Known {
        match content {
            None => Known::Nothing,
            Some(Content::Release(_)) => Known::Release,
            Some(Content::Backup(taken)) => Known::Taken { erased_since: taken.erased_since },
        }
    }

    /// Whether a device holds it, read from the medium. What cannot be read is not it.
    fn is_in(&self, device: &dyn BlockDevice) -> bool {
        if device.len() < self.len() {
            return false;
        }
        device.forget_cached(0, self.len());
        match self {
            Content::Backup(taken) => {
                digest(device, taken.len).is_ok_and(|found| found == taken.digest)
            }
            Content::Release(list) => {
                let mut buffer = Vec::new();
                list.chunks().all(|chunk| {
                    let Ok(chunk) = chunk else { return false };
                    buffer.resize(chunk.len as usize, 0);
                    device.read_at(&mut buffer, chunk.offset).is_ok()
                        && chunk_matches(&chunk, &buffer)
                })
            }
        }
    }
}

/// The components of one node that have a single bank.
#[derive(Clone, Copy)]
pub(crate) struct SingleBanks<'a> {
    pub(super) state: &'a State,
    pub(super) disk: &'a Disk,
}

impl<'a> SingleBanks<'a> {
    /// Refuses an update of a node whose single banks the operator has not accepted.
    pub(super) fn accepted(&self) -> Result<(), AgentError> {
        self.disk.singles().try_for_each(|name| self.accepted_bank(name).map(drop))
    }

    fn accepted_bank(&self, name: &ComponentName) -> Result<&'a SingleBank, AgentError> {
        let refuse = |text: String| Err(AgentError::new(Reason::SingleBank, text));
        match self.disk.single(name) {
            Some(single) if !single.accept_no_fallback => refuse(format!(
                "{name} has a single bank: a power cut while it is written leaves {name} without \
                 anything to start from"
            ))
            .map_err(|error| {
                error.hint(format!(
                    "make sure that something can put the recovery image back, name it in \
                     single.{name}.recovered_by, then set single.{name}.accept_no_fallback = true"
                ))
            }),
            Some(single) if single.recovered_by.trim().is_empty() => refuse(format!(
                "single.{name}.recovered_by is empty: it must say what restores {name}"
            ))
            .map_err(|error| error.hint(format!("set single.{name}.recovered_by"))),
            Some(single) => Ok(single),
            None => refuse(format!("{name} has no single bank")),
        }
    }

    /// What a slot's copy of a component holds, as far as anybody knows.
    fn content(
        &self,
        record: &BootRecord,
        slot: Slot,
        name: &ComponentName,
    ) -> Result<Option<Content>, AgentError> {
        let Some(content) = record.slots.of(slot) else {
            let taken = self.state.taken(name)?.filter(|taken| taken.slot == slot);
            return Ok(taken.map(Content::Backup));
        };
        let Some(own) = content.components.iter().find(|own| own.name == *name) else {
            return Ok(None);
        };
        let list = self.state.chunk_list(&own.chunks).ok_or_else(|| {
            let text = format!("the chunk list of {name} in slot {slot} is lost");
            AgentError::new(Reason::StoreCorrupt, text)
        })?;
        Ok(Some(Content::Release(list)))
    }

    /// Makes sure that the copy of the booted slot can be put back: before anything is staged.
    pub(super) fn prepare(&self, held: &StateGuard) -> Result<(), AgentError> {
        let booted = self.disk.booted()?;
        let record = self.state.boot_record()?;
        for name in self.disk.singles() {
            let single = self.accepted_bank(name)?;
            let content = self.content(&record, booted, name)?;
            let in_bank = |content: &Content| -> Result<bool, AgentError> {
                Ok(content.is_in(single.bank.open(self.disk.host(), Access::Read)?.as_ref()))
            };
            let in_copy = |content: &Content| -> Result<bool, AgentError> {
                Ok(content.is_in(self.disk.open_copy(booted, name, Access::Read)?.as_ref()))
            };
            let copy_whole = content.as_ref().map(in_copy).transpose()?.unwrap_or(false);
            let bank_holds = content.as_ref().map(in_bank).transpose()?.unwrap_or(false);
            match recovery(Content::known(content.as_ref()), copy_whole, bank_holds) {
                Recovery::Ready => {}
                Recovery::TakeFromBank => {
                    self.take(held, booted, name, single, content.as_ref())?;
                }
                Recovery::Nothing => {
                    let text = format!(
                        "the recovery image of {name} in slot {booted} is damaged, and its bank \
                         holds something else: there is nothing to restore"
                    );
                    return Err(AgentError::new(Reason::SingleBank, text).hint(format!(
                        "flash {name} by other means ({}), then remove the agent's state",
                        single.recovered_by
                    )));
                }
            }
        }
        Ok(())
    }

    /// Copies the bank into the slot, reads the copy back, and remembers what it is.
    fn take(
        &self,
        held: &StateGuard,
        slot: Slot,
        name: &ComponentName,
        single: &SingleBank,
        content: Option<&Content>,
    ) -> Result<(), AgentError> {
        let bank = single.bank.open(self.disk.host(), Access::Read)?;
        let len = match content {
            Some(Content::Release(list)) => list.raw_size(),
            _ => bank.len(),
        };
        let room = self.disk.open_copy(slot, name, Access::Read)?.len();
        if room < len {
            let text =
                format!("the copy of {name} in slot {slot} has {room} bytes, its bank {len}");
            return Err(AgentError::new(Reason::SlotSize, text)
                .hint("make both copies as long as the bank"));
        }
        tracing::info!("{name}: taking the recovery image from its bank");
        let copy = self.disk.open_copy(slot, name, Access::Exclusive)?;
        transfer(bank.as_ref(), copy.as_ref(), len)?;
        drop(copy);
        let copy = self.disk.open_copy(slot, name, Access::Read)?;
        copy.forget_cached(0, len);
        let digest_of_bank = digest(bank.as_ref(), len)?;
        if digest(copy.as_ref(), len)? != digest_of_bank {
            let text = format!("the copy of {name} in slot {slot} is not what its bank holds");
            return Err(AgentError::new(Reason::Readback, text));
        }
        if let Some(Content::Release(_)) = content {
            return Ok(());
        }
        let erased_since = Content::known(content) == Known::Taken { erased_since: true };
        let taken = BankBackup { slot, len, digest: digest_of_bank, erased_since };
        self.state.save_taken(held, name, &taken)
    }

    /// Makes the components that start by themselves start from a slot.
    pub(super) fn activate(
        &self,
        held: &StateGuard,
        slot: Slot,
        booted: Slot,
        order: &Order,
    ) -> Result<(), AgentError> {
        for name in order.of(&self.disk.switched()) {
            match self.disk.single(name) {
                Some(_) => self.fill_bank(held, slot, booted, name)?,
                None => self.disk.switch(slot, name)?,
            }
        }
        Ok(())
    }

    /// Makes the bank hold a slot's copy. Nothing is erased when it does already.
    fn fill_bank(
        &self,
        held: &StateGuard,
        slot: Slot,
        booted: Slot,
        name: &ComponentName,
    ) -> Result<(), AgentError> {
        let record = self.state.boot_record()?;
        let Some(single) = self.disk.single(name) else { return Ok(()) };
        // Of a slot that nobody knows nothing was ever written.
        let Some(content) = self.content(&record, slot, name)? else { return Ok(()) };
        let bank = single.bank.open(self.disk.host(), Access::Read)?;
        if content.is_in(bank.as_ref()) {
            return Ok(());
        }
        drop(bank);
        self.accepted_bank(name)?;
        let whole = |slot: Slot, content: &Content| -> Result<Box<dyn BlockDevice>, AgentError> {
            let copy = self.disk.open_copy(slot, name, Access::Read)?;
            if content.is_in(copy.as_ref()) {
                return Ok(copy);
            }
            let text = format!("the copy of {name} in slot {slot} is not whole; nothing is erased");
            Err(AgentError::new(Reason::SingleBank, text))
        };
        self.disk.check_alone(Owner::Bank(name))?;
        let copy = whole(slot, &content)?;
        let back = match slot == booted {
            true => None,
            false => match self.content(&record, booted, name)? {
                Some(content) => Some((whole(booted, &content)?, content)),
                None => {
                    let text = format!("{name} has no recovery image");
                    return Err(AgentError::new(Reason::SingleBank, text));
                }
            },
        };
        if let Some(taken) = self.state.taken(name)?.filter(|taken| !taken.erased_since) {
            self.state.save_taken(held, name, &BankBackup { erased_since: true, ..taken })?;
        }
        let written = self.write_bank(single, copy.as_ref(), &content);
        let Err(error) = written else { return Ok(()) };
        // At once, and not at the next start: until then the component would have nothing.
        let Some((copy, content)) = back else { return Err(error.context(name)) };
        Err(match self.write_bank(single, copy.as_ref(), &content) {
            Ok(()) => error.context(format!("{name} (the recovery image was put back)")),
            Err(also) => {
                let text = format!("{name}; putting the recovery image back: {}", also.chain());
                error.context(text).hint(format!("recover it: {}", single.recovered_by))
            }
        })
    }

    fn write_bank(
        &self,
        single: &SingleBank,
        copy: &dyn BlockDevice,
        content: &Content,
    ) -> Result<(), AgentError> {
        let open = |access| single.bank.open(self.disk.host(), access);
        let bank = open(Access::Exclusive)?;
        if bank.len() < content.len() {
            let text = format!("{} bytes do not fit {}", content.len(), bank.describe());
            return Err(AgentError::new(Reason::SlotSize, text));
        }
        transfer(copy, bank.as_ref(), content.len())?;
        drop(bank);
        let bank = open(Access::Read)?;
        if content.is_in(bank.as_ref()) {
            return Ok(());
        }
        let text = format!("what was written to {} is not there", bank.describe());
        Err(AgentError::new(Reason::Readback, text))
    }

    /// For `doctor`: what stands between a component with one bank and nothing.
    pub(crate) fn judge(&self, name: &ComponentName) -> Result<String, AgentError> {
        let single = self.accepted_bank(name)?;
        let booted = self.disk.booted()?;
        let record = self.state.boot_record()?;
        let bank = single.bank.open(self.disk.host(), Access::Read)?;
        let copy = self.disk.open_copy(booted, name, Access::Read)?;
        if copy.len() < bank.len() {
            let text = format!(
                "the copy of {name} in slot {booted} has {} bytes, its bank {}",
                copy.len(),
                bank.len()
            );
            return Err(AgentError::new(Reason::SlotSize, text)
                .hint("make both copies as long as the bank"));
        }
        let recovered = format!("recovered by: {}", single.recovered_by);
        let Some(content) = self.content(&record, booted, name)? else {
            return Ok(format!(
                "{name}: the first update takes the recovery image from its bank; {recovered}"
            ));
        };
        match (content.is_in(copy.as_ref()), content.is_in(bank.as_ref())) {
            (true, true) => Ok(format!("{name}: its recovery image is whole; {recovered}")),
            (true, false) => Ok(format!(
                "{name}: its bank holds something else than slot {booted}, whose copy is whole; \
                 {recovered}"
            )),
            (false, true) => Ok(format!(
                "{name}: its recovery image is damaged, the next update renews it from the bank; \
                 {recovered}"
            )),
            (false, false) => Err(AgentError::new(
                Reason::SingleBank,
                format!("neither the bank nor the recovery image of {name} is whole"),
            )
            .hint(recovered)),
        }
    }
}

fn digest(device: &dyn BlockDevice, len: u64) -> Result<Digest, AgentError> {
    let mut hasher = Digest::sha256_of(b"").algorithm().hasher();
    pieces(len, |at, piece| {
        device.read_at(piece, at)?;
        hasher.update(piece);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// Copies the first bytes of a device to another one, flushed, its header last.
fn transfer(from: &dyn BlockDevice, to: &dyn BlockDevice, len: u64) -> Result<(), AgentError> {
    pieces(len, |at, piece| {
        from.read_at(piece, at)?;
        Ok(to.write_at(piece, at)?)
    })?;
    to.sync()?;
    Ok(to.complete()?)
}

fn pieces(
    len: u64,
    mut each: impl FnMut(u64, &mut [u8]) -> Result<(), AgentError>,
) -> Result<(), AgentError> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < len {
        let piece = usize::try_from(len - at).unwrap_or(PIECE).min(PIECE);
        each(at, buffer.get_mut(..piece).unwrap_or_default())?;
        at += piece as u64;
    }
    Ok(())
}
