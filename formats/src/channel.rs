//! Channel documents: which release a channel offers, how urgently and to whom.
//!
//! A channel is a small TUF target of its own, so promoting a release re-signs metadata and moves
//! no image bytes, and channels can be delegated to other keys than releases.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::release::is_word;
use crate::version::Version;

/// 64 KiB: a channel with thousands of waves; bounds a download.
pub const CHANNEL_LIMIT: u64 = 64 << 10;

/// Why bytes are not a channel document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Not JSON of the right form.
    #[error("channel document: {0}")]
    Form(String),
    /// Another kind of document or another version of it.
    #[error("channel document: type {0:?} is not {TYPE:?}; update this program to read it")]
    Type(String),
    /// The document belongs to another product or channel.
    #[error("channel document: is for {found}, not for {expected}")]
    Misplaced {
        /// `product/channel` in the document.
        found: String,
        /// `product/channel` it was asked for.
        expected: String,
    },
    /// Waves that do not rise, a share over 100, or a window that is not a time.
    #[error("channel document: {0}")]
    Rollout(&'static str),
}

/// `type` of the documents this module reads and writes.
pub const TYPE: &str = "racklet-channel-1";

/// How soon a release should be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Urgency {
    /// Waves and windows apply.
    #[default]
    Normal,
    /// Waves apply, maintenance windows do not.
    Security,
}

/// The release a channel offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its version; the TUF target is `<product>/<version>`.
    pub version: Version,
    /// SHA-256 of the release index, so that a channel cannot be made to offer another content.
    pub sha256: Sha256,
}

/// From `start` on, this share of all nodes may install.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Unix seconds.
    pub start: u64,
    /// 1 to 100, rising from wave to wave.
    pub percent: u8,
}

/// A daily maintenance window in UTC. It may cross midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Minutes after midnight, below 1440.
    pub from: u16,
    /// Minutes it lasts, 1 to 1440.
    pub minutes: u16,
}

/// A channel document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// [`TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The product.
    pub product: String,
    /// The channel's name.
    pub channel: String,
    /// What is offered; absent while the channel is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Offer>,
    /// The newest version it offered, where that is newer than what it offers: nodes may run it, so
    /// the next release has to come after it. Nodes do not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Version>,
    /// How soon.
    #[serde(default)]
    pub urgency: Urgency,
    /// The stop button: nobody installs while it is set.
    #[serde(default)]
    pub hold: bool,
    /// Empty: everybody at once. Otherwise by start, shares rising.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waves: Vec<Wave>,
    /// Empty: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
}

impl Channel {
    /// A channel that offers nothing yet.
    pub fn new(product: &str, channel: &str) -> Self {
        Channel {
            kind: TYPE.to_owned(),
            product: product.to_owned(),
            channel: channel.to_owned(),
            release: None,
            newest: None,
            urgency: Urgency::Normal,
            hold: false,
            waves: Vec::new(),
            windows: Vec::new(),
        }
    }

    /// Offers another release, and remembers the newest one.
    pub fn offer(&mut self, offer: Offer) {
        let newest = self.newest_offered().cloned();
        self.newest = newest.filter(|newest| newest.is_newer_than(&offer.version));
        self.release = Some(offer);
    }

    /// The newest version that nodes of this channel can have from it.
    pub fn newest_offered(&self) -> Option<&Version> {
        let offered = self.release.as_ref().map(|offer| &offer.version);
        offered.into_iter().chain(&self.newest).max_by(|a, b| a.compare(b))
    }

    /// Parses the document of that product and channel. Unknown members are ignored.
    pub fn parse(bytes: &[u8], product: &str, channel: &str) -> Result<Self, ChannelError> {
        let doc: Channel =
            serde_json::from_slice(bytes).map_err(|error| ChannelError::Form(error.to_string()))?;
        if doc.kind != TYPE {
            return Err(ChannelError::Type(doc.kind.chars().take(64).collect()));
        }
        if doc.product != product || doc.channel != channel {
            let found: String =
                format!("{}/{}", doc.product, doc.channel).chars().take(130).collect();
            return Err(ChannelError::Misplaced {
                found,
                expected: format!("{product}/{channel}"),
            });
        }
        doc.check()?;
        Ok(doc)
    }

