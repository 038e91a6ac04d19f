//! Channel documents: which release a channel offers, how urgently and to whom.
//!
//! A channel is a small TUF target of its own, so promoting a release re-signs metadata and moves
//! no image bytes, and channels can be delegated to other keys than releases.

use std::fmt;

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

/// `22:00+4h`, `23:30+1h30m`: as `signer` reads it.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}+", self.from / 60, self.from % 60)?;
        match (self.minutes / 60, self.minutes % 60) {
            (0, minutes) => write!(f, "{minutes}m"),
            (hours, 0) => write!(f, "{hours}h"),
            (hours, minutes) => write!(f, "{hours}h{minutes}m"),
        }
    }
}

impl Window {
    /// When it is open next, in Unix seconds: `now` while it is.
    pub fn opens(self, now: u64) -> u64 {
        let (from, length) = (u64::from(self.from) * 60, u64::from(self.minutes) * 60);
        let today = (now - now % DAY).saturating_add(from);
        let open_since = |start: u64| start <= now && now - start < length;
        if open_since(today) || today.checked_sub(DAY).is_some_and(open_since) {
            now
        } else if now < today {
            today
        } else {
            today.saturating_add(DAY)
        }
    }
}

/// Seconds of a day.
const DAY: u64 = 86_400;

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
    /// Emergency stop: no node installs while it is set.
    #[serde(default)]
    pub hold: bool,
    /// Empty: all nodes at once. Otherwise by start, shares rising.
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

    /// The share of all nodes whose wave has begun, 0 to 100; hold and windows apart.
    pub fn share(&self, now: u64) -> u8 {
        let begun = self.waves.iter().take_while(|wave| wave.start <= now).last();
        match begun {
            Some(wave) => wave.percent,
            None if self.waves.is_empty() => 100,
            None => 0,
        }
    }

    /// When a window is open next, in Unix seconds: `now` while one is. `None`: there are no windows,
    /// or the urgency does not wait for them.
    pub fn opens(&self, now: u64) -> Option<u64> {
        if self.urgency == Urgency::Security {
            return None;
        }
        self.windows.iter().map(|window| window.opens(now)).min()
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
    fn shares_and_windows_at_a_time() {
        let mut channel = sample();
        for (now, share) in [(0, 0), (9, 0), (10, 5), (19, 5), (20, 100), (u64::MAX, 100)] {
            assert_eq!(channel.share(now), share, "at {now}");
        }
        channel.waves.clear();
        assert_eq!(channel.share(0), 100, "no waves: everybody at once");

        // 23:00 to 01:00, on day 1000.
        let at = |hour: u64, minute: u64| 86_400_000 + hour * 3600 + minute * 60;
        for (now, opens) in [
            (at(0, 0), at(0, 0)),
            (at(0, 59), at(0, 59)),
            (at(1, 0), at(23, 0)),
            (at(22, 59), at(23, 0)),
            (at(23, 0), at(23, 0)),
        ] {
            assert_eq!(channel.opens(now), Some(opens), "at {now}");
        }
        // The nearest of several.
        channel.windows.push(Window { from: 120, minutes: 30 });
        assert_eq!(channel.opens(at(1, 0)), Some(at(2, 0)));
        assert_eq!(channel.opens(at(2, 30)), Some(at(23, 0)));
        channel.urgency = Urgency::Security;
        assert_eq!(channel.opens(at(1, 0)), None);
        // The longest window is always open, and the first midnight has no yesterday.
        let always = Window { from: 720, minutes: 1440 };
        assert_eq!((always.opens(at(11, 0)), always.opens(0)), (at(11, 0), 43_200));
        for (from, minutes, text) in
            [(1320, 240, "22:00+4h"), (1410, 90, "23:30+1h30m"), (0, 5, "00:00+5m")]
        {
            assert_eq!(Window { from, minutes }.to_string(), text);
        }
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
