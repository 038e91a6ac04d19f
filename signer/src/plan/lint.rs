//! What nodes would refuse is refused before it is public.

use std::cmp::Ordering;

use formats::release::{Summary, target_name};

use super::{PlanError, check_word};
use crate::state::State;

/// Refuses a release that no node would install, or that would take a meaning from a version.
///
/// Called before anything is built, and again before anything is signed.
pub fn check_release(state: &State, product: &str, summary: &Summary) -> Result<(), PlanError> {
    check_word("product", product)?;
    let version = &summary.version;
    for reserved in ["tuf", "channels"] {
        if product == reserved || version.as_str() == reserved {
            return Err(PlanError::Reserved(reserved.to_owned()));
        }
    }
    for component in &summary.components {
        if component.compatible.is_empty() {
            let component = component.name.to_string();
            return Err(PlanError::NoHardware { component });
        }
        for id in &component.compatible {
            check_word("hardware id", id)?;
        }
    }
    let own = target_name(product, version);
    for published in state.releases()? {
        if published.product != product {
            continue;
        }
        let other = &published.summary.version;
        if published.target != own && version.compare(other) == Ordering::Equal {
            let (offered, published) = (version.clone(), other.clone());
            return Err(PlanError::OtherSpelling { offered, published });
        }
        // A version that is there already changes nothing, wherever it stands in the order.
        if state.targets.data.targets.contains_key(&own) {
            continue;
        }
        if other.is_newer_than(version) {
            let product = product.to_owned();
            let (offered, newest) = (version.clone(), newest(state, &product, other)?);
            return Err(PlanError::OlderVersion { product, offered, newest });
        }
        if published.summary.security_version > summary.security_version {
            return Err(PlanError::SecurityVersion {
                product: product.to_owned(),
                offered: summary.security_version,
                published: published.summary.security_version,
                version: other.clone(),
            });
        }
    }
    Ok(())
}

fn newest(
    state: &State,
    product: &str,
    at_least: &formats::version::Version,
) -> Result<formats::version::Version, PlanError> {
    let releases = state.releases()?;
    let own = releases.into_iter().filter(|release| release.product == product);
    Ok(own.map(|release| release.summary.version).fold(at_least.clone(), |newest, other| {
        if other.is_newer_than(&newest) { other } else { newest }
    }))
}