    /// Deterministic bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("string keys and no floats always serialise")
    }

    /// Whether its waves and windows make sense; the signer asks before it signs.
    pub fn check(&self) -> Result<(), ChannelError> {
        if !is_word(&self.product, 64) || !is_word(&self.channel, 64) {
            return Err(ChannelError::Rollout("product or channel is not a name"));
        }
        let rising = self.waves.is_sorted_by(|a, b| a.start < b.start && a.percent < b.percent);
        if !rising || self.waves.iter().any(|wave| !(1..=100).contains(&wave.percent)) {
            return Err(ChannelError::Rollout("waves do not rise from 1 to 100 percent"));
        }
        let window_fits = |w: &Window| w.from < 1440 && (1..=1440).contains(&w.minutes);
        if !self.windows.iter().all(window_fits) {
            return Err(ChannelError::Rollout("a window is not within a day"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Channel {
        Channel {
            release: Some(Offer {
                version: "1.1.0".parse().unwrap(),
                sha256: Sha256::of(b"index"),
            }),
            waves: vec![Wave { start: 10, percent: 5 }, Wave { start: 20, percent: 100 }],
            windows: vec![Window { from: 1380, minutes: 120 }],
            ..Channel::new("demo", "stable")
        }
    }

    #[test]
    fn a_channel_round_trips() {
        let bytes = sample().to_bytes();
        assert_eq!(Channel::parse(&bytes, "demo", "stable").unwrap(), sample());
        insta::assert_snapshot!(String::from_utf8(bytes).unwrap());
    }

    #[test]
    fn the_newest_offer_is_remembered_while_an_older_one_stands() {
        let mut channel = Channel::new("demo", "stable");
        for (version, newest) in [
            ("1.1.0", None),
            ("1.0.0", Some("1.1.0")),
            ("0.9.0", Some("1.1.0")),
            ("1.1.0", None),
            ("1.2.0-rc1", None),
            ("1.2.0", None),
        ] {
            channel.offer(Offer { version: version.parse().unwrap(), sha256: Sha256::of(b"") });
            assert_eq!(channel.newest, newest.map(|v| v.parse().unwrap()), "{version}");
            let read = Channel::parse(&channel.to_bytes(), "demo", "stable").unwrap();
            assert_eq!(read.newest_offered(), channel.newest_offered(), "{version}");
        }
        assert_eq!(channel.newest_offered(), Some(&"1.2.0".parse().unwrap()));
    }

    #[test]
    fn misplaced_and_senseless_channels_are_refused() {
        let bytes = sample().to_bytes();
        assert!(matches!(
            Channel::parse(&bytes, "demo", "edge"),
            Err(ChannelError::Misplaced { .. })
        ));
        let change = |edit: &dyn Fn(&mut Channel)| {
            let mut channel = sample();
            edit(&mut channel);
            Channel::parse(&channel.to_bytes(), "demo", "stable")
        };
        assert!(change(&|c| c.kind = "racklet-channel-2".to_owned()).is_err());
        assert!(change(&|c| c.waves.reverse()).is_err());
        assert!(change(&|c| c.waves[1].percent = 101).is_err());
        assert!(change(&|c| c.waves[0].percent = 0).is_err());
        assert!(change(&|c| c.windows[0].from = 1440).is_err());
        assert!(change(&|c| c.windows[0].minutes = 0).is_err());
        assert!(change(&|c| c.hold = true).is_ok());
        assert!(Channel::parse(b"{}", "demo", "stable").is_err());
    }
}
