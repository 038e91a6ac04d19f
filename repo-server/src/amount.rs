//! Spans of time and sizes on the command line, as `signer` writes them.

use signer::plan::{Retention, parse_duration};
use signer::policy::parse_size;

/// Seconds of `45s`, `30m`, `12h`, `7d` or `1h30m`; a number alone is seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    parse_duration(text).map_err(|error| error.to_string())
}

/// Bytes of `4096`, `512KiB`, `16MiB`, `2GiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| error.to_string())
}

/// How many old states stay: a number of at least 16, or `all`, as `[retention]` of signer.toml has it.
pub(crate) fn states(text: &str) -> Result<Retention, String> {
    let number = || text.parse().ok().and_then(Retention::of);
    match text {
        "all" => Ok(Retention::EVERYTHING),
        _ => number().ok_or_else(|| format!("{text}: give a number of at least 16, or all")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_alone_mean_what_they_meant() {
        assert_eq!(seconds("86400"), Ok(86_400));
        assert_eq!(seconds("1d"), Ok(86_400));
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert_eq!(bytes("68719476736"), bytes("64GiB"));
        for text in ["", "-1", "1.5h", "7 d", "1D"] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
        for text in ["", "-1", "64GB", "1.5GiB"] {
            assert!(bytes(text).is_err(), "{text:?}");
        }
    }
}
