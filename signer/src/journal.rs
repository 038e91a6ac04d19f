//! `signer.log`: what this directory's keys signed and published, one JSON object per line, each
//! with the hash of the line before.
//!
//! | event | members | meaning |
//! |---|---|---|
//! | `signed` | `role`, `version`, `digest`, `keyid`, `by`, `what` | a signature was made; `by` is the command |
//! | `offline` | `digest`, `keyid`, `expires`, `timestamp`, `targets` | a bundle of that timestamp may be used until then |
//! | `published` | `repository`, `manifest`, `versions`, `digests`, `restart`, at times `tag` | a state became visible; `tag` keeps it, if it is not `ts-N` |
//! | `seen` | `repository`, `versions`, `digests` | a staged change was signed on top of this state |
//! | `abandoned` | `role`, `version`, `digest` | what was signed will never be published |
//!
//! All have `time` (Unix seconds, from the clock of that machine), `user`, `root` (which
//! repository, by the payload of its first root) and `prev`: SHA-256 of the line before without
//! its line break, 64 zeros in the first.
//!
//! It is more than an audit log, it is the signer's memory: a registry that serves an old state is
//! noticed, and nobody signs two contents of one version without having said so (case 189,
//! 198). Lines are appended under a lock and synced before a signature leaves; what a power cut
//! left of a line is cut off. A line that was changed or removed in the middle is refused, a log
//! that was cut at its end cannot be told from a shorter one: copy it away.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use formats::digest::Sha256;
use formats::json::{Object, Value};
use formats::reason::Reason;
use formats::tuf::{Envelope, KeyId, Offline, Role, UnixTime};
use rustix::fs::{FlockOperation, OFlags, flock};
use storage::StoreError;
use storage::secret::{self, Readers, Rule};

use crate::state::State;

/// Name of the file beside the keys.
pub const JOURNAL_FILE: &str = "signer.log";

/// 256 MiB: a line a minute for years; bounds what a wrong path makes us read.
const LIMIT: u64 = 256 << 20;

/// Why the log stops a signature.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("signing log {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others can change it.
    #[error("signing log: {path} {why}; run `{remedy}`")]
    Permissions {
        /// The file, or a folder or link on the way to it.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// The command that mends it.
        remedy: String,
    },
    /// It was changed.
    #[error("signing log {path}, line {line}: {what}; somebody changed it, compare it with a copy")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The repository serves less than was published from here.
    #[error(
        "{repository} serves {role} version {found}, but version {known} was published from here: somebody put an old state back, or it is a copy; nothing is signed on top of it"
    )]
    Older {
        /// The repository.
        repository: String,
        /// Which role.
        role: String,
        /// What it serves.
        found: u64,
        /// What was published.
        known: u64,
    },
    /// The repository serves something else than was published from here.
    #[error(
        "{repository} serves {role} version {version} with other content than was published from here; nothing is signed on top of it"
    )]
    Other {
        /// The repository.
        repository: String,
        /// Which role.
        role: String,
        /// Its version.
        version: u64,
    },
    /// One version would get two contents.
    #[error(
        "{role} version {version} was signed here with other content (sha256 {digest}); commit that, or say with `signer log abandon` that it will never be published"
    )]
    Equivocation {
        /// Which role.
        role: String,
        /// Which version.
        version: u64,
        /// What was signed.
        digest: String,
    },
}

impl JournalError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            JournalError::Io { .. } => Reason::StoreIo,
            JournalError::Permissions { .. } => Reason::InsecurePerms,
            JournalError::Broken { .. } => Reason::StoreCorrupt,
            JournalError::Older { .. }
            | JournalError::Other { .. }
            | JournalError::Equivocation { .. } => Reason::VersionRollback,
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its members, without `prev`.
    pub members: Object,
}

