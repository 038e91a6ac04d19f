//! What nodes would refuse is refused before it is public.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use formats::release::{COMPONENTS_LIMIT, Summary};
use formats::version::Version;

use super::{PlanError, check_word};
use crate::state::State;

/// What is known of a release before anything is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal<'a> {
    /// The product.
    pub product: &'a str,
    /// The version.
    pub version: &'a Version,
    /// The security version.
    pub security_version: u64,
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
            components: components
                .map(|component| (component.name.as_str(), component.compatible.as_slice()))
                .collect(),
        }
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
    let releases = state.releases()?;
    let published: Vec<&Summary> =
        releases.iter().filter(|r| r.product == product).map(|r| &r.summary).collect();
    // A version that is there already changes nothing, wherever it stands in the order.
    if published.iter().any(|summary| summary.version == *version) {
        return Ok(());
    }
    for summary in &published {
        if summary.version.compare(version) == Ordering::Equal {
            let (offered, published) = (version.clone(), summary.version.clone());
            return Err(PlanError::OtherSpelling { offered, published });
        }
    }
    let newest = published.iter().map(|summary| &summary.version).max_by(|a, b| a.compare(b));
    if let Some(newest) = newest.filter(|newest| newest.is_newer_than(version)) {
        let (offered, newest) = (version.clone(), newest.clone());
        return Err(PlanError::OlderVersion { product: product.to_owned(), offered, newest });
    }
    match published.iter().max_by_key(|summary| summary.security_version) {
        Some(highest) if highest.security_version > proposal.security_version => {
            Err(PlanError::SecurityVersion {
                product: product.to_owned(),
                offered: proposal.security_version,
                published: highest.security_version,
                version: highest.version.clone(),
            })
        }
        _ => Ok(()),
    }
}

fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), PlanError> {
    if found <= limit { Ok(()) } else { Err(PlanError::Limit { what, found, limit }) }
}
