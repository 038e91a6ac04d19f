//! What a device tree says of its board: the property `compatible` of the root node
//! (Devicetree Specification 0.4, §2.3.1), as Linux shows it in `/proc/device-tree/compatible`.
//!
//! | bytes | meaning |
//! |---|---|
//! | one or more strings, each ended by a NUL | names of the board, the most specific one first: `vendor,model` |
//!
//! The names become hardware ids, which have no comma and no capitals: `raspberrypi,4-model-b` is
//! `raspberrypi.4-model-b`. A name that still is no hardware id is left out: no release can ask for it.

use crate::release::is_word;

/// 4 KiB: fifty times what boards have.
pub const COMPATIBLE_LIMIT: usize = 4096;

/// Why a property is no list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompatibleError {
    /// Longer than [`COMPATIBLE_LIMIT`].
    #[error("has more than {COMPATIBLE_LIMIT} bytes")]
    TooLong,
    /// Empty, or the last string has no NUL.
    #[error("does not end with a NUL byte, as a list of strings does")]
    NotEnded,
    /// A string is empty, or has bytes that are no printable ASCII.
    #[error("string {0} is empty or not printable ASCII")]
    NotPrintable(usize),
    /// Nothing in it can be a hardware id.
    #[error("holds no name that can be a hardware id")]
    NoId,
}

/// The hardware ids of a board, in the property's order, none twice; at least one.
///
/// # Errors
///
/// It is no list of strings, or none of them can be a hardware id.
pub fn hardware_ids(property: &[u8]) -> Result<Vec<String>, CompatibleError> {
    if property.len() > COMPATIBLE_LIMIT {
        return Err(CompatibleError::TooLong);
    }
    let list = property.strip_suffix(&[0]).ok_or(CompatibleError::NotEnded)?;
    let mut ids: Vec<String> = Vec::new();
    for (number, name) in (1..).zip(list.split(|byte| *byte == 0)) {
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return Err(CompatibleError::NotPrintable(number));
        }
        let id = String::from_utf8_lossy(name).to_ascii_lowercase().replace(',', ".");
        if is_word(&id, 64) && !ids.contains(&id) {
            ids.push(id);
        }
    }
    if ids.is_empty() { Err(CompatibleError::NoId) } else { Ok(ids) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_boards_become_hardware_ids() {
        let rows: [(&[u8], &[&str]); 7] = [
            (b"raspberrypi,4-model-b\0brcm,bcm2711\0", &["raspberrypi.4-model-b", "brcm.bcm2711"]),
            (b"linux,dummy-virt\0", &["linux.dummy-virt"]),
            (b"aspeed,ast2600-evb\0aspeed,ast2600\0", &["aspeed.ast2600-evb", "aspeed.ast2600"]),
            (b"TI,AM335x_EVM\0ti,am335x_evm\0", &["ti.am335x_evm"]),
            (b"plain\0", &["plain"]),
            // No release can ask for it.
            (b"acme,+1\0acme,board\0", &["acme.board"]),
            (b"acme,,board\0acme,rev2\0", &["acme.rev2"]),
        ];
        for (property, expected) in rows {
            let ids = hardware_ids(property).unwrap();
            assert_eq!(ids, expected, "{}", property.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_list_of_names_is_refused() {
        let long = [b'a'; COMPATIBLE_LIMIT + 1];
        let rows: [(&[u8], CompatibleError); 8] = [
            (b"", CompatibleError::NotEnded),
            (b"acme,board", CompatibleError::NotEnded),
            (b"acme,board\n", CompatibleError::NotEnded),
            (b"\0", CompatibleError::NotPrintable(1)),
            (b"acme,board\0\0", CompatibleError::NotPrintable(2)),
            (b"acme,board\0\xff\0", CompatibleError::NotPrintable(2)),
            (b"+++\0", CompatibleError::NoId),
            (&long, CompatibleError::TooLong),
        ];
        for (property, expected) in rows {
            assert_eq!(hardware_ids(property), Err(expected), "{}", property.escape_ascii());
        }
    }
}
