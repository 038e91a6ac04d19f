//! Standard output: what a program reports there, and whether it arrived.
//!
//! A report that could not be printed is no success: a script that reads an empty file would take it
//! for an answer. But what was done is done, and is carried on to its end. So printing never fails
//! and never panics; the program asks [`lost`] when it ends. A reader that went away (`| head`) has
//! what it wanted: that is no loss.

use std::io::{self, ErrorKind, Write as _};
use std::sync::{Mutex, PoisonError};

/// The first failure. Standard output belongs to the whole process, and so does this.
static LOST: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a line.
pub fn line(text: &str) {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(b'\n');
    print(&bytes);
}

/// Prints bytes as they are.
pub fn print(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    note(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Keeps the outcome of what somebody else printed on standard output.
pub fn note(printed: io::Result<()>) {
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
        _ => {}
    }
}

/// Why a report did not arrive, once; `None` when all did.
pub fn lost() -> Option<io::Error> {
    LOST.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_loss_is_kept_and_a_reader_that_left_is_none() {
        note(Ok(()));
        note(Err(ErrorKind::BrokenPipe.into()));
        assert!(lost().is_none());
        note(Err(ErrorKind::StorageFull.into()));
        note(Err(ErrorKind::NotFound.into()));
        assert_eq!(lost().map(|error| error.kind()), Some(ErrorKind::StorageFull));
        assert!(lost().is_none());
    }
}
