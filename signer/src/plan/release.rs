//! What may be released: the names and numbers of a release, and what a channel may offer after
//! what it offered.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use formats::release::{COMPONENTS_LIMIT, Summary, Withdrawal, channel_target_name, target_name};
use formats::version::Version;

use super::{PlanError, check_word};
use crate::state::{State, security_version_of};

/// What is known of a release before anything is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal<'a> {
    /// The product.
    pub product: &'a str,
    /// The version.
    pub version: &'a Version,
    /// The security version.
    pub security_version: u64,
    /// The channel that is to offer it.
    pub channel: Option<&'a str>,
    /// Components with the hardware ids they are for.
    pub components: Vec<(&'a str, &'a [String])>,
}

impl<'a> Proposal<'a> {
    /// What a summary proposes.
    pub fn of(product: &'a str, summary: &'a Summary) -> Self {
        let components = summary.components.iter();
        Proposal {
            product,
            version: &summary.version,
            security_version: summary.security_version,
            channel: None,
            components: components
                .map(|component| (component.name.as_str(), component.compatible.as_slice()))
                .collect(),
        }
    }

    /// The same, offered by a channel.
    pub fn offered_by(mut self, channel: Option<&'a str>) -> Self {
        self.channel = channel;
        self
    }
}

/// Refuses a release that no node would install, or that would take a meaning from a version.
///
/// Called before anything is built, and again before anything is signed.
pub fn check_release(state: &State, proposal: &Proposal<'_>) -> Result<(), PlanError> {
    let Proposal { product, version, .. } = *proposal;
    check_word("product", product)?;
    for reserved in ["tuf", "channels"] {
        if product == reserved || version.as_str() == reserved {
            return Err(PlanError::Reserved(reserved.to_owned()));
        }
    }
    limit("security version", proposal.security_version, i64::MAX.unsigned_abs())?;
    limit("number of components", proposal.components.len() as u64, COMPONENTS_LIMIT as u64)?;
    let mut seen = BTreeSet::new();
    for (component, compatible) in &proposal.components {
        if compatible.is_empty() {
            return Err(PlanError::NoHardware { component: (*component).to_owned() });
        }
        for id in *compatible {
            check_word("hardware id", id)?;
            if !seen.insert((*component, id)) {
                let (component, hardware) = ((*component).to_owned(), id.clone());
                return Err(PlanError::TwiceForHardware { component, hardware });
            }
        }
    }
    // A version that is there already changes nothing, wherever it stands in the order.
    let target = target_name(product, version);
    if let Some(published) = state.release(&target)? {
        let Some(Withdrawal { because, .. }) = published.summary.withdrawn else { return Ok(()) };
        return Err(PlanError::Withdrawn { target, because });
    }
    let start = format!("{product}/");
    for (_, target, _) in state.listed(&start) {
        let published = target.strip_prefix(&start).and_then(|it| it.parse::<Version>().ok());
        let same = published.filter(|it| it.compare(version) == Ordering::Equal);
        if let Some(published) = same.filter(|_| state.find(target).is_some()) {
            let offered = version.clone();
            return Err(PlanError::OtherSpelling { offered, published });
        }
    }
    proposal.channel.map_or(Ok(()), |channel| check_offer(state, channel, proposal))
}

/// Refuses to let a channel offer what its nodes would refuse: they may run anything that it
/// offered, and hold the security version of its offer as their floor. What other channels offer
/// binds nobody here.
pub fn check_offer(state: &State, channel: &str, proposal: &Proposal<'_>) -> Result<(), PlanError> {
    let Proposal { product, version, security_version, .. } = *proposal;
    let Some(document) = state.channels.get(&channel_target_name(product, channel)) else {
        return Ok(());
    };
    let (product, channel) = (product.to_owned(), channel.to_owned());
    // Where the last offer was withdrawn, nodes may have its floor all the same.
    let last = document.data.release.as_ref().map(|offer| &offer.version);
    let last = last.or(document.data.newest.as_ref());
    let floor = offered(state, &product, last)?;
    if let Some(floor) = floor.filter(|floor| floor.security_version > security_version) {
        let (offered, published) = (security_version, floor.security_version);
        let version = floor.version;
        return Err(PlanError::SecurityVersion { product, channel, offered, published, version });
    }
    match document.data.newest_offered() {
        Some(newest) if newest.is_newer_than(version) => {
            let (offered, newest) = (version.clone(), newest.clone());
            Err(PlanError::OlderVersion { product, channel, offered, newest })
        }
        _ => Ok(()),
    }
}

/// The security version of a release for which none is given: that of the channel's offer, without
/// one the highest of the product, at first 1.
pub fn security_version(
    state: &State,
    product: &str,
    channel: Option<&str>,
) -> Result<u64, PlanError> {
    let document = channel.map(|channel| channel_target_name(product, channel));
    let document = document.and_then(|target| state.channels.get(&target));
    let offer = document.and_then(|document| document.data.release.as_ref());
    if let Some(summary) = offered(state, product, offer.map(|offer| &offer.version))? {
        return Ok(summary.security_version);
    }
    let start = format!("{product}/");
    let releases = state.listed(&start).filter_map(|(_, _, file)| security_version_of(file));
    Ok(releases.max().unwrap_or(1))
}

/// What is published under a version.
fn offered(
    state: &State,
    product: &str,
    version: Option<&Version>,
) -> Result<Option<Summary>, PlanError> {
    let Some(version) = version else { return Ok(None) };
    Ok(state.release(&target_name(product, version))?.map(|it| it.summary))
}

fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), PlanError> {
    if found <= limit { Ok(()) } else { Err(PlanError::Limit { what, found, limit }) }
}
