//! What can go wrong: for the client ([`ApiError`]) and for the operator ([`ServerError`]).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use formats::error_chain;
use formats::reason::Reason;
use http::StatusCode;
use rustix::io::Errno;
use storage::FileError;
use storage::StoreError as FilesError;
use storage::interrupt::{Signal, Stands};

/// The error codes of distribution-spec §"Error Codes"; no others may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
}

impl Code {
    /// The word as it stands in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BlobUnknown => "BLOB_UNKNOWN",
            Code::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Code::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Code::DigestInvalid => "DIGEST_INVALID",
            Code::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Code::ManifestInvalid => "MANIFEST_INVALID",
            Code::ManifestUnknown => "MANIFEST_UNKNOWN",
            Code::NameInvalid => "NAME_INVALID",
            Code::NameUnknown => "NAME_UNKNOWN",
            Code::SizeInvalid => "SIZE_INVALID",
            Code::Unauthorized => "UNAUTHORIZED",
            Code::Denied => "DENIED",
            Code::Unsupported => "UNSUPPORTED",
            Code::TooManyRequests => "TOOMANYREQUESTS",
        }
    }
}

/// The answer to a request that cannot be served: status, code and a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The registry's code.
    pub code: Code,
    /// What is wrong; never holds a path of the server or a secret.
    pub message: String,
    /// Methods for `Allow`, with status 405.
    pub allow: Option<&'static str>,
    /// Where an upload stands (`Location`, `Range`), with status 416.
    pub upload: Option<(String, u64)>,
    /// The whole length for `Content-Range: bytes */n`, with status 416.
    pub length: Option<u64>,
}

impl ApiError {
    /// An error without further headers.
    pub fn new(status: StatusCode, code: Code, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        ApiError { status, code, message, allow: None, upload: None, length: None }
    }

    /// 400 with a code.
    pub fn bad(code: Code, message: impl fmt::Display) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404 with a code.
    pub fn missing(code: Code, message: impl fmt::Display) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 405 with the methods that would work.
    pub fn method(allow: &'static str) -> Self {
        let text = format!("method not allowed; this endpoint supports {allow}");
        let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, text);
        ApiError { allow: Some(allow), ..error }
    }

    /// 500 without details: those go to the log, not to a stranger.
    pub fn internal() -> Self {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::Unsupported,
            "internal error: the server could not read or write its storage; see its log",
        )
    }

    /// The JSON body of distribution-spec §"Error Codes".
    pub fn body(&self) -> Vec<u8> {
        let errors = serde_json::json!({
            "errors": [{ "code": self.code.as_str(), "message": self.message }]
        });
        errors.to_string().into_bytes()
    }
}

