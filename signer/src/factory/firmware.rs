//! What boot loaders get on the disk: files of their own partition, programs and U-Boot's environment outside of it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use formats::boot_record::Slot;
use formats::fat::{BOOT_SECTOR, Volume};

use super::Inputs;
use super::board::Loader;
use super::disk::Disk;
use super::error::FactoryError;
use super::filesystem::{FatContent, esp_file};
use super::layout::{Holds, RawPlace};
use super::loader::{self, uboot};
use super::tools::MKIMAGE;

/// The label of the file system on the loader's partition.
pub(super) fn label(loader: Loader) -> &'static str {
    match loader {
        Loader::SystemdBoot => "ESP",
        Loader::RaspberryPi => "AUTOBOOT",
        Loader::UBoot | Loader::Chooser => "BOOT",
    }
}

/// Requires that all programs of the board can be read, before anything is written.
pub(super) fn check_programs(inputs: &Inputs<'_>) -> Result<(), FactoryError> {
    let board = inputs.board;
    let programs = board.esp.iter().map(|esp| &esp.program);
    let raw = board.raw.iter().map(|raw| &raw.file);
    let initial = board.env.iter().filter_map(|env| env.initial.as_ref());
    programs
        .chain(raw)
        .chain(initial)
        .try_for_each(|file| File::open(file).map(drop).map_err(FactoryError::file("read", file)))
}

/// Writes the programs of the board and U-Boot's environment on the disk `output`.
pub(super) fn write_outside(
    inputs: &Inputs<'_>,
    disk: &Disk,
    output: &Path,
) -> Result<(), FactoryError> {
    for RawPlace { file, offset, len } in &inputs.layout.raw {
        let found = fs::metadata(file).map_err(FactoryError::file("read", file))?.len();
        if found != *len {
            return Err(FactoryError::Changed(file.clone()));
        }
        disk.write_file(*offset, file)?;
    }
    let Some(env) = &inputs.board.env else { return Ok(()) };
    let initial = match &env.initial {
        Some(file) => fs::read_to_string(file).map_err(FactoryError::file("read", file))?,
        None => String::new(),
    };
    for (offset, bytes) in env.offsets().into_iter().zip(uboot::environment(env, &initial)?) {
        disk.write(offset, &bytes).map_err(FactoryError::file("write", output))?;
    }
    Ok(())
}

/// Requires a FAT where a Raspberry Pi looks for firmware and kernel: it reads no other file system.
pub(super) fn check_boot_image(inputs: &Inputs<'_>, disk: &Path) -> Result<(), FactoryError> {
    let Inputs { board, node, layout, .. } = inputs;
    let part = layout.partition(&Holds::Component(node.boot.clone(), Slot::A));
    let Some(part) = part.filter(|_| board.loader == Loader::RaspberryPi) else { return Ok(()) };
    let mut sector = [0; BOOT_SECTOR];
    let read = File::open(disk).and_then(|file| file.read_exact_at(&mut sector, part.offset));
    read.map_err(FactoryError::file("read", disk))?;
    match Volume::parse(&sector, part.len) {
        Ok(_) => Ok(()),
        Err(source) => Err(FactoryError::NoFat { component: node.boot.clone(), source }),
    }
}

/// U-Boot's script, as `mkimage` wraps it.
fn script(inputs: &Inputs<'_>, work: &Path) -> Result<Option<FatContent>, FactoryError> {
    let Inputs { board, node, layout, .. } = inputs;
    let (Some(own), Some(env)) = (&board.uboot, &board.env) else { return Ok(None) };
    let (source, made) = (work.join("boot.cmd"), work.join(uboot::SCRIPT));
    let text = uboot::script(board, own, env, node, layout);
    fs::write(&source, text).map_err(FactoryError::file("write", &source))?;
    let processor = board.architecture.of_mkimage();
    let options = ["-A", processor, "-T", "script", "-C", "none", "-n", "racklet", "-d"];
    let paths = [source.display().to_string(), made.display().to_string()];
    MKIMAGE.run(options.into_iter().chain(paths.iter().map(String::as_str)), inputs.epoch, "")?;
    Ok(Some((uboot::SCRIPT.to_owned(), made)))
}

/// The files of the loader's partition: its program, what it reads, and the places of components.
pub(super) fn files(inputs: &Inputs<'_>, work: &Path) -> Result<Vec<FatContent>, FactoryError> {
    let Inputs { board, node, layout, chosen, .. } = inputs;
    let mut content = Vec::new();
    if let Some(esp) = &board.esp {
        content.push((board.architecture.removable_program().to_owned(), esp.program.clone()));
    }
    let files = match board.loader {
        Loader::SystemdBoot => loader::systemd_boot(board, node, layout),
        Loader::RaspberryPi => loader::raspberry_pi::files(node, layout)?,
        Loader::UBoot => {
            content.extend(script(inputs, work)?);
            Vec::new()
        }
        Loader::Chooser => Vec::new(),
    };
    for (number, file) in files.into_iter().enumerate() {
        let from = work.join(format!("loader-{number}"));
        fs::write(&from, &file.text).map_err(FactoryError::file("write", &from))?;
        content.push((file.path, from));
    }
    for file in &layout.esp_files {
        let of = chosen.iter().find(|one| one.name == file.component && file.slot == Slot::A);
        let from = match of {
            Some(summary) => esp_file(work, summary),
            None => {
                let own = work.join(format!("empty-{}", file.component));
                let made = File::create(&own).and_then(|made| made.set_len(file.len));
                made.map_err(FactoryError::file("write", &own))?;
                own
            }
        };
        content.push((file.path.clone(), from));
    }
    Ok(content)
}
