//! A dm-verity device, set up without other programs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use formats::reason::Reason;
use formats::verity::Verity;

use super::sys::{DM_HEADER, DmCommand, device_mapper};
use crate::error::{AgentError, Because as _};

/// Device mapper's door.
const CONTROL: &str = "/dev/mapper/control";
/// `DM_READONLY_FLAG`
const READ_ONLY: u32 = 1;
/// Room for the kernel's answer to a status request.
const ANSWER: usize = 1 << 12;
/// devtmpfs makes the node before or soon after the device is resumed.
const NODE_WAIT: Duration = Duration::from_secs(5);

/// An active dm-verity device; removed when dropped, if nobody uses it any more.
#[derive(Debug)]
pub(super) struct VerityDevice {
    control: File,
    name: String,
    node: PathBuf,
}

impl VerityDevice {
    /// Maps the data of `device` (`major:minor`) under `name`, read-only, each block checked when
    /// it is read.
    pub(super) fn open(name: &str, device: &str, verity: &Verity) -> Result<Self, AgentError> {
        let failed = |what: &str| format!("set up dm-verity: {what}");
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open(CONTROL)
            .because(Reason::SlotIo, failed("open /dev/mapper/control; is dm-mod loaded?"))?;
        let mut created = request(name, 0, &[]);
        device_mapper(&control, DmCommand::Create, &mut created)
            .because(Reason::SlotIo, failed("create"))?;
        let minor = minor_of(&created);
        let made = VerityDevice {
            control,
            name: name.to_owned(),
            node: PathBuf::from(format!("/dev/dm-{minor}")),
        };
        let sectors = verity.data_len() / 512;
        let mut table = target(sectors, "verity", &verity.target_parameters(device));
        let mut load = request(name, READ_ONLY, &table);
        put(&mut load, 20, &1u32.to_ne_bytes());
        table.clear();
        device_mapper(&made.control, DmCommand::Load, &mut load)
            .because(Reason::SlotIo, failed("load the table; is dm-verity loaded?"))?;
        device_mapper(&made.control, DmCommand::Resume, &mut request(name, 0, &[]))
            .because(Reason::SlotIo, failed("resume"))?;
        let until = Instant::now() + NODE_WAIT;
        while !made.node.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(made)
    }

    /// Its node.
    pub(super) fn node(&self) -> &Path {
        &self.node
    }

    /// Reads one block: what is mapped is what was signed, or something else altogether.
    pub(super) fn check_first_block(&self) -> Result<(), AgentError> {
        let mut block = [0; formats::verity::BLOCK];
        File::open(&self.node)
            .and_then(|mut file| file.read_exact(&mut block))
            .map_err(|error| judge(self, "read the first block", error))
    }

    /// Leaves it in place for good, under its name in `/dev/mapper`, where other programs look.
    pub(super) fn keep(self) -> io::Result<PathBuf> {
        let named = Path::new("/dev/mapper").join(&self.name);
        let device = std::mem::ManuallyDrop::new(self);
        let target = Path::new("..").join(device.node.file_name().unwrap_or_default());
        match std::os::unix::fs::symlink(target, &named) {
            // udev was there first.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(named),
            Err(error) => Err(error),
            Ok(()) => Ok(named),
        }
    }

    /// Whether a block was read that is not what was signed.
    pub(super) fn is_corrupted(&self) -> bool {
        let mut status = request(&self.name, 0, &[0; ANSWER]);
        let asked = device_mapper(&self.control, DmCommand::Status, &mut status);
        // One target: its specification of 40 bytes, then `V` (valid) or `C`.
        asked.is_ok() && status.get(DM_HEADER + 40) == Some(&b'C')
    }
}

impl Drop for VerityDevice {
    fn drop(&mut self) {
        // The kernel refuses while its file system is mounted: then the device has to stay.
        let mut request = request(&self.name, 0, &[]);
        let _ = device_mapper(&self.control, DmCommand::Remove, &mut request);
    }
}

/// A `dm_ioctl` (version 4.0.0) for the device of that name, with `data` behind it.
fn request(name: &str, flags: u32, data: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; DM_HEADER];
    put(&mut buffer, 0, &4u32.to_ne_bytes());
    put(&mut buffer, 12, &((DM_HEADER + data.len()) as u32).to_ne_bytes());
    put(&mut buffer, 16, &(DM_HEADER as u32).to_ne_bytes());
    put(&mut buffer, 28, &flags.to_ne_bytes());
    put(&mut buffer, 48, name.as_bytes());
    buffer.extend(data);
    buffer
}

/// A `dm_target_spec` with its parameters.
fn target(sectors: u64, kind: &str, parameters: &str) -> Vec<u8> {
    let mut spec = vec![0; 40];
    put(&mut spec, 8, &sectors.to_ne_bytes());
    put(&mut spec, 24, kind.as_bytes());
    spec.extend(parameters.as_bytes());
    spec.push(0);
    spec.resize(spec.len().next_multiple_of(8), 0);
    spec
}

fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    let end = at.saturating_add(bytes.len());
    buffer.get_mut(at..end).expect("the fields lie in the header").copy_from_slice(bytes);
}

/// The minor number in an answer's `dev`, which the kernel spreads around the major.
fn minor_of(answer: &[u8]) -> u64 {
    let dev = answer.get(40..48).and_then(|dev| <[u8; 8]>::try_from(dev).ok());
    let dev = dev.map_or(0, u64::from_ne_bytes);
    dev & 0xff | (dev >> 12) & 0xf_ff00
}

/// An I/O error below dm-verity tells nothing; [`VerityDevice::is_corrupted`] does.
pub(super) fn judge(device: &VerityDevice, what: &str, error: io::Error) -> AgentError {
    if device.is_corrupted() {
        let text = format!("{what}: a block is not what was signed (dm-verity)");
        return AgentError::new(Reason::HashMismatch, text);
    }
    AgentError::from_cause(Reason::SlotIo, what, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernels_layout() {
        let request = request("racklet-a", READ_ONLY, &[7; 8]);
        assert_eq!(request.len(), DM_HEADER + 8);
        assert_eq!(request[..20], [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 56, 1, 0, 0]);
        assert_eq!(request[28], 1);
        assert_eq!(&request[48..58], b"racklet-a\0");
        let target = target(8, "verity", "1 8:1");
        assert_eq!(target.len(), 48);
        assert_eq!(&target[24..31], b"verity\0");
        assert_eq!(minor_of(&[&[0; 40][..], &[0x12, 0xfd, 0x10, 0, 0, 0, 0, 0]].concat()), 0x112);
    }
}
