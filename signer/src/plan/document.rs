//! Metadata of the four roles on their way to a signature.

use std::collections::BTreeMap;

use formats::json::Object;
use formats::tuf::{Header, Metadata, Role, Root, Snapshot, Targets, Timestamp, UnixTime};

use super::{Expiry, Payload};

/// What all four kinds of metadata have that changes with every signature.
pub(super) trait Document: Metadata + Clone {
    /// The header, and the members that the specification does not name.
    fn header_mut(&mut self) -> (&mut Header, &mut Object);
}

macro_rules! documents {
    ($($kind:ty),*) => {$(
        impl Document for $kind {
            fn header_mut(&mut self) -> (&mut Header, &mut Object) {
                (&mut self.header, &mut self.unknown)
            }
        }
    )*};
}
documents!(Root, Targets, Snapshot, Timestamp);

/// The next version of a document, with its expiry.
pub(super) fn next<T: Document>(
    role: &Role,
    mut data: T,
    expiry: &Expiry,
    now: UnixTime,
) -> Payload {
    let (header, members) = data.header_mut();
    header.version = header.version.saturating_add(1);
    header.expires = expiry.apply(role, now, members);
    Payload { role: role.clone(), signed: data.to_value() }
}

/// Targets metadata of a role that has none yet, with version 0.
pub(super) fn empty_targets(now: UnixTime) -> Targets {
    Targets::new(Header::new(0, now), BTreeMap::new())
}
