//! Which of the two copies counts.

use super::header::Header;
use super::{Geometry, GptError, Table, TableCopy};

/// What was read of one copy: its header and, if that was valid, its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRead {
    header: Option<Header>,
    table: Result<Table, GptError>,
}

impl CopyRead {
    /// A copy without a valid header.
    pub fn invalid(error: GptError) -> Self {
        CopyRead { header: None, table: Err(error) }
    }

    /// A copy with a valid header and the array that it points to.
    pub fn parse(geometry: Geometry, header: Header, array: &[u8]) -> Self {
        CopyRead { table: Table::parse(geometry, header.clone(), array), header: Some(header) }
    }

    /// Its header, if that is valid.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }
}

/// The table to use, and what has to be rewritten from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The winner.
    pub table: Table,
    /// The copy that is invalid or differs.
    pub repair: Option<TableCopy>,
}

/// Neither copy is valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no usable partition table: primary: {primary}; backup: {backup}")]
pub struct NoTable {
    /// What is wrong with the primary copy.
    pub primary: GptError,
    /// What is wrong with the backup copy.
    pub backup: GptError,
}

/// Decides between the copies: a valid primary wins, also over a valid backup that differs, as it
/// does for every boot loader that reads the disk from its start.
pub fn choose(primary: CopyRead, backup: CopyRead) -> Result<Choice, NoTable> {
    choose_by(primary, backup, &|_, _| false)
}

/// [`choose`], by somebody who knows what the tables are for: of two valid copies that differ, the
/// backup wins where `prefers_backup(primary, backup)` says so.
pub fn choose_by(
    primary: CopyRead,
    backup: CopyRead,
    prefers_backup: &dyn Fn(&Table, &Table) -> bool,
) -> Result<Choice, NoTable> {
    let (mut table, loser, repair) = match (primary.table, backup.table) {
        (Ok(other), Ok(table)) if !table.same_content(&other) && prefers_backup(&other, &table) => {
            (table, primary.header, Some(TableCopy::Primary))
        }
        (Ok(table), Ok(other)) => {
            let repair = (!table.same_content(&other)).then_some(TableCopy::Backup);
            (table, backup.header, repair)
        }
        (Ok(table), Err(_)) => (table, backup.header, Some(TableCopy::Backup)),
        (Err(_), Ok(table)) => (table, primary.header, Some(TableCopy::Primary)),
        (Err(primary), Err(backup)) => return Err(NoTable { primary, backup }),
    };
    // Firmware may lie where a tool would put an array: keep to the place the header names, if it
    // has room there for this array.
    let fits = |other: &Header| {
        other.array_len() == table.header.array_len()
            && other.first_usable() == table.header.first_usable()
            && other.last_usable() == table.header.last_usable()
            && other.backup_lba() == table.header.backup_lba()
    };
    table.other_array = loser.filter(fits).map(|other| other.array_lba());
    Ok(Choice { table, repair })
}
