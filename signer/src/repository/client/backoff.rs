//! How long to wait before trying again. Pure, but for where its chance comes from.

use std::time::Duration;

use registry_auth::retry::pause;

/// When a request is repeated, and how soon.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Repetitions in a row that bring nothing, before it is an error.
    pub attempts: u32,
    /// Before the first one; doubled each time.
    pub first: Duration,
    /// No pause is longer, whatever the server asks for.
    pub most: Duration,
    /// A number between 0 and 2³²: chance, so that not everybody comes back at once.
    pub chance: fn() -> u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            attempts: 5,
            first: Duration::from_millis(500),
            most: Duration::from_secs(60),
            chance: random,
        }
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without chance the pause is in the middle of what it may be.
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes),
        Err(_) => u32::MAX / 2,
    }
}

impl Backoff {
    /// The pause before repetition `nth`, counted from 0: half of it fixed, half by chance, and no
    /// shorter than what the server asks for. `None` when it is time to give up.
    pub(super) fn pause(&self, nth: u32, asked: Option<Duration>) -> Option<Duration> {
        if nth >= self.attempts {
            return None;
        }
        let pause = pause(self.first, self.most, nth, (self.chance)());
        Some(pause.max(asked.unwrap_or_default().min(self.most)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let with = |chance| Backoff { chance, ..Backoff::default() };
        let (least, most) = (with(|| 0), with(|| u32::MAX));
        let ms = |pause: Option<Duration>| pause.map(|it| it.as_millis());
        for (nth, low, high) in [(0, 250, 500), (1, 500, 1000), (3, 2000, 4000), (4, 4000, 8000)] {
            assert_eq!(ms(least.pause(nth, None)), Some(low), "{nth}");
            assert_eq!(ms(most.pause(nth, None)), Some(high), "{nth}");
        }
        assert_eq!(least.pause(5, None), None);
        let asked = |seconds| least.pause(0, Some(Duration::from_secs(seconds)));
        assert_eq!(ms(asked(7)), Some(7000), "what the server asks for");
        assert_eq!(ms(asked(86_400)), Some(60_000), "within reason");
        let patient = Backoff { attempts: 100, ..most };
        assert_eq!(ms(patient.pause(99, None)), Some(60_000), "no overflow");
    }
}
