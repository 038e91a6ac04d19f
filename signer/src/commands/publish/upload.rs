//! Images and documents of a release on their way into the repository, where nobody sees them yet.

use formats::digest::Digest;
use formats::oci::{Descriptor, RepositoryName, media_type};
use formats::reason::Reason;
use formats::release::{
    ComponentManifest, ComponentSummary, ImageConfig, IndexedComponent, ReleaseIndex, Summary,
};

use super::PublishRequest;
use super::known;
use super::prepare::Prepared;
use super::report::ComponentReport;
use crate::attachment;
use crate::commands::component::{ComponentInput, of_sink};
use crate::commands::delta::{self, Deltas};
use crate::error::SignerError;
use crate::image::{self, BuiltImage, RawReason, Sinks, Source};
use crate::plan::{Finding, Level};
use crate::progress::{Progress, Show};
use crate::published::Published;
use crate::repository::Registry;
use crate::verify::Release;

/// A release whose blobs and documents are in the repository, and invisible.
pub(super) struct Uploaded {
    pub(super) repository: RepositoryName,
    pub(super) summary: Summary,
    pub(super) index: Vec<u8>,
    pub(super) index_digest: Digest,
    pub(super) components: Vec<ComponentReport>,
    pub(super) warnings: Vec<Finding>,
}

impl Prepared {
    /// Builds the images straight into the repository, and puts the documents of the release there.
    pub(super) fn upload(
        self,
        registry: &dyn Registry,
        before: &Published,
        request: &PublishRequest,
        show: Show,
    ) -> Result<Uploaded, SignerError> {
        let Prepared { repository, security_version, components, documents } = self;
        let (options, repository) = (&request.options, &repository);
        let bases = delta::bases(registry, before, &request.product, &request.delta_from)?;
        let deltas = Deltas { registry, repository, options, show, bases };
        let newest = known::release(registry, before, &request.product);
        let upload =
            Upload { registry, repository, request, show, security_version, deltas, newest };
        let (mut indexed, mut summaries, mut reports) = (Vec::new(), Vec::new(), Vec::new());
        let mut warnings = Vec::new();
        for (component, mut source) in components {
            let (listed, summary, report) = upload.component(&component, &mut source)?;
            warnings.extend(warn_of_zeros(&component, &source));
            indexed.push(listed);
            summaries.push(summary);
            reports.push(report);
        }
        warnings.extend(warn_of_unrelated(&documents, &reports));
        let index = ReleaseIndex { components: indexed }.to_bytes();
        // As a node reads it: what is refused here is never signed.
        ReleaseIndex::parse(&index)?;
        let descriptor = Descriptor::of(media_type::INDEX, &index);
        registry.put_manifest(repository, &descriptor, &index)?;
        let summary = Summary {
            version: request.version.clone(),
            security_version,
            components: summaries,
            attachments: attachment::store(registry, repository, &descriptor, &documents)?,
            mixed: request.mixed.clone(),
            order: request.order.clone(),
            withdrawn: None,
        };
        let (repository, index_digest) = (repository.clone(), descriptor.digest);
        Ok(Uploaded { repository, summary, index, index_digest, components: reports, warnings })
    }
}

/// The warning about an image that was read and has no content. It may be intended, so it is no
/// error.
fn warn_of_zeros(component: &ComponentInput, source: &Source) -> Option<Finding> {
    let path = component.path.display();
    let text = format!("{path} contains only zeros: no system can boot from it");
    let (level, reason) = (Level::Warning, Reason::ImageRefused);
    source.only_zeros().then_some(Finding { level, reason, text })
}

/// Warnings about provenances that describe none of the images.
fn warn_of_unrelated(
    documents: &[attachment::Document],
    reports: &[ComponentReport],
) -> Vec<Finding> {
    let images: Option<Vec<_>> = reports.iter().map(|report| report.sha256).collect();
    // With a tree behind it an image is not what its provenance is about.
    let Some(images) = images else { return Vec::new() };
    let said = documents.iter().filter_map(|document| document.of_something_else(&images));
    let finding = |text| Finding { level: Level::Warning, reason: Reason::BundleFormat, text };
    said.map(finding).collect()
}

struct Upload<'a> {
    registry: &'a dyn Registry,
    repository: &'a RepositoryName,
    request: &'a PublishRequest,
    show: Show,
    security_version: u64,
    deltas: Deltas<'a>,
    /// The newest release of the product, of which frames may be copied.
    newest: Option<Release>,
}

