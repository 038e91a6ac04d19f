//! Frames that the release before has already, where its blobs lie in a directory or file of this machine.
//!
//! Over a network, fetching them costs more than compressing them again. A release that cannot be read is
//! of no use here, and nothing is said about it: with it or without it, the same bytes are published.

use std::io;

use formats::chunks::{ChunkList, LIST_LIMIT};
use formats::oci::Descriptor;
use formats::release::target_name;
use formats::version::Version;
use storage::layout::Blob;

use crate::commands::component::ComponentInput;
use crate::image::{Known, Options, ReadAt};
use crate::published::Published;
use crate::repository::Registry;
use crate::verify::{Component, Release, read_release};

/// The newest release of a product, if it can be read and lies on this machine.
pub(super) fn release(
    registry: &dyn Registry,
    before: &Published,
    product: &str,
) -> Option<Release> {
    registry.layout()?;
    let state = &before.state;
    let start = format!("{product}/");
    let versions = state.listed(&start).filter_map(|(_, target, _)| {
        target.strip_prefix(&start).and_then(|version| version.parse::<Version>().ok())
    });
    let newest = versions.reduce(|a, b| if b.is_newer_than(&a) { b } else { a })?;
    let listed = state.release(&target_name(product, &newest)).ok()??;
    read_release(registry, state, &listed).ok()
}

/// Its frames of a component, for some of the same hardware, that the same encoder made.
pub(super) fn frames(
    registry: &dyn Registry,
    release: &Release,
    input: &ComponentInput,
    options: &Options,
) -> Option<Known> {
    let encoder = options.describe();
    let same = |component: &&Component| {
        component.listed.name == input.name
            && component.listed.compatible.iter().any(|id| input.compatible.contains(id))
            && component.config.chunking == encoder
    };
    let manifest = &release.components.iter().find(same)?.manifest;
    let list = registry.blob(&release.repository, &manifest.chunks, "chunk list", LIST_LIMIT);
    let list = ChunkList::parse(list.ok()?).ok()?;
    let blobs = manifest.images.iter().map(|blob| open(registry, blob));
    Some(Known::new(&list, blobs.collect::<Option<_>>()?))
}

fn open(registry: &dyn Registry, blob: &Descriptor) -> Option<Box<dyn ReadAt>> {
    let found = registry.layout()?.open_blob(&blob.digest).ok()??;
    (found.len() == blob.size).then(|| Box::new(Stored(found)) as Box<dyn ReadAt>)
}

/// A blob of a layout.
struct Stored(Blob);

impl ReadAt for Stored {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset).map_err(io::Error::other)
    }
}
