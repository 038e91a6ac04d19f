//! What this node has already of an image: its booted slot, the operator's seeds, and deltas from
//! either.
//!
//! Nothing here is trusted. A chunk counts when it has the wanted digest as it is read, and so does
//! each chunk of a delta's base. What was written by an agent is known from its chunk list; anything
//! else is read once and cut as `signer` cuts images, so that the first update of a slot that came
//! from a factory is as small as any.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

use formats::boot_record::{BootRecord, Slot};
use formats::chunks::delta::DeltaList;
use formats::chunks::{ChunkListError, Content, LIST_LIMIT};
use formats::digest::Sha256;
use formats::oci::Descriptor;
use formats::release::ComponentName;
use storage::block::{Access, BlockDevice, DeviceError};
use storage::files::PrivateDir;
use storage::host::Host;
use update_core::cut::{Cutter, Piece};

use crate::disk::Disk;
use crate::error::AgentError;
use crate::list::{Found, List};
use crate::progress::{Progress, Silent};
use crate::release::ResolvedComponent;
use crate::source::Source;
use crate::stage::{Delta, Image, Places, Planned, Seed, StageError, plan};
use crate::state::State;

/// 1 MiB: what is read at once.
const READ: usize = 1 << 20;
/// Pieces between the thread that reads and cuts and the one that hashes: 2 MiB of the average ones.
const PIECES: usize = 32;
/// 128 MiB: less is read whole within a second on any medium.
const SAMPLED_FROM: u64 = 128 << 20;
/// Of a slot that holds another release of the same system, nearly every sample has a common chunk.
const SAMPLES: u64 = 32;
/// 1 MiB: about sixteen chunks, of which the cut finds the last dozen wherever it begins.
const SAMPLE: u64 = 1 << 20;

/// A device whose chunks are known.
pub(super) struct Holding {
    /// What its list is of.
    id: Sha256,
    places: Places,
    list: List,
    device: Box<dyn BlockDevice>,
}

/// What the node has of one component's image.
pub(super) struct Reuse<'a> {
    booted: Option<Holding>,
    seeds: &'a [Holding],
    deltas: Vec<(DeltaList, Descriptor)>,
}

impl Holding {
    fn new(list: List, device: Box<dyn BlockDevice>) -> Result<Self, ChunkListError> {
        Ok(Holding { id: list.image_id()?, places: Places::of(&list)?, list, device })
    }

    /// A device that nobody keeps an index of, up to `len`: read and cut.
    fn scan(
        device: Box<dyn BlockDevice>,
        len: u64,
        what: &str,
        room: &PrivateDir,
        progress: &dyn Progress,
    ) -> Result<Self, StageError> {
        let len = len.min(device.len());
        progress.begin(&format!("scan {what}"), len);
        let (pieces, cut) = sync_channel(PIECES);
        let read = thread::scope(|scope| {
            let hashed = thread::Builder::new().spawn_scoped(scope, move || {
                let mut found = Found::new(room)?;
                for piece in cut {
                    let (len, content) = described(&piece);
                    found.take(len, content)?;
                }
                found.finish()
            });
            let hashed = hashed.map_err(StageError::Thread)?;
            let read =
                cut_device(device.as_ref(), 0..len, &mut |piece| pieces.send(piece), progress);
            drop(pieces);
            let found = hashed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match read {
                Ok(()) => Ok(found),
                Err(source) => Err(StageError::Seed { what: what.to_owned(), source }),
            }
        });
        progress.end();
        let found = read?.map_err(StageError::IndexStore)?;
        let list = List::own(found).and_then(|list| Holding::new(list, device));
        list.map_err(StageError::Index)
    }
}

/// Reads a part of a device and cuts it. It ends early, and without an error, when nobody wants more.
fn cut_device<E>(
    device: &dyn BlockDevice,
    part: Range<u64>,
    emit: &mut impl FnMut(Piece) -> Result<(), E>,
    progress: &dyn Progress,
) -> Result<(), DeviceError> {
    let mut cutter = Cutter::default();
    let mut buffer = vec![0; READ];
    let mut at = part.start;
    while at < part.end {
        let count = usize::try_from(part.end - at).unwrap_or(READ).min(READ);
        let bytes = buffer.get_mut(..count).unwrap_or_default();
        device.read_at(bytes, at)?;
        if cutter.push(bytes, emit).is_err() {
            return Ok(());
        }
        at += count as u64;
        progress.advance(count as u64);
    }
    // Nobody wants the rest: that is no error either.
    drop(cutter.finish(emit));
    Ok(())
}

