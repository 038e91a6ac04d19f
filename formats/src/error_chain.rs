//! An error and its causes, in one line of text.

use std::error::Error;

/// The text of an error followed by those of its causes: `publish: write index.json: disk full`.
///
/// A cause that the text so far already ends with is not repeated: some crates print the cause in
/// their own text and name it as the source, too.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    fn link(texts: &[&'static str]) -> Option<Box<Link>> {
        let (text, causes) = texts.split_first()?;
        Some(Box::new(Link { text, source: link(causes) }))
    }

    #[test]
    fn every_cause_is_named_once() {
        let cases: [(&[&str], &str); 4] = [
            (&["publish"], "publish"),
            (&["publish", "write a", "disk full"], "publish: write a: disk full"),
            (&["publish: disk full", "disk full"], "publish: disk full"),
            (&["disk full: publish", "disk full"], "disk full: publish: disk full"),
        ];
        for (texts, expected) in cases {
            let error = link(texts).expect("at least one text");
            assert_eq!(error_chain(error.as_ref()), expected);
        }
    }
}
