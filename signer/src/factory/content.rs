//! What is written into the parts of a disk.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use formats::boot_record::{ReleaseId, Slot, SlotComponent};
use formats::release::ComponentSummary;
use formats::uboot_env::parse_config;
use update_agent::factory::{FirstComponent, FirstSlot, write_state};

use super::disk::{Disk, write_sparse};
use super::error::FactoryError;
use super::filesystem::esp_file;
use super::layout::{EspFile, Holds};
use super::plan::on_data;
use super::system::System;
use super::tree::Tree;
use super::{Inputs, first_boot_marker, proof};
use crate::error::SignerError;
use crate::progress::Show;
use crate::repository::Registry;
use crate::verify::{chunk_list, unpack};

/// What `fw_env.config` is called in errors.
const ENV: &str = "boot.env_config";

/// The images of the first slot.
pub(super) struct Images<'a> {
    pub(super) registry: &'a dyn Registry,
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) show: Show,
}

impl Images<'_> {
    /// Writes the components of slot a: into their partitions, or into files for the ESP in `work`.
    pub(super) fn write(
        &self,
        disk: &Disk,
        work: &Path,
    ) -> Result<Vec<FirstComponent>, SignerError> {
        let mut written = Vec::new();
        for summary in self.inputs.chosen {
            written.extend(self.write_one(summary, disk, work)?);
        }
        Ok(written)
    }

    /// `None`: the component lies on no part of this disk.
    fn write_one(
        &self,
        summary: &ComponentSummary,
        disk: &Disk,
        work: &Path,
    ) -> Result<Option<FirstComponent>, SignerError> {
        let layout = self.inputs.layout;
        let holds = Holds::Component(summary.name.clone(), Slot::A);
        if let Some(part) = layout.partition(&holds) {
            let mut write = |at: u64, bytes: &[u8]| disk.write(part.offset + at, bytes);
            return self.unpack(summary, part.len, &mut write).map(Some);
        }
        let own = |file: &&EspFile| file.component == summary.name && file.slot == Slot::A;
        let Some(file) = layout.esp_files.iter().find(own) else { return Ok(None) };
        let path = esp_file(work, summary);
        let failed = FactoryError::file("write", &path);
        let out = File::create(&path).map_err(&failed)?;
        out.set_len(file.len).map_err(&failed)?;
        let mut write = |at: u64, bytes: &[u8]| write_sparse(&out, at, bytes);
        self.unpack(summary, file.len, &mut write).map(Some)
    }

    /// Gives the image of a component, piece by piece with its offset, to `write`. `place` is the length of where
    /// it is written.
    fn unpack(
        &self,
        summary: &ComponentSummary,
        place: u64,
        write: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<FirstComponent, SignerError> {
        let release = self.inputs.release;
        let component = release.component(summary)?;
        let list = chunk_list(self.registry, release, component)?;
        let label = format!("writing {}", summary.name);
        let mut at = 0;
        let mut sink = |bytes: &[u8]| -> io::Result<()> {
            write(at, bytes)?;
            at += bytes.len() as u64;
            Ok(())
        };
        let progress = |len| self.show.begin(&label, len);
        unpack(self.registry, release, component, &list, &progress, &mut sink)?;
        let identity = SlotComponent {
            name: summary.name.clone(),
            manifest: summary.manifest.clone(),
            chunks: component.manifest.chunks.digest.clone(),
            raw_size: summary.raw_size,
        };
        Ok(FirstComponent { identity, list, place })
    }

    /// Looks whether the image has the configuration, the trust root and what describes U-Boot's environment where
    /// they are not put on the data partition, and what all nodes would share. A file system that cannot be read here
    /// is noted.
    pub(super) fn check(&self, disk: &Path, work: &Path) -> Result<Vec<String>, SignerError> {
        let Inputs { board, node, config, root, .. } = self.inputs;
        let env_config = self.inputs.env_config();
        let env_config = env_config.iter().map(|text| (ENV, &node.env_config, text.as_bytes()));
        let wanted =
            [("the configuration", &node.config, *config), ("trust.root", &node.root, *root)];
        let wanted = wanted.into_iter().chain(env_config);
        let in_image: Vec<_> =
            wanted.filter(|(_, path, _)| on_data(board, path).is_none()).collect();
        let system = board.system(&node.boot);
        let files = match System::open(self.inputs, &system, disk, work)? {
            None => return Ok(Vec::new()),
            Some(System::Unknown(form)) => {
                let (config, root) = (node.config.display(), node.root.display());
                return Ok(vec![format!(
                    "{system} is no {form}: it was not checked that it has {config} and {root}"
                )]);
            }
            Some(files) => files,
        };
        for (what, path, bytes) in in_image {
            let found = files.read(path)?;
            let why = match found {
                Some(found) if found == bytes || what == ENV && same_places(&found, bytes) => {
                    continue;
                }
                Some(_) => "is not what was given",
                None => "is not there",
            };
            let (component, path) = (system.to_string(), path.clone());
            return Err(FactoryError::Image { what, component, path, why }.into());
        }
        Ok(files.shared()?)
    }

    /// Puts the proof behind the boot component, where the node's chooser asks for it.
    pub(super) fn prove(&self, disk: &Path) -> Result<(), FactoryError> {
        let Inputs { node, layout, state, release, root, .. } = self.inputs;
        let part = layout.partition(&Holds::Component(node.boot.clone(), Slot::A));
        let Some(part) = part.filter(|_| node.verity) else { return Ok(()) };
        let own = self.inputs.chosen.iter().find(|one| one.name == node.boot);
        let proof = proof::make(state, &release.listed.summary.version, node, root)?;
        proof::write(disk, part, &proof, own.map_or(0, |own| own.raw_size))
    }
}

