//! A roll-out over time: what its maintainers signed as its bounds, and what nodes did. Pure.

use formats::channel::Channel;
use formats::tuf::UnixTime;

use crate::fleet::overview::ReleaseSums;

/// Points of a curve: more are not seen on a screen.
const POINTS: usize = 200;

/// What a page shows of it.
#[derive(Debug, Clone)]
pub(super) struct Rollout {
    pub(super) channel: Channel,
    /// Approved nodes of the channel.
    pub(super) nodes: usize,
    pub(super) now: u64,
    /// When a node was confirmed, and how many were then; rising.
    pub(super) confirmed: Vec<(u64, usize)>,
    /// The same of nodes that reverted.
    pub(super) reverted: Vec<(u64, usize)>,
}

impl Rollout {
    pub(super) fn of(channel: &Channel, release: &ReleaseSums, nodes: usize, now: u64) -> Self {
        Rollout {
            channel: channel.clone(),
            nodes,
            now,
            confirmed: curve(&release.confirmed),
            reverted: curve(&release.reverted),
        }
    }

    /// Waves that have begun.
    pub(super) fn begun(&self) -> usize {
        self.channel.waves.iter().take_while(|wave| wave.start <= self.now).count()
    }

    /// How far it is, in a few words; nothing where every node may install.
    pub(super) fn standing(&self) -> Option<String> {
        let (begun, waves) = (self.begun(), &self.channel.waves);
        if self.channel.hold {
            return Some("held by its maintainers".to_owned());
        }
        let first = waves.first()?;
        Some(match begun {
            0 => format!("its first wave opens {}", time(first.start)),
            all if all == waves.len() => {
                format!("the last wave is open, to {} %", self.channel.share(self.now))
            }
            some => format!("wave {some} of {} is open", waves.len()),
        })
    }

    /// From the first thing that happened or may happen to the last one.
    pub(super) fn span(&self) -> (u64, u64) {
        let waves = self.channel.waves.iter().map(|wave| wave.start);
        let did = self.confirmed.iter().chain(&self.reverted).map(|(at, _)| *at);
        let all = || waves.clone().chain(did.clone()).chain([self.now]);
        let (from, to) = (all().min().unwrap_or(self.now), all().max().unwrap_or(self.now));
        // Whoever looks sees that it goes on.
        let margin = (to.saturating_sub(from) / 20).max(60);
        (from.saturating_sub(margin), to.saturating_add(margin))
    }
}

fn time(seconds: u64) -> UnixTime {
    UnixTime::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// Each time with the number of times up to it, some of them left out where there are many.
fn curve(times: &[u64]) -> Vec<(u64, usize)> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let step = sorted.len().div_ceil(POINTS).max(1);
    let last = sorted.len();
    let counted = sorted.into_iter().enumerate().map(|(at, time)| (time, at + 1));
    counted.filter(|(_, count)| count % step == 0 || *count == last).collect()
}

#[cfg(test)]
mod tests {
    use formats::channel::Wave;

    use super::*;

    fn rollout(now: u64, edit: impl FnOnce(&mut Channel)) -> Rollout {
        let mut channel = Channel::new("demo", "stable");
        channel.waves = [(100, 10), (200, 50), (300, 100)]
            .map(|(start, percent)| Wave { start, percent })
            .to_vec();
        edit(&mut channel);
        let release = ReleaseSums {
            confirmed: vec![250, 110],
            reverted: vec![120],
            ..ReleaseSums::default()
        };
        Rollout::of(&channel, &release, 4, now)
    }

    #[test]
    fn how_far_it_is() {
        let words = |now, edit: fn(&mut Channel)| rollout(now, edit).standing();
        let as_is = |_: &mut Channel| {};
        for (now, text) in [
            (50, "its first wave opens 1970-01-01T00:01:40Z"),
            (100, "wave 1 of 3 is open"),
            (299, "wave 2 of 3 is open"),
            (300, "the last wave is open, to 100 %"),
        ] {
            assert_eq!(words(now, as_is).as_deref(), Some(text), "{now}");
        }
        assert_eq!(words(299, |it| it.hold = true).as_deref(), Some("held by its maintainers"));
        assert_eq!(words(299, |it| it.waves.clear()), None);
    }

    #[test]
    fn a_curve_rises_and_is_short() {
        assert_eq!(rollout(260, |_| ()).confirmed, [(110, 1), (250, 2)]);
        let many: Vec<u64> = (0..100_000).rev().collect();
        let points = curve(&many);
        assert!(points.len() <= POINTS + 1 && points.is_sorted(), "{}", points.len());
        assert_eq!(points.last(), Some(&(99_999, 100_000)));
        assert_eq!(curve(&[]), []);
    }

    #[test]
    fn everything_that_happened_or_may_is_in_the_span() {
        let (from, to) = rollout(260, |_| ()).span();
        assert!(from <= 100 && 300 < to, "{from} {to}");
        let (from, to) = rollout(u64::MAX, |it| it.waves.clear()).span();
        assert!(from <= 110 && to == u64::MAX, "{from} {to}");
    }
}
