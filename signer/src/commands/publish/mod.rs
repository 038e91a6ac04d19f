//! `publish`: build, upload, sign; the tag that makes it visible moves last.

use formats::digest::{Digest, Sha256};
use formats::oci::{Descriptor, RepositoryName, media_type};
use formats::reason::Reason;
use formats::release::{
    ComponentManifest, ComponentName, ComponentSummary, ImageConfig, IndexedComponent, Mixture,
    ReleaseIndex, Summary, target_name,
};
use formats::tuf::{Role, UnixTime};
use formats::version::Version;
use serde::Serialize;

use super::component::{ComponentInput, of_sink};
use super::delta::{self, Deltas};
use super::session::{Outcome, PlannedChange, Session};
use super::state_report::warning_lines;
use super::{Answer, Delivery, Report, SEEN, Signing, bytes, counted, has_example_key, time};
use crate::attachment;
use crate::error::SignerError;
use crate::image::{self, BuiltImage, RawReason, Sinks, Source};
use crate::plan::{
    self, Change, Expiry, Finding, Level, NewRelease, PlanError, ReleaseProposal, Rollout,
    channel_of, check_fit, check_release, decide, notes,
};
use crate::progress::{Progress, Show};
use crate::published::{Published, product_repository};
use crate::repository::Registry;
use crate::stage::StagedRelease;
use crate::state::State;

/// What is published.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// The product.
    pub product: String,
    /// The version.
    pub version: Version,
    /// The images.
    pub components: Vec<ComponentInput>,
    /// The security version; absent: that of what the channel offers, or the highest of the
    /// product, at first 1.
    pub security_version: Option<u64>,
    /// The channel that offers it from now on.
    pub channel: Option<String>,
    /// Its waves and windows.
    pub rollout: Rollout,
    /// Who signs for it; absent: the top level.
    pub role: Option<Role>,
    /// How images are built.
    pub options: image::Options,
    /// Published releases from which there are to be deltas.
    pub delta_from: Vec<Version>,
    /// What is attached to it.
    pub attachments: attachment::AttachmentRequest,
    /// Mixtures that sets over several devices may pass through.
    pub mixed: Vec<Mixture>,
    /// In which order components that start by themselves are switched.
    pub order: Vec<ComponentName>,
    /// Periods that are to change.
    pub expiry: Expiry,
}

/// What was published.
#[derive(Debug, Serialize)]
pub struct PublishReport {
    changed: bool,
    target: String,
    /// Digest of the release index.
    pub index: String,
    /// Digest of the manifest of the TUF state that is public now.
    pub state: String,
    security_version: u64,
    channel: Option<String>,
    /// Whether that channel is held: then no node installs what it offers.
    held: bool,
    /// What its schedule does that might not be expected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    components: Vec<ComponentReport>,
    timestamp_version: u64,
    timestamp_expires: String,
    warnings: Vec<Finding>,
    example_keys: bool,
}

#[derive(Debug, Clone, Serialize)]
struct ComponentReport {
    name: String,
    compatible: Vec<String>,
    manifest: String,
    raw_size: u64,
    blob_size: u64,
    chunks: u32,
    /// Why it was not asked what kind of file it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    /// Of the image file; absent where the tree of dm-verity was added to it.
    #[serde(skip)]
    sha256: Option<Sha256>,
    /// Bytes of each delta.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deltas: Vec<u64>,
}

