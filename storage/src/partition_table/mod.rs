//! Reading and writing GUID partition tables so that a power cut never leaves a disk without one.
//!
//! ```text
//!  load    both copies read ──► the primary if valid, else the backup   (formats::gpt::choose)
//!  write   bad copy first made good ─► backup array, header ─► sync ─► read back
//!                                   ─► primary array, header ─► sync ─► read back
//!          └───────────── at every moment one copy is valid on the medium ─────────────┘
//! ```
//! Reading the backup back before the primary is touched keeps a medium that flips bits from
//! damaging both.
//!
//! After a cut anywhere in [`write()`] the next [`load`] finds the old table or the new one, whole;
//! which one is what a boot loader that prefers the primary copy finds as well.
//!
//! A primary that is whole but says nothing of use does not cost the disk a backup that does: callers
//! who know what a table has to say ask with [`load_by`], [`repair_by`] and [`write_by`], which take
//! such a backup and never write over it before the primary says the same.

use formats::gpt::header::Header;
use formats::gpt::{
    Choice, CopyRead, Geometry, GptError, Image, NoTable, Table, TableCopy, choose_by,
};
use formats::reason::Reason;

use crate::block::{BlockDevice, DeviceError};

/// Why a partition table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Neither copy can be used; nothing was written.
    #[error("{device}")]
    NoTable {
        /// Which disk.
        device: String,
        /// What is wrong with each copy.
        #[source]
        source: NoTable,
    },
    /// The disk cannot carry a table, or the table to be written is of another disk.
    #[error("{device}")]
    Unfit {
        /// Which disk.
        device: String,
        /// Why.
        #[source]
        source: GptError,
    },
    /// The table on the disk is not the one that the new one was made from.
    #[error("{0} was partitioned again meanwhile; nothing was written")]
    Changed(String),
    /// What was read back is not what was written.
    #[error("{device}: the {copy:?} partition table reads back differently")]
    Readback {
        /// Which disk.
        device: String,
        /// Which copy.
        copy: TableCopy,
    },
    /// The disk failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl TableError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            TableError::NoTable { .. } | TableError::Unfit { .. } | TableError::Changed(_) => {
                Reason::GptInvalid
            }
            TableError::Readback { .. } => Reason::Readback,
            TableError::Device(error) => error.reason(),
        }
    }
}

/// Whether a table says what its reader needs of it: that some slot can be booted, for one.
pub type Says<'a> = &'a dyn Fn(&Table) -> bool;

/// Any table will do.
const ANYTHING: Says<'static> = &|_| true;

/// Reads the table, without writing anything. [`Choice::repair`] names a copy that is invalid or
/// differs; [`repair`] and [`write()`] make it good.
pub fn load(device: &dyn BlockDevice) -> Result<Choice, TableError> {
    load_by(device, ANYTHING)
}

/// [`load`]; a valid backup of the same partitions counts where it alone says what is needed.
pub fn load_by(device: &dyn BlockDevice, says: Says<'_>) -> Result<Choice, TableError> {
    let geometry = geometry(device)?;
    let primary = read_copy(device, geometry, TableCopy::Primary, 1)?;
    // A disk that an image was copied to may be longer than the image: the primary header knows
    // where its backup lies.
    let backup_lba = primary.header().map_or(geometry.last_lba(), Header::backup_lba);
    let backup = read_copy(device, geometry, TableCopy::Backup, backup_lba)?;
    let prefers_backup = |primary: &Table, backup: &Table| {
        same_partitions(primary, backup) && !says(primary) && says(backup)
    };
    choose_by(primary, backup, &prefers_backup)
        .map_err(|source| TableError::NoTable { device: device.describe(), source })
}

/// Makes both copies say the same, and gives the table and what had to be rewritten.
///
/// The whole losing copy is rewritten from the winner; a crash leaves the winner as it is.
pub fn repair(device: &dyn BlockDevice) -> Result<Choice, TableError> {
    repair_by(device, ANYTHING)
}

/// [`repair`] after [`load_by`].
pub fn repair_by(device: &dyn BlockDevice, says: Says<'_>) -> Result<Choice, TableError> {
    let choice = load_by(device, says)?;
    if let Some(copy) = choice.repair {
        put(device, &choice.table, copy)?;
    }
    Ok(choice)
}

