//! A channel's schedule: read from a command line, carried over to another release, told to people.
//!
//! | on the command line | is |
//! |---|---|
//! | `10%@now`, `50%@+4h`, `100%@2026-12-01T08:00:00+01:00` | a wave: from then on, so many of all nodes |
//! | `22:00+4h` | a daily window in UTC; it may cross midnight |
//!
//! What is signed is absolute: `now` is the time at which the command runs.

use formats::channel::{Channel, Urgency, Wave, Window};
use formats::tuf::UnixTime;

use super::expiry::parse_duration;

const DAY: u64 = 86_400;
/// 366 days: a start further away from now is a slip of the pen.
const FARTHEST: u64 = 366 * DAY;

/// What a channel's schedule is to be. Absent: as it is; empty: none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rollout {
    /// By start, shares rising.
    pub waves: Option<Vec<Wave>>,
    /// In the order given.
    pub windows: Option<Vec<Window>>,
}

/// Why a schedule cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// Not `PERCENT%@TIME`.
    #[error(
        "--wave {0:?} is not PERCENT%@TIME, like 10%@now, 50%@+4h or 100%@2026-12-01T08:00:00Z"
    )]
    Wave(String),
    /// A share that no wave can have.
    #[error("--wave {0:?}: a wave is a whole number from 1 to 100 percent of the nodes")]
    Percent(String),
    /// A time that is none.
    #[error(
        "--wave {0:?}: a wave starts now, +DURATION from now (+90m, +4h, +1h30m, +1d), or at a time like 2026-12-01T08:00:00Z or 2026-12-01T08:00:00+01:00"
    )]
    Start(String),
    /// A time that is certainly a mistake.
    #[error("--wave {wave:?} would start {start}, more than a year away from now")]
    Far {
        /// The wave.
        wave: String,
        /// When it would start.
        start: UnixTime,
    },
    /// A later wave with fewer nodes, or that is not later.
    #[error(
        "--wave {wave:?} does not rise above --wave {before:?}: each wave starts later and reaches more nodes"
    )]
    Rising {
        /// The wave.
        wave: String,
        /// The one given before it.
        before: String,
    },
    /// Not `HH:MM+DURATION`.
    #[error("--window {0:?} is not HH:MM+DURATION in UTC, like 22:00+4h or 23:30+1h30m")]
    Window(String),
    /// A window that is none, or longer than a day.
    #[error("--window {0:?}: a window lasts whole minutes, from 1m to 24h")]
    Length(String),
}

/// Reads waves in the order they are given. Starts in the past are accepted as dates, so that a
/// running schedule can be given again with other waves after them.
pub fn parse_waves<S: AsRef<str>>(
    arguments: &[S],
    now: UnixTime,
) -> Result<Vec<Wave>, RolloutError> {
    let mut waves: Vec<(Wave, &str)> = Vec::new();
    for text in arguments.iter().map(AsRef::as_ref) {
        let wave = parse_wave(text, now)?;
        if let Some((last, before)) = waves.last()
            && (last.start >= wave.start || last.percent >= wave.percent)
        {
            return Err(RolloutError::Rising { wave: short(text), before: short(before) });
        }
        waves.push((wave, text));
    }
    Ok(waves.into_iter().map(|(wave, _)| wave).collect())
}

fn parse_wave(text: &str, now: UnixTime) -> Result<Wave, RolloutError> {
    let (percent, start) = text.split_once("%@").ok_or_else(|| RolloutError::Wave(short(text)))?;
    let percent = whole(percent).and_then(|percent| u8::try_from(percent).ok());
    let percent = percent
        .filter(|percent| (1..=100).contains(percent))
        .ok_or_else(|| RolloutError::Percent(short(text)))?;
    let start = parse_start(start, now).ok_or_else(|| RolloutError::Start(short(text)))?;
    let far = start.secs().abs_diff(now.secs()) > FARTHEST;
    match u64::try_from(start.secs()) {
        Ok(secs) if !far => Ok(Wave { start: secs, percent }),
        _ => Err(RolloutError::Far { wave: short(text), start }),
    }
}

