//! What a failure means, and the one option that would help.

use rustls::{AlertDescription, CertificateError, Error};

/// How a program calls its options.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// The CA file.
    pub ca: &'static str,
    /// The client's certificate.
    pub client_cert: &'static str,
    /// HTTP without TLS.
    pub plain_http: &'static str,
    /// A file with a token.
    pub token_file: &'static str,
    /// The host of the token server.
    pub token_host: &'static str,
}

/// The options of `signer`.
pub const COMMAND: Words = Words {
    ca: "--ca",
    client_cert: "--client-cert and --client-key",
    plain_http: "--plain-http",
    token_file: "--token-file",
    token_host: "--token-host",
};

/// The fields of `[[source]]` of `update-agent`.
pub const SOURCE: Words = Words {
    ca: "ca",
    client_cert: "client_cert and client_key",
    plain_http: "plain_http = true",
    token_file: "token_file",
    token_host: "token_host",
};

/// What an exchange with a registry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// Reading a manifest, a blob or a list.
    Read,
    /// Uploading a blob.
    PushBlob,
    /// Storing a manifest.
    PushManifest,
    /// Asking a token server.
    Token,
}

impl Exchange {
    /// By the method and path of a request to a registry (distribution-spec §Endpoints).
    pub fn of(method: &str, path: &str) -> Self {
        match method {
            "GET" | "HEAD" if path.contains("/blobs/uploads/") => Exchange::PushBlob,
            "GET" | "HEAD" => Exchange::Read,
            "PUT" if path.contains("/manifests/") => Exchange::PushManifest,
            _ => Exchange::PushBlob,
        }
    }
}

/// The error of TLS below another one.
pub fn tls_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        next = match error.downcast_ref::<std::io::Error>() {
            // An io::Error names its content's source as its own and hides the content.
            Some(error) => error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// What a failed handshake means.
pub fn tls(error: &Error, words: &Words) -> String {
    let Words { ca, client_cert, plain_http, .. } = words;
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("{error}: name the CA that signed the server's certificate with {ca}")
        }
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => format!("{error}: check this machine's clock, then the server's certificate"),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("{error}: the certificate belongs to another host"),
        Error::InvalidMessage(_) => format!(
            "{error}: the server may speak plain HTTP on this port; give {plain_http} (loopback \
             only)"
        ),
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::AccessDenied,
        ) => {
            format!("{error}: the server wants a client certificate of its CA; give {client_cert}")
        }
        // webpki's own words, which rustls hands on as a debug text.
        Error::InvalidCertificate(CertificateError::Other(other))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            "the server's certificate is a CA itself: sign a server certificate with it, see \
             docs/server.md"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// What to do about an answer with an error status; empty when its own words say it all. `code` is
