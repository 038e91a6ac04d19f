//! Lines of a log: what comes from outside cannot forge one.
//!
//! Names, answers and error texts of registries, media and other programs end up in messages. A line
//! end in one of them would begin a line of somebody else's making, and an escape would draw on the
//! terminal that shows the journal. So no event leaves a program but as one line, through here.

use std::io::{self, Write};

/// 16 KiB: the longest line; journald cuts at 48 KiB.
const LINE_LIMIT: usize = 16 << 10;

/// Where events go: standard error, one line for each event. To be given to a subscriber as its
/// writer, which writes each event with one call.
pub fn stderr() -> Lines<io::Stderr> {
    Lines(io::stderr())
}

/// Writes each buffer as one line.
#[derive(Debug)]
pub struct Lines<W>(pub W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = printable(text.strip_suffix('\n').unwrap_or(&text));
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The text on one line, without anything that moves the cursor, colours or turns the direction of
/// what is read; cut at 16 KiB. Such characters are shown by their number.
///
/// ```
/// assert_eq!(storage::log::printable("a\r\nINFO \u{1b}[2K"), "a\\r\\nINFO \\u{1b}[2K");
/// ```
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LINE_LIMIT));
    for c in text.chars() {
        if out.len() > LINE_LIMIT {
            out.push('…');
            break;
        }
        // Line and paragraph separators, marks and overrides of direction, byte order marks.
        let steers = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || steers {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let rows: [(&[u8], &str); 6] = [
            (b" WARN it\n", " WARN it\n"),
            (b" WARN a\r INFO b\n INFO c\n", " WARN a\\r INFO b\\n INFO c\n"),
            (b"\x1b[2K\x1b]0;x\x07", "\\u{1b}[2K\\u{1b}]0;x\\u{7}\n"),
            ("\u{9b}2K\u{2028}\u{202e}x".as_bytes(), "\\u{9b}2K\\u{2028}\\u{202e}x\n"),
            (b"\xff\n\n", "\u{fffd}\\n\n"),
            ("für 😀\n".as_bytes(), "für 😀\n"),
        ];
        for (event, line) in rows {
            let mut out = Lines(Vec::new());
            out.write_all(event).unwrap();
            assert_eq!(String::from_utf8(out.0).unwrap(), line);
        }
        let mut out = Lines(Vec::new());
        out.write_all(&vec![b'x'; 1 << 20]).unwrap();
        assert!(out.0.len() < 2 * LINE_LIMIT);
    }
}
