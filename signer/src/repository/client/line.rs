//! What is known of the way to a registry, for all requests of a run.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::failure::Failure;
use super::patience::Patience;

/// What was learned about the connection to a registry, for all uploads of a run.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) patience: Patience,
    /// Requests of more bytes are refused somewhere.
    pub(super) most: AtomicU64,
    /// Whether the registry answers requests that look for a blob.
    pub(super) looks: AtomicBool,
    /// Told what is waited for.
    tell: Option<fn(&str)>,
}

impl Connection {
    /// With requests of at most `most` bytes, if that is known.
    pub(super) fn new(patience: Patience, most: Option<u64>, tell: Option<fn(&str)>) -> Self {
        let (most, looks) = (AtomicU64::new(most.unwrap_or(u64::MAX)), AtomicBool::new(true));
        Connection { patience, most, looks, tell }
    }

    pub(super) fn say(&self, text: &str) {
        if let Some(tell) = self.tell {
            tell(text);
        }
    }

    /// Says that something is tried again.
    pub(super) fn again(&self, what: &str, failure: &Failure, pause: Duration) {
        self.say(&again(what, &failure.to_string(), pause));
    }
}

/// `push blob sha256:81e4…: 503, trying again in 8 s`
fn again(what: &str, failure: &str, pause: Duration) -> String {
    let seconds = pause.as_secs_f64();
    // Which address it was is said by what was tried.
    let failure = match (failure.find(" for url ("), failure.find("): ")) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{}", &failure[..from], &failure[to + 1..])
        }
        _ => failure.to_owned(),
    };
    let when = if seconds < 1.0 { "now".to_owned() } else { format!("in {seconds:.0} s") };
    format!("{what}: {failure}, trying again {when}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_tried_again() {
        for (failure, ms, wanted) in [
            ("503", 8000, "PUT /v2/a: 503, trying again in 8 s"),
            ("503", 250, "PUT /v2/a: 503, trying again now"),
            (
                "error sending request for url (http://r/v2/?_state=x): connection reset",
                1500,
                "PUT /v2/a: error sending request: connection reset, trying again in 2 s",
            ),
        ] {
            assert_eq!(again("PUT /v2/a", failure, Duration::from_millis(ms)), wanted);
        }
    }
}