impl Upload<'_> {
    /// Builds one image straight into the repository, then stores its documents.
    fn component(
        &self,
        input: &ComponentInput,
        source: &mut Source,
    ) -> Result<(IndexedComponent, ComponentSummary, ComponentReport), SignerError> {
        let (built, images, bar) = self.blobs(input, source)?;
        let config = self.put_config(input, &built)?;
        let chunks = Descriptor::of(media_type::CHUNKS, built.chunks.as_bytes());
        self.registry.put_blob(self.repository, &chunks, built.chunks.as_bytes())?;
        let deltas = self.deltas.of(input, &built.chunks)?;
        let delta_sizes = deltas.iter().map(|delta| delta.blob.size).collect();
        let blob_size = images.iter().map(|image| image.size).min().unwrap_or_default();
        let documents = ComponentManifest { config, images, chunks, deltas };
        let manifest = documents.to_bytes(input.name.as_str());
        ComponentManifest::parse(&manifest)?;
        let descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
        // Uploads go on until here.
        self.registry.put_manifest(self.repository, &descriptor, &manifest)?;
        bar.done();

        let raw = input.raw.as_ref().map(RawReason::to_string);
        let report = ComponentReport {
            name: input.name.to_string(),
            compatible: input.compatible.clone(),
            manifest: descriptor.digest.to_string(),
            raw_size: built.raw_size,
            blob_size,
            chunks: built.chunks.chunk_count(),
            raw: raw.clone(),
            sha256: Some(built.raw_sha256).filter(|_| !input.verity),
            deltas: delta_sizes,
        };
        let summary = ComponentSummary {
            name: input.name.clone(),
            compatible: input.compatible.clone(),
            manifest: descriptor.digest.clone(),
            raw_size: built.raw_size,
            verity: source.verity().cloned(),
            raw,
        };
        let (name, compatible) = (input.name.clone(), input.compatible.clone());
        Ok((IndexedComponent { name, compatible, manifest: descriptor }, summary, report))
    }

    /// The blobs of an image, the fine one first, and the progress of their upload, which may go on
    /// until their manifest is put.
    fn blobs(
        &self,
        input: &ComponentInput,
        source: &mut Source,
    ) -> Result<(BuiltImage, Vec<Descriptor>, Progress), SignerError> {
        let len = source.len();
        let mut fine = self.registry.begin_blob(self.repository)?;
        let mut solid = self.registry.begin_blob(self.repository)?;
        let bar = self.show.begin(&format!("building {}", input.name), len);
        let add = |count| bar.add(count);
        let sinks = Sinks { fine: &mut fine, solid: &mut solid };
        let options = &self.request.options;
        let newest = self.newest.as_ref();
        let known = newest.and_then(|it| known::frames(self.registry, it, input, options));
        let written = image::build(source, len, sinks, options, known.as_ref(), &add)
            .map_err(|error| of_sink(error, fine.as_ref()))?;
        bar.done();
        // Sinks that are dropped here leave nothing behind.
        source.check_read()?;
        let sizes = [Some(written.fine_size()), written.solid_size()];
        let bar =
            self.show.begin(&format!("uploading {}", input.name), sizes.iter().flatten().sum());
        let mut images = Vec::new();
        for (sink, size) in [fine, solid].into_iter().zip(sizes) {
            if let Some(size) = size {
                images.push(Descriptor::new(media_type::IMAGE_BLOB, sink.finish(&bar)?, size));
            }
        }
        let mut hashes =
            images.iter().map(|image| image.digest.as_sha256().expect("sinks hash with SHA-256"));
        let fine_sha256 = hashes.next().expect("the fine blob is always kept");
        let built = written.finish(fine_sha256, hashes.next())?;
        Ok((built, images, bar))
    }

    fn put_config(
        &self,
        input: &ComponentInput,
        built: &BuiltImage,
    ) -> Result<Descriptor, SignerError> {
        let config = ImageConfig {
            component: input.name.clone(),
            version: self.request.version.clone(),
            security_version: self.security_version,
            compatible: input.compatible.clone(),
            raw_size: built.raw_size,
            raw_sha256: built.raw_sha256,
            chunking: self.request.options.describe(),
        }
        .to_bytes();
        let descriptor = Descriptor::of(media_type::IMAGE_CONFIG, &config);
        self.registry.put_blob(self.repository, &descriptor, &config)?;
        Ok(descriptor)
    }
}
