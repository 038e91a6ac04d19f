//! People who read the pages with a browser: a token was shown once, and a cookie stands for it. Pure: time and
//! randomness are given.
//!
//! The value of a cookie is random, and lasts for [`AGE`]. What is kept is its SHA-256, and that of the token: whoever
//! reads this memory can use neither, and a token that is taken from its file ends what began with it. Sessions end with
//! the process; each server of a bucket has its own.

use std::collections::HashMap;

use formats::digest::{Sha256, hex};

/// 12 h: a working day.
pub(crate) const AGE: u64 = 12 * 3600;
/// Sessions at once, a few bytes each; of more, the one that ends first is forgotten. Only who has a token begins any.
const MOST: usize = 1000;
/// Bytes of a cookie's value before they are written as hex.
pub(crate) const RANDOM: usize = 32;
/// The cookie. Browsers send it to other ports of the same host, too.
pub(crate) const COOKIE: &str = "racklet_fleet";

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions(HashMap<Sha256, Session>);

#[derive(Debug)]
struct Session {
    token: Sha256,
    /// Unix seconds.
    until: u64,
}

impl Sessions {
    /// Begins one for whoever showed a token with this SHA-256; the value of its cookie.
    pub(crate) fn begin(&mut self, token: Sha256, random: [u8; RANDOM], now: u64) -> String {
        self.0.retain(|_, session| session.until > now);
        if self.0.len() >= MOST {
            let first = self.0.iter().min_by_key(|(_, session)| session.until);
            if let Some(first) = first.map(|(name, _)| *name) {
                self.0.remove(&first);
            }
        }
        let value = hex(&random);
        let until = now.saturating_add(AGE);
        self.0.insert(Sha256::of(value.as_bytes()), Session { token, until });
        value
    }

    /// The SHA-256 of the token that a cookie stands for. It is found by a digest, whose digits nobody chooses: how long
    /// the search takes tells nothing of a value.
    pub(crate) fn token(&self, value: &str, now: u64) -> Option<Sha256> {
        let session = self.0.get(&Sha256::of(value.as_bytes()))?;
        // A clock that was set back makes none longer.
        let lasts = session.until > now && session.until - now <= AGE;
        lasts.then_some(session.token)
    }

    /// Ends one.
    pub(crate) fn end(&mut self, value: &str) {
        self.0.remove(&Sha256::of(value.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(number: usize) -> [u8; RANDOM] {
        let mut bytes = [0; RANDOM];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    #[test]
    fn a_cookie_stands_for_its_token_until_it_ends() {
        let mut sessions = Sessions::default();
        let token = Sha256::of(b"a token");
        let value = sessions.begin(token, random(1), 1000);
        assert!(value.len() == 2 * RANDOM && !value.contains("token"), "{value}");
        assert_eq!(sessions.token(&value, 1000), Some(token));
        assert_eq!(sessions.token(&value, 1000 + AGE - 1), Some(token));
        assert_eq!(sessions.token(&value, 1000 + AGE), None, "its time is over");
        assert_eq!(sessions.token(&value, 999), None, "the clock was set back");
        assert_eq!(sessions.token("", 1000), None);
        assert_eq!(sessions.token(&token.to_hex(), 1000), None, "the token is no cookie");
        sessions.end(&value);
        assert_eq!(sessions.token(&value, 1000), None, "somebody logged out");
        sessions.end("nobody's");
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go() {
        let mut sessions = Sessions::default();
        let token = Sha256::of(b"a token");
        let begin = |sessions: &mut Sessions, number: usize| {
            sessions.begin(token, random(number), 1000 + number as u64)
        };
        let values: Vec<String> = (0..MOST + 3).map(|it| begin(&mut sessions, it)).collect();
        assert_eq!(sessions.0.len(), MOST);
        let lasts = |value: &String| sessions.token(value, 2100).is_some();
        assert_eq!(values.iter().position(lasts), Some(3));
        // What has ended makes room first.
        sessions.begin(token, random(9999), 3000 + AGE);
        assert_eq!(sessions.0.len(), 1);
    }
}
