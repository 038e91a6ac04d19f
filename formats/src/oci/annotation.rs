//! Annotation keys.

/// The TUF file name of a layer, for instance `2.root.json` (docker/attest).
pub const TUF_FILENAME: &str = "tuf.io/filename";
/// The file name `oras pull` writes.
pub const TITLE: &str = "org.opencontainers.image.title";
/// The reference of a manifest in an image layout's `index.json`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Which component a manifest of a release index is (`os`, `bmc`, `firmware`, …).
pub const COMPONENT: &str = "racklet.component";
/// Hardware ids a component is for, sorted, separated by commas.
pub const COMPATIBLE: &str = "racklet.compatible";
/// Of a delta: image id of what it is from, 64 hex digits.
pub const FROM: &str = "racklet.from";
/// Of a delta: length in bytes of what it is from.
pub const FROM_SIZE: &str = "racklet.from-size";
