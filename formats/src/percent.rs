//! Percent-encoding of URLs and URIs (RFC 3986 §2.1).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All but the unreserved characters (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes all bytes but `A-Z a-z 0-9 - . _ ~`, so that the text is one component of a path.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Decodes once; `None` when a `%` is not followed by two hexadecimal digits.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let is_escape = |after: &str| after.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    text.split('%').skip(1).all(is_escape).then(|| percent_decode_str(text).collect())
}

/// The same for text that must be UTF-8.
pub fn decode_utf8(text: &str) -> Option<String> {
    String::from_utf8(decode(text)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_whole_or_refused() {
        for (text, expected) in [
            ("", Some("")),
            ("a-z", Some("a-z")),
            ("%41%2f%2F", Some("A//")),
            ("%2541", Some("%41")),
            ("%C3%A4", Some("ä")),
            ("%", None),
            ("%4", None),
            ("%4g", None),
            ("%%41", None),
            ("%ä1", None),
            ("a%41%", None),
            ("%C3", None),
        ] {
            assert_eq!(decode_utf8(text).as_deref(), expected, "{text}");
        }
        assert_eq!(decode("%C3%00"), Some(vec![0xc3, 0]));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text: String) {
            prop_assert_eq!(decode_utf8(&encode(&text)), Some(text));
        }
    }
}
