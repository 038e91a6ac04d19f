//! `publish`: build, upload, sign; the tag that makes it visible moves last.

mod known;
mod prepare;
pub(super) mod report;
mod upload;

use formats::release::{ComponentName, Mixture, Summary, target_name};
use formats::tuf::{Role, UnixTime};
use formats::version::Version;
use serde::Serialize;

use self::prepare::Prepared;
use self::report::{ComponentReport, PlannedRelease};
use self::upload::Uploaded;
use super::component::ComponentInput;
use super::session::{Outcome, PlannedChange, Session};
use super::state_report::warning_lines;
use super::{Answer, Delivery, Report, SEEN, Signing, has_example_key, time};
use crate::attachment;
use crate::error::SignerError;
use crate::image;
use crate::plan::{Change, Expiry, Finding, NewRelease, Rollout, channel_of, notes};
use crate::progress::Show;
use crate::repository::{Registry, Rehearsal, Transfer};
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

impl Report for PublishReport {
    fn text(&self) -> String {
        let verb = if self.changed { "published" } else { "already published, unchanged:" };
        let mut text = format!("{verb} {} ({})", self.target, self.index);
        for component in &self.components {
            text.push_str(&component.text());
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
    if delivery == Delivery::DryRun {
        let rehearsal = Rehearsal::of(registry);
        let session = Session { registry: &rehearsal, ..session };
        let prepared = Prepared::of(&session, &before, request)?;
        let uploaded = prepared.upload(&rehearsal, &before, request, show)?;
        let planned = PlannedRelease::of(&uploaded, request, rehearsal.transfer());
        let answer = uploaded.make_visible(session, request)?;
        return Ok(answer.of_release(planned));
    }
    let prepared = Prepared::of(&session, &before, request)?;
    let uploaded = prepared.upload(registry, &before, request, show)?;
    // That may have taken hours: what is signed follows what is published now.
    let now = session.signing.now(now);
    let session = Session { now, ..session };
    uploaded.make_visible(session, request)
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
            Outcome::Described(mut report) => {
                report.warnings.extend(warnings);
                return Ok(Answer::Described(report));
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

impl PlannedRelease {
    fn of(uploaded: &Uploaded, request: &PublishRequest, upload: Transfer) -> Self {
        PlannedRelease {
            target: target_name(&request.product, &request.version),
            index: uploaded.index_digest.to_string(),
            security_version: uploaded.summary.security_version,
            components: uploaded.components.clone(),
            upload,
        }
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
