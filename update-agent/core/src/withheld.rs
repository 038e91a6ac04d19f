//! Whether a release that is next must not be tried for now: what the channel that offered it says since.
//!
//! | the channel | the release |
//! |---|---|
//! | is held | is withheld |
//! | offers nothing any more | is withheld |
//! | offers something older instead, or other content of that version | is withheld |
//! | offers it | may be tried |
//! | offers something newer | may be tried: the newer one replaces it where it may be installed |
//!
//! Nothing of this reaches a release that an operator chose, nor one that has been booted: a trial ends
//! by its checks.

use std::cmp::Ordering;

use formats::boot_record::ReleaseId;
use formats::channel::Channel;

/// Why the release must not be tried for now, in words; `None` when it may be.
pub fn withheld(channel: &Channel, release: &ReleaseId) -> Option<String> {
    let (name, version) = (&channel.channel, &release.version);
    if channel.hold {
        return Some(format!("channel {name} is held by its maintainers"));
    }
    let Some(offered) = &channel.release else {
        return Some(format!("channel {name} offers {version} no more"));
    };
    if offered.sha256 == release.index {
        return None;
    }
    match offered.version.compare(&version.version()) {
        Ordering::Greater => None,
        Ordering::Less => {
            Some(format!("channel {name} offers {} instead of {version}", offered.version))
        }
        Ordering::Equal => Some(format!("channel {name} offers another content of {version}")),
    }
}

#[cfg(test)]
mod tests {
    use formats::channel::Offer;
    use formats::digest::Sha256;

    use super::*;

    #[test]
    fn what_a_channel_says_of_a_release_that_is_next() {
        let next = ReleaseId {
            index: Sha256::of(b"1.1.0"),
            version: "1.1.0".parse::<formats::version::Version>().unwrap().into(),
            security_version: 1,
        };
        let offer = |version: &str, content: &[u8]| {
            Some(Offer { version: version.parse().unwrap(), sha256: Sha256::of(content) })
        };
        let rows = [
            ("offered", offer("1.1.0", b"1.1.0"), false, None),
            (
                "held",
                offer("1.1.0", b"1.1.0"),
                true,
                Some("channel stable is held by its maintainers"),
            ),
            (
                "held, and another is offered",
                offer("1.2.0", b"1.2.0"),
                true,
                Some("channel stable is held by its maintainers"),
            ),
            (
                "held, and nothing is offered",
                None,
                true,
                Some("channel stable is held by its maintainers"),
            ),
            ("nothing is offered", None, false, Some("channel stable offers 1.1.0 no more")),
            (
                "older",
                offer("1.0.0", b"1.0.0"),
                false,
                Some("channel stable offers 1.0.0 instead of 1.1.0"),
            ),
            (
                "other content",
                offer("1.1.0", b"other"),
                false,
                Some("channel stable offers another content of 1.1.0"),
            ),
            ("newer", offer("1.2.0", b"1.2.0"), false, None),
        ];
        for (name, release, hold, expected) in rows {
            let channel = Channel { release, hold, ..Channel::new("demo", "stable") };
            assert_eq!(withheld(&channel, &next).as_deref(), expected, "{name}");
        }
    }
}