/// Replaces the table by one with the same partitions: both copies, durably, then read back.
///
/// Nothing is written when the disk says the same already. After a crash or an error the disk has
/// the old table or the new one; calling it again completes it.
pub fn write(device: &dyn BlockDevice, table: &Table) -> Result<(), TableError> {
    write_by(device, table, ANYTHING)
}

/// [`write()`]; the old table is that of [`load_by`].
pub fn write_by(device: &dyn BlockDevice, table: &Table, says: Says<'_>) -> Result<(), TableError> {
    let old = load_by(device, says)?;
    if !same_partitions(&old.table, table) {
        return Err(TableError::Changed(device.describe()));
    }
    if old.repair == Some(TableCopy::Primary) {
        // The backup is the only good copy: it must not be touched before the primary is good.
        put(device, &old.table, TableCopy::Primary)?;
    }
    if old.repair.is_none() && old.table.same_content(table) {
        return Ok(());
    }
    put(device, table, TableCopy::Backup)?;
    put(device, table, TableCopy::Primary)
}

/// Writes a table, with its protective MBR, to a disk that has none or whose table is replaced.
///
/// Not safe against power cuts: for tools that make disks.
pub fn format(device: &dyn BlockDevice, table: &Table) -> Result<(), TableError> {
    let geometry = geometry(device)?;
    if table.geometry() != geometry {
        let source = GptError::NoRoom(geometry.sectors);
        return Err(TableError::Unfit { device: device.describe(), source });
    }
    device.write_at(&formats::gpt::protective_mbr(geometry), 0)?;
    put(device, table, TableCopy::Backup)?;
    put(device, table, TableCopy::Primary)
}

fn geometry(device: &dyn BlockDevice) -> Result<Geometry, TableError> {
    Geometry::new(device.len(), device.sector_size())
        .map_err(|source| TableError::Unfit { device: device.describe(), source })
}

/// An unreadable copy is an invalid one: a worn sector in one table must not lose the other.
fn read_copy(
    device: &dyn BlockDevice,
    geometry: Geometry,
    copy: TableCopy,
    lba: u64,
) -> Result<CopyRead, TableError> {
    let mut sector = vec![0; geometry.sector_size as usize];
    if device.read_at(&mut sector, geometry.offset(lba)).is_err() {
        return Ok(CopyRead::invalid(GptError::Signature));
    }
    let header = match Header::parse(geometry, copy, lba, &sector) {
        Ok(header) => header,
        Err(error) => return Ok(CopyRead::invalid(error)),
    };
    // At most `ARRAY_LIMIT`: the header was checked.
    let mut array = vec![0; usize::try_from(header.array_len()).unwrap_or(0)];
    if device.read_at(&mut array, geometry.offset(header.array_lba())).is_err() {
        array.clear();
    }
    Ok(CopyRead::parse(geometry, header, &array))
}

/// Writes one copy, array first, makes it durable, and reads it back from the medium.
fn put(device: &dyn BlockDevice, table: &Table, copy: TableCopy) -> Result<(), TableError> {
    let Image { array_offset, array, header_offset, header } = table.image(copy);
    device.write_at(&array, array_offset)?;
    device.write_at(&header, header_offset)?;
    device.sync()?;
    for (offset, wanted) in [(array_offset, array), (header_offset, header)] {
        let mut found = vec![0; wanted.len()];
        device.forget_cached(offset, found.len() as u64);
        device.read_at(&mut found, offset)?;
        if found != wanted {
            return Err(TableError::Readback { device: device.describe(), copy });
        }
    }
    Ok(())
}

/// Whether two tables differ in nothing but attributes and labels.
fn same_partitions(one: &Table, other: &Table) -> bool {
    let places = |table: &Table| {
        let place = |part: formats::gpt::Partition| {
            (part.number, part.type_guid, part.guid, part.first_lba, part.last_lba)
        };
        table.partitions().map(place).collect::<Vec<_>>()
    };
    one.geometry() == other.geometry()
        && one.disk_guid() == other.disk_guid()
        && one.backup_lba() == other.backup_lba()
        && places(one) == places(other)
}

#[cfg(test)]
mod tests;
