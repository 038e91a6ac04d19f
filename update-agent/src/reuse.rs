//! What this node has already of an image: its booted slot, the operator's seeds, and deltas from
//! either.
//!
//! Nothing here is trusted. A chunk counts when it has the wanted digest as it is read, and so does
//! each chunk of a delta's base. What was written by an agent is known from its chunk list; anything
//! else is read once and cut as `signer` cuts images, so that the first update of a slot that came
//! from a factory is as small as any.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use formats::boot_record::{BootRecord, Slot};
use formats::chunks::delta::DeltaList;
use formats::chunks::{Builder, ChunkList, Content, FrameEntry, LIST_LIMIT, seekable_table_len};
use formats::digest::Sha256;
use formats::oci::Descriptor;
use formats::release::ComponentName;
use storage::block::{Access, BlockDevice};
use update_core::cut::{Cutter, Piece};

use crate::agent::Agent;
use crate::error::AgentError;
use crate::progress::Progress;
use crate::release::ResolvedComponent;
use crate::source::Source;
use crate::stage::{Delta, Image, Planned, Seed, StageError, plan};

/// 1 MiB: what is read at once.
const READ: usize = 1 << 20;

/// A device whose chunks are known.
pub struct Holding {
    list: ChunkList,
    device: Box<dyn BlockDevice>,
}

/// What the node has of one component's image.
pub struct Reuse<'a> {
    booted: Option<Holding>,
    seeds: &'a [Holding],
    deltas: Vec<(DeltaList, Descriptor)>,
}

impl Holding {
    /// A device that nobody keeps an index of, up to `len`: read and cut.
    fn scan(
        device: Box<dyn BlockDevice>,
        len: u64,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<Self, StageError> {
        let len = len.min(device.len());
        progress.begin(&format!("look at {what}"), len);
        let mut found = Found::default();
        let mut emit = |piece| -> Result<(), std::convert::Infallible> {
            found.take(&piece);
            Ok(())
        };
        let mut cutter = Cutter::default();
        let mut buffer = vec![0; READ];
        let mut at = 0u64;
        while at < len {
            let count = usize::try_from(len - at).unwrap_or(READ).min(READ);
            let bytes = buffer.get_mut(..count).unwrap_or_default();
            if let Err(source) = device.read_at(bytes, at) {
                progress.end();
                return Err(StageError::Seed { what: what.to_owned(), source });
            }
            let Ok(()) = cutter.push(bytes, &mut emit);
            at += count as u64;
            progress.advance(count as u64);
        }
        let Ok(()) = cutter.finish(&mut emit);
        progress.end();
        Ok(Holding { list: found.finish()?, device })
    }
}

/// The chunks of a device, as they are found.
#[derive(Default)]
struct Found {
    builder: Builder,
    frames: Vec<FrameEntry>,
}

impl Found {
    fn take(&mut self, piece: &Piece) {
        let len = u32::try_from(piece.len()).expect("a piece has at most 16 MiB");
        let content = match piece {
            Piece::Data(bytes) => Content::Data(Sha256::of(bytes)),
            Piece::Zeros(_) => Content::Zero,
        };
        self.builder.chunk(len, content);
        self.frames.push(FrameEntry { len: 1, chunks: 1, sha256: Sha256([0; 32]) });
    }

    /// A list needs an encoding; this one is of no blob, and nobody asks for it.
    fn finish(mut self) -> Result<ChunkList, StageError> {
        let count = u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
        let size = u64::from(count) + seekable_table_len(count);
        self.builder.encoding(Sha256([0; 32]), size, &self.frames);
        self.builder.finish().map_err(|error| StageError::Index(error.to_string()))
    }
}

impl Agent {
    /// The files and devices an operator named. One that cannot be read is left out, with a note.
    pub fn operator_seeds(&self, named: &[PathBuf], progress: &dyn Progress) -> Vec<Holding> {
        let configured = self.config.seeds.iter().map(|seed| seed.path.as_path());
        let open = |path: &Path| {
            let what = path.display().to_string();
            let device = self
                .host
                .open_device(path, Access::Read)
                .map_err(|source| StageError::Seed { what: what.clone(), source })?;
            Holding::scan(device, u64::MAX, &what, progress)
        };
        let mut found = Vec::new();
        for path in named.iter().map(PathBuf::as_path).chain(configured) {
            match open(path) {
                Ok(holding) => found.push(holding),
                Err(error) => {
                    let text = AgentError::from(error).chain();
                    progress.note(&format!("the seed {} is left aside: {text}", path.display()));
                }
            }
        }
        found
    }

    /// What the node has of a component's image. The lists of the deltas that fit are fetched.
    pub fn reuse<'a>(
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
        let ids: BTreeSet<Sha256> = reuse.holdings().map(|own| own.list.image_id()).collect();
        for delta in component.deltas.iter().filter(|delta| ids.contains(&delta.from)) {
            let product = &self.config.node.product;
            let list = sources
                .iter()
                .filter_map(|source| source.blob(product, &delta.list, LIST_LIMIT).ok())
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
            return Ok(Some(Holding { list, device }));
        }
        // Cut where the image of a delta ends, or else where the image ends that is wanted: what
        // follows in the partition is of no release.
        let len = match component.deltas.first() {
            Some(delta) => delta.from_size,
            None => component.identity.raw_size,
        };
        let what = format!("{name} in slot {booted}");
        Ok(Some(Holding::scan(device, len, &what, progress)?))
    }

    /// Where a component's bytes would come from, before anything is fetched.
    pub fn planned(
        &self,
        component: &ResolvedComponent,
        seeds: &[Holding],
        sources: &[&dyn Source],
        progress: &dyn Progress,
    ) -> Result<Planned, AgentError> {
        let booted = self.disk.booted()?;
        let record = self.state.boot_record()?;
        let reuse = self.reuse(&record, booted, component, seeds, sources, progress);
        let known: BTreeSet<Sha256> = reuse
            .holdings()
            .flat_map(|own| own.list.chunks())
            .filter_map(|chunk| match chunk.content {
                Content::Data(hash) => Some(hash),
                Content::Zero => None,
            })
            .collect();
        let deltas = reuse.deltas();
        let target = self.disk.open_to_read(booted.other(), &component.identity.name)?;
        let image = Image {
            component: &component.identity.name,
            product: &self.config.node.product,
            list: &component.list,
            blobs: &component.images,
            deltas: &deltas,
            target: target.as_ref(),
        };
        Ok(plan(&image, |hash| known.contains(hash))?)
    }
}

impl Reuse<'_> {
    fn holdings(&self) -> impl Iterator<Item = &Holding> {
        self.booted.iter().chain(self.seeds)
    }

    /// What chunks are copied from, in order.
    pub fn seeds(&self) -> Vec<Seed<'_>> {
        self.holdings().map(|own| Seed { list: &own.list, device: own.device.as_ref() }).collect()
    }

    /// Deltas from any of them.
    pub fn deltas(&self) -> Vec<Delta<'_>> {
        self.deltas
            .iter()
            .filter_map(|(list, blob)| {
                let base = self.holdings().find(|own| own.list.image_id() == list.base())?;
                Some(Delta { list, blob, base: &base.list, device: base.device.as_ref() })
            })
            .collect()
    }
}
