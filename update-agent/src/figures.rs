//! Times, as people read them.

/// `2026-11-21T10:00:00Z`.
pub(crate) fn time(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    formats::tuf::UnixTime::from_secs(seconds).to_string()
}