impl Event {
    fn new(event: &str, anchor: &Sha256, now: UnixTime) -> Self {
        let user = i64::from(rustix::process::getuid().as_raw());
        Event {
            members: Object::from([
                ("event".to_owned(), Value::from(event)),
                ("time".to_owned(), Value::Int(now.secs())),
                ("user".to_owned(), Value::Int(user)),
                ("root".to_owned(), Value::from(anchor.to_hex())),
            ]),
        }
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// A signature by that key, made by that command.
    pub fn signed(
        anchor: &Sha256,
        (role, version, digest): (&Role, u64, &Sha256),
        keyid: &KeyId,
        by: &str,
        what: &str,
        now: UnixTime,
    ) -> Self {
        Event::new("signed", anchor, now)
            .payload(role, version, digest)
            .with("keyid", Value::from(keyid.to_string()))
            .with("by", Value::from(by))
            .with("what", Value::from(what))
    }

    /// A payload that was signed and will not be published.
    pub fn abandoned(
        anchor: &Sha256,
        (role, version, digest): (&Role, u64, &Sha256),
        now: UnixTime,
    ) -> Self {
        Event::new("abandoned", anchor, now).payload(role, version, digest)
    }

    /// A signature of an offline statement, by its key. Statements have no versions: any number of
    /// bundles may be made of one state.
    pub fn offline(
        anchor: &Sha256,
        (digest, statement): (&Sha256, &Offline),
        keyid: &KeyId,
        now: UnixTime,
    ) -> Self {
        let targets = statement.targets.keys().map(|name| Value::from(name.as_str())).collect();
        Event::new("offline", anchor, now)
            .with("digest", Value::from(digest.to_hex()))
            .with("keyid", Value::from(keyid.to_string()))
            .with("expires", Value::from(statement.expires.to_string()))
            .with("timestamp", int(statement.timestamp.version))
            .with("targets", Value::Array(targets))
    }

    /// A state that is visible now.
    pub fn published(
        repository: &str,
        manifest: &str,
        state: &State,
        restart: bool,
        now: UnixTime,
    ) -> Self {
        Event::published_in((repository, &anchor_of(state)), manifest, state, restart, now)
    }

    /// The same of a repository that the caller tells from others by more than the state says.
    pub fn published_in(
        (repository, anchor): (&str, &Sha256),
        manifest: &str,
        state: &State,
        restart: bool,
        now: UnixTime,
    ) -> Self {
        let (mut versions, mut digests) = (Object::new(), Object::new());
        for (role, (version, digest)) in versions_of(state) {
            versions.insert(role.clone(), int(version));
            digests.insert(role, Value::from(digest.to_hex()));
        }
        Event::new("published", anchor, now)
            .with("repository", Value::from(repository))
            .with("manifest", Value::from(manifest))
            .with("versions", Value::Object(versions))
            .with("digests", Value::Object(digests))
            .with("restart", Value::Bool(restart))
    }

    /// The tag that keeps the state, when it is not `ts-N`.
    pub fn kept_as(self, tag: &str) -> Self {
        let versions = self.members.get("versions");
        let timestamp = Event::version(versions.and_then(|all| all.get(Role::Timestamp.name())));
        match tag == format!("ts-{timestamp}") {
            true => self,
            false => self.with("tag", Value::from(tag)),
        }
    }

    /// The state that a signature was made on top of: the roles that people sign.
    pub fn seen(repository: &str, state: &State, now: UnixTime) -> Self {
        let mut event = Event::published(repository, "", state, false, now);
        event.members.remove("manifest");
        event.members.remove("restart");
        for member in ["versions", "digests"] {
            if let Some(Value::Object(all)) = event.members.get_mut(member) {
                // A thief of the online keys chooses these.
                all.remove(Role::Snapshot.name());
                all.remove(Role::Timestamp.name());
            }
        }
        event.with("event", Value::from("seen"))
    }

    fn payload(self, role: &Role, version: u64, digest: &Sha256) -> Self {
        self.with("role", Value::from(role.name()))
            .with("version", int(version))
            .with("digest", Value::from(digest.to_hex()))
    }

    fn text(&self, name: &str) -> &str {
        self.members.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn signed_key(&self) -> SignedKey {
        let version = Event::version(self.members.get("version"));
        (self.text("root").to_owned(), self.text("role").to_owned(), version)
    }

    fn version(value: Option<&Value>) -> u64 {
        value.and_then(Value::as_int).and_then(|version| version.try_into().ok()).unwrap_or(0)
    }
}

fn int(value: u64) -> Value {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

/// What was signed, by first root, role and version.
type SignedKey = (String, String, u64);

/// What the lines say together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Memory {
    /// By first root and repository: what was published last, by role.
    published: BTreeMap<(String, String), BTreeMap<String, (u64, String)>>,
    /// By first root: what people signed and did not abandon, by role and version.
    signed: BTreeMap<SignedKey, String>,
    /// The latest time of any line.
    newest: Option<UnixTime>,
}

impl Memory {
    /// Refuses a second content of what was signed.
    fn check(&self, key: &SignedKey, digest: &str) -> Result<(), JournalError> {
        match self.signed.get(key) {
            Some(before) if before != digest => Err(JournalError::Equivocation {
                role: key.1.clone(),
                version: key.2,
                digest: before.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn replay(&mut self, event: &Event) {
        let time = event.members.get("time").and_then(Value::as_int).map(UnixTime::from_secs);
        self.newest = self.newest.max(time);
        let root = event.text("root").to_owned();
        match event.text("event") {
            // Only what leaves this machine by itself; what `publish` signs is public or nowhere.
            "signed" if event.text("by") == "sign" => {
                self.signed.insert(event.signed_key(), event.text("digest").to_owned());
            }
            "abandoned" => drop(self.signed.remove(&event.signed_key())),
            kind @ ("published" | "seen") => {
                let key = (root.clone(), event.text("repository").to_owned());
                let known = self.published.entry(key).or_default();
                if event.members.get("restart").and_then(Value::as_bool) == Some(true) {
                    known.remove(Role::Snapshot.name());
                    known.remove(Role::Timestamp.name());
                }
                let versions = event.members.get("versions").and_then(Value::as_object);
                for (role, version) in versions.into_iter().flatten() {
                    let digest = event.members.get("digests").and_then(|all| all.get(role));
                    let digest = digest.and_then(Value::as_str).unwrap_or_default().to_owned();
                    let version = Event::version(Some(version));
                    // What was only seen may be older than what is known: a copy that was late.
                    if kind == "published" || known.get(role).is_none_or(|(old, _)| *old < version)
                    {
                        known.insert(role.clone(), (version, digest));
                    }
                }
            }
            _ => {}
        }
    }
}

/// The log of a directory.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
    memory: Memory,
}

/// Which roles must be as new as remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that people sign: the online ones start again after their keys were stolen.
    Offline,
}

impl Journal {
    /// Reads a log from its first line. One that is not there is empty.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let mut memory = Memory::default();
        for event in read(path)? {
            memory.replay(&event);
        }
        Ok(Journal { path: path.to_owned(), memory })
    }

    /// Its events in order.
    pub fn events(&self) -> Result<Vec<Event>, JournalError> {
        read(&self.path)
    }

    /// The latest time of any of its events: later ones happen after it.
    pub fn newest(&self) -> Option<UnixTime> {
        self.memory.newest
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends events, durably, before what they record leaves this machine.
    ///
    /// Somebody else may have signed with the same log since it was read: then a second content of
    /// a version is refused here, under the lock.
    pub fn record(&mut self, events: &[Event]) -> Result<(), JournalError> {
        self.memory = append(&self.path, events)?;
        Ok(())
    }

    /// Refuses a repository that forgot, or changed, what was published from here.
    pub fn check_published(
        &self,
        repository: &str,
        state: &State,
        which: Which,
    ) -> Result<(), JournalError> {
        self.check_published_in((repository, &anchor_of(state)), state, which)
    }

    /// The same for a repository that the caller tells from others by more than the state says.
    pub fn check_published_in(
        &self,
        (repository, anchor): (&str, &Sha256),
        state: &State,
        which: Which,
    ) -> Result<(), JournalError> {
        let key = (anchor.to_hex(), repository.to_owned());
        let Some(known) = self.memory.published.get(&key) else { return Ok(()) };
        let found = versions_of(state);
        for (role, (known, digest)) in known {
            let is_online = [Role::Snapshot, Role::Timestamp].iter().any(|r| r.name() == role);
            if is_online && which == Which::Offline {
                continue;
            }
            let repository = repository.to_owned();
            // A delegation that was taken back is no longer served.
            let Some((version, now)) = found.get(role) else { continue };
            if version < known {
                let (role, found, known) = (role.clone(), *version, *known);
                return Err(JournalError::Older { repository, role, found, known });
            }
            if version == known && now.to_hex() != *digest {
                let (role, version) = (role.clone(), *known);
                return Err(JournalError::Other { repository, role, version });
            }
        }
        Ok(())
    }

    /// The version of a role that was published last in a repository.
    pub fn published_version(
        &self,
        (repository, anchor): (&str, &Sha256),
        role: &Role,
    ) -> Option<u64> {
        let known = self.memory.published.get(&(anchor.to_hex(), repository.to_owned()))?;
        known.get(role.name()).map(|(version, _)| *version)
    }

    /// Refuses a second content of a version that was signed for others before.
    pub fn check_signing(
        &self,
        anchor: &Sha256,
        role: &Role,
        version: u64,
        digest: &Sha256,
    ) -> Result<(), JournalError> {
        let key = (anchor.to_hex(), role.name().to_owned(), version);
        self.memory.check(&key, &digest.to_hex())
    }
}

/// Which repository: the payload of its first root.
pub fn anchor_of(state: &State) -> Sha256 {
    payload_digest(state.roots.values().next().map(Vec::as_slice).unwrap_or_default())
}

/// SHA-256 of what the signatures of a file are made over.
pub fn payload_digest(bytes: &[u8]) -> Sha256 {
    Envelope::parse(bytes).map_or(Sha256::of(bytes), |envelope| Sha256::of(envelope.canonical()))
}

fn versions_of(state: &State) -> BTreeMap<String, (u64, Sha256)> {
    let root = state.roots.values().next_back().map(Vec::as_slice).unwrap_or_default();
    let top = [
        (Role::Root, state.root.header.version, root),
        (Role::Snapshot, state.snapshot.data.header.version, &state.snapshot.bytes),
        (Role::Timestamp, state.timestamp.data.header.version, &state.timestamp.bytes),
    ];
    let targets = state
        .targets_roles()
        .map(|(role, signed)| (role.clone(), signed.data.header.version, signed.bytes.as_slice()));
    top.into_iter()
        .chain(targets)
        .map(|(role, version, bytes)| (role.name().to_owned(), (version, payload_digest(bytes))))
        .collect()
}

const ZERO: Sha256 = Sha256([0; 32]);

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

fn read(path: &Path) -> Result<Vec<Event>, JournalError> {
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
fn append(path: &Path, events: &[Event]) -> Result<Memory, JournalError> {
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
            memory.check(&event.signed_key(), event.text("digest"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(version: u64) -> Event {
        let digest = Sha256::of(&version.to_be_bytes());
        let keyid = KeyId(Sha256::of(b"key"));
        let payload = (&Role::Targets, version, &digest);
        Event::signed(&ZERO, payload, &keyid, "sign", "publish demo/1", UnixTime::EPOCH)
    }

    #[test]
    fn case_198_lines_are_chained_and_replayed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(JOURNAL_FILE);
        let mut journal = Journal::open(&path).unwrap();
        journal.record(&[event(1), event(2)]).unwrap();
        journal.record(&[event(3)]).unwrap();
        let again = Journal::open(&path).unwrap();
        assert_eq!(again.memory, journal.memory);
        assert_eq!(again.events().unwrap(), [event(1), event(2), event(3)]);

        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (name, changed) in [
            ("a line is gone", format!("{}\n{}\n", lines[0], lines[2])),
            ("the first line is gone", format!("{}\n{}\n", lines[1], lines[2])),
            ("two are exchanged", format!("{}\n{}\n{}\n", lines[1], lines[0], lines[2])),
            ("a word changed", text.replacen("demo/1", "demo/2", 1)),
            ("not JSON", format!("{text}hello\n")),
        ] {
            std::fs::write(&path, changed).unwrap();
            let error = Journal::open(&path).map(drop).expect_err(name);
            assert_eq!(error.reason(), Reason::StoreCorrupt, "{name}");
        }
    }

    #[test]
    fn a_line_that_a_power_cut_left_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(JOURNAL_FILE);
        let mut journal = Journal::open(&path).unwrap();
        journal.record(&[event(1), event(2)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in first..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            assert_eq!(journal.events().unwrap().len(), 1, "cut at {cut}");
            journal.record(&[event(2)]).unwrap();
            assert!(std::fs::read(&path).unwrap() == whole, "cut at {cut}");
        }
    }

    /// Two at once read the log before either wrote to it: the second one's signature does not leave.
    #[test]
    fn case_189_of_two_at_once_with_other_contents_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(JOURNAL_FILE);
        let (mut one, mut two) = (Journal::open(&path).unwrap(), Journal::open(&path).unwrap());
        one.record(&[event(5)]).unwrap();
        let mut other = event(5);
        other.members.insert("digest".to_owned(), Value::from(Sha256::of(b"other").to_hex()));
        let refused = two.record(&[other]).unwrap_err();
        assert_eq!(refused.reason(), Reason::VersionRollback, "{refused}");
        two.record(&[event(5), event(6)]).unwrap();
        assert_eq!(Journal::open(&path).unwrap().events().unwrap().len(), 3);
    }

    #[test]
    fn a_log_that_is_too_long_is_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(JOURNAL_FILE);
        Journal::open(&path).unwrap().record(&[event(1)]).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(LIMIT + 1).unwrap();
        let refused = append(&path, &[event(2)]).unwrap_err();
        assert_eq!(refused.reason(), Reason::StoreIo, "{refused}");
        assert_eq!(file.metadata().unwrap().len(), LIMIT + 1, "nothing was cut off");
    }

    #[test]
    fn case_189_a_version_is_signed_with_one_content() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&dir.path().join(JOURNAL_FILE)).unwrap();
        journal.record(&[event(5)]).unwrap();
        let same = Sha256::of(&5u64.to_be_bytes());
        let other = Sha256::of(b"other");
        let check = |journal: &Journal, digest| {
            journal.check_signing(&ZERO, &Role::Targets, 5, digest).map_err(|e| e.reason())
        };
        assert_eq!(check(&journal, &same), Ok(()));
        assert_eq!(check(&journal, &other), Err(Reason::VersionRollback));
        let payload = (&Role::Targets, 5, &same);
        journal.record(&[Event::abandoned(&ZERO, payload, UnixTime::EPOCH)]).unwrap();
        assert_eq!(check(&journal, &other), Ok(()));
    }
}
