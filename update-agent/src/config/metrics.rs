//! `[metrics]`: where the metrics of this node are published.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// A file for the textfile collector of node_exporter, replaced after each round and each command
    /// that may change the node.
    pub textfile: Option<PathBuf>,
    /// Where `run` answers `GET /metrics`.
    pub listen: Option<Listen>,
}

/// A place on this machine where connections are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// A loopback address.
    Tcp(SocketAddr),
    /// The path of a socket.
    Unix(PathBuf),
}

/// `sun_path` of unix(7) less its final zero.
const SOCKET_PATH_LIMIT: usize = 107;

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(format!("{text:?} names no socket: write \"unix:/run/…\"")),
                path => Ok(Listen::Unix(path.into())),
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!(
                "{text:?} is neither ADDRESS:PORT, such as \"127.0.0.1:9532\", nor \"unix:PATH\""
            )
        })?;
        // Whoever reads the page learns what this node runs and which updates it lacks.
        match address.ip().is_loopback() {
            true => Ok(Listen::Tcp(address)),
            false => Err(format!(
                "{address} can be reached from other machines, and metrics go out without TLS: listen \
                 on 127.0.0.1, [::1] or a Unix socket, and let a local exporter or proxy publish them"
            )),
        }
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl MetricsConfig {
    /// Makes relative paths relative to `base`.
    pub(super) fn resolve(&mut self, base: &Path) {
        if let Some(path) = &mut self.textfile {
            *path = base.join(&*path);
        }
        if let Some(Listen::Unix(path)) = &mut self.listen {
            *path = base.join(&*path);
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(path) = &self.textfile
            && path.extension().is_none_or(|extension| extension != "prom")
        {
            return Err(format!(
                "metrics.textfile {} does not end in .prom: node_exporter would not read it",
                path.display()
            ));
        }
        if let Some(Listen::Unix(path)) = &self.listen
            && path.as_os_str().len() > SOCKET_PATH_LIMIT
        {
            return Err(format!(
                "metrics.listen unix:{} is longer than the {SOCKET_PATH_LIMIT} bytes of a socket's path",
                path.display()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MetricsConfig, String> {
        let mut config: MetricsConfig =
            toml::from_str(text).map_err(|error| error.message().to_owned())?;
        config.resolve(Path::new("/etc/update-agent"));
        config.check()?;
        Ok(config)
    }

    #[test]
    fn places_on_this_machine_are_accepted() {
        for (text, shown) in [
            ("listen = '127.0.0.1:9532'", "127.0.0.1:9532"),
            ("listen = '127.8.0.1:9532'", "127.8.0.1:9532"),
            ("listen = '[::1]:9532'", "[::1]:9532"),
            (
                "listen = 'unix:/run/update-agent/metrics.sock'",
                "unix:/run/update-agent/metrics.sock",
            ),
            ("listen = 'unix:metrics.sock'", "unix:/etc/update-agent/metrics.sock"),
        ] {
            let listen = parse(text).expect(text).listen.expect(text);
            assert_eq!(listen.to_string(), shown);
        }
        let config = parse("textfile = 'agent.prom'").unwrap();
        assert_eq!(config.textfile.as_deref(), Some(Path::new("/etc/update-agent/agent.prom")));
        assert_eq!(parse("").unwrap(), MetricsConfig::default());
    }

    #[test]
    fn every_other_place_is_refused_with_what_to_write() {
        for (text, said) in [
            ("listen = '0.0.0.0:9532'", "can be reached from other machines"),
            ("listen = '[::]:9532'", "can be reached from other machines"),
            ("listen = '192.0.2.1:9532'", "can be reached from other machines"),
            ("listen = '[::ffff:127.0.0.1]:9532'", "can be reached from other machines"),
            ("listen = 'localhost:9532'", "127.0.0.1:9532"),
            ("listen = '9532'", "127.0.0.1:9532"),
            ("listen = ':9532'", "127.0.0.1:9532"),
            ("listen = '/run/metrics.sock'", "unix:PATH"),
            ("listen = 'unix:'", "unix:/run/"),
            ("textfile = '/var/lib/agent.txt'", "does not end in .prom"),
            ("textfile = '/var/lib/'", "does not end in .prom"),
            ("textfiles = 'a.prom'", "unknown field"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
        let long = format!("listen = 'unix:/run/{}'", "x".repeat(200));
        assert!(parse(&long).expect_err("long").contains("107 bytes"));
    }
}
