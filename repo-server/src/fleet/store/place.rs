//! Where the database of reports is: a directory for SQLite, or a PostgreSQL server.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use storage::secret::{self, Readers, Rule};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::StoreFailure;
use crate::error::ServerError;
use crate::tls;

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest password.
const PASSWORD: u64 = 4 << 10;

/// A directory, or the address of a PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetPlace {
    /// SQLite, in a file of this directory.
    Directory(PathBuf),
    /// A database of PostgreSQL.
    Postgres(PostgresPlace),
}

/// A database of PostgreSQL: its address without a password, and where the password is.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresPlace {
    url: String,
    password: Option<PathBuf>,
    ca: Option<PathBuf>,
}

impl fmt::Debug for PostgresPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Display for FleetPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FleetPlace::Directory(dir) => write!(f, "{}", dir.display()),
            FleetPlace::Postgres(place) => f.write_str(&place.url),
        }
    }
}

// Of paths only: texts are parsed, and may be addresses.
impl From<PathBuf> for FleetPlace {
    fn from(dir: PathBuf) -> Self {
        FleetPlace::Directory(dir)
    }
}

impl From<&PathBuf> for FleetPlace {
    fn from(dir: &PathBuf) -> Self {
        FleetPlace::Directory(dir.clone())
    }
}

impl From<&Path> for FleetPlace {
    fn from(dir: &Path) -> Self {
        FleetPlace::Directory(dir.to_owned())
    }
}

/// What `--fleet` takes: `postgresql://…`, or a directory. Other files are given with
/// [`FleetPlace::with_files`].
impl FromStr for FleetPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !["postgresql://", "postgres://"].iter().any(|scheme| text.starts_with(scheme)) {
            // A directory of that name would be made, and its name told, with a password in it.
            return match text.contains("://") {
                true => Err("write postgresql://USER@HOST/DATABASE, or a directory".to_owned()),
                false => Ok(FleetPlace::Directory(PathBuf::from(text))),
            };
        }
        // The crate's own errors may repeat the address, with a password in it.
        let config = Config::from_str(text).map_err(|_| {
            "it is no address of a PostgreSQL database: postgresql://USER@HOST/DATABASE".to_owned()
        })?;
        if config.get_password().is_some() {
            let why = "it has a password, which every user of this machine could read: put that into a file of mode \
                 600, and name the file by --fleet-password-file";
            return Err(why.to_owned());
        }
        if config.get_hosts().is_empty() || config.get_dbname().is_none() {
            return Err(
                "it names no host or no database: postgresql://USER@HOST/DATABASE".to_owned()
            );
        }
        if config.get_ssl_mode() == SslMode::Disable && !is_local(&config) {
            let why = "sslmode=disable is for Unix sockets and loopback addresses only";
            return Err(why.to_owned());
        }
        let url = text.to_owned();
        Ok(FleetPlace::Postgres(PostgresPlace { url, password: None, ca: None }))
    }
}

impl FleetPlace {
    /// With a file that holds the password, and one that holds the certificates of those who may vouch for the
    /// server; without that one, the system's count.
    pub fn with_files(
        self,
        password: Option<PathBuf>,
        ca: Option<PathBuf>,
    ) -> Result<Self, ServerError> {
        match self {
            FleetPlace::Postgres(place) => {
                Ok(FleetPlace::Postgres(PostgresPlace { password, ca, ..place }))
            }
            FleetPlace::Directory(_) if password.is_none() && ca.is_none() => Ok(self),
            FleetPlace::Directory(dir) => Err(ServerError::Config(format!(
                "--fleet-password-file and --fleet-ca are for PostgreSQL, and --fleet is the directory {}",
                dir.display()
            ))),
        }
    }
}

/// Whether all hosts are on this machine.
fn is_local(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
        }
    })
}

impl PostgresPlace {
    /// Opens a connection: over TLS, unless the server is on this machine and offers none.
    pub(super) fn connect(&self) -> Result<Client, StoreFailure> {
        let failed = |why: String| StoreFailure::Database(why);
        let mut config = Config::from_str(&self.url).map_err(|error| failed(error.to_string()))?;
        if let Some(file) = &self.password {
            let rule = Rule::of(Readers::Group);
            let password = secret::read_line(file, PASSWORD, rule)
                .map_err(|error| ServerError::unread("--fleet-password-file", file, error))?;
            config.password(password.as_bytes());
        }
        config.connect_timeout(PATIENCE).application_name("repo-server");
        if config.get_ssl_mode() == SslMode::Disable {
            return Ok(config.connect(NoTls)?);
        }
        if !is_local(&config) {
            config.ssl_mode(SslMode::Require);
        }
        let tls = self.tls()?;
        Ok(config.connect(tls)?)
    }

    fn tls(&self) -> Result<MakeRustlsConnect, ServerError> {
        let roots = match &self.ca {
            Some(file) => tls::roots(file)?,
            None => {
                let mut roots = RootCertStore::empty();
                // A system without any is told by the handshake.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ServerError::Config(format!("TLS: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_or_an_address_without_a_password() {
        let parse = |text: &str| text.parse::<FleetPlace>();
        assert_eq!(parse("/var/lib/fleet"), Ok(FleetPlace::Directory("/var/lib/fleet".into())));
        let place = parse("postgresql://fleet@db.example/fleet").unwrap();
        assert_eq!(place.to_string(), "postgresql://fleet@db.example/fleet");
        for (text, says) in [
            ("postgresql://fleet:hidden@db.example/fleet", "--fleet-password-file"),
            ("postgresql://fleet@db.example", "no host or no database"),
            ("postgre://fleet:hidden@db.example/fleet", "or a directory"),
            ("postgresql://fleet@db.example/fleet?sslmode=disable", "loopback"),
            ("postgresql://fleet@db.example/fleet?nonsense=1", "no address"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says) && !error.contains("hidden"), "{text}: {error}");
        }
        for text in [
            "postgresql://fleet@127.0.0.1/fleet?sslmode=disable",
            "postgresql:///fleet?host=/run/postgresql",
        ] {
            assert!(matches!(parse(text), Ok(FleetPlace::Postgres(_))), "{text}");
        }
        assert!(FleetPlace::from(Path::new("fleet")).with_files(Some("x".into()), None).is_err());
    }
}
