//! What can be refused before an image is built: a mistake should not cost an hour.

use std::collections::BTreeSet;

use formats::digest::Sha256;
use formats::oci::RepositoryName;
use formats::release::{Summary, target_name};
use formats::tuf::{Role, UnixTime};

use super::PublishRequest;
use crate::attachment;
use crate::commands::component::ComponentInput;
use crate::commands::session::{Delivery, Session};
use crate::error::SignerError;
use crate::image::Source;
use crate::plan::{self, PlanError, ReleaseProposal, check_fit, check_release, decide};
use crate::published::{Published, product_repository};
use crate::repository::Registry;

/// Everything that can be refused without building an image has been looked at.
pub(super) struct Prepared {
    pub(super) repository: RepositoryName,
    pub(super) security_version: u64,
    /// In their published order, each with its image.
    pub(super) components: Vec<(ComponentInput, Source)>,
    pub(super) documents: Vec<attachment::Document>,
}

impl Prepared {
    pub(super) fn of(
        session: &Session<'_>,
        before: &Published,
        request: &PublishRequest,
    ) -> Result<Self, SignerError> {
        let (registry, signing) = (session.registry, &*session.signing);
        signing.periods(&request.expiry)?;
        let (components, security_version) = check_request(before, request)?;
        rehearse(before, request, security_version, session.now)?;
        let repository = product_repository(registry, &request.product)?;
        registry.may_mount_from(&neighbours(registry, before, &request.product)?);
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
        if session.delivery == Delivery::Publish {
            let role = request.role.as_ref().unwrap_or(&Role::Targets);
            signing.can_sign(&before.state, role)?;
        }
        let components = components.into_iter().zip(sources).collect();
        Ok(Prepared { repository, security_version, components, documents })
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

/// Where images of this release may be already: the repositories of other products.
fn neighbours(
    registry: &dyn Registry,
    before: &Published,
    product: &str,
) -> Result<Vec<RepositoryName>, SignerError> {
    let targets = before.state.listed("").filter_map(|(_, target, _)| target.split_once('/'));
    let products: BTreeSet<&str> =
        targets.map(|(other, _)| other).filter(|other| *other != product).collect();
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
    let withdrawn = None;
    let summary =
        Summary { version, security_version, components, attachments, mixed, order, withdrawn };
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
