//! A failing state as a file that one command replays, and in words.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use storage::sim::Media;
use storage::sim::machine::{Crash, Kept, Recording, SECTOR, Tear};

use crate::case::Case;
use crate::rows;
use crate::sweep::Failure;

/// A state, whole: replaying it needs no run before it.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    scenario: String,
    backend: String,
    why: String,
    /// Whether the run had ended when the power failed.
    #[serde(default)]
    done: bool,
    story: Vec<String>,
    /// Path, length, and the sectors that are not zero.
    media: Vec<(String, u64, Sectors)>,
}

/// Offset and hex.
type Sectors = Vec<(u64, String)>;

/// The story of a failure.
pub fn words(row: &dyn Case, failure: &Failure) -> Vec<String> {
    let mut lines = vec![format!("{}: {}", row.name(), row.about())];
    for (nth, crash) in failure.path.iter().enumerate() {
        if let Some(recording) = failure.recordings.get(nth) {
            lines.push(match nth {
                0 => "it runs:".to_owned(),
                _ => "the power returns, and it goes on:".to_owned(),
            });
            lines.extend(crash_words(recording, crash));
        }
    }
    lines.push("the power returns".to_owned());
    lines.push(failure.why.clone());
    lines
}

/// Operations that are told before a cut.
const TOLD: usize = 14;

fn crash_words(recording: &Recording, crash: &Crash) -> Vec<String> {
    let mut lines = Vec::new();
    let first = crash.cut.saturating_sub(TOLD);
    if first > 0 {
        lines.push(format!("  … {first} operations"));
    }
    let pending = recording.pending(crash.cut);
    for nth in first..crash.cut {
        let fate = match &crash.kept {
            _ if !pending.contains(&nth) => "",
            Kept::Sectors(_) => "   ← some of its sectors were lost",
            Kept::Some(kept) if !kept.contains(&nth) => "   ← lost",
            Kept::Some(_) if nth + 1 == crash.cut => match crash.tear {
                Tear::Whole => "   ← not flushed, arrived all the same",
                Tear::Half => "   ← half of it arrived",
                Tear::FirstSector => "   ← its first sector arrived",
                Tear::Garbage => "   ← half of it arrived, then garbage",
            },
            Kept::Some(_) => "   ← not flushed, arrived all the same",
        };
        lines.push(format!("  {nth:4}  {}{fate}", recording.words(nth)));
    }
    lines.push(format!(
        "the power fails after operation {} of {}",
        crash.cut,
        recording.operations().len()
    ));
    lines
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    (0..text.len())
        .step_by(2)
        .map(|at| {
            let pair = text.get(at..at + 2).context("an odd number of digits")?;
            Ok(u8::from_str_radix(pair, 16)?)
        })
        .collect()
}

/// Saves a failing state.
pub fn save(row: &dyn Case, failure: &Failure, path: &Path) -> Result<()> {
    let sparse = |bytes: &[u8]| -> Sectors {
        let sectors = bytes.chunks(SECTOR).enumerate();
        sectors
            .filter(|(_, sector)| sector.iter().any(|byte| *byte != 0))
            .map(|(nth, sector)| ((nth * SECTOR) as u64, hex(sector)))
            .collect()
    };
    let dump = failure.media.dump();
    let saved = Saved {
        scenario: row.scenario().to_owned(),
        backend: row.place().to_owned(),
        why: failure.why.clone(),
        done: failure.done,
        story: words(row, failure),
        media: dump
            .iter()
            .map(|(at, bytes)| (at.clone(), bytes.len() as u64, sparse(bytes)))
            .collect(),
    };
    std::fs::write(path, serde_json::to_vec(&saved)?)
        .with_context(|| format!("write {}", path.display()))
}

/// Tells the story of a saved state and judges it again; whether it keeps its promises now.
pub fn replay(path: &Path) -> Result<bool> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let saved: Saved = serde_json::from_slice(&bytes).context("this is no saved state")?;
    let row = rows::ready(&saved.scenario, &saved.backend)?;
    saved.story.iter().for_each(|line| println!("{line}"));
    let mut dump = Vec::new();
    for (at, len, sectors) in saved.media {
        let mut bytes = vec![0; usize::try_from(len)?];
        for (offset, sector) in sectors {
            let sector = unhex(&sector)?;
            let offset = usize::try_from(offset)?;
            let place = bytes.get_mut(offset..offset + sector.len());
            place.context("a sector behind the end")?.copy_from_slice(&sector);
        }
        dump.push((at, bytes));
    }
    let media: Media = row.base().restored(&dump);
    println!("-- judged again, by the programs as they are now:");
    match row.judge(&media, true, saved.done) {
        Ok(recovered) => {
            println!("every promise holds, and the goal is reached");
            if let Some(first) = recovered.first {
                println!("in a second run; the first one: {first}");
            }
            Ok(true)
        }
        Err(why) => {
            println!("{why}");
            Ok(false)
        }
    }
}