/// the registry's (distribution-spec §"Error Codes").
pub fn status(at: Exchange, status: u16, code: &str, words: &Words) -> String {
    use Exchange::{PushBlob, PushManifest, Read, Token};
    let text = match (status, at) {
        (401, Token) => "the token server knows no such user or password: log in again",
        (401, _) => {
            return format!(
                "log in to the registry, or give a valid token with {}",
                words.token_file
            );
        }
        (403, Token) => "the token server gives no such rights to this user",
        (403, Read) => "these credentials may not read this repository",
        (403, PushBlob | PushManifest) => {
            "these credentials may not push to this repository; `repo-server` takes pushes only with \
             --push-token-file"
        }
        (404, Token) => "the registry names a token server that is not there: is it set up?",
        (404, Read) => "nothing of that name is published there: check registry and namespace",
        (404, PushBlob | PushManifest) if code == "NAME_UNKNOWN" => {
            "make the repositories at the registry first: some make none on push"
        }
        (404, PushBlob | PushManifest) => {
            "is this the address of a registry, and do its repositories exist? some make none on push"
        }
        (400 | 415 | 422, PushManifest) => {
            "the registry refuses this type of manifest: allow artifacts \
             (application/vnd.racklet…) there, or use another registry"
        }
        (405, PushManifest | PushBlob) => "the registry is read-only, or no registry",
        (413, PushBlob) => {
            "the registry, or a proxy before it, limits the size of requests: give --chunk-size, or \
             raise that limit (nginx: client_max_body_size)"
        }
        (413, _) => {
            "the registry, or a proxy before it, limits the size of requests: raise that limit \
             (nginx: client_max_body_size)"
        }
        (407, _) => {
            "the proxy wants a user and password: https_proxy=http://USER:PASSWORD@HOST:PORT"
        }
        (400, _) => "is this the address of a registry? another server may answer there",
        (408 | 429, _) => "the registry is busy: run again later",
        (500..=599, _) => "the registry is in trouble, its log says why: run again later",
        _ => "",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_own_hint_where_it_occurs() {
        use Exchange::{PushBlob, PushManifest, Read, Token};
        let rows = [
            (400, Read, "", "address of a registry"),
            (400, PushBlob, "", "address of a registry"),
            (400, PushManifest, "MANIFEST_INVALID", "type of manifest"),
            (415, PushManifest, "", "type of manifest"),
            (422, PushManifest, "", "type of manifest"),
            (401, Read, "UNAUTHORIZED", "--token-file"),
            (401, PushBlob, "", "--token-file"),
            (401, Token, "", "no such user or password"),
            (403, Read, "DENIED", "may not read"),
            (403, PushBlob, "DENIED", "may not push"),
            (403, PushManifest, "DENIED", "may not push"),
            (403, Token, "", "no such rights"),
            (404, Read, "NAME_UNKNOWN", "nothing of that name"),
            (404, PushBlob, "NAME_UNKNOWN", "make the repositories"),
            (404, PushManifest, "", "some make none on push"),
            (404, Token, "", "token server that is not there"),
            (405, PushBlob, "", "read-only"),
            (407, Read, "", "the proxy wants a user"),
            (413, PushBlob, "", "--chunk-size"),
            (413, PushManifest, "", "limits the size"),
            (429, PushBlob, "", "busy"),
            (503, Read, "", "in trouble"),
            (418, Read, "", ""),
        ];
        for (number, at, code, wanted) in rows {
            let hint = status(at, number, code, &COMMAND);
            let good = hint.contains(wanted) && hint.is_empty() == wanted.is_empty();
            assert!(good, "{number} {at:?}: {hint}");
        }
        assert!(status(Read, 401, "", &SOURCE).contains("token_file"));
    }

    #[test]
    fn requests_are_told_apart_by_what_they_are_for() {
        for (method, path, wanted) in [
            ("GET", "/v2/a/manifests/latest", Exchange::Read),
            ("HEAD", "/v2/a/blobs/sha256:0", Exchange::Read),
            ("GET", "/v2/a/blobs/uploads/1", Exchange::PushBlob),
            ("POST", "/v2/a/blobs/uploads/", Exchange::PushBlob),
            ("PATCH", "/somewhere/else", Exchange::PushBlob),
            ("PUT", "/v2/a/blobs/uploads/1?digest=x", Exchange::PushBlob),
            ("PUT", "/v2/a/manifests/latest", Exchange::PushManifest),
        ] {
            assert_eq!(Exchange::of(method, path), wanted, "{method} {path}");
        }
    }

    #[test]
    fn handshakes_name_the_option_that_helps() {
        let alert = |alert| Error::AlertReceived(alert);
        for (error, wanted) in [
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "--ca"),
            (Error::InvalidCertificate(CertificateError::Expired), "clock"),
            (Error::InvalidCertificate(CertificateError::NotValidForName), "another host"),
            (
                Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                "plain HTTP on this port; give --plain-http",
            ),
            (alert(AlertDescription::CertificateRequired), "--client-cert"),
            (alert(AlertDescription::UnknownCA), "--client-cert"),
        ] {
            let text = tls(&error, &COMMAND);
            assert!(text.contains(wanted), "{text}");
        }
        let text = tls(&alert(AlertDescription::CertificateRequired), &SOURCE);
        assert!(text.contains("client_cert"), "{text}");
    }
}
