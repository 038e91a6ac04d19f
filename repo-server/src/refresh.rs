//! Renewing snapshot and timestamp with a key of the server's own (`--refresh-key`), for sites that
//! have no other machine that is always on.
//!
//! It is a trade-off, and the server says so in its log and in `/healthz`: an attacker who takes over a server
//! with this key can hold nodes back and offer them older *sets* of releases for as long as nobody
//! notices. They still cannot make nodes install anything, because a key that signs for root,
//! targets or a delegated role is refused. Without the key, a thief of the server can do none of it;
//! `signer refresh` from a timer elsewhere is the better place.
//!
//! Who may push is no such thief, and gets nothing signed:
//!
//! | what is pushed | why it is not signed |
//! |---|---|
//! | a state in another namespace | only `--namespace` is looked at |
//! | a state below another root | it does not verify from `--refresh-root` |
//! | an old state, put back | the signing log knows a newer one |
//! | long periods | they come from `--refresh-expires`, from metadata that one of these keys signed, or are the defaults |

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use formats::error_chain;
use formats::oci::RepositoryName;
use formats::reason::Reason;
use formats::reference::{Namespace, Reference};
use formats::tuf::{Envelope, KeyId, Keys, Metadata as _, Role, RoleKeys, Root, UnixTime};
use serde::Serialize;
use signer::commands::{self, Signing};
use signer::journal::{Event, JOURNAL_FILE, Journal, JournalError, Roles};
use signer::key::{self, KeyLocation, KeyStore, PASSPHRASE_FILE};
use signer::plan::{Expiry, Retention, default_period, period_of};
use signer::published::Published;
use signer::repository::{Access, ClientOptions, Registry, open};
use signer::retention;
use signer::state::{State, delegators};
use storage::StoreError;

use crate::anchor::{Anchor, Refused};
use crate::config::Config;
use crate::error::ServerError;
use crate::lock::LockMutex as _;
use crate::store::Store;

/// 256 MiB: what the signing log may have, see [`signer::journal`].
const LOG_LIMIT: u64 = 256 << 20;

/// The roles that are renewed.
const ONLINE: [Role; 2] = [Role::Snapshot, Role::Timestamp];

/// Which keys, for which repository, and what was signed with them before.
#[derive(Debug, Clone)]
pub(crate) struct Refresher {
    dir: PathBuf,
    namespace: Namespace,
    name: RepositoryName,
    anchor: Anchor,
    keys: Vec<PathBuf>,
    keyids: Vec<KeyId>,
    expiry: Expiry,
    journal: Arc<Mutex<Journal>>,
}

/// What the server signs, as `/healthz` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RefreshStatus {
    /// The TUF repository.
    pub(crate) repository: String,
    /// The keys it signs with.
    keyids: Vec<String>,
    /// Version of the timestamp it believed or made last.
    timestamp: u64,
    /// Stable code of why it does not sign.
    pub(crate) code: Option<Reason>,
    /// The same in words.
    error: Option<String>,
}

impl RefreshStatus {
    fn nothing_yet(refresher: &Refresher) -> Self {
        RefreshStatus {
            repository: refresher.name.to_string(),
            keyids: refresher.keyids.iter().map(KeyId::to_string).collect(),
            timestamp: 0,
            code: None,
            error: None,
        }
    }

    /// Whether somebody should look why it does not sign.
    pub(crate) fn is_refused(&self) -> bool {
        self.error.is_some()
    }
}

