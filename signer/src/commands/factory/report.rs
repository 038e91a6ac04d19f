//! What `factory` says of a disk.

use std::path::PathBuf;

use formats::boot_record::Slot;
use serde::Serialize;

use super::super::{Report, bytes};
use crate::factory::board::{Board, Loader};
use crate::factory::layout::{Holds, Layout, Partition, RawPlace};

/// The disk that was made, or would be.
#[derive(Debug, Serialize)]
pub struct FactoryReport {
    /// `None`: it was not made.
    pub(super) output: Option<PathBuf>,
    pub(super) target: String,
    /// Digest of the release index.
    pub(super) index: String,
    pub(super) security_version: u64,
    /// Bytes of the disk.
    pub(super) size: u64,
    /// Digest of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    pub(super) disk_guid: String,
    pub(super) partitions: Vec<PartitionReport>,
    /// Programs outside of partitions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) raw: Vec<RawReport>,
    /// What `boot.env_config` of the node says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) env_config: Option<String>,
    /// Components that are on no part of this disk.
    pub(super) elsewhere: Vec<String>,
    pub(super) notes: Vec<String>,
    /// Unix seconds, the time of all files.
    pub(super) epoch: u64,
    pub(super) example_keys: bool,
}

/// A partition, as reports write it.
#[derive(Debug, Serialize)]
pub(super) struct PartitionReport {
    number: usize,
    label: String,
    offset: u64,
    size: u64,
    #[serde(rename = "type")]
    type_guid: String,
    guid: String,
    /// What is in it, for people.
    holds: String,
}

/// A program outside of partitions.
#[derive(Debug, Serialize)]
pub(super) struct RawReport {
    file: PathBuf,
    offset: u64,
    size: u64,
}

impl Report for FactoryReport {
    fn text(&self) -> String {
        let mut text = match &self.output {
            Some(output) => format!(
                "{} holds {} in slot a, confirmed, security version {}",
                output.display(),
                self.target,
                self.security_version
            ),
            None => format!("a disk of {} would hold {} in slot a", bytes(self.size), self.target),
        };
        for part in &self.partitions {
            text.push_str(&format!(
                "\n  {} {:<10} {:>10} at {:>10}  {}",
                part.number,
                part.label,
                bytes(part.size),
                bytes(part.offset),
                part.holds
            ));
        }
        for RawReport { file, offset, size } in &self.raw {
            let (size, offset) = (bytes(*size), bytes(*offset));
            text.push_str(&format!("\n    {:<10} {size:>10} at {offset:>10}", file.display()));
        }
        for line in self.env_config.iter().flat_map(|text| text.lines()) {
            text.push_str(&format!("\n  fw_env.config: {line}"));
        }
        if !self.elsewhere.is_empty() {
            text.push_str(&format!(
                "\nnot on this disk: {}; the first update writes it",
                self.elsewhere.join(", ")
            ));
        }
        for note in &self.notes {
            text.push_str(&format!("\nnote: {note}"));
        }
        if let Some(sum) = &self.sha256 {
            text.push_str(&format!("\n{sum}"));
        }
        text
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

pub(super) fn raw_report(RawPlace { file, offset, len }: &RawPlace) -> RawReport {
    RawReport { file: file.clone(), offset: *offset, size: *len }
}

pub(super) fn partitions(board: &Board, layout: &Layout) -> Vec<PartitionReport> {
    let row = |(number, part): (usize, &Partition)| PartitionReport {
        number,
        label: part.label.clone(),
        offset: part.offset,
        size: part.len,
        type_guid: part.type_guid.to_string(),
        guid: part.guid.to_string(),
        holds: holds(board, layout, &part.holds),
    };
    (1..).zip(&layout.partitions).map(row).collect()
}

fn holds(board: &Board, layout: &Layout, holds: &Holds) -> String {
    match holds {
        Holds::Loader if board.loader == Loader::UBoot => "U-Boot's script boot.scr".to_owned(),
        Holds::Loader if board.loader == Loader::RaspberryPi => "autoboot.txt".to_owned(),
        Holds::Env(copy) => format!("copy {copy} of U-Boot's environment"),
        Holds::Loader => {
            let files: Vec<&str> = layout.esp_files.iter().map(|file| file.path.as_str()).collect();
            format!("boot loader; {}", files.join(", "))
        }
        Holds::Component(name, Slot::A) => format!("{name} of slot a"),
        Holds::Component(name, Slot::B) => format!("{name} of slot b, empty"),
        Holds::Data => "kept through updates: state, floor, history".to_owned(),
    }
}
