//! The file of the log: hashed as a whole, held and parsed from its end, appended to under a lock.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Seek, SeekFrom, Write};
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
    /// Where the last line ends that says what all before it say together.
    known: u64,
}

impl Default for End {
    fn default() -> Self {
        End { last: ZERO, line: 0, len: 0, lines: 0, known: 0 }
    }
}

/// 256 MiB: a line a minute for years; bounds what a wrong path makes us read.
pub(super) const LIMIT: u64 = 256 << 20;

pub(super) const ZERO: Sha256 = Sha256([0; 32]);

/// 256 KiB: a hundred releases. So much is parsed before a line says what all lines say together, and twice
/// as much as that line has, so that such lines are at most a third of a log.
const UNSUMMED: u64 = 256 << 10;
const UNSUMMED_BY_SUM: u64 = 2;

/// How a line begins that says that.
const SUM: &[u8] = b"{\"event\":\"known\",";

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

/// All events, in order.
pub(super) fn read(path: &Path) -> Result<Vec<Event>, JournalError> {
    let events = chain(path, &whole(path)?, End::default())?.0;
    Ok(events.into_iter().filter(|event| event.text("event") != Memory::KNOWN).collect())
}

/// What all lines say together, and where they end.
pub(super) fn remember(path: &Path) -> Result<(Memory, End), JournalError> {
    let Some(file) = open(path, File::options().read(true))? else { return Ok(<_>::default()) };
    flock(&file, FlockOperation::LockShared).map_err(|error| failed(path)(error.into()))?;
    let (memory, end, _) = replayed(path, &file)?;
    Ok((memory, end))
}

fn whole(path: &Path) -> Result<Vec<u8>, JournalError> {
    let Some(file) = open(path, File::options().read(true))? else { return Ok(Vec::new()) };
    flock(&file, FlockOperation::LockShared).map_err(|error| failed(path)(error.into()))?;
    contents(path, &file, 0)
}

/// What all lines say together, where they end, and how many bytes there are.
fn replayed(path: &Path, file: &File) -> Result<(Memory, End, u64), JournalError> {
    let Summed { sum, rest, len } = summed(path, file)?;
    let said = |line: &[u8]| Memory::of_sum(&Value::parse(line).ok()?);
    let (mut memory, end, rest) = match sum.map(|(line, end)| (said(&line), end)) {
        Some((Some(memory), end)) => (memory, end, rest),
        // It says nothing: what comes before it does.
        Some((None, _)) => (Memory::default(), End::default(), contents(path, file, 0)?),
        None => (Memory::default(), End::default(), rest),
    };
    let (events, end) = chain(path, &rest, end)?;
    events.iter().for_each(|event| memory.replay(event));
    Ok((memory, end, len))
}

/// A log that was looked through.
struct Summed {
    /// The last line that says what all before it say, and where it ends.
    sum: Option<(Vec<u8>, End)>,
    /// What comes after it.
    rest: Vec<u8>,
    /// Bytes of all.
    len: u64,
}

/// Every line is hashed, and names the one before, as everywhere; but they are neither parsed nor held. Lines
/// behind the last one that says what all say are for the caller, who finds out what is wrong with them.
fn summed(path: &Path, file: &File) -> Result<Summed, JournalError> {
    let mut file = file;
    file.seek(SeekFrom::Start(0)).map_err(failed(path))?;
    let mut reader = BufReader::with_capacity(256 << 10, file.take(LIMIT + 1));
    let (mut end, mut chained, mut line) = (End::default(), true, Vec::new());
    let mut summed = Summed { sum: None, rest: Vec::new(), len: 0 };
    while reader.read_until(b'\n', &mut line).map_err(failed(path))? > 0 {
        summed.len += line.len() as u64;
        check_length(path, summed.len)?;
        let whole = line.strip_suffix(b"\n").filter(|line| prev_of(line) == Some(end.last));
        chained &= whole.is_some();
        match whole.filter(|_| chained) {
            Some(line) => end.follow(line),
            None => {
                summed.rest.append(&mut line);
                continue;
            }
        }
        if line.starts_with(SUM) {
            line.pop();
            summed.sum = Some((std::mem::take(&mut line), end.clone()));
            summed.rest.clear();
        } else {
            summed.rest.append(&mut line);
        }
    }
    Ok(summed)
}

/// The hash of the line before that a line names. Quotation marks inside of texts are escaped.
fn prev_of(line: &[u8]) -> Option<Sha256> {
    const NAME: &[u8] = b"\"prev\":\"";
    let at = memchr::memmem::find(line, NAME)? + NAME.len();
    let hex = line.get(at..at + 64).filter(|_| line.get(at + 64) == Some(&b'"'))?;
    Sha256::from_hex(std::str::from_utf8(hex).ok()?).ok()
}

fn check_length(path: &Path, len: u64) -> Result<(), JournalError> {
    if len <= LIMIT {
        return Ok(());
    }
    let why = "has more than 256 MiB: put it away as a whole and begin another with --log";
    Err(failed(path)(io::Error::new(io::ErrorKind::FileTooLarge, why)))
}

/// All of it from an offset on: what is cut off in the middle would be taken for what a power cut left.
fn contents(path: &Path, file: &File, from: u64) -> Result<Vec<u8>, JournalError> {
    let mut text = Vec::new();
    let mut file = file;
    file.seek(SeekFrom::Start(from)).map_err(failed(path))?;
    file.take((LIMIT + 1).saturating_sub(from)).read_to_end(&mut text).map_err(failed(path))?;
    check_length(path, from + text.len() as u64)?;
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
        let known = if line.starts_with(SUM) { len } else { self.known };
        *self = End { last: Sha256::of(line), line: self.len, len, lines: self.lines + 1, known };
    }
}

fn line_after(Event { mut members }: Event, end: &End) -> Vec<u8> {
    members.insert("prev".to_owned(), Value::from(end.last.to_hex()));
    Value::Object(members).to_bytes()
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
    let (mut memory, mut end, there) = match continued(path, &file, end)? {
        Some(text) => {
            let (before, after) = chain(path, &text, end.clone())?;
            let mut memory = known.clone();
            before.iter().for_each(|event| memory.replay(event));
            (memory, after, end.len + text.len() as u64)
        }
        None => replayed(path, &file)?,
    };
    let events: Vec<Event> = events.iter().map(|event| memory.news(event)).collect();
    for event in &events {
        if event.text("event") == "signed" && event.text("by") == "sign" {
            memory.check_line(event)?;
        }
        memory.replay(event);
    }
    let len = end.len;
    if len < there {
        file.set_len(len).map_err(&failed)?;
    }
    let mut out = Vec::new();
    let mut add = |event: Event, end: &mut End| {
        let line = line_after(event, end);
        end.follow(&line);
        out.extend_from_slice(&line);
        out.push(b'\n');
    };
    events.into_iter().for_each(|event| add(event, &mut end));
    let unsummed = end.len - end.known;
    if unsummed >= UNSUMMED {
        let sum = memory.to_sum();
        let line = line_after(sum.clone(), &end);
        // One that could not be read would make the log useless: then it has none.
        if unsummed >= UNSUMMED_BY_SUM * line.len() as u64 && Value::parse(&line).is_ok() {
            add(sum, &mut end);
        }
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
