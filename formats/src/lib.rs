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
//! | [`oci`] | descriptors, manifests, indexes, names and tags | OCI image-spec 1.1, distribution-spec 1.1 |
//! | [`reason`] | reason codes and exit codes | – |
//!
//! ```
//! use formats::digest::Digest;
//! let digest = Digest::sha256_of(b"racklet");
//! assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
//! ```

pub mod digest;
pub mod oci;
pub mod reason;
