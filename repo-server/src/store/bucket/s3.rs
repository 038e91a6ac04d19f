//! Which bucket, and the credentials for it: from the environment or the files that every AWS tool
//! reads, never from the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use formats::error_chain;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as ConfigKey};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use storage::StoreError as FilesError;
use storage::secret::{self, Readers, Rule};
use url::{Host, Url};

use super::super::StoreError;
use super::Bucket;
use crate::error::ServerError;

/// 1 MiB: more than any file of certificates or credentials; bounds what a wrong path makes us read.
const FILE_LIMIT: u64 = 1 << 20;

/// A bucket, as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3 {
    /// The bucket's name.
    pub bucket: String,
    /// Where in it; empty for all of it.
    pub prefix: String,
    /// The service, for others than AWS.
    pub endpoint: Option<Url>,
    /// The region; without, what the environment says, or `us-east-1`.
    pub region: Option<String>,
    /// A credentials file in the form of AWS; without, the environment or `~/.aws/credentials`.
    pub credentials: Option<PathBuf>,
    /// The profile in it; without, `AWS_PROFILE` or `default`.
    pub profile: Option<String>,
    /// CA certificates (PEM) for the service, in addition to the system's.
    pub ca: Option<PathBuf>,
    /// Allow plain HTTP to an endpoint that is not loopback.
    pub insecure_http: bool,
}

impl S3 {
    /// `BUCKET` or `BUCKET/prefix`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if bucket.is_empty() || bucket.len() > 255 || !bucket.bytes().all(good) {
            return Err(format!("{bucket:?} is not a bucket name"));
        }
        let prefix = prefix.trim_end_matches('/');
        let odd = |part: &str| matches!(part, "" | "." | "..");
        let dots = !prefix.is_empty() && prefix.split('/').any(odd);
        let fits = prefix.bytes().all(|byte| good(byte) || byte == b'/');
        if dots || !fits || Key::parse(prefix).is_err() {
            return Err(format!("{prefix:?} is not a valid prefix: use a-z, 0-9, . _ - /"));
        }
        Ok(S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: None,
            credentials: None,
            profile: None,
            ca: None,
            insecure_http: false,
        })
    }

    /// Opens it. Blocks.
    pub fn open(&self, read_only: bool) -> Result<Bucket, ServerError> {
        let wrong = |why: String| ServerError::Config(format!("--s3: {why}"));
        // The client inside takes the process's provider; somebody may have set the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            // Of silence; a whole answer may take as long as it takes.
            .with_read_timeout(Duration::from_secs(20))
            .with_timeout_disabled();
        if let Some(path) = &self.ca {
            let pem = secret::read(path, FILE_LIMIT, Rule::of(Readers::Everybody))
                .map_err(|error| ServerError::unread("CA file", path, error))?;
            let chain = Certificate::from_pem_bundle(&pem);
            let tls = |why: String| ServerError::Tls { path: path.clone(), why };
            for certificate in chain.map_err(|error| tls(error.to_string()))? {
                client = client.with_root_certificate(certificate);
            }
        }
        let mut builder = AmazonS3Builder::from_env();
        for (key, value) in self.keys().map_err(wrong)? {
            builder = builder.with_config(key, value);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            if !endpoint.username().is_empty() || endpoint.password().is_some() {
                let text = "--s3-endpoint holds a user or a password, which every user of this machine could read: \
                            give credentials by the environment, or in the file of --s3-credentials";
                return Err(wrong(text.to_owned()));
            }
            let loopback = match endpoint.host() {
                Some(Host::Ipv4(ip)) => ip.is_loopback(),
                Some(Host::Ipv6(ip)) => ip.is_loopback(),
                Some(Host::Domain(name)) => name == "localhost",
                None => false,
            };
            let plain = endpoint.scheme() == "http";
            if plain && !loopback && !self.insecure_http {
                let text = "is plain HTTP to a network: whoever listens there can withhold and \
                            replace what nodes get; use https, or add --insecure-http";
                return Err(wrong(format!("{endpoint} {text}")));
            }
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
            client = client.with_allow_http(plain);
        }
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 4,
            retry_timeout: Duration::from_secs(20),
        };
        let objects = builder
            .with_bucket_name(&self.bucket)
            .with_client_options(client)
            .with_retry(retry)
            // One more listing would be needed to find tags on objects; we set none.
            .with_disable_tagging(true)
            .build()
            .map_err(|error| wrong(error_chain(&error)))?;
        let prefix = Key::parse(&self.prefix).map_err(|error| wrong(error.to_string()))?;
        Bucket::over(Box::new(objects), prefix, read_only).map_err(|error| self.failed(&error))
    }

    /// The keys of a profile in a file; none when the environment has others.
    fn keys(&self) -> Result<Vec<(ConfigKey, String)>, String> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let named = match &self.credentials {
            Some(path) => Some(path.clone()),
            None if FROM_ELSEWHERE.iter().any(|name| set(name).is_some()) => return Ok(Vec::new()),
            None => set("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from),
        };
        let home = || set("HOME").map(|home| Path::new(&home).join(".aws/credentials"));
        let Some(path) = named.clone().or_else(home) else { return Ok(Vec::new()) };
        let bytes = match secret::read(&path, FILE_LIMIT, Rule::of(Readers::Group)) {
            Ok(bytes) => bytes,
            Err(error @ FilesError::InsecurePerms { .. }) => {
                return Err(ServerError::unread("credentials file", &path, error).to_string());
            }
            // The role of the machine itself, maybe.
            Err(_) if named.is_none() => return Ok(Vec::new()),
            Err(error) => {
                let why = error_chain(&error);
                return Err(format!("read {}: {why}", path.display()));
            }
        };
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let profile = self.profile.clone().or_else(|| std::env::var("AWS_PROFILE").ok());
        let profile = profile.as_deref().unwrap_or("default");
        let found = profile_of(text, profile);
        if found.is_empty() && named.is_some() {
            return Err(format!("{} has no keys for profile {profile:?}", path.display()));
        }
        Ok(found)
    }

    /// The error of a server that starts on an unreadable bucket.
    pub fn failed(&self, error: &StoreError) -> ServerError {
        ServerError::Bucket { bucket: self.to_string(), why: error_chain(error) }
    }
}

