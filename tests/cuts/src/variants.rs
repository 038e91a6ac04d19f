//! Faulty programs that the sweep must catch: the product, with one of its steps left out.
//!
//! A step is left out below the product, at the seam every durable byte goes through, so that what
//! is swept is otherwise the code that ships; nothing of this is in it.

use storage::sim::machine::{Call, CallKind, Script, Verdict};

use crate::case::Case;
use crate::node::{Backend, DISK, Node};
use crate::scenario::Row;
use crate::sweep::{self, Size};

/// Behind this offset of the disk lie slots: the first partition begins at a whole MiB.
const FIRST_SLOT: u64 = 1 << 20;

/// One faulty program.
pub struct Variant {
    /// What it does wrong.
    pub name: &'static str,
    /// The scenario in which it is caught.
    pub scenario: &'static str,
    /// The backend.
    pub backend: Backend,
    /// Its fault.
    fault: Fault,
}

enum Fault {
    /// Calls that are left out.
    Omits(fn(&mut Memory, &Call<'_>) -> bool),
    /// The same, and nothing is ever read back from the medium.
    OmitsUnread(fn(&mut Memory, &Call<'_>) -> bool),
    /// The floor rises when a release is made next.
    EarlyFloor,
    /// One environment copy is configured, and accepted.
    SingleCopy,
}

/// What a script remembers of the calls before.
#[derive(Default)]
struct Memory {
    last_write: u64,
    slot_written: bool,
    boot_record: bool,
}

/// All of them.
pub const ALL: &[Variant] = &[
    Variant {
        name: "no flush of the disk at all",
        scenario: "apply",
        backend: Backend::Gpt,
        fault: Fault::Omits(|_, call| call.kind == CallKind::Sync && call.place == DISK),
    },
    Variant {
        name: "slot made next before it is flushed",
        scenario: "apply",
        backend: Backend::Uboot,
        fault: Fault::Omits(|memory, call| {
            call.kind == CallKind::Sync && call.place == DISK && memory.last_write >= FIRST_SLOT
        }),
    },
    Variant {
        name: "both tables without a flush between",
        scenario: "confirm",
        backend: Backend::Gpt,
        // The backup table is written first, behind the last slot.
        fault: Fault::Omits(|memory, call| {
            call.kind == CallKind::Sync && call.place == DISK && is_backup(memory.last_write)
        }),
    },
    Variant {
        name: "slot not cleared before it is written",
        scenario: "apply",
        backend: Backend::Gpt,
        fault: Fault::OmitsUnread(|memory, call| {
            call.kind == CallKind::Write
                && call.place == DISK
                && !memory.slot_written
                && (call.offset < FIRST_SLOT || is_backup(call.offset))
        }),
    },
    Variant {
        name: "read-back skipped, on a medium that loses a write",
        scenario: "apply",
        backend: Backend::SystemdBoot,
        fault: Fault::OmitsUnread(|memory, call| {
            let first = !memory.slot_written;
            first && call.kind == CallKind::Write && call.place == DISK && call.offset >= FIRST_SLOT
        }),
    },
    Variant {
        name: "state file renamed before its content is flushed",
        scenario: "root rotation",
        backend: Backend::Gpt,
        fault: Fault::Omits(|_, call| call.kind == CallKind::Sync && call.place.contains("/.tmp-")),
    },
    Variant {
        name: "rename without a flush of the directory",
        scenario: "first apply",
        backend: Backend::Gpt,
        fault: Fault::Omits(|_, call| call.kind == CallKind::Sync && call.place == "/state"),
    },
    Variant {
        name: "boot record durable only after the flags",
        scenario: "apply",
        backend: Backend::Uboot,
        fault: Fault::Omits(|memory, call| {
            call.kind == CallKind::Sync && call.place == "/state" && memory.boot_record
        }),
    },
    Variant {
        name: "floor raised before the confirm",
        scenario: "apply",
        backend: Backend::Gpt,
        fault: Fault::EarlyFloor,
    },
    Variant {
        name: "one environment copy",
        scenario: "apply",
        backend: Backend::Uboot,
        fault: Fault::SingleCopy,
    },
    Variant {
        name: "both environment copies without a flush between",
        scenario: "confirm",
        backend: Backend::Uboot,
        fault: Fault::Omits(|_, call| {
            call.kind == CallKind::Sync && call.place.starts_with("/env")
        }),
    },
    Variant {
        name: "old environment marked obsolete before the new one is durable",
        scenario: "confirm",
        backend: Backend::UbootActive,
        fault: Fault::Omits(|memory, call| {
            call.kind == CallKind::Sync && call.place.starts_with("/env") && memory.last_write == 0
        }),
    },
    Variant {
        name: "entry gets its name before its content is flushed",
        scenario: "apply",
        backend: Backend::SystemdBoot,
        fault: Fault::Omits(|_, call| {
            call.kind == CallKind::Sync && call.place.starts_with("/esp/loader/entries/.tmp-")
        }),
    },
    Variant {
        name: "old entry removed before the new one is durable",
        scenario: "confirm",
        backend: Backend::SystemdBoot,
        fault: Fault::Omits(|_, call| {
            call.kind == CallKind::Sync && call.place == "/esp/loader/entries"
        }),
    },
    Variant {
        name: "autoboot.txt not flushed before the slot is written",
        scenario: "apply",
        backend: Backend::Rpi,
        // Its partition is the third one, behind the slots.
        fault: Fault::Omits(|memory, call| {
            let autoboot = 3 << 20..4 << 20;
            call.kind == CallKind::Sync
                && call.place == DISK
                && autoboot.contains(&memory.last_write)
        }),
    },
    Variant {
        name: "failed flush ignored, slot not read back",
        scenario: "apply",
        backend: Backend::Grub,
        fault: Fault::OmitsUnread(|memory, call| {
            let second = memory.slot_written && memory.last_write >= FIRST_SLOT;
            second
                && call.kind == CallKind::Write
                && call.place == DISK
                && call.offset >= FIRST_SLOT
        }),
    },
];

/// The disks here have slots up to the last MiB but one.
fn is_backup(offset: u64) -> bool {
    offset >= 3 << 20 && offset % (1 << 20) >= (1 << 20) - (64 << 9)
}

struct Omission {
    memory: Memory,
    omits: fn(&mut Memory, &Call<'_>) -> bool,
    forgets: bool,
}

impl Script for Omission {
    fn verdict(&mut self, call: &Call<'_>) -> Verdict {
        let omitted = (self.omits)(&mut self.memory, call);
        match call.kind {
            CallKind::Write if call.place == DISK || call.place.starts_with("/env") => {
                self.memory.last_write = call.offset;
                let in_slot =
                    call.place == DISK && call.offset >= FIRST_SLOT && !is_backup(call.offset);
                self.memory.slot_written |= in_slot;
            }
            CallKind::Rename => self.memory.boot_record = call.name.starts_with("boot-record"),
            _ => {}
        }
        if omitted { Verdict::Skip } else { Verdict::Do }
    }

    fn forgets(&self) -> bool {
        self.forgets
    }
}

impl Variant {
    /// Makes a node the faulty one.
    pub fn spoil(&self, node: &Node<'_>) {
        let (omits, forgets) = match self.fault {
            Fault::Omits(omits) => (omits, true),
            Fault::OmitsUnread(omits) => (omits, false),
            Fault::EarlyFloor | Fault::SingleCopy => return,
        };
        node.machine.follow(Omission { memory: Memory::default(), omits, forgets });
    }

    /// Whether it does something more after an apply.
    pub fn raises_early(&self) -> bool {
        matches!(self.fault, Fault::EarlyFloor)
    }

    /// Whether its node has one copy of the environment.
    pub fn single_copy(&self) -> bool {
        matches!(self.fault, Fault::SingleCopy)
    }

    /// Sweeps the faulty program; what caught it, if anything did.
    pub fn catch(&'static self, size: Size, threads: usize) -> Result<Option<Caught>, String> {
        let scenario = crate::scenario::ALL.iter().find(|known| known.name == self.scenario);
        let scenario = scenario.ok_or_else(|| format!("no scenario {:?}", self.scenario))?;
        let row = match Row::of(scenario, self.backend, Some(self)) {
            Ok(row) => row,
            // Caught without any cut.
            Err(why) => return Ok(Some(Caught { state: "the uncut run".to_owned(), why, of: 0 })),
        };
        Ok(caught(&row, size, threads))
    }
}

/// Sweeps a faulty program; what caught it, if anything did.
pub fn caught(row: &dyn Case, size: Size, threads: usize) -> Option<Caught> {
    let found = sweep::sweep(row, size, threads);
    let failure = found.failures.first()?;
    let crash = failure.path.last();
    let state = crash.map_or_else(String::new, |crash| {
        let last = crash.cut.checked_sub(1);
        let recording = failure.recordings.last();
        let words = last.zip(recording).map(|(last, recording)| recording.words(last));
        format!("cut at {} ({})", crash.cut, words.unwrap_or_else(|| "before all".to_owned()))
    });
    Some(Caught { state, why: failure.why.clone(), of: found.failed })
}

/// What caught a faulty program.
pub struct Caught {
    /// The state.
    pub state: String,
    /// The promise it broke.
    pub why: String,
    /// How many states did.
    pub of: usize,
}