/// Whether a device that nobody keeps an index of has any chunk of an image, by a sample of its first
/// `len` bytes: reading all of an empty or foreign slot takes longer than fetching a small update.
///
/// One that cannot be read in a place is worth looking at: whoever looks will say why it cannot.
fn has_some_of(device: &dyn BlockDevice, len: u64, wanted: &List) -> bool {
    let len = len.min(device.len());
    if len < SAMPLED_FROM {
        return true;
    }
    // Eight bytes of each: this decides where to look, not what is taken.
    let begins = |hash: &Sha256| hash.0.first_chunk::<8>().copied();
    let stride = len / SAMPLES;
    let mut samples = BTreeSet::new();
    for number in 0..SAMPLES {
        let start = number * stride + (stride - SAMPLE) / 2;
        let mut emit = |piece| {
            if let Piece::Data(bytes) = piece {
                samples.extend(begins(&Sha256::of(&bytes)));
            }
            Ok::<(), ()>(())
        };
        if cut_device(device, start..start + SAMPLE, &mut emit, &Silent).is_err() {
            return true;
        }
    }
    // Of a list that cannot be read nothing is found: whoever goes on with it will say why.
    let is_sample = |content| match content {
        Content::Data(hash) => begins(&hash).is_some_and(|known| samples.contains(&known)),
        Content::Zero => false,
    };
    wanted.chunks().any(|chunk| chunk.is_ok_and(|chunk| is_sample(chunk.content)))
}

/// Length and content of a piece.
fn described(piece: &Piece) -> (u32, Content) {
    let len = u32::try_from(piece.len()).expect("a piece has at most 16 MiB");
    match piece {
        Piece::Data(bytes) => (len, Content::Data(Sha256::of(bytes))),
        Piece::Zeros(_) => (len, Content::Zero),
    }
}

/// The files and devices an operator named. One that cannot be read is left out, with a note.
pub(super) fn operator_seeds(
    host: &dyn Host,
    paths: &[&Path],
    state: &State,
    progress: &dyn Progress,
) -> Vec<Holding> {
    let open = |path: &Path| {
        let what = path.display().to_string();
        let device = host
            .open_device(path, Access::Read)
            .map_err(|source| StageError::Seed { what: what.clone(), source })?;
        Holding::scan(device, u64::MAX, &what, state.room(), progress)
    };
    let mut found = Vec::new();
    for path in paths {
        match open(path) {
            Ok(holding) => found.push(holding),
            Err(error) => {
                let text = AgentError::from(error).chain();
                progress.note(&format!("the seed {} is not used: {text}", path.display()));
            }
        }
    }
    found
}

/// Finds what one node has of an image.
#[derive(Clone, Copy)]
pub(super) struct ReuseFinder<'a> {
    pub(super) product: &'a str,
    pub(super) state: &'a State,
    pub(super) disk: &'a Disk,
}

