//! Boot partitions of an eMMC: which may be written, and whether what boots may be switched.
//!
//! | what boots | written | switched |
//! |---|---|---|
//! | this partition | refused: a cut would leave nothing to start from | nothing to do |
//! | the other one | yes | yes |
//! | neither: nothing, the user area, a reserved value | refused: nobody knows what runs | refused |
//!
//! Beside that, a partition that is write-protected is not written, and neither is one that could not be made the
//! one that boots afterwards.

use formats::emmc::{BootPartition, BootSource, ExtCsd, Protection};

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The partition is the one that boots.
    Boots,
    /// No boot partition is the one that boots.
    Unknown(BootSource),
    /// The partition is write-protected.
    Protected(Protection),
    /// What boots cannot be changed.
    Stuck(Protection),
}

/// Whether a partition may be written that is made the one that boots afterwards.
///
/// # Errors
///
/// The first row of the module's table that forbids it.
pub fn may_write(register: &ExtCsd, partition: BootPartition) -> Result<(), Refused> {
    if register.config.source() == BootSource::Partition(partition) {
        return Err(Refused::Boots);
    }
    may_switch(register, partition)?;
    match register.protection(partition) {
        Protection::Off => Ok(()),
        protection => Err(Refused::Protected(protection)),
    }
}

/// Whether a partition may be made the one that boots.
///
/// # Errors
///
/// Nobody knows what boots now, or it cannot be changed.
pub fn may_switch(register: &ExtCsd, partition: BootPartition) -> Result<(), Refused> {
    match (register.config.source(), register.config_protection) {
        (BootSource::Partition(now), _) if now == partition => Ok(()),
        (BootSource::Partition(_), Protection::Off) => Ok(()),
        (BootSource::Partition(_), protection) => Err(Refused::Stuck(protection)),
        (source, _) => Err(Refused::Unknown(source)),
    }
}

#[cfg(test)]
mod tests {
    use formats::emmc::BootPartition::{Boot0, Boot1};
    use formats::emmc::EXT_CSD_LEN;

    use super::*;

    fn register(fields: &[(usize, u8)]) -> ExtCsd {
        let mut bytes = [0; EXT_CSD_LEN];
        for (at, value) in fields {
            bytes[*at] = *value;
        }
        ExtCsd::parse(&bytes)
    }

    /// Every value of byte 179, with every protection of it and of the partitions.
    #[test]
    fn the_table_of_the_module() {
        let mut written = 0;
        for config in 0..=u8::MAX {
            for (stuck, protected) in [(0, 0), (1, 0), (16, 0), (0, 1), (0, 4), (1, 1)] {
                let register = register(&[(179, config), (178, stuck), (173, protected)]);
                for partition in BootPartition::BOTH {
                    let (write, switch) =
                        (may_write(&register, partition), may_switch(&register, partition));
                    let name = format!("{config:#04x} {stuck} {protected} {partition}");
                    let own = if partition == Boot0 { 1 } else { 2 };
                    match config >> 3 & 7 {
                        enabled if enabled == own => {
                            assert_eq!((write, switch), (Err(Refused::Boots), Ok(())), "{name}");
                        }
                        1 | 2 if stuck > 0 => {
                            assert!(matches!(write, Err(Refused::Stuck(_))), "{name}");
                            assert_eq!(write, switch, "{name}");
                        }
                        1 | 2 if protected > 0 => {
                            assert!(matches!(write, Err(Refused::Protected(_))), "{name}");
                            assert_eq!(switch, Ok(()), "{name}");
                        }
                        1 | 2 => {
                            assert_eq!((write, switch), (Ok(()), Ok(())), "{name}");
                            written += 1;
                        }
                        _ => {
                            assert!(matches!(write, Err(Refused::Unknown(_))), "{name}");
                            assert_eq!(write, switch, "{name}");
                        }
                    }
                }
            }
        }
        assert_eq!(written, 64);
    }

    /// A firmware that protects itself at each start protects the partition that boots: the other one is free.
    #[test]
    fn protection_of_the_partition_that_boots_is_no_obstacle() {
        let register = register(&[(179, 0x08), (173, 0b1000_0001)]);
        assert_eq!(may_write(&register, Boot1), Ok(()));
        assert_eq!(may_write(&register, Boot0), Err(Refused::Boots));
    }
}
