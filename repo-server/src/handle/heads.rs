//! What a request's head may hold. Pure.

use http::{HeaderMap, HeaderName, header};

use crate::error::{ApiError, Code};

/// Fields with one value (RFC 9110, 9112). Of two, a proxy in front may believe one and this server
/// the other: which credential, which bytes, whose host. Fields that are lists (`Accept`,
/// `If-None-Match`, `Transfer-Encoding` …) may come in several lines. Of HTTP/1.1, equal lines of
/// `Content-Length` are one by the time they come here, as RFC 9110 §8.6 allows.
const ONCE: [HeaderName; 14] = [
    header::AUTHORIZATION,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::DATE,
    header::EXPECT,
    header::HOST,
    header::IF_MODIFIED_SINCE,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::MAX_FORWARDS,
    header::RANGE,
    header::USER_AGENT,
];

/// Refuses heads that say one thing twice, or frame one body in two ways.
pub(super) fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    // Two framings for one body are how requests are smuggled past a proxy (RFC 9112 §6.1).
    if headers.contains_key(header::TRANSFER_ENCODING)
        && headers.contains_key(header::CONTENT_LENGTH)
    {
        return Err(ApiError::bad(
            Code::SizeInvalid,
            "a request has Content-Length or Transfer-Encoding, not both",
        ));
    }
    match ONCE.iter().find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
        Some(name) => {
            Err(ApiError::bad(Code::Unsupported, format_args!("{name} is given more than once")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_occur_once_does_not_occur_twice() {
        let heads = |names: &[&str]| {
            let mut headers = HeaderMap::new();
            for name in names {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, "x".parse().unwrap());
            }
            check(&headers).map_err(|error| error.status.as_u16())
        };
        for name in ONCE {
            assert_eq!(heads(&[name.as_str()]), Ok(()), "{name} once");
            assert_eq!(heads(&[name.as_str(), name.as_str()]), Err(400), "{name} twice");
        }
        for list in ["accept", "if-none-match", "cookie", "via", "x-forwarded-for"] {
            assert_eq!(heads(&[list, list]), Ok(()), "{list}");
        }
        assert_eq!(heads(&["content-length", "transfer-encoding"]), Err(400));
    }
}
