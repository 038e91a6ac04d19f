//! The first disk of a node, made from a published release.
//!
//! ```text
//!  board profile ─┐
//!  configuration ─┼─► plan (pure) ─► layout ─┬─ GPT, boot loader's files
//!  release ───────┘                          ├─ slot a: the images, each chunk verified as a node does
//!                                            ├─ slot b: empty
//!                                            └─ data: the agent's state, which knows the release in slot a
//! ```
//!
//! The same inputs give the same bytes: GUIDs are drawn from a seed, file systems are made at a time that stands
//! still. A disk appears whole under its name, or not at all.
//!
//! It refuses what a node would refuse: a trust root that does not lead to the release, a configuration that
//! `update-agent config check` does not accept, images for other hardware or larger than their slots.

pub mod board;
mod content;
mod disk;
pub(crate) mod error;
mod filesystem;
mod firmware;
pub mod identity;
mod initramfs;
pub mod layout;
pub mod loader;
pub mod node;
pub mod plan;
mod proof;
mod system;
mod tools;
mod tree;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use formats::digest::Digest;
use formats::release::{ComponentName, ComponentSummary, Summary};

use self::board::{Board, Loader};
use self::content::{Images, data_tree};
use self::disk::Disk;
pub use self::error::FactoryError;
use self::identity::Seed;
use self::layout::{Holds, Layout};
use self::node::Node;
use self::tools::{CPIO, DEBUGFS, MCOPY, MKE2FS, MKFS_VFAT, MKIMAGE, MMD};
use crate::error::SignerError;
use crate::new_file::{NewFile, directory_of};
use crate::progress::Show;
use crate::repository::Registry;
use crate::state::State;
use crate::verify::Release;

/// Everything that a disk is made of.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The profile of the board.
    pub board: &'a Board,
    /// The node, by its configuration.
    pub node: &'a Node,
    /// The bytes of that configuration.
    pub config: &'a [u8],
    /// The trust root that it is given.
    pub root: &'a [u8],
    /// What else is on the data partition: a directory.
    pub data: Option<&'a Path>,
    /// The metadata that leads to the release.
    pub state: &'a State,
    /// The release.
    pub release: &'a Release,
    /// Its components for this node.
    pub chosen: &'a [ComponentSummary],
    /// What goes where.
    pub layout: &'a Layout,
    /// What GUIDs are drawn from.
    pub seed: Seed,
    /// The time of all files, Unix seconds.
    pub epoch: u64,
}

impl Inputs<'_> {
    /// What `boot.env_config` of the node has to say; `None`: nothing reads it.
    fn env_config(&self) -> Option<String> {
        self.board.env.as_ref().map(|env| loader::uboot::env_config(self.node, env))
    }
}

/// A disk that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Digest of all of it.
    pub digest: Digest,
    /// What its maker should know.
    pub notes: Vec<String>,
}

/// The components of a release that this node installs, by the rule of nodes: for each of its places the only one
/// that fits its hardware.
pub fn choose(node: &Node, summary: &Summary) -> Vec<ComponentSummary> {
    let fits = |component: &&ComponentSummary| {
        component.compatible.iter().any(|id| node.hardware.contains(id))
    };
    let of = |name: &ComponentName| {
        let mut found = summary.components.iter().filter(|one| one.name == *name).filter(fits);
        // Two that fit are as bad as none.
        found.next().filter(|_| found.next().is_none()).cloned()
    };
    node.places.keys().filter_map(of).collect()
}

/// Makes the disk as the file `output`, which must not exist.
///
/// A crash leaves no file of that name; a temporary one beside it may be left.
pub fn build(
    registry: &dyn Registry,
    inputs: &Inputs<'_>,
    output: &Path,
    show: Show,
) -> Result<Built, SignerError> {
    require_tools(inputs)?;
    firmware::check_programs(inputs)?;
    if output.exists() {
        return Err(FactoryError::Exists(output.to_owned()).into());
    }
    let beside = directory_of(output);
    let failed = FactoryError::file("write", output);
    let work = tempfile::Builder::new().prefix(".factory-").tempdir_in(beside).map_err(&failed)?;
    let mut file = NewFile::of(output, 0o644).map_err(&failed)?;
    let layout = inputs.layout;
    let disk = Disk::create(file.file().try_clone().map_err(&failed)?, layout, output)?;
    let images = Images { registry, inputs, show };
    let components = images.write(&disk, work.path())?;
    let notes = images.check(file.path(), work.path())?;
    firmware::check_boot_image(inputs, file.path())?;
    images.prove(file.path())?;

    // Nobody else may be able to write where a state is made, and beside the output somebody may.
    // Whatever the umask: a group of several people is somebody.
    let private = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir()
        .map_err(FactoryError::file("write", &std::env::temp_dir()))?;
    let tree = data_tree(inputs, &components, private.path())?;
    if let Some(data) = layout.partition(&Holds::Data) {
        let part = work.path().join("data.img");
        filesystem::ext4(&part, data.len, &data.label, &tree, inputs.seed, inputs.epoch)?;
        disk.write_file(data.offset, &part)?;
    }
    if let Some(own) = layout.partition(&Holds::Loader) {
        let part = work.path().join("loader.img");
        let content = firmware::files(inputs, work.path())?;
        let label = firmware::label(inputs.board.loader);
        filesystem::fat(&part, own.len, label, &content, inputs.seed, inputs.epoch)?;
        disk.write_file(own.offset, &part)?;
    }
    firmware::write_outside(inputs, &disk, output)?;
    let bar = show.begin("reading back", layout.len);
    let digest = disk.finish(layout.len, &bar).map_err(&failed)?;
    bar.done();
    file.appear().map_err(&failed)?;
    Ok(Built { digest, notes })
}

/// Says what is missing before anything is read.
fn require_tools(inputs: &Inputs<'_>) -> Result<(), FactoryError> {
    let Inputs { board, node, layout, .. } = inputs;
    [MKE2FS, DEBUGFS].into_iter().try_for_each(tools::Tool::is_there)?;
    let system = board.system(&node.boot);
    if layout.esp_files.iter().any(|file| file.component == system) {
        CPIO.is_there()?;
    }
    let fat = [MKFS_VFAT, MMD, MCOPY].as_slice();
    let more: &[&[tools::Tool]] = match board.loader {
        Loader::SystemdBoot | Loader::RaspberryPi => &[fat],
        Loader::UBoot => &[fat, &[MKIMAGE]],
        Loader::Chooser => &[],
    };
    more.iter().copied().flatten().try_for_each(|tool| tool.is_there())
}

/// The file whose presence on the data partition says that a node has not become itself yet: beside the state.
pub fn first_boot_marker(state_dir: &Path) -> PathBuf {
    let mut name = state_dir.as_os_str().to_owned();
    name.push(".first-boot");
    name.into()
}