/// `now`, `+DURATION`, or RFC 3339 with `Z` or an offset, without fractions of seconds.
fn parse_start(text: &str, now: UnixTime) -> Option<UnixTime> {
    if text == "now" {
        return Some(now);
    }
    if let Some(later) = text.strip_prefix('+') {
        let later = parse_duration(later).ok()?;
        return Some(now.plus(i64::try_from(later).ok()?));
    }
    if let Ok(time) = UnixTime::parse(text) {
        return Some(time);
    }
    let (local, offset) = (text.get(..19)?, text.get(19..)?);
    let local = UnixTime::parse(&format!("{local}Z")).ok()?;
    let (sign, offset) = match offset.split_at_checked(1)? {
        ("+", offset) => (1, offset),
        ("-", offset) => (-1, offset),
        _ => return None,
    };
    let minutes = i64::from(clock(offset)?);
    Some(local.plus(-sign * minutes * 60))
}

/// Reads `HH:MM+DURATION`.
pub fn parse_window(text: &str) -> Result<Window, RolloutError> {
    let wrong = || RolloutError::Window(short(text));
    let (from, length) = text.split_once('+').ok_or_else(wrong)?;
    let from = clock(from).ok_or_else(wrong)?;
    let seconds = parse_duration(length).map_err(|_| wrong())?;
    if seconds == 0 || seconds > DAY || seconds % 60 != 0 {
        return Err(RolloutError::Length(short(text)));
    }
    let minutes = u16::try_from(seconds / 60).map_err(|_| wrong())?;
    Ok(Window { from, minutes })
}

