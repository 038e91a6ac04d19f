//! What a bundle means: which of the releases on it an operator who carried it here wants.
//!
//! | the bundle holds | the release meant |
//! |---|---|
//! | one release of the node's product | that one, whatever a channel says |
//! | several, among them the one the node's channel offers, for its hardware | what the channel offers |
//! | several otherwise | the newest that has every component for the node's hardware |
//! | several, none for its hardware | the newest: the rules then refuse it as `hw_mismatch` |
//! | none of the node's product | nothing |
//!
//! Hold, waves and windows of the channel are for releases that come by themselves; who carries a
//! bundle decides as who names a version does. The rules of [`crate::policy`] that protect the node
//! (`newer`, `floor`, `hardware`, …) are asked afterwards as ever.

use formats::version::Version;

/// A signed release of the node's product that is on a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnBundle<'a> {
    /// Its version.
    pub version: &'a Version,
    /// Whether it has every component this node needs, for its hardware.
    pub fits: bool,
    /// Whether it is what the node's channel offers, by version and content.
    pub offered: bool,
}

/// The place in `releases` of the release that is meant; `None` when there is none.
pub fn meant(releases: &[OnBundle<'_>]) -> Option<usize> {
    if let [_] = releases {
        return Some(0);
    }
    if let Some(offered) = releases.iter().position(|release| release.offered && release.fits) {
        return Some(offered);
    }
    let by_fit_and_age = |a: &(usize, &OnBundle<'_>), b: &(usize, &OnBundle<'_>)| {
        a.1.fits.cmp(&b.1.fits).then_with(|| a.1.version.compare(b.1.version))
    };
    releases.iter().enumerate().max_by(by_fit_and_age).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1.0.0` fits, `1.0.0!` does not, `1.0.0*` is what the channel offers.
    fn meant_of(spelled: &[&str]) -> Option<usize> {
        let versions: Vec<Version> =
            spelled.iter().map(|text| text.trim_end_matches(['!', '*']).parse().unwrap()).collect();
        let releases: Vec<OnBundle<'_>> = versions
            .iter()
            .zip(spelled)
            .map(|(version, text)| OnBundle {
                version,
                fits: !text.contains('!'),
                offered: text.contains('*'),
            })
            .collect();
        meant(&releases)
    }

    #[test]
    fn a_bundle_means_what_is_on_it() {
        for (name, releases, expected) in [
            ("nothing of this product", &[][..], None),
            ("one, not offered", &["1.0.0"], Some(0)),
            ("one, for other hardware: the rules say so", &["1.0.0!"], Some(0)),
            ("several, one offered", &["1.2.0", "1.1.0*", "1.3.0"], Some(1)),
            ("the newest of several", &["1.2.0", "1.10.0", "1.9.0"], Some(1)),
            ("the offered one is for other hardware", &["1.3.0!*", "1.1.0", "1.2.0"], Some(2)),
            ("the newest is for other hardware", &["1.1.0", "1.2.0!"], Some(0)),
            ("none for this hardware", &["1.1.0!", "1.2.0!"], Some(1)),
        ] {
            assert_eq!(meant_of(releases), expected, "{name}");
        }
    }
}