impl Refresher {
    /// Reads every key and the log once, so that a wrong one is noticed at the start, and says what
    /// it means.
    pub(crate) fn new(
        config: &Config,
        anchor: Option<&Anchor>,
    ) -> Result<Option<Self>, ServerError> {
        let wanted = &config.refresh;
        let Some(first) = wanted.keys.first() else { return Ok(None) };
        let refused = |why: String| ServerError::Config(format!("--refresh-key: {why}"));
        let needs = |what| refused(format!("needs {what}; without, it would sign what is pushed"));
        let anchor =
            anchor.ok_or_else(|| needs("--refresh-root FILE (the repository's root.json)"))?;
        let namespace = config.namespace.as_ref().ok_or_else(|| {
            needs("--namespace NS (the part before `tuf`; \"\" when there is none)")
        })?;
        let namespace: Namespace =
            namespace.parse().map_err(|error| refused(error_chain(&error)))?;
        let name = namespace.repository("tuf").map_err(|error| refused(error_chain(&error)))?;
        let keyids = wanted.keys.iter().map(|path| keyid(path).map_err(refused));
        let keyids = keyids.collect::<Result<Vec<_>, _>>()?;
        let log = wanted.log.clone().unwrap_or_else(|| first.with_file_name(JOURNAL_FILE));
        let refresher = Refresher {
            dir: config.dir.clone(),
            namespace,
            name,
            anchor: anchor.clone(),
            keys: wanted.keys.clone(),
            keyids,
            expiry: periods(&wanted.expires)?,
            journal: Arc::new(Mutex::new(read_log(&log)?)),
        };
        let keyids: Vec<_> = refresher.keyids.iter().map(KeyId::to_string).collect();
        tracing::warn!(
            target: "refresh", keyids = keyids.join(","), log = %log.display(),
            "THIS SERVER HOLDS SIGNING KEYS: it renews snapshot and timestamp by itself, and \
             whoever takes it over can hold nodes back"
        );
        Ok(Some(refresher))
    }

    /// Judges the newest state, and renews what is past the half of its period. Blocks.
    pub(crate) fn turn(&self, store: &Store, now: UnixTime) -> RefreshStatus {
        let mut signs = RefreshStatus::nothing_yet(self);
        if let Err(Refused { reason, text }) = self.renew(store, now, &mut signs) {
            (signs.code, signs.error) = (Some(reason), Some(text));
        }
        signs
    }

    fn renew(
        &self,
        store: &Store,
        now: UnixTime,
        signs: &mut RefreshStatus,
    ) -> Result<(), Refused> {
        let found = self.anchor.load(store, &self.name)?;
        let mut journal = self.journal.locked();
        let restart = self.remembers(&journal, &found.state)?;
        signs.timestamp = found.state.timestamp.data.header.version;
        if let Some((role, keyid)) = offline(&found.state).find(|(_, id)| self.keyids.contains(id))
        {
            let text = format!(
                "key {keyid} signs for {role}: such a key does not belong on a server; take it \
                 away and have it revoked"
            );
            return Err(Refused::new(Reason::Config, text));
        }
        self.note(&mut journal, &found, restart, now)?;
        // A clock that is behind finds nothing due, and would be silent until it is too late.
        let mut signing = Signing { journal: Some(journal.clone()), ..Signing::default() };
        signing.check_clock(Some(&found.state), None, now).map_err(signer_refused)?;
        let expiry = own_periods(&found.state, &self.keyids, &self.expiry);
        if !is_due(&found.state, &expiry, now) {
            return Ok(());
        }
        signing.keys = self.open_keys()?;
        // Offline keys were looked for by the ids of the start.
        if signing.keys.keys().any(|key| !self.keyids.contains(&key.id())) {
            let text = "a key file holds another key than at the start: start the server again";
            return Err(Refused::new(Reason::Config, text));
        }
        // Once: opening a directory for writing flushes all names in it.
        let registry = self.registry()?;
        let renewed = commands::renew(registry.as_ref(), &mut signing, &found, &expiry, now);
        // Also when it was not published: the signatures are in the log.
        if let Some(written) = signing.journal {
            *journal = written;
        }
        let (renewed, _) = renewed.map_err(signer_refused)?;
        signs.timestamp = renewed.state.timestamp.data.header.version;
        self.note(&mut journal, &renewed, false, now)?;
        retire(registry.as_ref(), &renewed.state, now);
        let (repository, timestamp) = (&signs.repository, signs.timestamp);
        tracing::info!(target: "refresh", %repository, timestamp, "snapshot and timestamp renewed");
        Ok(())
    }

    /// Refuses a state that is older than one that was seen or signed here, as a node would; `true`
    /// when versions of snapshot and timestamp start again, because a new root gave them other keys
    /// (TUF §5.3.11).
    fn remembers(&self, journal: &Journal, state: &State) -> Result<bool, Refused> {
        let repository = self.name.as_str();
        let known = journal.published_version(repository, &state.identity, &Role::Root);
        let restart = known.is_some_and(|version| online_keys_changed(state, version));
        let roles = if restart { Roles::Offline } else { Roles::All };
        journal.check_published(repository, state, roles).map_err(|error| {
            let text = match &error {
                JournalError::Older { role, found, known, .. } => format!(
                    "{role} version {found} is served, but version {known} was here before: \
                     somebody put an old state back; nothing is signed on top of it"
                ),
                JournalError::ContentChanged { role, version, .. } => format!(
                    "{role} version {version} is served with other content than before; nothing \
                     is signed on top of it"
                ),
                other => error_chain(other),
            };
            Refused::new(error.reason(), text)
        })?;
        Ok(restart)
    }

