//! What an error of `oci-client` means.

use std::error::Error as _;
use std::io;

use formats::reason::Reason;
use oci_client::errors::{OciDistributionError, OciErrorCode};

/// Whether the registry says, in so many words, that there is no such thing.
pub(super) fn is_not_found(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code == 404,
        OciDistributionError::RegistryError { envelope, .. } => {
            !envelope.errors.is_empty()
                && envelope.errors.iter().all(|error| {
                    matches!(
                        error.code,
                        OciErrorCode::ManifestUnknown
                            | OciErrorCode::NameUnknown
                            | OciErrorCode::BlobUnknown
                            | OciErrorCode::NotFound
                    )
                })
        }
        _ => false,
    }
}

/// The stable code.
pub(super) fn reason_of(error: &OciDistributionError) -> Reason {
    match error {
        OciDistributionError::DigestError(_) => Reason::HashMismatch,
        OciDistributionError::RequestError(error) if error.is_timeout() => Reason::Timeout,
        OciDistributionError::RequestError(error) if error.is_redirect() => Reason::RedirectRefused,
        OciDistributionError::RequestError(error) if is_tls(error) => Reason::Tls,
        OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => {
            Reason::Unreachable
        }
        _ => Reason::HttpStatus,
    }
}

fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        next = match error.downcast_ref::<io::Error>() {
            // An io::Error names its content's source as its own and hides the content.
            Some(error) => error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    false
}

/// An error with its causes; each part once.
pub(super) fn chain(error: &OciDistributionError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
