//! `channel`: what a channel offers, how fast, and at what times of day.

use super::args::{ChannelArgs, ChannelChange, ChannelCommand, ListArgs, SetArgs};
use super::place::Place;
use super::run::Run;
use super::signing::role;
use super::{output, trust_root_of};
use crate::commands::{self, ChangeOptions, ChannelPreview};
use crate::error::SignerError;
use crate::plan::{Change, ChannelEdit, Expiry, Rollout};
use crate::repository::Access;

/// Runs `channel`.
pub(super) fn run(command: ChannelCommand, run: Run<'_>) -> Result<(), SignerError> {
    let Run { now, json, .. } = run;
    match command {
        ChannelCommand::Change(command) => change(command, run)?,
        ChannelCommand::Show { reference, registry, trust, product, channel } => {
            let place = Place::to_read(reference.get(), &registry, &trust, None)?;
            let root = trust_root_of(&place.trust())?;
            let registry = place.open(Access::Read)?;
            let registry = registry.as_ref();
            let report = commands::channel(registry, &root, &product, &channel, now)?;
            output::success(&report, json);
        }
        ChannelCommand::List(ListArgs { reference, registry, trust, product }) => {
            let place = Place::to_read(reference.get(), &registry, &trust, None)?;
            let root = trust_root_of(&place.trust())?;
            let registry = place.open(Access::Read)?;
            let registry = registry.as_ref();
            let report = commands::channels(registry, &root, product.as_deref(), now)?;
            output::success(&report, json);
        }
    }
    Ok(())
}

/// Runs a command that changes a channel, at once or staged.
pub(super) fn change(command: ChannelChange, run: Run<'_>) -> Result<(), SignerError> {
    let now = run.now;
    let signer = |name: Option<String>| name.as_deref().map(role).transpose();
    let (by, change) = match command {
        ChannelChange::Set { by, set, rollout, role } => {
            let edit = channel_edit(set, rollout.read(now)?);
            (by, Change::SetChannel { edit, role: signer(role)? })
        }
        ChannelChange::Hold { by, product, channel, off } => {
            (by, Change::Hold { product, channel, hold: !off })
        }
        ChannelChange::Promote { by, product, from, to, urgency, rollout, role } => {
            let to = ChannelEdit {
                product,
                channel: to,
                urgency: urgency.map(Into::into),
                rollout: rollout.read(now)?,
                ..ChannelEdit::default()
            };
            (by, Change::Promote { from, to, role: signer(role)? })
        }
    };
    let ChannelArgs { repo, signing, yes, expires, dry } = by;
    let run = run.dry(&dry);
    let expiry = Expiry::parse(&expires)?;
    let (mut signing, registry) = run.open(&signing, &repo, Access::Update)?;
    signing.preview = preview(run.json, yes);
    let options = ChangeOptions { expiry, base: None };
    let (registry, delivery) = (registry.as_ref(), run.delivery);
    run.finish(commands::change(registry, &mut signing, &change, &options, delivery, now)?);
    Ok(())
}

fn channel_edit(set: SetArgs, rollout: Rollout) -> ChannelEdit {
    let hold = match (set.hold, set.no_hold) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    };
    ChannelEdit {
        product: set.product,
        channel: set.channel,
        release: set.release,
        urgency: set.urgency.map(Into::into),
        hold,
        rollout,
    }
}

/// Who looks at a channel before it is signed: nobody with `--json`; only a person at a terminal is
/// asked, and only whether to go back to an older release.
pub(super) fn preview(json: bool, yes: bool) -> Option<fn(&ChannelPreview) -> bool> {
    if json {
        None
    } else if yes || !output::somebody_is_there() {
        Some(|shown| {
            output::say(&shown.text);
            true
        })
    } else {
        Some(|shown| {
            output::say(&shown.text);
            !shown.older || output::answers_yes("offer the older release?")
        })
    }
}
