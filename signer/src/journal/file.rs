//! The file of the log: read as a whole, appended to under a lock.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use formats::digest::Sha256;
use formats::json::Value;
use rustix::fs::{FlockOperation, OFlags, flock};
use storage::StoreError;
use storage::secret::{self, Readers, Rule};

use super::memory::Memory;
use super::{Event, JournalError};

/// How far a log was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// Hash of the last line.
    last: Sha256,
    /// Where the last line begins, and where it ends.
    line: u64,
    len: u64,
    /// How many lines there are.
    lines: usize,
}

impl Default for End {
    fn default() -> Self {
        End { last: ZERO, line: 0, len: 0, lines: 0 }
    }
}

/// 256 MiB: a line a minute for years; bounds what a wrong path makes us read.
pub(super) const LIMIT: u64 = 256 << 20;

pub(super) const ZERO: Sha256 = Sha256([0; 32]);

fn failed(path: &Path) -> impl Fn(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError::Io { path: path.clone(), source }
}

/// Opens a log that nobody else can change: it says what must never be signed again. `None`: there is
/// none. Never waits for what is no file.
fn open(path: &Path, options: &mut OpenOptions) -> Result<Option<File>, JournalError> {
    let options = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed(path))?,
    };
    match secret::check(path, Rule::of(Readers::Everybody)) {
        Ok(()) => Ok(Some(file)),
        Err(StoreError::InsecurePerms { path, why, remedy }) => {
            Err(JournalError::Permissions { path, why, remedy })
        }
        Err(StoreError::Read(error)) => Err(failed(path)(error.into())),
        Err(other) => Err(failed(path)(io::Error::other(other))),
    }
}

pub(super) fn read(path: &Path) -> Result<(Vec<Event>, End), JournalError> {
    let file = match open(path, File::options().read(true))? {
        Some(file) => file,
        None => return Ok(Default::default()),
    };
    flock(&file, FlockOperation::LockShared).map_err(|error| failed(path)(error.into()))?;
    chain(path, &contents(path, &file, 0)?, End::default())
}

/// All of it from an offset on: what is cut off in the middle would be taken for what a power cut left.
fn contents(path: &Path, file: &File, from: u64) -> Result<Vec<u8>, JournalError> {
    let mut text = Vec::new();
    let mut file = file;
    file.seek(SeekFrom::Start(from)).map_err(failed(path))?;
    file.take((LIMIT + 1).saturating_sub(from)).read_to_end(&mut text).map_err(failed(path))?;
    if from + text.len() as u64 > LIMIT {
        let why = "has more than 256 MiB: put it away as a whole and begin another with --log";
        return Err(failed(path)(io::Error::new(io::ErrorKind::FileTooLarge, why)));
    }
    Ok(text)
}

/// What was written behind what is known, if that still ends with the same line: each line names the
/// one before, so all before it are the same.
fn continued(path: &Path, file: &File, known: &End) -> Result<Option<Vec<u8>>, JournalError> {
    let len = usize::try_from(known.len - known.line).unwrap_or(usize::MAX);
    let text = contents(path, file, known.line)?;
    let Some((line, rest)) = text.split_at_checked(len) else { return Ok(None) };
    let same = line.strip_suffix(b"\n").is_some_and(|line| Sha256::of(line) == known.last);
    Ok(same.then(|| rest.to_vec()))
}

/// The events of whole lines after what is known, and where they end.
fn chain(path: &Path, text: &[u8], known: End) -> Result<(Vec<Event>, End), JournalError> {
    let (mut events, mut end) = (Vec::new(), known);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        // Cut by a power failure: it was never relied on.
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let broken =
            |what| JournalError::Broken { path: path.to_owned(), line: end.lines + 1, what };
        let value = Value::parse(line).map_err(|_| broken("is not JSON"))?;
        let mut members = value.as_object().cloned().ok_or_else(|| broken("is no object"))?;
        let prev = members.remove("prev");
        if prev.as_ref().and_then(Value::as_str) != Some(end.last.to_hex().as_str()) {
            return Err(broken("does not follow the line before"));
        }
        end.follow(line);
        events.push(Event { members });
    }
    Ok((events, end))
}

impl End {
    /// Goes on behind a line, which is given without its line break.
    fn follow(&mut self, line: &[u8]) {
        let len = self.len + line.len() as u64 + 1;
        *self = End { last: Sha256::of(line), line: self.len, len, lines: self.lines + 1 };
    }
}

/// Appends, and gives what all lines say together. What is known is not read again.
pub(super) fn append(
    path: &Path,
    events: &[Event],
    (known, end): (&Memory, &End),
) -> Result<(Memory, End), JournalError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = open(path, &mut options)?;
    let failed = failed(path);
    let mut file = file.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let (mut memory, text, end) = match continued(path, &file, end)? {
        Some(text) => (known.clone(), text, end.clone()),
        None => (Memory::default(), contents(path, &file, 0)?, End::default()),
    };
    let begin = end.len;
    let (before, mut end) = chain(path, &text, end)?;
    before.iter().for_each(|event| memory.replay(event));
    let events: Vec<Event> = events.iter().map(|event| memory.news(event)).collect();
    for event in &events {
        if event.text("event") == "signed" && event.text("by") == "sign" {
            memory.check_line(event)?;
        }
        memory.replay(event);
    }
    let len = end.len;
    if len < begin + text.len() as u64 {
        file.set_len(len).map_err(&failed)?;
    }
    let mut out = Vec::new();
    for Event { mut members } in events {
        members.insert("prev".to_owned(), Value::from(end.last.to_hex()));
        let line = Value::Object(members).to_bytes();
        end.follow(&line);
        out.extend_from_slice(&line);
        out.push(b'\n');
    }
    file.seek(SeekFrom::Start(len)).map_err(&failed)?;
    file.write_all(&out).and_then(|()| file.sync_all()).map_err(&failed)?;
    if len == 0 {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        File::open(directory).and_then(|dir| dir.sync_all()).map_err(&failed)?;
    }
    Ok((memory, end))
}
