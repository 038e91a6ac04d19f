//! GRUB's environment block on its file or device.
//!
//! GRUB finds the block by the sectors its file had, and overwrites them; so do we. One copy, no
//! checksum: **a power cut inside [`edit`] may leave a block that GRUB refuses**, and with it no
//! flags. The block is two sectors of 512 bytes; the medium that writes 4096 bytes as one is safer.

use formats::grub_env::{GrubEnv, GrubEnvError, SIZE_RANGE};
use formats::reason::Reason;

use crate::block::{BlockDevice, DeviceError};

/// Why a block could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum GrubStoreError {
    /// It is no environment block.
    #[error("{device}: {source}")]
    Env {
        /// Where.
        device: String,
        /// Why not.
        source: GrubEnvError,
    },
    /// What was read back is not what was written.
    #[error("{0} reads back differently; check the medium")]
    Readback(String),
    /// The medium failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl GrubStoreError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            GrubStoreError::Env { .. } => Reason::BootRecord,
            GrubStoreError::Readback(_) => Reason::Readback,
            GrubStoreError::Device(error) => error.reason(),
        }
    }
}

/// The block, which takes all of the device.
pub fn load(device: &dyn BlockDevice) -> Result<GrubEnv, GrubStoreError> {
    let wrong = |source| GrubStoreError::Env { device: device.describe(), source };
    if !SIZE_RANGE.contains(&device.len()) {
        return Err(wrong(GrubEnvError::Size(device.len())));
    }
    GrubEnv::parse(&read(device)?).map_err(wrong)
}

/// Changes variables in place and gives what was read back. Nothing is written when `change` changes
/// nothing.
///
/// A crash in the middle leaves the old block, the new one, or one that GRUB refuses.
pub fn edit(
    device: &dyn BlockDevice,
    change: impl FnOnce(&mut GrubEnv) -> Result<(), GrubEnvError>,
) -> Result<GrubEnv, GrubStoreError> {
    let wrong = |source| GrubStoreError::Env { device: device.describe(), source };
    let before = load(device)?;
    let mut wanted = before.clone();
    change(&mut wanted).map_err(wrong)?;
    if wanted == before {
        return Ok(before);
    }
    let bytes = wanted.encode().map_err(wrong)?;
    device.write_at(&bytes, 0)?;
    device.sync()?;
    device.forget_cached(0, device.len());
    if read(device)? == bytes {
        Ok(wanted)
    } else {
        Err(GrubStoreError::Readback(device.describe()))
    }
}

fn read(device: &dyn BlockDevice) -> Result<Vec<u8>, DeviceError> {
    // At most `SIZE_RANGE`: both callers have looked.
    let mut bytes = vec![0; usize::try_from(device.len()).unwrap_or(0)];
    device.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Disk, Fault, Loss};

    fn disk() -> Disk {
        let mut env = GrubEnv::new(1024).unwrap();
        // The variable that changes lies across the two sectors of the block.
        env.set("padding", &"x".repeat(464)).unwrap();
        env.set("BOOT_ORDER", "A").unwrap();
        Disk::with_content(env.encode().unwrap(), 512)
    }

    fn change(env: &mut GrubEnv) -> Result<(), GrubEnvError> {
        env.set("BOOT_ORDER", "B A")
    }

    #[test]
    fn in_place_and_read_back() {
        let disk = disk();
        let env = edit(&disk, change).unwrap();
        assert_eq!((env.get("BOOT_ORDER"), load(&disk).unwrap()), (Some("B A"), env.clone()));
        edit(&disk, change).unwrap();
        assert_eq!(disk.operations().len(), 2, "one write, one flush, and nothing the second time");
        for fault in [Fault::LoseAt(0), Fault::FlipAt(0)] {
            let error = edit(&self::disk().with_fault(fault), change).unwrap_err();
            assert_eq!(error.reason(), Reason::Readback);
        }
    }

    /// What `doctor` says of this backend is true.
    #[test]
    fn a_power_cut_can_leave_neither_the_old_nor_the_new_block() {
        let disk = disk().with_fault(Fault::CutAfter(1));
        edit(&disk, change).unwrap_err();
        let orders: Vec<Option<String>> = (0..50)
            .map(|seed| {
                let found = load(&disk.after_power_loss(Loss::Random(seed))).ok();
                found.and_then(|env| env.get("BOOT_ORDER").map(str::to_owned))
            })
            .collect();
        for known in ["A", "B A"] {
            assert!(orders.contains(&Some(known.to_owned())), "{known} was never found");
        }
        let torn = |order: &Option<String>| !matches!(order.as_deref(), Some("A" | "B A"));
        assert!(orders.iter().any(torn), "no torn block was found");
    }
}