impl Report for PublishReport {
    fn text(&self) -> String {
        let verb = if self.changed { "published" } else { "already published, unchanged:" };
        let mut text = format!("{verb} {} ({})", self.target, self.index);
        for component in &self.components {
            text.push_str(&format!(
                "\n  {:10} {} in {}, {} to download, for {}",
                component.name,
                bytes(component.raw_size),
                counted(component.chunks.into(), "chunk"),
                bytes(component.blob_size),
                component.compatible.join(", "),
            ));
            if let Some(reason) = &component.raw {
                text.push_str(&format!("\n  {:10} taken as it is: {reason}", ""));
            }
            for size in &component.deltas {
                text.push_str(&format!("\n  {:10} {} as a delta", "", bytes(*size)));
            }
        }
        if let Some(channel) = &self.channel {
            text.push_str(&format!("\noffered by channel {channel}"));
            if self.held {
                text.push_str(", which is HELD: no node installs it until `channel set --no-hold`");
            } else if self.changed {
                text.push_str(&format!("; {SEEN}"));
            }
        }
        text.push_str(&format!(
            "\ntimestamp version {}, expires {}",
            self.timestamp_version, self.timestamp_expires
        ));
        text + &warning_lines(&self.warnings)
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

/// Publishes a release, all or nothing, or stages it: then its blobs are uploaded, and invisible.
///
/// Killed at any moment, readers see the state before or the one after, never a mixture, and the
/// next run completes. The same images, version and second give the same digests everywhere.
pub fn publish(
    registry: &dyn Registry,
    signing: &mut Signing,
    request: &PublishRequest,
    delivery: Delivery<'_>,
    now: UnixTime,
    show: Show,
) -> Result<Answer<PublishReport>, SignerError> {
    let session = Session { registry, signing, delivery, now };
    let before = session.latest()?.published;
    let prepared = Prepared::of(&session, &before, request)?;
    let uploaded = prepared.upload(registry, &before, request, show)?;
    // That may have taken hours: what is signed follows what is published now.
    let now = session.signing.now(now);
    let session = Session { now, ..session };
    uploaded.make_visible(session, request)
}

/// Everything that can be refused without building an image has been looked at.
struct Prepared {
    repository: RepositoryName,
    security_version: u64,
    /// In their published order, each with its image.
    components: Vec<(ComponentInput, Source)>,
    documents: Vec<attachment::Document>,
}

/// A release whose blobs and documents are in the repository, and invisible.
struct Uploaded {
    repository: RepositoryName,
    summary: Summary,
    index: Vec<u8>,
    index_digest: Digest,
    components: Vec<ComponentReport>,
    warnings: Vec<Finding>,
}

impl Prepared {
    fn of(
        session: &Session<'_>,
        before: &Published,
        request: &PublishRequest,
    ) -> Result<Self, SignerError> {
        let Session { registry, signing, delivery, now } = session;
        signing.periods(&request.expiry)?;
        let (components, security_version) = check_request(before, request)?;
        rehearse(before, request, security_version, *now)?;
        let repository = product_repository(*registry, &request.product)?;
        registry.may_mount_from(&neighbours(*registry, before, &request.product)?);
        let sources = open_images(&request.product, &components)?;
        let images: Vec<_> =
            components.iter().map(|one| (one.name.as_str(), one.path.as_path())).collect();
        let (product, version) = (&request.product, &request.version);
        let documents = attachment::gather(&request.attachments, product, version, &images)?;
        let sizes = components.iter().zip(&sources);
        let sizes: Vec<_> = sizes
            .map(|(one, source)| (one.name.as_str(), one.compatible.as_slice(), source.len()))
            .collect();
        check_fit(&signing.policy, &target_name(product, version), &sizes)?;
        if *delivery == Delivery::Publish {
            let role = request.role.as_ref().unwrap_or(&Role::Targets);
            signing.can_sign(&before.state, role)?;
        }
        let components = components.into_iter().zip(sources).collect();
        Ok(Prepared { repository, security_version, components, documents })
    }

    /// Builds the images straight into the repository, and puts the documents of the release there.
    fn upload(
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
        let upload = Upload { registry, repository, request, show, security_version, deltas };
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
        };
        let (repository, index_digest) = (repository.clone(), descriptor.digest);
        Ok(Uploaded { repository, summary, index, index_digest, components: reports, warnings })
    }
}

impl Uploaded {
    /// Signs the release and moves the tag, or stages it.
    fn make_visible(
        self,
        session: Session<'_>,
        request: &PublishRequest,
    ) -> Result<Answer<PublishReport>, SignerError> {
        let Uploaded { repository, summary, index, index_digest, components, mut warnings } = self;
        let (base, now) = (session.latest()?, session.now);
        let security_version = summary.security_version;
        let change = request.change(summary, index.clone());
        let offered = |state: &State| {
            let (product, channel) = change.channel()?;
            channel_of(state, product, channel).ok().cloned()
        };
        let was = offered(&base.published.state);
        let release = Some(StagedRelease { repository, tag: request.version.tag(), index });
        let planned = PlannedChange { change: change.clone(), release, expiry: &request.expiry };
        let (published, changed) = match session.apply(base, planned)? {
            Outcome::Staged(mut report) => {
                report.warnings.extend(warnings);
                return Ok(Answer::Staged(report));
            }
            Outcome::Unchanged(published) => (published, false),
            Outcome::Published(published, found) => {
                warnings.extend(found);
                (published, true)
            }
        };
        let state = &published.state;
        let is = offered(state);
        Ok(Answer::Done(PublishReport {
            changed,
            target: target_name(&request.product, &request.version),
            index: index_digest.to_string(),
            state: published.manifest.to_string(),
            security_version,
            channel: request.channel.clone(),
            held: is.as_ref().is_some_and(|is| is.hold),
            notes: is.map_or_else(Vec::new, |is| notes(was.as_ref(), &is, now)),
            components,
            timestamp_version: state.timestamp.data.header.version,
            timestamp_expires: time(state.timestamp.data.header.expires),
            warnings,
            example_keys: has_example_key(&state.root),
        }))
    }
}

impl PublishRequest {
    /// A release of these images, signed by the top level and offered by no channel.
    pub fn new(product: &str, version: Version, components: Vec<ComponentInput>) -> Self {
        PublishRequest {
            product: product.to_owned(),
            version,
            components,
            security_version: None,
            channel: None,
            rollout: Rollout::default(),
            role: None,
            options: image::Options::default(),
            delta_from: Vec::new(),
            attachments: attachment::AttachmentRequest::default(),
            mixed: Vec::new(),
            order: Vec::new(),
            expiry: Expiry::default(),
        }
    }

