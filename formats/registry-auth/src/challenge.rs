//! `WWW-Authenticate`: what a registry wants to see (RFC 9110 §11.6.1).

/// A challenge that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User and password (RFC 7617).
    Basic,
    /// A token of a token server (distribution-spec "token authentication").
    Bearer {
        /// The token server's URL, as it was sent.
        realm: String,
        /// What the token is for, in the token server's words.
        service: Option<String>,
    },
}

/// The challenge to answer, of all values of the header: `Bearer` before `Basic`; schemes that are
/// not known are skipped, wherever they stand.
pub fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
    let all: Vec<Challenge> = headers.into_iter().flat_map(parse).collect();
    let bearer = all.iter().find(|it| matches!(it, Challenge::Bearer { .. }));
    bearer.or(all.first()).cloned()
}

/// The known challenges of one header value, in order. Parsing ends where the grammar does; what
/// came before it counts.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = Cursor(header);
    let mut found = Vec::new();
    while let Some(raw) = rest.challenge() {
        found.extend(raw.known());
    }
    found
}

/// A challenge as it is written.
struct Raw<'a> {
    scheme: &'a str,
    parameters: Vec<(&'a str, String)>,
}

impl Raw<'_> {
    fn known(&self) -> Option<Challenge> {
        if self.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !self.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let realm = self.parameter("realm")??;
        Some(Challenge::Bearer { realm, service: self.parameter("service")? })
    }

    /// `None` when it is there twice, which RFC 9110 §11.2 forbids: which one would count?
    fn parameter(&self, name: &str) -> Option<Option<String>> {
        let named = |(known, _): &&(&str, String)| known.eq_ignore_ascii_case(name);
        let mut values = self.parameters.iter().filter(named).map(|(_, value)| value.clone());
        let first = values.next();
        values.next().is_none().then_some(first)
    }
}

