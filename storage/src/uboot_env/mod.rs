//! U-Boot's environment on a medium: read as U-Boot does, written so that a power cut loses nothing.
//!
//! ```text
//!  load    both copies read ──► the one U-Boot takes                     (formats::uboot_env)
//!  edit    canary: the same variables into the other copy ─► sync ─► read back, both copies
//!          change: the new variables into the remaining one ─► sync ─► read back, both copies
//!          └─────────── at every moment one copy is whole and the one U-Boot takes ────────┘
//! ```
//!
//! The canary finds, while nothing can be lost, what others found after a power cut: two copies that
//! are the same bytes of the medium, writes that do not arrive, and a U-Boot that was built for one
//! copy and would never read the second.
//!
//! After a cut anywhere in [`UbootEnv::edit`] the next [`UbootEnv::load`], and the next U-Boot, find
//! the old variables or the new ones, whole.

use formats::reason::Reason;
use formats::uboot_env::{Env, EnvCopy, FlagRule, Layout, OBSOLETE, UbootEnvError};

use crate::block::{BlockDevice, DeviceError};

/// Why an environment could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum UbootStoreError {
    /// No copy can be used; U-Boot would run on its built-in defaults.
    #[error("no copy of U-Boot's environment on {device} is whole: {}", listed(.causes))]
    NoCopy {
        /// Where.
        device: String,
        /// What is wrong with each copy.
        causes: Vec<UbootEnvError>,
    },
    /// The configuration names two copies, and U-Boot keeps one.
    #[error(
        "U-Boot on {0} keeps a single copy of its environment although two are configured; build \
         it with CONFIG_SYS_REDUNDAND_ENVIRONMENT, or a power cut loses all boot flags"
    )]
    NotRedundant(String),
    /// The configuration names one copy, and that was not accepted.
    #[error(
        "U-Boot's environment on {0} has a single copy: a power cut while it is written loses all \
         boot flags; configure a redundant one, or set boot.accept_single_env"
    )]
    SingleCopy(String),
    /// Writing one copy changed the other one, too.
    #[error(
        "the two copies of U-Boot's environment on {0} are one; compare fw_env.config and U-Boot"
    )]
    SameBytes(String),
    /// What was read back is not what was written.
    #[error("U-Boot's environment on {0} reads back differently; check the medium")]
    Readback(String),
    /// The new variables cannot be stored.
    #[error(transparent)]
    Env(#[from] UbootEnvError),
    /// The medium failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

fn listed(causes: &[UbootEnvError]) -> String {
    causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl UbootStoreError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            UbootStoreError::NoCopy { .. }
            | UbootStoreError::NotRedundant(_)
            | UbootStoreError::SingleCopy(_)
            | UbootStoreError::SameBytes(_)
            | UbootStoreError::Env(_) => Reason::BootRecord,
            UbootStoreError::Readback(_) => Reason::Readback,
            UbootStoreError::Device(error) => error.reason(),
        }
    }
}

/// Where one copy lies.
#[derive(Debug)]
pub struct Place<D> {
    /// The device or file.
    pub device: D,
    /// First byte.
    pub offset: u64,
}

/// How many copies there are.
#[derive(Debug)]
pub enum Places<D> {
    /// One; writing it is not safe against power cuts.
    Single(Place<D>),
    /// Two, in U-Boot's order: of equal ones it takes the first.
    Redundant([Place<D>; 2]),
}

/// An environment.
#[derive(Debug)]
pub struct UbootEnv<D> {
    places: Places<D>,
    size: u64,
    rule: FlagRule,
}

/// What lies on the medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The variables that U-Boot takes.
    pub env: Env,
    /// Which copy they are in, from 0.
    pub copy: usize,
    /// The copy that is not whole, if one is not; the next edit makes it good.
    pub damaged: Option<usize>,
}

impl<D: BlockDevice> UbootEnv<D> {
    /// An environment of copies of `size` bytes each. Reads nothing yet.
    pub fn new(places: Places<D>, size: u64, rule: FlagRule) -> Self {
        UbootEnv { places, size, rule }
    }

    /// Whether there is one copy only.
    pub fn is_single(&self) -> bool {
        matches!(self.places, Places::Single(_))
    }

    /// What U-Boot would read. Writes nothing.
    pub fn load(&self) -> Result<Loaded, UbootStoreError> {
        let device = self.describe();
        let (first, second) = match &self.places {
            Places::Single(place) => {
                return match EnvCopy::parse(&self.read(place)?, Layout::Single) {
                    Ok(copy) => Ok(Loaded { env: copy.env, copy: 0, damaged: None }),
                    Err(cause) => Err(UbootStoreError::NoCopy { device, causes: vec![cause] }),
                };
            }
            Places::Redundant([first, second]) => (self.read(first)?, self.read(second)?),
        };
        // Bytes without a flag whose checksum holds: what is configured is not what U-Boot does.
        let single = |bytes: &[u8]| EnvCopy::parse(bytes, Layout::Single).is_ok();
        if single(&first) || single(&second) {
            return Err(UbootStoreError::NotRedundant(device));
        }
        let parse = |bytes: &[u8]| EnvCopy::parse(bytes, Layout::Redundant);
        match (parse(&first), parse(&second)) {
            (Ok(first), Ok(second)) => Ok(match self.rule.newer([first.flag, second.flag]) {
                0 => Loaded { env: first.env, copy: 0, damaged: None },
                _ => Loaded { env: second.env, copy: 1, damaged: None },
            }),
            (Ok(first), Err(_)) => Ok(Loaded { env: first.env, copy: 0, damaged: Some(1) }),
            (Err(_), Ok(second)) => Ok(Loaded { env: second.env, copy: 1, damaged: Some(0) }),
            (Err(first), Err(second)) => {
                Err(UbootStoreError::NoCopy { device, causes: vec![first, second] })
            }
        }
    }