    /// The change that publishes a release of this summary and index.
    fn change(&self, summary: Summary, index: Vec<u8>) -> Change {
        Change::Publish {
            release: NewRelease { product: self.product.clone(), summary, index },
            channel: self.channel.clone(),
            rollout: self.rollout.clone(),
            role: self.role.clone(),
        }
    }
}

/// Opens all images before the first is built, and looks at what they are: one that is missing or no
/// image should not cost an hour.
fn open_images(product: &str, components: &[ComponentInput]) -> Result<Vec<Source>, SignerError> {
    let mut sources = Vec::new();
    for component in components {
        let source = Source::open(&component.path)?;
        if component.raw.is_none() {
            source.check_kind()?;
        }
        // The same for every release, so that unchanged parts of the tree stay unchanged, too.
        let salt = Sha256::of(format!("{product}/{}", component.name).as_bytes());
        sources.push(match component.verity {
            true => source.with_tree(&salt.0),
            false => source,
        });
    }
    Ok(sources)
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

/// Where images of this release may be already: the repositories of other products.
fn neighbours(
    registry: &dyn Registry,
    before: &Published,
    product: &str,
) -> Result<Vec<RepositoryName>, SignerError> {
    let releases = before.state.releases().map_err(PlanError::from)?;
    let mut products: Vec<_> = releases.into_iter().map(|release| release.product).collect();
    products.retain(|other| other != product);
    products.sort();
    products.dedup();
    let names = products.iter().map(|product| product_repository(registry, product));
    Ok(names.collect::<Result<_, _>>()?)
}

/// Everything that signing would refuse whatever is in the images, before they are built.
fn rehearse(
    before: &Published,
    request: &PublishRequest,
    security_version: u64,
    now: UnixTime,
) -> Result<(), SignerError> {
    let (version, components, attachments) = (request.version.clone(), Vec::new(), Vec::new());
    let (mixed, order) = (request.mixed.clone(), request.order.clone());
    let summary = Summary { version, security_version, components, attachments, mixed, order };
    let change = request.change(summary, Vec::new());
    match decide(&before.state, &change, &request.expiry, now) {
        // The same images again are nothing to do; whether they are the same is not known yet.
        Ok(_) | Err(PlanError::SameVersion { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Components in their published order and the security version, after everything that can be
/// refused without building anything.
fn check_request(
    before: &Published,
    request: &PublishRequest,
) -> Result<(Vec<ComponentInput>, u64), SignerError> {
    let mut components = request.components.clone();
    for component in &mut components {
        component.compatible.sort();
        component.compatible.dedup();
    }
    // The order of arguments has no meaning, so it must not change the digest.
    components.sort_by(|a, b| (&a.name, &a.compatible).cmp(&(&b.name, &b.compatible)));
    let channel = request.channel.as_deref();
    let security_version = match request.security_version {
        Some(given) => given,
        None => plan::security_version(&before.state, &request.product, channel)?,
    };
    let proposal = ReleaseProposal {
        product: &request.product,
        version: &request.version,
        security_version,
        channel,
        components: components
            .iter()
            .map(|component| (component.name.as_str(), component.compatible.as_slice()))
            .collect(),
    };
    check_release(&before.state, &proposal)?;
    for (nth, name) in request.order.iter().enumerate() {
        let known = components.iter().any(|component| component.name == *name);
        if !known || request.order[..nth].contains(name) {
            let why = if known { "is named twice" } else { "is no --component" };
            return Err(SignerError::Usage(format!("--order: {name} {why}")));
        }
    }
    if components.is_empty() {
        return Err(SignerError::Usage("a release has at least one --component".to_owned()));
    }
    Ok((components, security_version))
}

struct Upload<'a> {
    registry: &'a dyn Registry,
    repository: &'a RepositoryName,
    request: &'a PublishRequest,
    show: Show,
    security_version: u64,
    deltas: Deltas<'a>,
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
        let written = image::build(source, len, sinks, &self.request.options, &add)
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