impl ReuseFinder<'_> {
    /// What the node has of a component's image. The lists of the deltas that fit are fetched.
    pub(super) fn reuse<'a>(
        &self,
        record: &BootRecord,
        booted: Slot,
        component: &ResolvedComponent,
        seeds: &'a [Holding],
        sources: &[&dyn Source],
        progress: &dyn Progress,
    ) -> Reuse<'a> {
        let name = &component.identity.name;
        let booted =
            self.booted_holding(record, booted, component, progress).unwrap_or_else(|error| {
                progress.note(&format!("{name}: the booted slot is not reused: {}", error.chain()));
                None
            });
        let mut reuse = Reuse { booted, seeds, deltas: Vec::new() };
        let ids: BTreeSet<Sha256> = reuse.holdings().map(|own| own.id).collect();
        for delta in component.deltas.iter().filter(|delta| ids.contains(&delta.from)) {
            let list = sources
                .iter()
                .filter_map(|source| source.blob(self.product, &delta.list, LIST_LIMIT).ok())
                .find_map(|bytes| DeltaList::parse(bytes).ok());
            match list {
                Some(list) => reuse.deltas.push((list, delta.blob.clone())),
                None => progress.note(&format!("{name}: a delta cannot be fetched, chunks are")),
            }
        }
        reuse
    }

    /// The booted slot's image of a component: by the index that was kept when it was written, else
    /// by reading it.
    fn booted_holding(
        &self,
        record: &BootRecord,
        booted: Slot,
        component: &ResolvedComponent,
        progress: &dyn Progress,
    ) -> Result<Option<Holding>, AgentError> {
        let name: &ComponentName = &component.identity.name;
        let content = record.slots.of(booted).as_ref();
        let own = content.and_then(|own| own.components.iter().find(|own| own.name == *name));
        let device = self.disk.open_to_read(booted, name)?;
        if let Some(list) = own.and_then(|own| self.state.chunk_list(&own.chunks)) {
            return Ok(Some(Holding::new(list, device)?));
        }
        // Cut where the image of a delta ends, or else where the image ends that is wanted: what
        // follows in the partition is of no release.
        let len = match component.deltas.first() {
            Some(delta) => delta.from_size,
            None => component.identity.raw_size,
        };
        let what = format!("{name} in slot {booted}");
        if component.deltas.is_empty() && !has_some_of(device.as_ref(), len, &component.list) {
            progress
                .note(&format!("{what}: no sample has anything of the new image; all is fetched"));
            return Ok(None);
        }
        Ok(Some(Holding::scan(device, len, &what, self.state.room(), progress)?))
    }

    /// Where a component's bytes would come from, before anything is fetched.
    pub(super) fn planned(
        &self,
        component: &ResolvedComponent,
        seeds: &[Holding],
        sources: &[&dyn Source],
        progress: &dyn Progress,
    ) -> Result<Planned, AgentError> {
        let booted = self.disk.booted()?;
        let record = self.state.boot_record()?;
        let reuse = self.reuse(&record, booted, component, seeds, sources, progress);
        let deltas = reuse.deltas();
        let target = self.disk.open_to_read(booted.other(), &component.identity.name)?;
        let image = Image {
            component: &component.identity.name,
            product: self.product,
            list: &component.list,
            blobs: &component.images,
            deltas: &deltas,
            target: target.as_ref(),
        };
        Ok(plan(&image, |hash| reuse.holdings().any(|own| own.places.has(hash)))?)
    }
}

impl Reuse<'_> {
    fn holdings(&self) -> impl Iterator<Item = &Holding> {
        self.booted.iter().chain(self.seeds)
    }

    /// What chunks are copied from, in order.
    pub(super) fn seeds(&self) -> Vec<Seed<'_>> {
        let all = self.holdings();
        all.map(|own| Seed { places: &own.places, device: own.device.as_ref() }).collect()
    }

    /// Deltas from any of them.
    pub(super) fn deltas(&self) -> Vec<Delta<'_>> {
        self.deltas
            .iter()
            .filter_map(|(list, blob)| {
                let base = self.holdings().find(|own| own.id == list.base())?;
                Some(Delta { list, blob, base: &base.list, device: base.device.as_ref() })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use storage::sim::Disk;

    use super::*;

    const LEN: u64 = SAMPLED_FROM;

    /// Bytes that no other seed gives (splitmix64).
    fn noise(len: u64, seed: u64) -> Vec<u8> {
        let word = |n: u64| {
            let z = (seed << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 7).to_le_bytes()
        };
        (0..len / 8).flat_map(word).collect()
    }

    #[test]
    fn a_slot_is_read_whole_only_when_a_sample_has_something_of_the_image() {
        let image = noise(LEN / 2, 1);
        let device = |content: &[u8]| {
            let mut bytes = content.to_vec();
            bytes.resize(usize::try_from(LEN).unwrap(), 0);
            Disk::with_content(bytes, 512)
        };
        let temp = tempfile::tempdir().unwrap();
        let room = PrivateDir::create(&temp.path().join("state")).unwrap();
        let own = Holding::scan(Box::new(device(&image)), LEN, "it", &room, &Silent).unwrap();
        let list = &own.list;
        let has = |content: &[u8]| has_some_of(&device(content), LEN, list);
        assert!(has(&image));
        assert!(!has(&[]), "zeros");
        assert!(!has(&noise(LEN / 2, 2)), "another system");
        // A quarter of it, elsewhere, and not on a sector.
        let moved = [noise(30_000_008, 2), image[..image.len() / 2].to_vec()].concat();
        assert!(has(&moved), "moved");
        // Short ones are read whole.
        assert!(has_some_of(&Disk::new(1 << 20, 512), LEN, list));
    }
}
