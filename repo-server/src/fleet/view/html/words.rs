//! Times, sizes and states, as people read them.

use formats::report::BytesBySource;
use formats::size;
use formats::tuf::UnixTime;
use maud::{Markup, html};

use crate::fleet::overview::Seen;
use crate::fleet::state::State;

/// `2026-11-21 10:00 UTC`; programs read the second.
pub(super) fn time(seconds: u64) -> Markup {
    let text = UnixTime::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)).to_string();
    let shown = text.get(..16).map(|text| format!("{} UTC", text.replace('T', " ")));
    html! { time datetime=(text) { (shown.as_deref().unwrap_or(&text)) } }
}

pub(super) fn ago(now: u64, then: u64) -> String {
    match now.saturating_sub(then) {
        0..60 => "just now".to_owned(),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// How long something lasts from now on.
pub(super) fn left(now: u64, expires: i64) -> String {
    match expires.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX)) {
        ..0 => "has expired".to_owned(),
        0..3600 => "expires within the hour".to_owned(),
        3600..7200 => "expires in 1 hour".to_owned(),
        left @ 7200..172_800 => format!("expires in {} hours", left / 3600),
        left => format!("expires in {} days", left / 86_400),
    }
}

fn hours(seconds: i64) -> String {
    let (hours, side) =
        (seconds.unsigned_abs() / 3600, if seconds > 0 { "ahead" } else { "behind" });
    match hours {
        0..72 => format!("{hours} h {side}"),
        _ => format!("{} days {side}", hours / 24),
    }
}

/// Bytes by where they came from, and in one number what was not sent because nodes had it.
pub(super) fn received(of: &BytesBySource) -> Markup {
    html! {
        (size(of.registry)) " over the network, " (size(of.bundle)) " from bundles"
        @if let Some(delta) = of.delta.filter(|it| *it > 0) { "; " (size(delta)) " of it as deltas" }
        @if let Some(reuse) = of.reuse.filter(|it| *it > 0) {
            "; " strong { (size(reuse)) " saved" } ", which were there already"
        }
    }
}

/// A dot in the colour of a state; the word is beside it.
pub(super) fn dot(word: &str) -> Markup {
    html! { span class={ "dot is-" (word) } aria-hidden="true" {} }
}

/// What a node does, and what is odd about it.
pub(super) fn state(seen: &Seen) -> Markup {
    let doing = seen.brief.state;
    html! {
        @if let Some(since) = seen.silent {
            (dot("silent")) "silent, expected " (time(since)) "; before: " (doing.shown())
        } @else {
            (dot(doing.word())) (doing.shown())
        }
        @if seen.cloned {
            " " span class="mark" { "two machines share this key" }
        }
        @if seen.brief.floor_is_lost {
            " " span class="mark" { "its floor is lost" }
        }
        @if let Some(clock) = seen.clock {
            " " span class="mark" { "its clock is " (hours(clock)) }
        }
    }
}

/// Why, in its own words.
pub(super) fn says(seen: &Seen) -> Markup {
    html! {
        @if let Some((code, sentence)) = seen.reason() {
            code { (code) } " " (sentence)
        }
    }
}

/// A state of a transition; another word is of a newer server.
pub(super) fn state_word(word: &str) -> Markup {
    match State::of_word(word) {
        Some(state) => html! { (dot(state.word())) (state.shown()) },
        None => html! { (formats::report::shown(word, 64)) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        let rows =
            [(-1, "has expired"), (60, "expires within the hour"), (3600, "expires in 1 hour")];
        for (seconds, text) in rows {
            assert_eq!(left(1000, 1000 + seconds), text);
        }
        assert_eq!(left(0, 172_800), "expires in 2 days");
        assert!(time(1_804_152_600).into_string().contains(">2027-03-04 09:30 UTC<"));
        assert!(time(u64::MAX).into_string().contains("datetime"));
    }
}
