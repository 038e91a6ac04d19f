//! Which release of a bundle is meant, and what to say when none is for this node.

use formats::digest::Digest;
use formats::reason::Reason;
use formats::release::Summary;
use formats::version::Version;
use update_core::bundle::{OnBundle, meant as choose};
use update_core::policy::fits;

use super::node::NodeParts;
use crate::error::AgentError;
use crate::source::NamedRelease;
use crate::state::StateGuard;
use crate::trust::{SignedRelease, Trusted};

/// Releases that a message names: what fits on a screen.
const SHOWN: usize = 8;

/// The release that the bundle means, by the table of [`update_core::bundle`].
///
/// Errors: [`Reason::ProductMismatch`] when it holds none of this node's product,
/// [`Reason::HwMismatch`] when it holds none for its hardware, [`Reason::TargetNotFound`] when what
/// it holds was not signed.
pub(super) fn meant(
    node: NodeParts<'_>,
    held: &StateGuard,
    trusted: &mut Trusted<'_>,
    bundle: &[NamedRelease],
) -> Result<SignedRelease, AgentError> {
    let product = &node.config.node.product;
    let mut releases = Vec::new();
    for named in bundle.iter().filter(|named| named.product == *product) {
        releases.extend(signed(held, trusted, named)?);
    }
    let offered = match releases.len() {
        0 | 1 => None,
        _ => offered_by_channel(node, held, trusted),
    };
    let fitting = releases
        .iter()
        .map(|release| fits_node(node, &release.summary))
        .collect::<Result<Vec<bool>, _>>()?;
    let on_bundle: Vec<OnBundle<'_>> = releases
        .iter()
        .zip(fitting)
        .map(|(release, fits)| OnBundle {
            version: &release.summary.version,
            fits,
            offered: offered == Some(release.index),
        })
        .collect();
    let choice = choose(&on_bundle).and_then(|place| Some((place, on_bundle.get(place)?.fits)));
    match choice {
        Some((place, true)) => Ok(releases.swap_remove(place)),
        Some((_, false)) => Err(foreign(node, held, trusted, bundle, Reason::HwMismatch)),
        None if bundle.iter().any(|named| named.product == *product) => {
            Err(foreign(node, held, trusted, bundle, Reason::TargetNotFound))
        }
        None => Err(foreign(node, held, trusted, bundle, Reason::ProductMismatch)),
    }
}

/// The release of that version, if it is on the bundle.
pub(super) fn named(
    node: NodeParts<'_>,
    held: &StateGuard,
    trusted: &mut Trusted<'_>,
    bundle: &[NamedRelease],
    version: &Version,
) -> Result<SignedRelease, AgentError> {
    let product = &node.config.node.product;
    let wanted = |named: &&NamedRelease| named.product == *product && named.version == *version;
    if let Some(named) = bundle.iter().find(wanted)
        && let Some(signed) = signed(held, trusted, named)?
    {
        return Ok(signed);
    }
    let text = format!(
        "{product}/{version} is not on this bundle, which holds {}",
        contents(held, trusted, bundle)
    );
    Err(AgentError::new(Reason::TargetNotFound, text)
        .hint("name a version that is on it, or make a bundle with `signer bundle --version`"))
}

/// The signed release behind a name; `None` if nobody signed it, or signed another content.
fn signed(
    held: &StateGuard,
    trusted: &mut Trusted<'_>,
    named: &NamedRelease,
) -> Result<Option<SignedRelease>, AgentError> {
    match trusted.release(held, &named.product, &named.version) {
        Ok(signed) if Digest::Sha256(signed.index) == named.index => Ok(Some(signed)),
        Ok(_) => Ok(None),
        Err(error) if error.reason() == Reason::TargetNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the channel offers, by its content; nothing when there is no such channel.
fn offered_by_channel(
    node: NodeParts<'_>,
    held: &StateGuard,
    trusted: &mut Trusted<'_>,
) -> Option<formats::digest::Sha256> {
    let own = &node.config.node;
    let channel = trusted.channel(held, &own.product, &own.channel).ok()?;
    channel.release.map(|offer| offer.sha256)
}

fn fits_node(node: NodeParts<'_>, summary: &Summary) -> Result<bool, AgentError> {
    let capacity = node.disk.capacities(node.disk.booted()?.other())?;
    Ok(fits(capacity.keys(), &node.config.node.hardware, summary))
}

/// Nothing on the bundle is for this node: what it holds, and what this node takes.
fn foreign(
    node: NodeParts<'_>,
    held: &StateGuard,
    trusted: &mut Trusted<'_>,
    bundle: &[NamedRelease],
    reason: Reason,
) -> AgentError {
    let own = &node.config.node;
    let text = format!(
        "this bundle holds {}; this node takes product {} for {}",
        contents(held, trusted, bundle),
        own.product,
        own.hardware.join(", ")
    );
    AgentError::new(reason, text).hint(match reason {
        Reason::TargetNotFound => {
            "what is on it was not signed, or with other content: make the bundle again"
        }
        _ => "the copy is good, and made for other nodes: take the bundle of this node's product",
    })
}

/// `demo/1.1.0 (for board-a, board-b), other/9.0.0 (not signed)`.
fn contents(held: &StateGuard, trusted: &mut Trusted<'_>, bundle: &[NamedRelease]) -> String {
    let mut words = Vec::new();
    for named in bundle.iter().take(SHOWN) {
        let kind = match signed(held, trusted, named) {
            Ok(Some(signed)) => format!("for {}", hardware(&signed.summary).join(", ")),
            _ => "not signed".to_owned(),
        };
        words.push(format!("{}/{} ({kind})", named.product, named.version));
    }
    match bundle.len() {
        0 => "no release".to_owned(),
        all if all > SHOWN => format!("{} and {} more", words.join(", "), all - SHOWN),
        _ => words.join(", "),
    }
}

/// The hardware ids of all components, sorted, none twice.
fn hardware(summary: &Summary) -> Vec<String> {
    let components = summary.components.iter();
    let mut ids: Vec<String> =
        components.flat_map(|component| component.compatible.iter().cloned()).collect();
    ids.sort();
    ids.dedup();
    ids
}