    /// Writes down a state that is newer than what the log knows, before anything is signed on top.
    fn note(
        &self,
        journal: &mut Journal,
        found: &Published,
        restart: bool,
        now: UnixTime,
    ) -> Result<(), Refused> {
        let state = &found.state;
        let repository = self.name.as_str();
        let known = journal.published_version(repository, &state.identity, &Role::Timestamp);
        if known == Some(state.timestamp.data.header.version) && !restart {
            return Ok(());
        }
        let manifest = found.manifest.to_string();
        let event = Event::published(repository, &manifest, state, restart, now);
        journal.record(&[event]).map_err(|error| Refused::new(error.reason(), error_chain(&error)))
    }

    fn open_keys(&self) -> Result<KeyStore, Refused> {
        let mut keys = KeyStore::default();
        for path in &self.keys {
            keys.add_location(KeyLocation::File(path.clone()))
                .map_err(|error| Refused::new(error.reason(), error_chain(&error)))?;
        }
        Ok(keys)
    }

    fn registry(&self) -> Result<Box<dyn Registry>, Refused> {
        let (path, namespace) = (self.dir.clone(), self.namespace.clone());
        open(&Reference::Layout { path, namespace }, Access::Write, &ClientOptions::default())
            .map_err(|error| Refused::new(error.reason(), error_chain(&error)))
    }
}

/// Removes states that are old by now; a collection removes what only they needed.
fn retire(registry: &dyn Registry, state: &State, now: UnixTime) {
    let newest = state.timestamp.data.header.version;
    let (retired, finding) = retention::retire(registry, Retention::default(), newest, now);
    if let Some(finding) = finding {
        tracing::warn!(target: "refresh", code = %finding.reason, "{}", finding.text);
    }
    if retired.tags > 0 {
        tracing::info!(target: "refresh", tags = retired.tags, "old states removed");
    }
}

fn signer_refused(error: signer::error::SignerError) -> Refused {
    Refused::new(error.reason(), error_chain(&error))
}

/// The id of a key file that can be opened without a person.
fn keyid(path: &Path) -> Result<KeyId, String> {
    let document = key::read(path).map_err(|error| error_chain(&error))?;
    // There is no terminal at which to ask for one.
    if document.is_sealed() && std::env::var_os(PASSPHRASE_FILE).is_none() {
        return Err(format!("{} has a passphrase; set {PASSPHRASE_FILE}", path.display()));
    }
    document.key().map(|key| key.id()).map_err(|error| error_chain(&error))
}

/// The log, which no other user may be able to change; a missing one is created.
fn read_log(path: &Path) -> Result<Journal, ServerError> {
    let refused = |why: String| ServerError::Config(format!("--refresh-log: {why}"));
    let check = || storage::private::read_trusted(path, LOG_LIMIT).map(drop);
    let trusted = |error| ServerError::trusted("--refresh-log", error);
    // It may be read through a link; who writes it replaces what lies under its name.
    if path.is_symlink() {
        return Err(refused(format!(
            "{} is a symbolic link: name the file itself",
            path.display()
        )));
    }
    match check() {
        // Its folder was looked at.
        Err(StoreError::Read(error)) if error.is_missing() => {}
        other => other.map_err(trusted)?,
    }
    let mut journal = Journal::open(path).map_err(|error| refused(error_chain(&error)))?;
    // Fails now rather than when the first signature is due.
    journal.record(&[]).map_err(|error| refused(error_chain(&error)))?;
    check().map_err(trusted)?;
    Ok(journal)
}

/// The periods that were given, for the two roles only.
fn periods(given: &[String]) -> Result<Expiry, ServerError> {
    let refused = |why: String| ServerError::Config(format!("--refresh-expires: {why}"));
    let expiry = Expiry::parse(given).map_err(|error| refused(error_chain(&error)))?;
    let others = [Role::Root, Role::Targets].iter().any(|role| expiry.period(role).is_some());
    if others || given.iter().any(|it| it.starts_with("offline")) {
        return Err(refused("the server signs for snapshot and timestamp only".to_owned()));
    }
    Ok(expiry)
}

