//! The proof behind an image, with which a chooser verifies the slot without a network.

use std::collections::BTreeMap;
use std::path::Path;

use formats::tuf::{Role, UnixTime};
use formats::version::Version;
use storage::block::{Access, FileDevice, Window};
use update_agent::chooser::write_proof;
use update_core::chooser::{Machine, Proof, approve};

use super::error::FactoryError;
use super::layout::Partition;
use super::node::Node;
use crate::state::{DOCUMENT_PREFIX, State};

/// The metadata that leads to a release from the first root on, at the last second at which all of it is valid; the
/// same as what an agent stores. It is refused where the chooser would refuse it.
///
/// The chooser begins with the root in the firmware, which is the repository's first one or `root`.
pub(super) fn make(
    state: &State,
    version: &Version,
    node: &Node,
    root: &[u8],
) -> Result<Proof, FactoryError> {
    let files = state.files().into_iter().filter(|(name, _)| !name.starts_with(DOCUMENT_PREFIX));
    let files: BTreeMap<String, Vec<u8>> =
        files.map(|(name, bytes)| (name, bytes.to_vec())).collect();
    let proof = Proof { known_time: last_alive(state), version: version.clone(), files };
    let first = proof.files.get(&Role::Root.file_name(Some(1)));
    let machine =
        Machine { product: &node.product, hardware: &node.hardware, component: &node.boot };
    approve(&proof, first.map_or(root, Vec::as_slice), machine).map_err(FactoryError::Proof)?;
    Ok(proof)
}

/// The last second before any of the metadata expires: the same for the same metadata.
fn last_alive(state: &State) -> UnixTime {
    let top = [
        state.root.header.expires,
        state.timestamp.data.header.expires,
        state.snapshot.data.header.expires,
    ];
    let targets = state.targets_roles().map(|(_, signed)| signed.data.header.expires);
    let first = top.into_iter().chain(targets).min();
    first.map_or(UnixTime::EPOCH, |first| first.plus(-1))
}

/// Writes it behind an image of `used` bytes.
pub(super) fn write(
    disk: &Path,
    part: &Partition,
    proof: &Proof,
    used: u64,
) -> Result<(), FactoryError> {
    let device = FileDevice::open(disk, Access::Write)?;
    let slot = Window::new(device, part.offset, part.len, &part.label)?;
    Ok(write_proof(&slot, proof, used)?)
}
