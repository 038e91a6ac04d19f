//! `channel set` and `refresh`: changes that move no image.

use formats::channel::Urgency;
use formats::release::channel_target_name;
use formats::tuf::UnixTime;
use formats::version::Version;
use serde::Serialize;

use super::status::ChannelStatus;
use super::{Report, has_example_key, time};
use crate::error::SignerError;
use crate::key::KeyStore;
use crate::plan::{Change, Decision, Expiry, decide, sign_draft};
use crate::published;
use crate::repository::Registry;
use crate::state::State;

/// What a channel is to say from now on; absent fields stay as they are.
#[derive(Debug, Clone)]
pub struct ChannelRequest {
    /// The product.
    pub product: String,
    /// The channel.
    pub channel: String,
    /// The release it offers.
    pub release: Option<Version>,
    /// How urgent it is.
    pub urgency: Option<Urgency>,
    /// Whether nobody installs for now.
    pub hold: Option<bool>,
}

/// The state that is public now.
#[derive(Debug, Serialize)]
pub struct ChangeReport {
    changed: bool,
    what: String,
    /// Digest of the manifest of the TUF state that is public now.
    pub state: String,
    targets_version: u64,
    snapshot_version: u64,
    timestamp_version: u64,
    timestamp_expires: String,
    example_keys: bool,
}

impl Report for ChangeReport {
    fn text(&self) -> String {
        let what = &self.what;
        let verb = if self.changed { "" } else { " (unchanged)" };
        format!(
            "{what}{verb}\ntargets {}, snapshot {}, timestamp {}, expires {}",
            self.targets_version,
            self.snapshot_version,
            self.timestamp_version,
            self.timestamp_expires
        )
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

/// Changes what a channel offers and how.
pub fn set_channel(
    registry: &dyn Registry,
    keys: &KeyStore,
    trust_root: &[u8],
    request: &ChannelRequest,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<ChangeReport, SignerError> {
    let change = Change::SetChannel {
        product: request.product.clone(),
        channel: request.channel.clone(),
        release: request.release.clone(),
        urgency: request.urgency,
        hold: request.hold,
    };
    let target = channel_target_name(&request.product, &request.channel);
    let what = |state: &State| {
        let channel = state.channels.get(&target);
        channel.map(|channel| ChannelStatus::of(&channel.data).line()).unwrap_or_default()
    };
    apply(registry, keys, trust_root, &change, what, expiry, now)
}

/// Renews snapshot and timestamp. Needs no other key than theirs.
pub fn refresh(
    registry: &dyn Registry,
    keys: &KeyStore,
    trust_root: &[u8],
    expiry: &Expiry,
    now: UnixTime,
) -> Result<ChangeReport, SignerError> {
    let what = |_: &State| "snapshot and timestamp renewed".to_owned();
    apply(registry, keys, trust_root, &Change::Refresh, what, expiry, now)
}

fn apply(
    registry: &dyn Registry,
    keys: &KeyStore,
    trust_root: &[u8],
    change: &Change,
    what: impl Fn(&State) -> String,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<ChangeReport, SignerError> {
    let before = published::load(registry, Some(trust_root))?;
    let (state, manifest, changed) = match decide(&before.state, change, now)? {
        Decision::Unchanged => (before.state, before.manifest, false),
        Decision::Sign(draft) => {
            let next = sign_draft(&before.state, draft, keys, expiry, now)?;
            let manifest = published::publish(registry, Some(&before.manifest), &next, None)?;
            (next, manifest, true)
        }
    };
    Ok(ChangeReport {
        changed,
        what: what(&state),
        state: manifest.to_string(),
        targets_version: state.targets.data.header.version,
        snapshot_version: state.snapshot.data.header.version,
        timestamp_version: state.timestamp.data.header.version,
        timestamp_expires: time(state.timestamp.data.header.expires),
        example_keys: has_example_key(&state.root),
    })
}