    /// Changes variables durably and gives what was read back. Nothing is written when `change`
    /// changes nothing and both copies are good.
    ///
    /// A crash or an error leaves the old variables or the new ones. A single copy is refused.
    pub fn edit(
        &self,
        change: impl FnOnce(&mut Env) -> Result<(), UbootEnvError>,
    ) -> Result<Env, UbootStoreError> {
        let Places::Redundant(places) = &self.places else {
            return Err(UbootStoreError::SingleCopy(self.describe()));
        };
        let before = self.load()?;
        let mut wanted = before.env.clone();
        change(&mut wanted)?;
        if wanted == before.env && before.damaged.is_none() {
            return Ok(wanted);
        }
        // Found before the canary: an edit that cannot be stored changes nothing at all.
        EnvCopy { env: wanted.clone(), flag: 0 }.encode(self.size, Layout::Redundant)?;
        self.supersede(places, before.copy, &before.env)?;
        if wanted != before.env {
            self.supersede(places, 1 - before.copy, &wanted)?;
        }
        let after = self.load()?;
        if after.env != wanted {
            return Err(UbootStoreError::Readback(self.describe()));
        }
        Ok(after.env)
    }

    /// [`UbootEnv::edit`] of the only copy, in place: a cut in the middle loses all variables.
    pub fn edit_single(
        &self,
        change: impl FnOnce(&mut Env) -> Result<(), UbootEnvError>,
    ) -> Result<Env, UbootStoreError> {
        let Places::Single(place) = &self.places else {
            return self.edit(change);
        };
        let before = self.load()?;
        let mut wanted = before.env.clone();
        change(&mut wanted)?;
        if wanted != before.env {
            let bytes =
                EnvCopy { env: wanted.clone(), flag: 0 }.encode(self.size, Layout::Single)?;
            self.put(place, &bytes)?;
        }
        Ok(wanted)
    }

    /// Writes the copy that is not `current`, newer than it, and finds both as they should be.
    fn supersede(
        &self,
        places: &[Place<D>; 2],
        current: usize,
        env: &Env,
    ) -> Result<(), UbootStoreError> {
        let (old, new) = match (current, places) {
            (0, [first, second]) => (first, second),
            (_, [first, second]) => (second, first),
        };
        let old_bytes = self.read(old)?;
        let flag = EnvCopy::parse(&old_bytes, Layout::Redundant)?.flag;
        let copy = EnvCopy { env: env.clone(), flag: self.rule.next(flag) };
        self.put(new, &copy.encode(self.size, Layout::Redundant)?)?;
        if self.reread(old)? != old_bytes {
            return Err(UbootStoreError::SameBytes(self.describe()));
        }
        if self.rule == FlagRule::ActiveObsolete {
            // Until here both are active, and U-Boot takes the first: the old variables or the
            // new ones.
            old.device.write_at(&[OBSOLETE], old.offset + FLAG_OFFSET)?;
            old.device.sync()?;
            let copy = EnvCopy::parse(&self.reread(old)?, Layout::Redundant);
            if copy.map(|copy| copy.flag) != Ok(OBSOLETE) {
                return Err(UbootStoreError::Readback(self.describe()));
            }
        }
        Ok(())
    }

    /// Writes one copy durably and reads it back.
    fn put(&self, place: &Place<D>, bytes: &[u8]) -> Result<(), UbootStoreError> {
        place.device.write_at(bytes, place.offset)?;
        place.device.sync()?;
        if self.reread(place)? == bytes {
            Ok(())
        } else {
            Err(UbootStoreError::Readback(self.describe()))
        }
    }

    fn reread(&self, place: &Place<D>) -> Result<Vec<u8>, DeviceError> {
        place.device.forget_cached(place.offset, self.size);
        self.read(place)
    }

    fn read(&self, place: &Place<D>) -> Result<Vec<u8>, DeviceError> {
        // Bounded where it was parsed; a size beyond memory is past the device's end anyway.
        let mut bytes = vec![0; usize::try_from(self.size).unwrap_or(0)];
        place.device.read_at(&mut bytes, place.offset)?;
        Ok(bytes)
    }

    fn describe(&self) -> String {
        match &self.places {
            Places::Single(place) => place.device.describe(),
            Places::Redundant([first, second]) => {
                let (first, second) = (first.device.describe(), second.device.describe());
                if first == second { first } else { format!("{first} and {second}") }
            }
        }
    }
}

/// Where a copy's flag is, after its checksum.
const FLAG_OFFSET: u64 = 4;

#[cfg(test)]
mod tests;