/// What is left to be read.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// `scheme [ SP ( token68 / #auth-param ) ]`; `None` at the end, or where the grammar breaks.
    fn challenge(&mut self) -> Option<Raw<'a>> {
        self.skip(", \t");
        let scheme = self.token()?;
        let mut parameters = Vec::new();
        let mut after = *self;
        after.skip(" \t");
        let mut next = after;
        if next.parameter(&mut parameters)?.is_none() && after.token68() {
            *self = after;
            return Some(Raw { scheme, parameters });
        }
        if !parameters.is_empty() {
            *self = next;
        }
        loop {
            let mut next = *self;
            next.skip(", \t");
            if next.parameter(&mut parameters)?.is_none() {
                return Some(Raw { scheme, parameters });
            }
            *self = next;
        }
    }

    /// `name = value`; `Some(None)` when something else stands here, `None` when its quotes never
    /// end.
    fn parameter(&mut self, found: &mut Vec<(&'a str, String)>) -> Option<Option<()>> {
        let Some(name) = self.token() else { return Some(None) };
        self.skip(" \t");
        let Some(rest) = self.0.strip_prefix('=') else { return Some(None) };
        self.0 = rest;
        self.skip(" \t");
        let value = if let Some(quoted) = self.0.strip_prefix('"') {
            self.0 = quoted;
            self.quoted()?
        } else {
            // Not only tokens: a URL without its quotes is what some servers send.
            let end = self.0.find([',', ' ', '\t']).unwrap_or(self.0.len());
            let (value, rest) = self.0.split_at(end);
            if value.is_empty() || value.starts_with('=') {
                return Some(None);
            }
            self.0 = rest;
            value.to_owned()
        };
        found.push((name, value));
        Some(Some(()))
    }

    /// A quoted string after its first quote, with quoted pairs (`\"`) undone.
    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut chars = self.0.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(chars.next()?),
                c => value.push(c),
            }
        }
        self.0 = chars.as_str();
        Some(value)
    }

    fn token(&mut self) -> Option<&'a str> {
        let part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.0.find(|c: char| !part(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// Skips a `token68` that a comma or the end follows; whether there was one.
    fn token68(&mut self) -> bool {
        let part = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let rest = self.0.trim_start_matches(part);
        let some = rest.len() < self.0.len();
        let rest = rest.trim_start_matches('=').trim_start_matches([' ', '\t']);
        let ends = rest.is_empty() || rest.starts_with(',');
        if some && ends {
            self.0 = rest;
        }
        some && ends
    }

    fn skip(&mut self, what: &str) {
        self.0 = self.0.trim_start_matches(|c| what.contains(c));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        let (realm, service) = (realm.to_owned(), service.map(str::to_owned));
        Challenge::Bearer { realm, service }
    }

    #[test]
    fn challenges_are_parsed() {
        let full = || vec![bearer("https://auth.example/token", Some("a, b"))];
        for (header, wanted) in [
            ("Basic realm=\"x\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.example/token",service="a, b",scope="a:b:pull,push""#,
                full(),
            ),
            (r#"bearer scope=x, service="a, b" , realm="https://auth.example/token""#, full()),
            ("bearer service=s, realm=https://a/", vec![bearer("https://a/", Some("s"))]),
            ("BEARER realm = \"x\"", vec![bearer("x", None)]),
            (r#"Bearer realm="a\"b\\c""#, vec![bearer("a\"b\\c", None)]),
            (r#"Bearer realm="a, Basic realm=b""#, vec![bearer("a, Basic realm=b", None)]),
            ("Bearer realm=\"\u{e4}\"", vec![bearer("\u{e4}", None)]),
            ("Bearer realm=\"never ends", vec![]),
            (r#"Bearer realm="ends in a pair\"#, vec![]),
            ("Bearer realm=\"a\",realm=\"b\"", vec![]),
            ("Bearer service=\"x\"", vec![]),
            ("Bearer", vec![]),
            ("Bearer realm=", vec![]),
            ("Negotiate", vec![]),
            (", ,", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parse(header), wanted, "{header}");
        }
    }

    #[test]
    fn several_challenges_stand_in_one_header() {
        for (header, wanted) in [
            ("Negotiate, Bearer realm=\"x\"", vec![bearer("x", None)]),
            ("Negotiate YII=, Bearer realm=\"x\"", vec![bearer("x", None)]),
            ("Negotiate YII, Basic realm=\"y\"", vec![Challenge::Basic]),
            (
                "Digest realm=\"d\", nonce=\"a,b\", qop=auth, Basic realm=\"y\", Bearer realm=\"x\"",
                vec![Challenge::Basic, bearer("x", None)],
            ),
            ("Basic realm=\"y\", Bearer realm=\"never ends", vec![Challenge::Basic]),
            ("Bearer realm=\"x\",, ,Basic", vec![bearer("x", None), Challenge::Basic]),
        ] {
            assert_eq!(parse(header), wanted, "{header}");
        }
    }

    #[test]
    fn tokens_come_before_passwords_and_unknown_schemes_do_not_count() {
        let all = ["Negotiate", "Basic realm=\"x\"", "Bearer realm=\"y\""];
        assert_eq!(choose(all), Some(bearer("y", None)));
        assert_eq!(choose(["Digest x=y", "Basic"]), Some(Challenge::Basic));
        assert_eq!(choose(["Negotiate"]), None);
        assert_eq!(choose([]), None);
    }

    /// Every prefix of a header, and every character replaced: no panic, and an end.
    #[test]
    fn broken_headers_end() {
        let header = r#"Negotiate YI==, Bearer realm="https://a/\"",service=s, Basic realm="x""#;
        for end in 0..header.len() {
            parse(&header[..end]);
            for other in ["\"", "\\", "=", ",", " ", "\u{e4}"] {
                parse(&format!("{}{other}{}", &header[..end], &header[end + 1..]));
            }
        }
    }
}