/// How long the next snapshot and timestamp last: as given; as long as the ones before, where one of
/// these keys signed them; by default else. What others signed has no say.
fn own_periods(state: &State, keyids: &[KeyId], given: &Expiry) -> Expiry {
    let mut expiry = given.clone();
    let (snapshot, timestamp) = (&state.snapshot, &state.timestamp);
    let before = [
        (Role::Snapshot, &snapshot.bytes, period_of(&snapshot.data.unknown)),
        (Role::Timestamp, &timestamp.bytes, period_of(&timestamp.data.unknown)),
    ];
    for (role, bytes, period) in before {
        if expiry.period(&role).is_some() {
            continue;
        }
        let period = period.filter(|_| is_signed_by(&state.root, keyids, &role, bytes));
        let period = period.unwrap_or_else(|| default_period(&role));
        let with = |period| expiry.clone().with(role.clone(), period);
        // Longer than any role may last: not of this project.
        expiry = with(period).or_else(|_| with(default_period(&role))).unwrap_or(given.clone());
    }
    expiry
}

/// Whether one of these keys signed it.
fn is_signed_by(root: &Root, keyids: &[KeyId], role: &Role, bytes: &[u8]) -> bool {
    let Some(of_role) = root.role(role) else { return false };
    let own: Vec<KeyId> = keyids.iter().copied().filter(|id| of_role.keyids.contains(id)).collect();
    let keys: &Keys = &root.keys;
    Envelope::parse(bytes)
        .is_ok_and(|envelope| RoleKeys::new(1, own).verify(keys, role, &envelope).is_ok())
}

/// Whether the keys of snapshot or timestamp are others than in an older root of the same chain.
fn online_keys_changed(state: &State, version: u64) -> bool {
    let Some(bytes) = state.roots.get(&version) else { return false };
    let root = Envelope::parse(bytes).ok().and_then(|it| Root::parse(it.signed()).ok());
    let keys = |root: &Root, role| root.role(role).map(|keys| keys.keyids.clone());
    root.is_some_and(|root| ONLINE.iter().any(|role| keys(&root, role) != keys(&state.root, role)))
}

/// Tells the log what went wrong since last time.
pub(crate) fn log_changes(before: &[RefreshStatus], now: &[RefreshStatus]) {
    for it in now {
        let old = before.iter().find(|old| old.repository == it.repository);
        if old.is_some_and(|old| old.error == it.error) {
            continue;
        }
        let repository = &it.repository;
        match (&it.error, &it.code) {
            (Some(error), code) => {
                let code = code.map_or("", |code| code.code());
                tracing::error!(target: "refresh", %repository, code, %error, "not renewed");
            }
            (None, _) if old.is_some() => {
                tracing::info!(target: "refresh", %repository, "renewed again");
            }
            _ => {}
        }
    }
}

/// Whether snapshot or timestamp has less than half of its period left.
fn is_due(state: &State, periods: &Expiry, now: UnixTime) -> bool {
    let roles = [
        (Role::Snapshot, state.snapshot.data.header.expires),
        (Role::Timestamp, state.timestamp.data.header.expires),
    ];
    roles.into_iter().any(|(role, expires)| {
        let left = expires.secs().saturating_sub(now.secs());
        let period = periods.period(&role).unwrap_or_else(|| default_period(&role));
        left.saturating_mul(2) < i64::try_from(period).unwrap_or(i64::MAX)
    })
}

/// Every key that people sign with, and what for.
fn offline(state: &State) -> impl Iterator<Item = (Role, KeyId)> {
    let mut all = Vec::new();
    for role in [Role::Root, Role::Targets] {
        let keys = state.root.role(&role).map(|keys| keys.keyids.clone()).unwrap_or_default();
        all.extend(keys.into_iter().map(|keyid| (role.clone(), keyid)));
    }
    for role in state.delegated.keys() {
        let roles = state.targets_roles().map(|(role, signed)| (role, &signed.data));
        for (_, _, keys) in delegators(roles, role) {
            all.extend(keys.keyids.iter().map(|keyid| (role.clone(), *keyid)));
        }
    }
    all.into_iter()
}

#[cfg(test)]
mod tests {
    use signer::commands::{Delivery, InitRequest, init};

    use super::*;

