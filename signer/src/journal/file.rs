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

pub(super) fn read(path: &Path) -> Result<Vec<Event>, JournalError> {
    let file = match open(path, File::options().read(true))? {
        Some(file) => file,
        None => return Ok(Vec::new()),
    };
    flock(&file, FlockOperation::LockShared).map_err(|error| failed(path)(error.into()))?;
    Ok(chain(path, &contents(path, &file)?)?.0)
}

/// All of it: what is cut off in the middle would be taken for what a power cut left.
fn contents(path: &Path, file: &File) -> Result<Vec<u8>, JournalError> {
    let mut text = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut text).map_err(failed(path))?;
    if text.len() as u64 > LIMIT {
        let why = "has more than 256 MiB: put it away as a whole and begin another with --log";
        return Err(failed(path)(io::Error::new(io::ErrorKind::FileTooLarge, why)));
    }
    Ok(text)
}

/// The events of whole lines, the hash of the last one, and how many bytes they have.
fn chain(path: &Path, text: &[u8]) -> Result<(Vec<Event>, Sha256, usize), JournalError> {
    let (mut events, mut last, mut len) = (Vec::new(), ZERO, 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        // Cut by a power failure: it was never relied on.
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let broken =
            |what| JournalError::Broken { path: path.to_owned(), line: events.len() + 1, what };
        let value = Value::parse(line).map_err(|_| broken("is not JSON"))?;
        let mut members = value.as_object().cloned().ok_or_else(|| broken("is no object"))?;
        let prev = members.remove("prev");
        if prev.as_ref().and_then(Value::as_str) != Some(last.to_hex().as_str()) {
            return Err(broken("does not follow the line before"));
        }
        last = Sha256::of(line);
        len += line.len() + 1;
        events.push(Event { members });
    }
    Ok((events, last, len))
}

/// Appends, and gives what all lines say together.
pub(super) fn append(path: &Path, events: &[Event]) -> Result<Memory, JournalError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = open(path, &mut options)?;
    let failed = failed(path);
    let mut file = file.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let text = contents(path, &file)?;
    let (before, mut last, len) = chain(path, &text)?;
    let mut memory = Memory::default();
    before.iter().for_each(|event| memory.replay(event));
    for event in events {
        if event.text("event") == "signed" && event.text("by") == "sign" {
            memory.check_line(event)?;
        }
        memory.replay(event);
    }
    if len < text.len() {
        file.set_len(len as u64).map_err(&failed)?;
    }
    let mut out = Vec::new();
    for event in events {
        let mut members = event.members.clone();
        members.insert("prev".to_owned(), Value::from(last.to_hex()));
        let line = Value::Object(members).to_bytes();
        last = Sha256::of(&line);
        out.extend_from_slice(&line);
        out.push(b'\n');
    }
    file.seek(SeekFrom::Start(len as u64)).map_err(&failed)?;
    file.write_all(&out).and_then(|()| file.sync_all()).map_err(&failed)?;
    if len == 0 {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        File::open(directory).and_then(|dir| dir.sync_all()).map_err(&failed)?;
    }
    Ok(memory)
}
