//! `publish`: build, upload, sign; the tag that makes it visible moves last.

use formats::digest::Sha256;
use formats::oci::{Descriptor, RepositoryName, media_type};
use formats::reason::Reason;
use formats::release::{
    ComponentManifest, ComponentName, ComponentSummary, ImageConfig, IndexedComponent, Mixture,
    ReleaseIndex, Summary, channel_target_name, target_name,
};
use formats::tuf::{Role, UnixTime};
use formats::version::Version;
use serde::Serialize;

use super::ceremony::{Base, Outcome, Wanted, apply, timestamp_expires};
use super::component::{ComponentInput, of_sink};
use super::delta::{self, Deltas};
use super::{Answer, Delivery, Report, SEEN, Signing, bytes, has_example_key};
use crate::attachment;
use crate::error::SignerError;
use crate::image::{self, RawReason, Sinks, Source};
use crate::plan::{
    self, Change, Expiry, Finding, Level, NewRelease, PlanError, ReleaseProposal, Rollout,
    check_fit, check_release, decide, notes,
};
use crate::progress::Show;
use crate::published::{Published, product_repository};
use crate::repository::Registry;
use crate::stage::StagedRelease;

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
    pub attachments: attachment::Wanted,
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
                "\n  {:10} {} in {} chunks, {} to download, for {}",
                component.name,
                bytes(component.raw_size),
                component.chunks,
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
        for warning in &self.warnings {
            text.push_str(&format!("\nwarning: {warning}"));
        }
        text
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
    let base = Base::latest(registry, signing, now)?;
    signing.periods(&request.expiry)?;
    let (components, security_version) = check_request(&base.published, request)?;
    rehearse(&base.published, request, security_version, now)?;
    let repository = product_repository(registry, &request.product)?;
    registry.may_mount_from(&neighbours(registry, &base.published, &request.product)?);
    let tag = request.version.tag();
    let sources = open_images(&request.product, &components)?;
    let images: Vec<_> =
        components.iter().map(|one| (one.name.as_str(), one.path.as_path())).collect();
    let documents =
        attachment::gather(&request.attachments, &request.product, &request.version, &images)?;
    // And so should an image that no slot holds, or a key that is at home.
    let sizes = components.iter().zip(&sources);
    let sizes: Vec<_> = sizes
        .map(|(one, source)| (one.name.as_str(), one.compatible.as_slice(), source.len()))
        .collect();
    let target = target_name(&request.product, &request.version);
    check_fit(&signing.policy, &target, &sizes)?;
    if delivery == Delivery::Publish {
        let role = request.role.as_ref().unwrap_or(&Role::Targets);
        signing.can_sign(&base.published.state, role)?;
    }
    let deltas = Deltas {
        registry,
        repository: &repository,
        options: &request.options,
        show,
        bases: delta::bases(registry, &base.published, &request.product, &request.delta_from)?,
    };
    let (mut indexed, mut summaries, mut reports) = (Vec::new(), Vec::new(), Vec::new());
    let mut warnings = Vec::new();
    for (component, mut source) in components.iter().zip(sources) {
        let upload = Upload {
            registry,
            repository: &repository,
            request,
            show,
            security_version,
            deltas: &deltas,
        };
        let (listed, summary, report) = upload.component(component, &mut source)?;
        warnings.extend(nothing_in(component, &source));
        indexed.push(listed);
        summaries.push(summary);
        reports.push(report);
    }
    warnings.extend(of_something_else(&documents, &reports));
    let index = ReleaseIndex { components: indexed }.to_bytes();
    // As a node reads it: what is refused here is never signed.
    ReleaseIndex::parse(&index)?;
    let index_descriptor = Descriptor::of(media_type::INDEX, &index);
    registry.put_manifest(&repository, &index_descriptor, &index)?;
    let attachments = attachment::store(registry, &repository, &index_descriptor, &documents)?;

    // That may have taken hours: what is signed follows what is published now.
    let now = signing.now(now);
    let base = Base::latest(registry, signing, now)?;
    let version = request.version.clone();
    let summary = Summary {
        version,
        security_version,
        components: summaries,
        attachments,
        mixed: request.mixed.clone(),
        order: request.order.clone(),
    };
    let release = NewRelease { product: request.product.clone(), summary, index: index.clone() };
    let channel = request.channel.clone();
    let offered = |published: &Published| {
        let name = channel_target_name(&request.product, request.channel.as_deref()?);
        published.state.channels.get(&name).map(|found| found.data.clone())
    };
    let was = offered(&base.published);
    let wanted = Wanted {
        change: Change::Publish {
            release,
            channel,
            rollout: request.rollout.clone(),
            role: request.role.clone(),
        },
        what: format!("publish {target}"),
        release: Some(StagedRelease { repository, tag, index }),
        expiry: &request.expiry,
    };
    let (published, changed) = match apply(registry, signing, base, wanted, delivery, now)? {
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
    let offering = offered(&published);
    Ok(Answer::Done(PublishReport {
        changed,
        target,
        index: index_descriptor.digest.to_string(),
        state: published.manifest.to_string(),
        security_version,
        channel: request.channel.clone(),
        held: offering.as_ref().is_some_and(|is| is.hold),
        notes: offering.map_or_else(Vec::new, |is| notes(was.as_ref(), &is, now)),
        components: reports,
        timestamp_version: state.timestamp.data.header.version,
        timestamp_expires: timestamp_expires(state),
        warnings,
        example_keys: has_example_key(&state.root),
    }))
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

/// What is said of an image that was read and has no content. It may be meant, so it is no error.
fn nothing_in(component: &ComponentInput, source: &Source) -> Option<Finding> {
    let path = component.path.display();
    let text = format!("{path} holds nothing but zeros: no system starts from it");
    let (level, reason) = (Level::Warning, Reason::ImageRefused);
    source.only_zeros().then_some(Finding { level, reason, text })
}

/// What is said of provenances that are about none of the images.
fn of_something_else(
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
    let (version, components) = (request.version.clone(), Vec::new());
    let attachments = Vec::new();
    let (mixed, order) = (request.mixed.clone(), request.order.clone());
    let summary = Summary { version, security_version, components, attachments, mixed, order };
    let release = NewRelease { product: request.product.clone(), summary, index: Vec::new() };
    let (channel, role) = (request.channel.clone(), request.role.clone());
    let rollout = request.rollout.clone();
    let change = Change::Publish { release, channel, rollout, role };
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
    deltas: &'a Deltas<'a>,
}

impl Upload<'_> {
    /// Builds one image straight into the repository, then stores its documents.
    fn component(
        &self,
        input: &ComponentInput,
        source: &mut Source,
    ) -> Result<(IndexedComponent, ComponentSummary, ComponentReport), SignerError> {
        let Upload { registry, repository, request, .. } = *self;
        let len = source.len();
        let mut fine = registry.begin_blob(repository)?;
        let mut solid = registry.begin_blob(repository)?;
        let bar = self.show.begin(&format!("building {}", input.name), len);
        let add = |count| bar.add(count);
        let sinks = Sinks { fine: &mut fine, solid: &mut solid };
        let written = image::build(source, len, sinks, &request.options, &add)
            .map_err(|error| of_sink(error, fine.as_ref()))?;
        bar.done();
        // The sinks are dropped then, and leave nothing.
        source.check_read()?;
        let sizes = [Some(written.fine_size()), written.solid_size()];
        let bar =
            self.show.begin(&format!("uploading {}", input.name), sizes.iter().flatten().sum());
        let mut images = Vec::new();
        for (sink, size) in [fine, solid].into_iter().zip(sizes) {
            // A sink that is dropped leaves nothing.
            if let Some(size) = size {
                images.push(Descriptor::new(media_type::IMAGE_BLOB, sink.finish(&bar)?, size));
            }
        }
        let mut hashes =
            images.iter().map(|image| image.digest.as_sha256().expect("sinks hash with SHA-256"));
        let fine_sha256 = hashes.next().expect("the fine blob is always kept");
        let built = written.finish(fine_sha256, hashes.next())?;

        let config = ImageConfig {
            component: input.name.clone(),
            version: request.version.clone(),
            security_version: self.security_version,
            compatible: input.compatible.clone(),
            raw_size: built.raw_size,
            raw_sha256: built.raw_sha256,
            chunking: request.options.describe(),
        }
        .to_bytes();
        let config_descriptor = Descriptor::of(media_type::IMAGE_CONFIG, &config);
        registry.put_blob(repository, &config_descriptor, &config)?;
        let chunks = Descriptor::of(media_type::CHUNKS, built.chunks.as_bytes());
        registry.put_blob(repository, &chunks, built.chunks.as_bytes())?;
        let deltas = self.deltas.of(input, &built.chunks)?;
        let deltas_size: Vec<u64> = deltas.iter().map(|delta| delta.blob.size).collect();
        let blob_size = images.iter().map(|image| image.size).min().unwrap_or_default();
        let documents = ComponentManifest { config: config_descriptor, images, chunks, deltas };
        let manifest = documents.to_bytes(input.name.as_str());
        ComponentManifest::parse(&manifest)?;
        let descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
        // Uploads go on until here.
        registry.put_manifest(repository, &descriptor, &manifest)?;
        bar.done();

        let report = ComponentReport {
            name: input.name.to_string(),
            compatible: input.compatible.clone(),
            manifest: descriptor.digest.to_string(),
            raw_size: built.raw_size,
            blob_size,
            chunks: built.chunks.chunk_count(),
            raw: input.raw.as_ref().map(RawReason::to_string),
            sha256: Some(built.raw_sha256).filter(|_| !input.verity),
            deltas: deltas_size,
        };
        let summary = ComponentSummary {
            name: input.name.clone(),
            compatible: input.compatible.clone(),
            manifest: descriptor.digest.clone(),
            raw_size: built.raw_size,
            verity: source.verity().cloned(),
            raw: input.raw.as_ref().map(RawReason::to_string),
        };
        let listed = IndexedComponent {
            name: input.name.clone(),
            compatible: input.compatible.clone(),
            manifest: descriptor,
        };
        Ok((listed, summary, report))
    }
}
