//! Example keys in a trust root: accepted, because a tutorial needs them, and said everywhere.

use formats::example_keys;
use formats::tuf::Root;

/// Said in `status`, `doctor` and at the start of every log.
pub(crate) const WARNING: &str = "the trust root contains a published example key: anybody can sign \
                           releases for this node; never use it outside a tutorial";

/// Whether a root names a key whose private half is published.
pub(crate) fn uses_example_keys(root: &Root) -> bool {
    root.keys.iter().any(|(id, _)| example_keys::is_example(&id.to_string()))
}