impl std::fmt::Display for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

/// Where credentials come from when not from a file.
const FROM_ELSEWHERE: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// The keys of one profile in the form of AWS' credentials files.
fn profile_of(text: &str, profile: &str) -> Vec<(ConfigKey, String)> {
    let mut here = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            here = name.trim() == profile;
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| here) else { continue };
        let key = match name.trim() {
            "aws_access_key_id" => ConfigKey::AccessKeyId,
            "aws_secret_access_key" => ConfigKey::SecretAccessKey,
            "aws_session_token" => ConfigKey::Token,
            _ => continue,
        };
        found.push((key, value.trim().to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_buckets() {
        let S3 { bucket, prefix, .. } = S3::parse("fleet/eu/1/").unwrap();
        assert_eq!((bucket.as_str(), prefix.as_str()), ("fleet", "eu/1"));
        assert_eq!(S3::parse("fleet").unwrap().to_string(), "s3://fleet/");
        for bad in
            ["", "/x", "a b", "fleet/../x", "fleet//x/y", "fleet/a//b", "fleet/a b", "fleet/%2e"]
        {
            assert!(S3::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn profiles() {
        let text = "# keys\n[default]\naws_access_key_id = A\naws_secret_access_key=S\nregion = x\n\
                    [other]\naws_access_key_id=B\naws_session_token = T==\n";
        let default = profile_of(text, "default");
        assert_eq!(
            default,
            [(ConfigKey::AccessKeyId, "A".into()), (ConfigKey::SecretAccessKey, "S".into())]
        );
        let other = profile_of(text, "other");
        assert_eq!(other[1], (ConfigKey::Token, "T==".into()));
        assert!(profile_of(text, "none").is_empty());
    }

    #[test]
    fn plain_http_only_to_oneself() {
        let mut s3 = S3::parse("b").unwrap();
        s3.endpoint = Some("http://192.0.2.1:9000".parse().unwrap());
        let error = s3.open(true).unwrap_err();
        assert!(error.to_string().contains("plain HTTP"), "{error}");
    }
}