/// Why the server does not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A file or directory of the server could not be read or written.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The storage directory is not an OCI image layout, or a damaged one.
    #[error("{}: {why}; restore it from a backup or start with an empty directory", path.display())]
    Store {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The bucket cannot be read or begun.
    #[error("{bucket}: {why}")]
    Bucket {
        /// Which.
        bucket: String,
        /// What is wrong.
        why: String,
    },
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address asked for.
        address: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Plain HTTP was asked for on an address that others can reach.
    #[error(
        "{0} is not a loopback address: give --tls-cert and --tls-key, or --insecure-http if \
         something in front of this server speaks TLS"
    )]
    PlainHttp(std::net::SocketAddr),
    /// A certificate or key cannot be used.
    #[error("{}: {why}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A key of another certificate.
    #[error("{} is not the key of the certificate in {}", key.display(), certificate.display())]
    TlsPair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Others could read a secret, or change what decides who is believed.
    #[error("{what}: {} {why}; run `{remedy}`", path.display())]
    Perms {
        /// What it should hold.
        what: &'static str,
        /// The file, or a folder or link on the way to it.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// The command that mends it.
        remedy: String,
    },
    /// Another server writes the same directory.
    #[error("{}: another repo-server is using it", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A file is no report of a node.
    #[error("{}: {why}", path.display())]
    NoReport {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The database of the fleet cannot be used.
    #[error("{place}: the fleet's database {why}")]
    Fleet {
        /// Its directory or address.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// What was asked for could not be printed.
    #[error("write to standard output")]
    ReportLost(#[source] io::Error),
    /// Somebody ended the command.
    #[error("ended by {signal}: {}", stands.what)]
    Interrupted {
        /// Who asked for it.
        signal: Signal,
        /// What is so.
        stands: Stands,
    },
    /// Another setting that makes no sense.
    #[error("{0}")]
    Config(String),
}

/// Descriptors, threads, memory, the size of files: what a limit of the process may end.
fn is_limit(error: &io::Error) -> bool {
    let limits = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::FBIG];
    Errno::from_io_error(error).is_some_and(|errno| limits.contains(&errno))
}

impl ServerError {
    pub(crate) fn io(
        doing: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| ServerError::Io { doing, path, source }
    }

    /// What kept a file of the configuration from being read.
    pub(crate) fn unread(what: &'static str, path: &Path, error: FilesError) -> Self {
        let source = match error {
            FilesError::InsecurePerms { path, why, remedy } => {
                return ServerError::Perms { what, path, why, remedy };
            }
            FilesError::Read(FileError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                return ServerError::Config(format!("{what}: there is no {}", path.display()));
            }
            FilesError::Read(FileError::Io { source, .. }) => source,
            FilesError::Read(FileError::NotRegular(_)) => {
                io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
            }
            other => io::Error::other(other),
        };
        ServerError::io("read", path)(source)
    }

    /// Why a file that the server believes cannot be read, or may not be believed.
    pub(crate) fn trusted(option: &'static str, error: FilesError) -> Self {
        match error {
            FilesError::InsecurePerms { path, why, remedy } => {
                ServerError::Perms { what: option, path, why, remedy }
            }
            other => ServerError::Config(format!("{option}: {}", error_chain(&other))),
        }
    }

    /// The stable reason code.
    pub fn reason(&self) -> Reason {
        match self {
            ServerError::Io { .. } => Reason::StoreIo,
            ServerError::Store { .. } => Reason::StoreCorrupt,
            ServerError::Fleet { .. } => Reason::StoreIo,
            ServerError::Bucket { .. } => Reason::Unreachable,
            ServerError::Perms { .. } => Reason::InsecurePerms,
            ServerError::Busy { .. } => Reason::Busy,
            ServerError::ReportLost(_) => Reason::ReportLost,
            ServerError::Interrupted { .. } => Reason::Interrupted,
            ServerError::Listen { .. }
            | ServerError::PlainHttp(_)
            | ServerError::Tls { .. }
            | ServerError::TlsPair { .. }
            | ServerError::NoReport { .. }
            | ServerError::Config(_) => Reason::Config,
        }
    }

    /// What the operator can do next.
    pub fn hint(&self) -> &'static str {
        if let ServerError::Listen { source, .. } = self
            && source.kind() == std::io::ErrorKind::PermissionDenied
        {
            return "ports below 1024 need root, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit";
        }
        if let Some(advice) = storage::refused::advice(self) {
            return advice;
        }
        match self {
            ServerError::Io { source, .. } if is_limit(source) => {
                "a limit of the process is reached; raise it (`ulimit -a`; LimitNOFILE= and TasksMax= \
                 of the unit)"
            }
            ServerError::Io { .. } => "check free space, mount state and owner of that path",
            ServerError::Store { .. } => {
                "is this the repository's directory? Every blob is checked before it is served; no data is lost"
            }
            ServerError::Fleet { .. } => {
                "check free space and owner of that directory, or that PostgreSQL runs and lets us in; nodes report \
                 again to an empty database, and only their history and approvals are lost"
            }
            ServerError::Perms { .. } => "replace a secret that others may have read",
            ServerError::Bucket { .. } => {
                "check the bucket's name, --s3-endpoint, and the credentials in AWS_ACCESS_KEY_ID \
                 and AWS_SECRET_ACCESS_KEY or in ~/.aws/credentials"
            }
            ServerError::Listen { .. } => "is another server on that port?",
            ServerError::PlainHttp(_) => "tokens and updates need TLS on a network",
            ServerError::Tls { .. } => {
                "use PEM files, with the server's certificate first in the chain"
            }
            ServerError::TlsPair { .. } => {
                "give the two that belong together: `openssl x509 -noout -pubkey -in CERTIFICATE` and \
                 `openssl pkey -pubout -in KEY` print the same public key"
            }
            ServerError::Busy { .. } => {
                "stop that one; beside it, `serve --read-only` and `gc --dry-run` work, `serve --gc-interval` \
                 collects while it serves, and servers of a bucket (--s3) share it"
            }
            ServerError::ReportLost(_) => "the command did its work; check the result",
            ServerError::Interrupted { .. } => "run it again",
            ServerError::NoReport { .. } => {
                "make the file on the node: `update-agent report -o FILE`; nothing of this command was kept"
            }
            ServerError::Config(_) => "see repo-server serve --help",
        }
    }
}