/// Minutes of `HH:MM`, 00:00 to 23:59.
fn clock(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| (digits.len() == 2).then(|| whole(digits)).flatten();
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

fn whole(digits: &str) -> Option<u16> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// An argument in a message.
fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The schedule of one release, for the next: it starts again, and never earlier than it stood, so
/// that no release goes out faster than the channel's schedule.
pub(super) fn restarted(waves: &[Wave], now: UnixTime) -> Vec<Wave> {
    let now = u64::try_from(now.secs()).unwrap_or(0);
    let later = waves.first().map_or(0, |first| now.saturating_sub(first.start));
    let start = |wave: &Wave| wave.start.saturating_add(later);
    waves.iter().map(|wave| Wave { start: start(wave), ..wave.clone() }).collect()
}

/// A schedule in words, one line each: waves, windows, hold, and what of them is new.
pub fn schedule_lines(before: Option<&Channel>, after: &Channel, now: UnixTime) -> Vec<String> {
    let mut lines: Vec<String> =
        after.waves.iter().map(|wave| format!("wave     {}", wave_line(wave, now))).collect();
    if let Some(line) = windows_line(after, now) {
        lines.push(format!("windows  {line}"));
    }
    if after.hold {
        lines.push("hold     HELD: nobody installs until `channel hold --off`".to_owned());
    }
    lines.extend(notes(before, after, now).into_iter().map(|note| format!("note     {note}")));
    lines
}

/// `10 % of the nodes from 2026-11-28T20:00:00Z (in 4 h)`.
pub fn wave_line(wave: &Wave, now: UnixTime) -> String {
    let start = time_of(wave.start);
    let relative = match start.secs().saturating_sub(now.secs()) {
        0 => "now".to_owned(),
        later @ 1.. => format!("in {}", span(later.unsigned_abs())),
        earlier => format!("{} ago", span(earlier.unsigned_abs())),
    };
    format!("{} % of the nodes from {start} ({relative})", wave.percent)
}

/// When windows are open, in UTC; `None` without windows.
pub fn windows_line(channel: &Channel, now: UnixTime) -> Option<String> {
    let each: Vec<String> = channel.windows.iter().map(|window| window_words(*window)).collect();
    if each.is_empty() {
        return None;
    }
    let secs = u64::try_from(now.secs()).unwrap_or(0);
    let next = match channel.opens(secs) {
        None => "not waited for: the urgency is security".to_owned(),
        Some(at) if at <= secs => "open now".to_owned(),
        Some(at) => format!("opens {} (in {})", time_of(at), span(at - secs)),
    };
    Some(format!("every day {} UTC; {next}", each.join(", ")))
}

/// `22:00 to 02:00`.
fn window_words(window: Window) -> String {
    let end = (u32::from(window.from) + u32::from(window.minutes)) % 1440;
    format!("{:02}:{:02} to {:02}:{:02}", window.from / 60, window.from % 60, end / 60, end % 60)
}

/// What a reader of the new schedule might not expect.
pub fn notes(before: Option<&Channel>, after: &Channel, now: UnixTime) -> Vec<String> {
    let mut notes = Vec::new();
    let secs = u64::try_from(now.secs()).unwrap_or(0);
    if let Some(before) = before.filter(|before| before.waves != after.waves) {
        let same_release = before.release == after.release;
        match (before.waves.first(), after.waves.first()) {
            (Some(_), None) => notes.push(format!("no waves any more; before {}", brief(before))),
            (Some(was), Some(is))
                if !same_release && after.waves == restarted(&before.waves, now) =>
            {
                let later = span(is.start.saturating_sub(was.start));
                let release = after.release.as_ref().map_or("nothing", |to| to.version.as_str());
                notes.push(format!(
                    "the waves start again for {release}: {later} later than before"
                ));
            }
            (Some(_), Some(_)) => notes.push(format!("other waves; before {}", brief(before))),
            (None, _) => {}
        }
    }
    let urgent = |channel: &Channel| channel.urgency == Urgency::Security;
    if before.is_some_and(|before| urgent(before) && before.release != after.release)
        && urgent(after)
    {
        let text = "the urgency of the last release stays: nodes wait for no window; \
                    `channel set --urgency normal` ends it";
        notes.push(text.to_owned());
    }
    if let Some(last) = after.waves.last().filter(|last| last.percent < 100) {
        notes.push(format!("the roll-out stops at {} %", last.percent));
    }
    let was_held = before.is_some_and(|before| before.hold);
    if was_held && !after.hold && !after.waves.is_empty() {
        let share = after.share(secs);
        notes.push(format!(
            "the waves went on while the channel was held: {share} % of the nodes may install now"
        ));
    }
    notes
}

/// `10 % from 2026-11-28T20:00:00Z, 100 % from …`.
fn brief(channel: &Channel) -> String {
    let each = channel.waves.iter();
    let each: Vec<String> =
        each.map(|wave| format!("{} % from {}", wave.percent, time_of(wave.start))).collect();
    each.join(", ")
}

/// A time of a channel document.
pub fn time_of(secs: u64) -> UnixTime {
    UnixTime::from_secs(i64::try_from(secs).unwrap_or(i64::MAX))
}

/// `1 d 4 h`: the two largest units that are not zero.
fn span(seconds: u64) -> String {
    let parts = [
        (seconds / DAY, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let shown = parts.iter().skip_while(|(count, _)| *count == 0).take(2);
    let shown: Vec<String> = shown
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    if shown.is_empty() { "0 s".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::channel::Offer;
    use formats::digest::Sha256;

    /// 2026-11-28T18:00:00Z.
    const NOW: UnixTime = UnixTime::from_secs(1_795_888_800);

    fn wave(percent: u8, later: i64) -> Wave {
        Wave { start: u64::try_from(NOW.plus(later).secs()).unwrap(), percent }
    }

    #[test]
    fn waves_are_read_as_written() {
        let rows: [(&[&str], Vec<Wave>); 5] = [
            (&[], vec![]),
            (
                &["10%@now", "50%@+4h", "100%@+1d"],
                vec![wave(10, 0), wave(50, 4 * 3600), wave(100, 86_400)],
            ),
            (&["1%@+0s", "2%@+90m", "3%@+1h31m"], vec![wave(1, 0), wave(2, 5400), wave(3, 5460)]),
            (
                &[
                    "5%@2026-11-28T17:00:00Z",
                    "7%@2026-11-28T20:00:00+01:30",
                    "9%@2026-11-28T17:00:00-05:00",
                ],
                vec![wave(5, -3600), wave(7, 1800), wave(9, 4 * 3600)],
            ),
            (&["100%@2026-11-29T00:30:00+01:00"], vec![wave(100, 5 * 3600 + 1800)]),
        ];
        for (arguments, waves) in rows {
            assert_eq!(parse_waves(arguments, NOW), Ok(waves), "{arguments:?}");
        }
    }

    #[test]
    fn what_is_no_wave_is_named() {
        let refused = |texts: &[&str], error: fn(String) -> RolloutError| {
            for text in texts {
                let found = parse_waves(&[text], NOW).expect_err(text);
                assert_eq!(found, error((*text).to_owned()), "{text:?}");
            }
        };
        refused(&["10@now", "10%", "", "now", "10%now", "10 @now", "%"], RolloutError::Wave);
        refused(
            &["0%@now", "101%@now", "256%@now", "70000%@now", "-1%@now"],
            RolloutError::Percent,
        );
        refused(&["+5%@now", "1.5%@now", "%@now", "10 %@now"], RolloutError::Percent);
        let relative = ["10%@", "10%@later", "10%@-4h", "10%@4h", "10%@+4", "10%@+", "10%@ now"];
        refused(&relative, RolloutError::Start);
        refused(&["10%@+1d4", "10%@+30m1h", "10%@+99999999999999999999d"], RolloutError::Start);
        let dates = [
            "10%@2026-11-28",
            "10%@2026-11-28T20:00:00",
            "10%@2026-02-30T20:00:00Z",
            "10%@2026-11-28T20:00:00+1:00",
            "10%@2026-11-28T20:00:00+24:00",
            "10%@2026-11-28T20:00:00.5Z",
            "10%@2026-11-28T20:00:0é",
        ];
        refused(&dates, RolloutError::Start);
        for text in ["10%@+367d", "10%@2062-11-28T20:00:00Z", "10%@1962-11-28T20:00:00Z"] {
            let found = parse_waves(&[text], NOW).unwrap_err();
            assert!(matches!(found, RolloutError::Far { .. }), "{text}: {found}");
        }
        for pair in [["10%@now", "10%@+1h"], ["10%@+1h", "20%@+1h"], ["50%@+1h", "60%@now"]] {
            let found = parse_waves(&pair, NOW).unwrap_err();
            assert!(matches!(found, RolloutError::Rising { .. }), "{pair:?}: {found}");
        }
    }

    #[test]
    fn windows_are_read_as_written() {
        for (text, from, minutes) in [
            ("22:00+4h", 1320, 240),
            ("00:00+1m", 0, 1),
            ("23:59+24h", 1439, 1440),
            ("06:30+1h30m", 390, 90),
            ("01:00+1d", 60, 1440),
        ] {
            assert_eq!(parse_window(text), Ok(Window { from, minutes }), "{text}");
        }
        for text in [
            "",
            "22:00",
            "22+4h",
            "24:00+1h",
            "22:60+1h",
            "2:00+1h",
            "22:00-4h",
            "22:00+4",
            "22:00+4 h",
            "+2:00+1h",
        ] {
            assert_eq!(parse_window(text), Err(RolloutError::Window(text.to_owned())), "{text:?}");
        }
        for text in ["22:00+0m", "22:00+90s", "22:00+25h", "22:00+1y"] {
            assert_eq!(parse_window(text), Err(RolloutError::Length(text.to_owned())), "{text:?}");
        }
        let read = |text: &str| parse_window(text).unwrap().to_string();
        assert_eq!(read("22:00+240m"), "22:00+4h", "one notation for reading and writing");
    }

    #[test]
    fn a_schedule_starts_again_and_never_earlier() {
        let schedule = |start: i64| vec![wave(10, start), wave(50, start + 3600)];
        for (start, again) in [(-7200, 0), (-1, 0), (0, 0), (7200, 7200)] {
            assert_eq!(restarted(&schedule(start), NOW), schedule(again), "start {start}");
        }
        assert_eq!(restarted(&[], NOW), []);
    }

    fn channel(version: &str, waves: Vec<Wave>) -> Channel {
        let offer = Offer { version: version.parse().unwrap(), sha256: Sha256::of(b"index") };
        Channel { release: Some(offer), waves, ..Channel::new("demo", "stable") }
    }

    #[test]
    fn schedules_in_words() {
        let mut is = channel("1.1.0", vec![wave(10, 0), wave(50, 100_800), wave(90, 90_000_000)]);
        is.windows = vec![Window { from: 1320, minutes: 240 }, Window { from: 600, minutes: 30 }];
        let was = channel("1.0.0", Vec::new());
        assert_eq!(
            schedule_lines(Some(&was), &is, NOW),
            [
                "wave     10 % of the nodes from 2026-11-28T18:00:00Z (now)",
                "wave     50 % of the nodes from 2026-11-29T22:00:00Z (in 1 d 4 h)",
                "wave     90 % of the nodes from 2029-10-05T10:00:00Z (in 1041 d 16 h)",
                "windows  every day 22:00 to 02:00, 10:00 to 10:30 UTC; opens 2026-11-28T22:00:00Z (in 4 h)",
                "note     the roll-out stops at 90 %",
            ]
        );
        assert_eq!(schedule_lines(None, &channel("1.0.0", Vec::new()), NOW), [""; 0]);
    }

    #[test]
    fn what_changes_is_noted() {
        let old = vec![wave(10, -7200), wave(100, -3600)];
        let was = channel("1.0.0", old.clone());
        let next = channel("1.1.0", restarted(&old, NOW));
        assert_eq!(
            notes(Some(&was), &next, NOW),
            ["the waves start again for 1.1.0: 2 h later than before"]
        );
        assert_eq!(
            notes(Some(&was), &channel("1.0.0", Vec::new()), NOW),
            [
                "no waves any more; before 10 % from 2026-11-28T16:00:00Z, 100 % from 2026-11-28T17:00:00Z"
            ]
        );
        assert_eq!(
            notes(Some(&was), &channel("1.0.0", vec![wave(20, 0)]), NOW),
            [
                "other waves; before 10 % from 2026-11-28T16:00:00Z, 100 % from 2026-11-28T17:00:00Z",
                "the roll-out stops at 20 %",
            ]
        );
        let held = Channel { hold: true, ..was.clone() };
        assert_eq!(
            notes(Some(&held), &was, NOW),
            ["the waves went on while the channel was held: 100 % of the nodes may install now"]
        );
        assert_eq!(notes(Some(&was), &held, NOW), [""; 0]);
        // Urgency is of the channel: the next release inherits it, and its maintainers hear of it.
        let urgent =
            |version| Channel { urgency: Urgency::Security, ..channel(version, Vec::new()) };
        let found = notes(Some(&urgent("1.0.0")), &urgent("1.1.0"), NOW);
        assert!(found[0].starts_with("the urgency of the last release stays"), "{found:?}");
        assert_eq!(notes(Some(&urgent("1.0.0")), &urgent("1.0.0"), NOW), [""; 0]);
        assert_eq!(notes(Some(&channel("1.0.0", Vec::new())), &urgent("1.1.0"), NOW), [""; 0]);
        assert_eq!(
            schedule_lines(None, &Channel { waves: vec![], ..held }, NOW),
            ["hold     HELD: nobody installs until `channel hold --off`"]
        );
    }

    #[test]
    fn spans_in_words() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (5400, "1 h 30 min"), (86_460, "1 d"), (100_800, "1 d 4 h")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
