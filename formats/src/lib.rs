//! Every byte layout of Racklet Update: bytes to types and back.
//!
//! This crate does no I/O, reads no clock and draws no random number; its manifest lists nothing
//! that could. Parsing either succeeds completely or names what is wrong, and bytes from outside
//! never reach a panic.
//!
//! ```text
//!  received bytes ──► parse ──► type (+ the received bytes, kept)      facts ──► type ──► deterministic bytes
//! ```
//!
//! | module | layout | source |
//! |---|---|---|
//! | [`digest`] | `sha256:…`, `sha512:…` | OCI image-spec §descriptor |
//! | [`example_keys`] | the published keys of `keys-example/` | own |
//! | [`json`] | strict JSON values, OLPC canonical JSON | OLPC wiki; TUF 1.0.34 §4.1 |
//! | [`tuf`] | TUF metadata, keys, signatures, thresholds | TUF 1.0.34; TAP 15 |
//! | [`oci`] | descriptors, manifests, indexes, names and tags | OCI image-spec 1.1, distribution-spec 1.1 |
//! | [`reason`] | reason codes and exit codes | – |
//! | [`percent`] | percent-encoding | RFC 3986 §2.1 |
//! | [`userinfo`] | addresses without passwords, to be shown | RFC 3986 §3.2.1 |
//! | [`reference`](mod@reference) | `docker://…`, `oci:…`, `oci-archive:…` | containers-transports(5) |
//! | [`gpt`] | partition tables | UEFI 2.10 §5.3 |
//! | [`gpt_attrs`] | slot bits 48–56 of a partition | ChromeOS, Bottlerocket |
//! | [`boot_flags`] | the flags of a slot, in whichever record | ChromeOS, Bottlerocket |
//! | [`boot_vars`] | slots as variables of a boot loader | RAUC, U-Boot `bootmeth_rauc` |
//! | [`uboot_env`] | environment of U-Boot, `fw_env.config` | U-Boot, libubootenv |
//! | [`grub_env`] | environment block of GRUB | GRUB manual, `grub-editenv` |
//! | [`bls`] | boot counters in file names, order of entries | UAPI.1, systemd-boot |
//! | [`autoboot`] | partitions of a Raspberry Pi, `autoboot.txt` | Raspberry Pi documentation |
//! | [`fat`] | where a file of a FAT root directory lies | Microsoft FAT specification 1.03 |
//! | [`emmc`] | boot partitions of an eMMC: EXT_CSD, two commands | JESD84-B51; `linux/mmc/ioctl.h` |
//! | [`device_tree`] | names of a board, as hardware ids | Devicetree Specification 0.4 §2.3.1 |
//! | [`tpm`] | TPM 2.0 commands of a monotonic counter | TCG TPM 2.0 Library 1.59 |
//! | [`record`] | sealed records: sequence, payload, checksum | own |
//! | [`carry`] | what a record has beyond what this version knows | – |
//! | [`ustar`] | tar headers of bundles | POSIX.1-2017 pax |
//! | [`release`] | release index, component manifest, image config, target summary | own, over OCI |
//! | [`channel`] | channel document | own |
//! | [`report`] | what a node says of itself, signed | own |
//! | [`chunks`] | chunk list, seekable table | own; zstd `contrib/seekable_format` |
//! | [`boot_record`] | boot record, journal, floor, history of a node | own |
//! | [`similar`] | names that were mistyped | – |
//! | [`version`] | release versions and their order | UAPI.10 |
//!
//! ```
//! use formats::digest::Digest;
//! let digest = Digest::sha256_of(b"racklet");
//! assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
//! ```

pub mod autoboot;
pub mod bls;
pub mod boot_flags;
pub mod boot_record;
pub mod boot_vars;
pub mod carry;
pub mod channel;
pub mod chunks;
pub mod device_tree;
pub mod digest;
pub mod emmc;
mod error_chain;
pub mod example_keys;
pub mod fat;
pub mod gpt;
pub mod gpt_attrs;
pub mod grub_env;
pub mod json;
pub mod oci;
pub mod percent;
pub mod reason;
pub mod record;
pub mod reference;
pub mod release;
pub mod report;
pub mod similar;
mod size;
pub mod tpm;
pub mod tuf;
pub mod uboot_env;
pub mod userinfo;
pub mod ustar;
pub mod verity;
pub mod version;

pub use error_chain::error_chain;
pub use size::size;