/// Whether two texts of `fw_env.config` name the same places.
fn same_places(one: &[u8], other: &[u8]) -> bool {
    let places = |text| parse_config(&String::from_utf8_lossy(text)).ok();
    places(one).is_some_and(|found| places(other) == Some(found))
}

/// The files of the data partition: those given, the state, and what else is not in the slots.
pub(super) fn data_tree(
    inputs: &Inputs<'_>,
    components: &[FirstComponent],
    work: &Path,
) -> Result<Tree, FactoryError> {
    let Inputs { board, node, config, root, release, .. } = inputs;
    let mut tree = Tree::default();
    if let Some(data) = inputs.data {
        tree.copy(data, Path::new(""))?;
    }
    let staged = work.join("state");
    write_state(&staged, &first_slot(inputs, components)?)?;
    if let Some(at) = on_data(board, &node.state_dir) {
        if tree.has_below(&at) {
            return Err(FactoryError::State(node.state_dir.clone()));
        }
        tree.directory(&at, 0o700);
        tree.copy(&staged, &at)?;
        tree.owned_by_root(&at);
    }
    let marker = first_boot_marker(&node.state_dir);
    let version = release.listed.summary.version.as_str();
    let env_config = inputs.env_config();
    let mut files: Vec<(&str, &Path, &[u8])> = vec![
        ("config", &node.config, *config),
        ("root", &node.root, *root),
        ("first-boot", &marker, version.as_bytes()),
    ];
    files.extend(env_config.iter().map(|text| ("env", &*node.env_config, text.as_bytes())));
    for (name, path, bytes) in files {
        let Some(at) = on_data(board, path) else { continue };
        let from = work.join(name);
        fs::write(&from, bytes).map_err(FactoryError::file("write", &from))?;
        tree.file(&at, 0o644, &from);
    }
    Ok(tree)
}

fn first_slot(
    inputs: &Inputs<'_>,
    components: &[FirstComponent],
) -> Result<FirstSlot, FactoryError> {
    let summary = &inputs.release.listed.summary;
    let index = inputs.release.index.as_sha256().ok_or(FactoryError::Digest)?;
    let release = ReleaseId {
        index,
        version: summary.version.clone().into(),
        security_version: summary.security_version,
    };
    let (order, components) = (summary.order.clone(), components.to_vec());
    Ok(FirstSlot { release, order, components, at: inputs.epoch })
}
