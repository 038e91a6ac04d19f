//! Releases for people: which there are, who offers them, and which were withdrawn.

use formats::tuf::UnixTime;
use serde::Serialize;

use super::{Report, bytes, time};
use crate::error::SignerError;
use crate::plan::time_of;
use crate::published::{self, PublishedError};
use crate::repository::Registry;
use crate::state::{ListedRelease, State};

/// One release.
#[derive(Debug, Serialize)]
pub struct ReleaseReport {
    target: String,
    product: String,
    version: String,
    security_version: u64,
    /// Bytes of all its images.
    raw_size: u64,
    components: Vec<String>,
    /// Channels that offer it.
    channels: Vec<String>,
    /// Which role signed for it, and until when that holds.
    role: String,
    expires: String,
    /// Whether that has passed: then no node installs it.
    expired: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawn: Option<WithdrawnReport>,
}

/// Why a release was taken back.
#[derive(Debug, Serialize)]
struct WithdrawnReport {
    at: String,
    because: String,
}

/// All releases, or those of a product.
#[derive(Debug, Serialize)]
pub struct ReleasesReport {
    releases: Vec<ReleaseReport>,
}

impl ReleaseReport {
    fn of(state: &State, listed: &ListedRelease, now: UnixTime) -> Self {
        let summary = &listed.summary;
        let (product, version) = (&listed.product, &summary.version);
        let all = state.channels.values().map(|signed| &signed.data);
        let offers = all.filter(|channel| {
            let offer = channel.release.as_ref();
            channel.product == *product && offer.is_some_and(|offer| offer.version == *version)
        });
        let signed = state.targets_of(&listed.role).unwrap_or(&state.targets);
        let expires = signed.data.header.expires;
        let withdrawn = summary.withdrawn.as_ref().map(|withdrawn| WithdrawnReport {
            at: time(time_of(withdrawn.at)),
            because: withdrawn.because.clone(),
        });
        ReleaseReport {
            target: listed.target.clone(),
            product: product.clone(),
            version: version.to_string(),
            security_version: summary.security_version,
            raw_size: summary.components.iter().map(|component| component.raw_size).sum(),
            components: summary.components.iter().map(|it| it.name.to_string()).collect(),
            channels: offers.map(|channel| channel.channel.clone()).collect(),
            role: listed.role.to_string(),
            expires: time(expires),
            expired: expires <= now,
            withdrawn,
        }
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{}: {} in {}, security version {}",
            self.target,
            bytes(self.raw_size),
            self.components.join(", "),
            self.security_version
        );
        match (&self.withdrawn, self.channels.as_slice()) {
            (Some(it), _) => line.push_str(&format!("; WITHDRAWN {}: {}", it.at, it.because)),
            (None, []) => line.push_str("; in no channel"),
            (None, channels) => line.push_str(&format!("; offered by {}", channels.join(", "))),
        }
        let verb = if self.expired { "EXPIRED" } else { "signed until" };
        line.push_str(&format!("; {verb} {}", self.expires));
        line
    }
}

impl Report for ReleasesReport {
    fn text(&self) -> String {
        let lines: Vec<String> = self.releases.iter().map(ReleaseReport::line).collect();
        if lines.is_empty() { "there is no release".to_owned() } else { lines.join("\n") }
    }
}

/// Lists releases, by product, the oldest first; signs nothing.
pub fn releases(
    registry: &dyn Registry,
    trust_root: &[u8],
    product: Option<&str>,
    now: UnixTime,
) -> Result<ReleasesReport, SignerError> {
    let state = published::load(registry, Some(trust_root))?.state;
    let mut listed = state.releases().map_err(PublishedError::from)?;
    listed.retain(|release| product.is_none_or(|product| release.product == product));
    listed.sort_by(|a, b| {
        a.product.cmp(&b.product).then_with(|| a.summary.version.compare(&b.summary.version))
    });
    let releases = listed.iter().map(|release| ReleaseReport::of(&state, release, now)).collect();
    Ok(ReleasesReport { releases })
}
