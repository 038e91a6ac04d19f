//! A part of a device as a device of its own.

use super::{BlockDevice, DeviceError, check_range};

/// `len` bytes of a device from `start` on. Nothing outside of them can be reached through it.
#[derive(Debug)]
pub struct Window<D> {
    device: D,
    start: u64,
    len: u64,
    name: String,
}

impl<D: BlockDevice> Window<D> {
    /// The part of `device` that messages call `name`; refused when it reaches past the end.
    pub fn new(device: D, start: u64, len: u64, name: &str) -> Result<Self, DeviceError> {
        check_range(&device, start, len)?;
        Ok(Window { device, start, len, name: name.to_owned() })
    }

    /// Where the range begins on the device below. Cannot overflow: the window ends inside it.
    fn below(&self, offset: u64, len: u64) -> Result<u64, DeviceError> {
        check_range(self, offset, len)?;
        Ok(self.start + offset)
    }
}

impl<D: BlockDevice> BlockDevice for Window<D> {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.device.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
        self.device.read_at(buf, self.below(offset, buf.len() as u64)?)
    }

    fn read_medium<'b>(
        &self,
        buffer: &'b mut Vec<u8>,
        offset: u64,
        len: usize,
    ) -> Result<&'b [u8], DeviceError> {
        self.device.read_medium(buffer, self.below(offset, len as u64)?, len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        self.device.write_at(bytes, self.below(offset, bytes.len() as u64)?)
    }

    fn write_medium(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        self.device.write_medium(bytes, self.below(offset, bytes.len() as u64)?)
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        self.device.zero_range(self.below(offset, len)?, len)
    }

    fn sync(&self) -> Result<(), DeviceError> {
        self.device.sync()
    }

    fn reads_beside_writes(&self) -> bool {
        self.device.reads_beside_writes()
    }

    fn complete(&self) -> Result<(), DeviceError> {
        self.device.complete()
    }

    fn forget_cached(&self, offset: u64, len: u64) {
        if let Ok(start) = self.below(offset, len) {
            self.device.forget_cached(start, len);
        }
    }

    fn describe(&self) -> String {
        format!("{} ({})", self.name, self.device.describe())
    }
}
