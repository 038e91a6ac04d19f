//! In which order sources are asked, when asking one of them has ended this program.
//!
//! A source costs its own time and no more (L2), also when it makes the agent run out of memory: what
//! is written down before a source is asked tells the next start whose fault it was.
//!
//! ```text
//!  ask ──► note "asking S" ──► came back ──► note "asking nobody"
//!               │ killed
//!               ▼
//!  next start: "asking S" is there ──► S is asked after all others, for SUSPECT_FOR
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Six hours, in seconds: a kill may have had another reason, and the first source is the one that
/// the operator wants asked.
pub const SUSPECT_FOR: u64 = 6 * 3600;

/// The note. The default is that of a node on which nothing happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// Who is being asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Sources that were being asked when the program ended, and when that was found, in Unix seconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ended: BTreeMap<String, u64>,
}

impl Asking {
    /// The note as the run before left it, judged at `now`. Sources that are not configured any more
    /// are forgotten.
    #[must_use]
    pub fn resumed(mut self, places: &[String], now: u64) -> Self {
        if let Some(source) = self.source.take() {
            self.ended.insert(source, now);
        }
        // A time ahead of the clock proves nothing about how long ago it was.
        self.ended.retain(|place, at| {
            places.contains(place) && now.checked_sub(*at).is_some_and(|ago| ago < SUSPECT_FOR)
        });
        self
    }

    /// Positions of `places` in the order in which they are asked: as configured, those under
    /// suspicion last.
    pub fn order(&self, places: &[String]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|at| places.get(*at).is_some_and(|place| self.ended.contains_key(place)));
        order
    }

    /// A source is asked next. To be made durable before it is contacted.
    pub fn ask(&mut self, place: &str) {
        self.source = Some(place.to_owned());
    }

    /// It was asked and this program still runs, whatever it answered.
    pub fn came_back(&mut self) {
        if let Some(source) = self.source.take() {
            self.ended.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    #[test]
    fn who_ended_the_program_is_asked_last_for_a_while() {
        let mut note = Asking::default();
        assert_eq!(note.order(&places()), [0, 1, 2]);
        note.ask("a");
        let killed = note.clone().resumed(&places(), 1000);
        let rows = [
            ("at once", 1000, vec![1, 2, 0]),
            ("before it is forgotten", 1000 + SUSPECT_FOR - 1, vec![1, 2, 0]),
            ("forgotten", 1000 + SUSPECT_FOR, vec![0, 1, 2]),
            ("a clock that went back", 999, vec![0, 1, 2]),
        ];
        for (name, now, order) in rows {
            assert_eq!(killed.clone().resumed(&places(), now).order(&places()), order, "{name}");
        }
        // It survives its own next question.
        let mut again = killed.clone();
        again.ask("a");
        again.came_back();
        assert_eq!(again, Asking::default());
        // Another one's answer says nothing about it.
        let mut other = killed.clone();
        other.ask("b");
        other.came_back();
        assert_eq!(other.order(&places()), [1, 2, 0]);
        // Two of them: both last, in their order.
        other.ask("b");
        assert_eq!(other.resumed(&places(), 1001).order(&places()), [2, 0, 1]);
        // What is not configured any more is forgotten.
        assert_eq!(killed.resumed(&["b".to_owned()], 1001), Asking::default());
    }
}
