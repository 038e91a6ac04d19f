//! `publish --delta-from`: deltas from releases that are published already.

use std::fs::File;

use formats::chunks::delta::{DELTAS_LIMIT, build as build_list};
use formats::chunks::{ChunkList, LIST_LIMIT};
use formats::oci::{Descriptor, RepositoryName, media_type};
use formats::release::Delta;
use formats::version::Version;

use super::component::{ComponentInput, of_sink};
use crate::error::SignerError;
use crate::image::{ImageError, Options, delta};
use crate::plan::PlanError;
use crate::progress::Show;
use crate::published::Published;
use crate::repository::Registry;
use crate::verify::{Component, Release, read_release};

/// What deltas are made of.
pub(super) struct Deltas<'a> {
    pub(super) registry: &'a dyn Registry,
    pub(super) repository: &'a RepositoryName,
    pub(super) options: &'a Options,
    pub(super) show: Show,
    /// The releases they are from.
    pub(super) bases: Vec<Release>,
}

/// The releases that deltas are to be from, verified. Each must be there.
pub(super) fn bases(
    registry: &dyn Registry,
    before: &Published,
    product: &str,
    versions: &[Version],
) -> Result<Vec<Release>, SignerError> {
    if versions.len() > DELTAS_LIMIT {
        let text = format!("--delta-from: {} versions, at most {DELTAS_LIMIT}", versions.len());
        return Err(SignerError::Usage(text));
    }
    let mut found = Vec::new();
    for version in versions {
        let target = formats::release::target_name(product, version);
        let listed = before.state.release(&target).map_err(PlanError::from)?;
        let listed = listed.ok_or(PlanError::NoRelease { target })?;
        found.push(read_release(registry, &before.state, &listed)?);
    }
    Ok(found)
}

impl Deltas<'_> {
    /// The deltas of one component, from those bases that have it for some of the same hardware.
    /// One that is no smaller than the chunks it replaces is left out.
    pub(super) fn of(
        &self,
        input: &ComponentInput,
        list: &ChunkList,
    ) -> Result<Vec<Delta>, SignerError> {
        let mut deltas: Vec<Delta> = Vec::new();
        for release in &self.bases {
            let same = |component: &&Component| {
                component.listed.name == input.name
                    && component.listed.compatible.iter().any(|id| input.compatible.contains(id))
            };
            for component in release.components.iter().filter(same) {
                let base = self.base(component, &release.repository)?;
                let from = base.list().image_id();
                if from == list.image_id() || deltas.iter().any(|delta| delta.from == from) {
                    continue;
                }
                deltas.extend(self.from(&base, input, list)?);
            }
        }
        deltas.truncate(DELTAS_LIMIT);
        Ok(deltas)
    }

    fn base(
        &self,
        component: &Component,
        repository: &RepositoryName,
    ) -> Result<delta::Base, SignerError> {
        let manifest = &component.manifest;
        let bytes = self.registry.blob(repository, &manifest.chunks, "chunk list", LIST_LIMIT)?;
        let list = ChunkList::parse(bytes).map_err(ImageError::from)?;
        let blob = manifest.images.first().ok_or(ImageError::Base)?;
        let what = format!("reading {} {}", component.listed.name, component.config.version);
        let bar = self.show.begin(&what, blob.size);
        let read = self.registry.open_blob(repository, blob)?;
        let base = delta::Base::read(read, list, &|count| bar.add(count))?;
        bar.done();
        Ok(base)
    }

    fn from(
        &self,
        base: &delta::Base,
        input: &ComponentInput,
        list: &ChunkList,
    ) -> Result<Option<Delta>, SignerError> {
        let image = File::open(&input.path)
            .map_err(|source| ImageError::Open { path: input.path.clone(), source })?;
        let changed = delta::changed(base, list);
        let bar = self.show.begin(&format!("delta of {}", input.name), changed.raw);
        let mut sink = self.registry.begin_blob(self.repository)?;
        let add = |count| bar.add(count);
        let frames = delta::build(base, list, &image, &mut sink, self.options, &add)
            .map_err(|error| of_sink(error, sink.as_ref()))?;
        bar.done();
        let size: u64 = frames.iter().map(|frame| u64::from(frame.len)).sum();
        if frames.is_empty() || size >= changed.packed {
            return Ok(None);
        }
        let bar = self.show.begin(&format!("uploading the delta of {}", input.name), size);
        let digest = sink.finish(&bar)?;
        bar.done();
        let blob_sha256 = digest.as_sha256().expect("sinks hash with SHA-256");
        let made = build_list(base.list(), list, blob_sha256, &frames).map_err(ImageError::from)?;
        let listed = Descriptor::of(media_type::DELTA, made.as_bytes());
        self.registry.put_blob(self.repository, &listed, made.as_bytes())?;
        Ok(Some(Delta {
            from: base.list().image_id(),
            from_size: base.list().raw_size(),
            list: listed,
            blob: Descriptor::new(media_type::DELTA_BLOB, digest, size),
        }))
    }
}
