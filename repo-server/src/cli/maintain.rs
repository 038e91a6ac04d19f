//! `scrub` and `gc`.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use formats::reason::Exit;
use signer::plan::Retention;
use storage::interrupt;

use super::args::Location;
use super::output::{count, print_json, say, tell};
use crate::{CollectionPlan, ServerError, StoreError};

pub(super) fn scrub(place: &Location, json: bool) -> Result<Exit, ServerError> {
    let store = place.open(true)?;
    let show = std::io::stderr().is_terminal() && !json;
    let checked = store.scrub(|digest, len| {
        if show {
            let _ = write!(std::io::stderr(), "\r{digest} {:>8} MiB", len >> 20);
        }
    });
    if show {
        say("");
    }
    let (read, rotten) = checked.map_err(|error| place.failed(&error))?;
    interrupt::outcome();
    let damaged = rotten.len();
    if json {
        let rotten: Vec<_> = rotten
            .iter()
            .map(|(digest, why)| serde_json::json!({ "digest": digest, "why": why }))
            .collect();
        let ok = rotten.is_empty();
        print_json(&serde_json::json!({ "ok": ok, "read": read, "rotten": rotten }))?;
    } else {
        for (digest, why) in &rotten {
            tell(&format!("{digest}: {why}"))?;
        }
        tell(&format!("{} read, {damaged} damaged", count(read, "blob")))?;
    }
    // Damaged blobs are content that a client would refuse.
    Ok(if damaged == 0 { Exit::Done } else { Exit::Content })
}

pub(super) fn collect(
    place: &Location,
    (grace, keep): (Duration, Retention),
    dry: bool,
    json: bool,
) -> Result<Exit, ServerError> {
    let store = match place.bucket() {
        Some(_) => place.open(false)?,
        None => {
            // A mistyped name must not become a repository, and what is only looked at must not change.
            let looked_at = place.open(true)?;
            if dry { looked_at } else { place.open(false)? }
        }
    };
    let (now, failed) = (SystemTime::now(), |error: StoreError| place.failed(&error));
    let (states, done) = match dry {
        true => {
            let states = store.old_states(keep).map_err(failed)?;
            let plan = store.plan_collection(grace, now, keep).map_err(failed)?;
            interrupt::outcome();
            if !json {
                show(&states, &plan)?;
            }
            (states.len(), plan.garbage())
        }
        false => {
            let states = store.retire(keep).map_err(failed)?;
            (states, store.collect(grace, now, keep).map_err(failed)?)
        }
    };
    interrupt::outcome();
    if json {
        print_json(&serde_json::json!({
            "ok": true,
            "dry_run": dry,
            "states": states,
            "links": done.links,
            "blobs": done.blobs,
            "bytes": done.bytes,
            "kept": done.kept,
            "young": done.young,
        }))?;
    } else {
        let verb = if dry { "would be removed" } else { "removed" };
        let (blobs, links) = (count(done.blobs, "blob"), count(done.links, "link"));
        let (mib, kept) = (done.bytes >> 20, count(done.kept, "blob"));
        let states = count(states, "old state");
        tell(&format!("{states}, {blobs} ({mib} MiB) and {links} {verb}, {kept} kept"))?;
    }
    Ok(Exit::Done)
}

/// What a collection would remove, one line each. What only an old state needs is not among it: it goes later.
fn show(states: &[String], plan: &CollectionPlan) -> Result<(), ServerError> {
    for state in states {
        tell(&format!("state {state}"))?;
    }
    for (repository, digest) in plan.links() {
        tell(&format!("link {repository}@{digest}"))?;
    }
    for (digest, len) in plan.blobs() {
        tell(&format!("blob {digest} {len}"))?;
    }
    Ok(())
}