    /// A new repository, and the keys of its snapshot and timestamp.
    fn state(expiry: &str) -> (State, Vec<KeyId>) {
        state_in(tempfile::tempdir().unwrap().path(), expiry)
    }

    fn state_in(dir: &Path, expiry: &str) -> (State, Vec<KeyId>) {
        let reference = format!("oci:{}", dir.join("repository").display());
        let registry =
            open(&reference.parse().unwrap(), Access::Write, &ClientOptions::default()).unwrap();
        let request = InitRequest {
            keys: dir.join("keys"),
            expiry: Expiry::parse(&[expiry]).unwrap(),
            ..InitRequest::default()
        };
        let (now, mut nobody) = (formats::tuf::BUILD_TIME.plus(86_400), Signing::default());
        init(registry.as_ref(), &mut nobody, &request, Delivery::Publish, now).unwrap();
        let state = signer::published::load(registry.as_ref(), None).unwrap().state;
        let of = |role: &Role| state.root.role(role).unwrap().keyids.clone();
        let keyids = of(&Role::Snapshot).into_iter().chain(of(&Role::Timestamp)).collect();
        (state, keyids)
    }

    #[test]
    fn periods_are_given_or_were_signed_here() {
        let (state, own) = state("timestamp=20d");
        let day = 86_400;
        let given = |text: &str| Expiry::parse(&[text]).unwrap();
        for (row, keyids, expiry, snapshot, timestamp) in [
            ("signed with these keys before", &own[..], Expiry::default(), 7 * day, 20 * day),
            ("signed by others: the default", &[], Expiry::default(), 7 * day, day),
            ("the key of the other role", &own[..1], Expiry::default(), 7 * day, day),
            ("given", &own[..], given("timestamp=2d"), 7 * day, 2 * day),
            ("given, and signed by others", &[], given("snapshot=3d"), 3 * day, day),
        ] {
            let found = own_periods(&state, keyids, &expiry);
            let found = (found.period(&Role::Snapshot), found.period(&Role::Timestamp));
            assert_eq!(found, (Some(snapshot), Some(timestamp)), "{row}");
        }
    }

    /// Roots before the trusted one are whatever somebody pushed; they make no other repository of it.
    #[test]
    fn what_is_remembered_does_not_depend_on_pushed_roots() {
        let temp = tempfile::tempdir().unwrap();
        let (state, _) = state_in(temp.path(), "timestamp=1d");
        let keys = temp.path().join("keys");
        let mut config = Config::new(temp.path().join("repository"));
        config.namespace = Some(String::new());
        config.refresh.keys = vec![keys.join("timestamp.key")];
        let anchor = Anchor::read(&keys.join("root.json")).unwrap();
        let refresher = Refresher::new(&config, Some(&anchor)).unwrap().unwrap();
        let mut journal = refresher.journal.lock().unwrap();
        let manifest = formats::digest::Digest::sha256_of(b"manifest");
        let mut newer = state.clone();
        newer.timestamp.data.header.version = 7;
        let found = Published { manifest, state: newer.clone() };
        let now = formats::tuf::BUILD_TIME;
        refresher.note(&mut journal, &found, false, now).unwrap();
        assert_eq!(refresher.remembers(&journal, &newer), Ok(false));
        let roots = [
            ("as they are", state.roots.clone()),
            (
                "another one before",
                [(0, b"{}".to_vec())].into_iter().chain(state.roots.clone()).collect(),
            ),
            ("the first one is gone", [(2, b"{}".to_vec())].into()),
        ];
        for (row, roots) in roots {
            let old = State { roots, ..state.clone() };
            let refused = refresher.remembers(&journal, &old).expect_err(row);
            assert_eq!(refused.reason, Reason::VersionRollback, "{row}");
        }
    }

    #[test]
    fn it_is_due_when_half_of_the_period_is_over() {
        let (state, _) = state("timestamp=1d");
        let signed = formats::tuf::BUILD_TIME.plus(86_400);
        for (row, expiry, hours, due) in [
            ("at once", "timestamp=1d", 0, false),
            ("half a day", "timestamp=1d", 12, false),
            ("and a bit", "timestamp=1d", 13, true),
            ("it shall last longer", "timestamp=10d", 0, true),
            ("it ended", "timestamp=1h", 25, true),
        ] {
            let expiry = Expiry::parse(&[expiry]).unwrap();
            assert_eq!(is_due(&state, &expiry, signed.plus(hours * 3600)), due, "{row}");
        }
    }
}
