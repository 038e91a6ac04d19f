//! Which release a command is about: one that is named, or what a channel offers.

use formats::release::{Withdrawal, target_name};
use formats::version::Version;

use crate::error::SignerError;
use crate::plan::PlanError;
use crate::published::PublishedError;
use crate::state::{ListedRelease, State};

/// A release, as people name it.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) product: &'a str,
    pub(super) channel: &'a str,
    /// `None`: what the channel offers.
    pub(super) version: Option<&'a Version>,
}

/// Finds it in verified metadata.
///
/// # Errors
///
/// The channel offers nothing, there is no such release, or its maintainers have withdrawn it.
pub(super) fn select(state: &State, wanted: &Wanted<'_>) -> Result<ListedRelease, SignerError> {
    let version = match wanted.version {
        Some(version) => version.clone(),
        None => offered(state, wanted)?,
    };
    let releases = state.releases().map_err(PublishedError::from)?;
    Ok(find(&releases, target_name(wanted.product, &version))?.clone())
}

/// Finds a release by its target's name.
///
/// # Errors
///
/// There is no such release, or its maintainers have withdrawn it.
pub(super) fn find(
    releases: &[ListedRelease],
    target: String,
) -> Result<&ListedRelease, PlanError> {
    let Some(listed) = releases.iter().find(|listed| listed.target == target) else {
        return Err(PlanError::NoRelease { target });
    };
    match &listed.summary.withdrawn {
        None => Ok(listed),
        Some(Withdrawal { because, .. }) => {
            Err(PlanError::Withdrawn { target, because: because.clone() })
        }
    }
}

fn offered(state: &State, wanted: &Wanted<'_>) -> Result<Version, SignerError> {
    let Wanted { product, channel, .. } = wanted;
    let mut channels = state.channels.values().map(|signed| &signed.data);
    let own = channels.find(|one| one.product == *product && one.channel == *channel);
    let offer = own.and_then(|one| one.release.as_ref());
    offer.map(|offer| offer.version.clone()).ok_or_else(|| {
        let text = format!("channel {channel} of {product} offers nothing: give --version VERSION");
        SignerError::Usage(text)
    })
}
