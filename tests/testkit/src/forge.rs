//! A hostile TUF repository: in memory, with every key, able to break any rule and sign the result.
//!
//! [`Forge`] is a repository of typed metadata. [`Forge::publish`] does what an honest signer
//! does. An attack changes what is public here, publishes, and lets a [`Node`] update:
//!
//! ```
//! use formats::tuf::Role;
//! use racklet_testkit::forge::{Forge, Node};
//!
//! let mut repo = Forge::new();
//! let mut node = Node::of(&repo);
//! repo.publish(&[Role::Targets]);
//! node.refresh(&repo)?;
//!
//! // Rollback: an old timestamp is served again.
//! repo.served.insert("timestamp.json".into(), repo.history("timestamp.json")[0].clone());
//! let error = node.refresh(&repo).expect_err("the node knows a newer one");
//! assert_eq!(error.reason().code(), "version_rollback");
//! # Ok::<(), update_core::trust::TrustError>(())
//! ```
//!
//! | to break | use |
//! |---|---|
//! | versions, expiry, roles, delegations, listings | the typed fields, then [`Forge::issue`] |
//! | the form of a document, under good signatures | [`Forge::deform`] |
//! | bytes after signing, under good listings | [`Forge::garble`] |
//! | who signs | [`Forge::signers`] |
//! | what is served, or not | [`Forge::served`], [`Forge::history`] |
//! | listings that leave out length and hashes | [`Forge::list_hashes`] |
//! | which repository the metadata is of | [`Forge::repository`] |
//! | the network between | `forge_registry` of `racklet-tests` |
//!
//! Keys come from seeds and the clock stands still, so every run is the same run.

use std::collections::BTreeMap;

use ed25519_dalek::{Signer as _, SigningKey};
use formats::digest::Sha256;
use formats::json::Value;
use formats::report::{self, Report, node_of};
use formats::tuf::{
    DelegatedRole, DelegatedTo, Delegations, Header, Key, KeyId, Keys, MetaFile, Metadata,
    PERIOD_MEMBER, Paths, REPOSITORY, Role, RoleKeys, Root, Signature, Snapshot, TargetFile,
    Targets, Timestamp, TopLevelKeys, UnixTime, envelope_bytes,
};
use update_core::trust::{
    Clock, Fetch, Limits, Refresh, Reply, SignedTarget, Stored, TrustError, TrustedSet, run,
};

/// 2030-01-01T00:00:00Z, when everything here happens.
pub const NOW: UnixTime = UnixTime::from_secs(1_893_456_000);
/// One day, in seconds.
pub const DAY: i64 = 86_400;

/// A key pair. The key object may carry members nobody knows, which change the key id.
#[derive(Debug, Clone)]
pub struct ForgeKey {
    signing: SigningKey,
    key: Key,
}

impl ForgeKey {
    /// The key pair of that seed.
    pub fn new(seed: u32) -> Self {
        let mut bytes = [0x5e; 32];
        bytes[..4].copy_from_slice(&seed.to_le_bytes());
        let signing = SigningKey::from_bytes(&bytes);
        let key = Key::ed25519(signing.verifying_key().as_bytes());
        ForgeKey { signing, key: key.expect("a key made of a seed is neither weak nor no point") }
    }

    /// The same key material under another key id.
    pub fn marked(&self, mark: &str) -> Self {
        let mut members = self.key.value().as_object().cloned().unwrap_or_default();
        members.insert("x-mark".into(), Value::from(mark));
        let key = Key::read(&Value::Object(members));
        ForgeKey { signing: self.signing.clone(), key: key.expect("a mark changes no key") }
    }

    /// Its key id.
    pub fn id(&self) -> KeyId {
        self.key.id()
    }

    /// Its key object.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// A report of the node whose key this is, as a document.
    pub fn report(&self, report: Report) -> Vec<u8> {
        let prepared = report.prepare(self.signing.verifying_key().as_bytes());
        prepared.document(&self.signing.sign(&prepared.message()).to_bytes())
    }

    /// The same around any value, of this node: what a hostile node may send.
    pub fn report_of(&self, mut value: Value) -> Vec<u8> {
        if let Value::Object(members) = &mut value {
            members.insert("node".into(), Value::from(self.node().to_hex()));
        }
        let signature = self.signing.sign(&value.canonical()).to_bytes();
        report::document(self.signing.verifying_key().as_bytes(), &value, &signature)
    }

    /// The node whose key this is.
    pub fn node(&self) -> Sha256 {
        node_of(self.signing.verifying_key().as_bytes())
    }

    /// A signature over the canonical form of `signed`.
    pub fn sign(&self, signed: &Value) -> Signature {
        Signature::new(self.id(), &self.signing.sign(&signed.canonical()).to_bytes())
    }
}

/// Who may sign: `threshold` of these.
pub fn role_keys(threshold: u32, keys: &[ForgeKey]) -> RoleKeys {
    RoleKeys::new(threshold, keys.iter().map(ForgeKey::id))
}

/// The keys by their ids.
pub fn key_map<'a>(keys: impl IntoIterator<Item = &'a ForgeKey>) -> Keys {
    keys.into_iter().map(|key| (key.id(), key.key().clone())).collect()
}

type Deform = Box<dyn Fn(&mut Value)>;
type Garble = Box<dyn Fn(Vec<u8>) -> Vec<u8>>;

/// The repository. Fields are what will be published next; [`Forge::served`] is what is.
pub struct Forge {
    /// The next root.
    pub root: Root,
    /// The next timestamp.
    pub timestamp: Timestamp,
    /// The next snapshot.
    pub snapshot: Snapshot,
    /// The next targets, top-level and delegated.
    pub targets: BTreeMap<Role, Targets>,
    /// Who signs what, whoever may.
    pub signers: BTreeMap<Role, Vec<ForgeKey>>,
    /// Whether listings carry length and hashes beside the version.
    pub list_hashes: bool,
    /// The repository's id, in everything that is signed from now on.
    pub repository: Option<String>,
    /// The files a client gets.
    pub served: BTreeMap<String, Vec<u8>>,
    history: BTreeMap<String, Vec<Vec<u8>>>,
    deformed: BTreeMap<Role, Deform>,
    garbled: BTreeMap<Role, Garble>,
}

impl Default for Forge {
    fn default() -> Self {
        Forge::new()
    }
}

impl Forge {
    /// A repository with version 1 of every role: root 2 of 3, targets 2 of 2, snapshot and
    /// timestamp 1 of 1, and the target `demo/1.0.0`. Root lives a year, targets 90 days,
    /// snapshot 7 days, timestamp 1 day, all from [`NOW`].
    pub fn new() -> Self {
        Forge::at(NOW)
    }

    /// The same at another time: for nodes that have the system's clock.
    pub fn at(now: UnixTime) -> Self {
        let signers: BTreeMap<Role, Vec<ForgeKey>> = [
            (Role::Root, vec![1, 2, 3]),
            (Role::Targets, vec![11, 12]),
            (Role::Snapshot, vec![21]),
            (Role::Timestamp, vec![31]),
        ]
        .into_iter()
        .map(|(role, seeds)| (role, seeds.into_iter().map(ForgeKey::new).collect()))
        .collect();
        let keys = |role, threshold| role_keys(threshold, &signers[&role]);
        let top = TopLevelKeys {
            root: keys(Role::Root, 2),
            timestamp: keys(Role::Timestamp, 1),
            snapshot: keys(Role::Snapshot, 1),
            targets: keys(Role::Targets, 2),
        };
        let until = |days| Header::new(1, now.plus(days * DAY));
        let files = [("demo/1.0.0".to_owned(), TargetFile::of(b"demo 1.0.0", None))];
        let mut forge = Forge {
            root: Root::new(until(365), key_map(signers.values().flatten()), top),
            timestamp: Timestamp::new(until(1), MetaFile::of(1, b"")),
            snapshot: Snapshot::new(until(7), MetaFile::of(1, b"")),
            targets: [(Role::Targets, Targets::new(until(90), files.into()))].into(),
            signers,
            list_hashes: true,
            repository: None,
            served: BTreeMap::new(),
            history: BTreeMap::new(),
            deformed: BTreeMap::new(),
            garbled: BTreeMap::new(),
        };
        let members = [
            (&mut forge.root.unknown, 365),
            (&mut forge.timestamp.unknown, 1),
            (&mut forge.snapshot.unknown, 7),
        ];
        for (members, days) in members {
            members.insert(PERIOD_MEMBER.to_owned(), Value::Int(days * DAY));
        }
        let members = &mut forge.targets(&Role::Targets).unknown;
        members.insert(PERIOD_MEMBER.to_owned(), Value::Int(90 * DAY));
        for role in [Role::Root, Role::Targets, Role::Snapshot, Role::Timestamp] {
            forge.issue(&role);
        }
        forge
    }

    /// The header of a role, to be changed.
    pub fn header(&mut self, role: &Role) -> &mut Header {
        match role {
            Role::Root => &mut self.root.header,
            Role::Timestamp => &mut self.timestamp.header,
            Role::Snapshot => &mut self.snapshot.header,
            _ => &mut self.targets(role).header,
        }
    }

    /// The targets metadata of a role, to be changed.
    pub fn targets(&mut self, role: &Role) -> &mut Targets {
        self.targets.get_mut(role).expect("the role was made by `new` or `delegate`")
    }

    /// Publishes the next version of these roles and of what lists them: root alone; snapshot
    /// and timestamp after any targets role; timestamp last.
    pub fn publish(&mut self, roles: &[Role]) {
        let listed = |role: &&Role| matches!(role, Role::Targets | Role::Delegated(_));
        let mut order: Vec<Role> = roles.iter().filter(listed).cloned().collect();
        if roles.contains(&Role::Root) {
            order.push(Role::Root);
        }
        if roles.iter().any(|role| *role != Role::Root) {
            if roles.iter().any(|role| *role != Role::Timestamp && *role != Role::Root) {
                order.push(Role::Snapshot);
            }
            order.push(Role::Timestamp);
        }
        for role in &order {
            self.header(role).version += 1;
            self.issue(role);
        }
    }

    /// Signs a role as it stands, without a new version, serves it, and lists it where it
    /// belongs (the listing itself is not signed again).
    pub fn issue(&mut self, role: &Role) {
        let bytes = self.file_of(role);
        let version = self.header(role).version;
        let name = self.root.file_name(role, version);
        let listed = match self.list_hashes {
            true => MetaFile::of(version, &bytes),
            false => MetaFile { length: None, hashes: None, ..MetaFile::of(version, &bytes) },
        };
        match role {
            Role::Root | Role::Timestamp => {}
            Role::Snapshot => self.timestamp.snapshot = listed,
            _ => drop(self.snapshot.meta.insert(role.meta_name(), listed)),
        }
        self.history.entry(name.clone()).or_default().push(bytes.clone());
        self.served.insert(name, bytes);
    }

    /// The file of a role as it would be issued.
    pub fn file_of(&mut self, role: &Role) -> Vec<u8> {
        let mut signed = match role {
            Role::Root => self.root.to_value(),
            Role::Timestamp => self.timestamp.to_value(),
            Role::Snapshot => self.snapshot.to_value(),
            _ => self.targets(role).to_value(),
        };
        if let (Some(id), Value::Object(members)) = (&self.repository, &mut signed) {
            members.insert(REPOSITORY.into(), Value::from(id.as_str()));
        }
        if let Some(deform) = self.deformed.get(role) {
            deform(&mut signed);
        }
        let keys = self.signers.get(role).map_or(&[][..], Vec::as_slice);
        let signatures: Vec<_> = keys.iter().map(|key| key.sign(&signed)).collect();
        let bytes = envelope_bytes(&signed, &signatures);
        match self.garbled.get(role) {
            Some(garble) => garble(bytes),
            None => bytes,
        }
    }

    /// From now on changes what a role signs, before it is signed.
    pub fn deform(&mut self, role: &Role, how: impl Fn(&mut Value) + 'static) {
        self.deformed.insert(role.clone(), Box::new(how));
    }

    /// From now on changes a role's file after it is signed, and before it is listed.
    pub fn garble(&mut self, role: &Role, how: impl Fn(Vec<u8>) -> Vec<u8> + 'static) {
        self.garbled.insert(role.clone(), Box::new(how));
    }

    /// From now on the role is issued unbroken.
    pub fn mend(&mut self, role: &Role) {
        self.deformed.remove(role);
        self.garbled.remove(role);
    }

    /// Every file that was ever issued under a name, oldest first.
    pub fn history(&self, file_name: &str) -> &[Vec<u8>] {
        self.history.get(file_name).map_or(&[], Vec::as_slice)
    }

    /// Everything that is served now, to be served again later.
    pub fn freeze(&self) -> BTreeMap<String, Vec<u8>> {
        self.served.clone()
    }

    /// Gives a top-level role these keys, which also sign it from now on. The root is not
    /// issued; a changed root role goes on being signed by the old keys, too.
    pub fn rekey(&mut self, role: &Role, threshold: u32, keys: &[ForgeKey]) {
        self.root.keys.extend(key_map(keys));
        self.root.set_role(role, role_keys(threshold, keys));
        let mut signers = keys.to_vec();
        if *role == Role::Root {
            let old = self.signers.remove(role).unwrap_or_default();
            signers.extend(old.into_iter().filter(|o| keys.iter().all(|k| k.id() != o.id())));
        }
        self.signers.insert(role.clone(), signers);
    }

    /// Lets `from` delegate these paths to a new role of one fresh key, after all it has
    /// delegated before. Makes the role's first version, which is not issued.
    pub fn delegate(&mut self, from: &Role, name: &str, paths: &[&str]) -> Role {
        let role = Role::delegated(name).expect("a name for a role");
        let key = ForgeKey::new(1000 + self.signers.values().map(Vec::len).sum::<usize>() as u32);
        let paths = Paths::Patterns(paths.iter().map(|&path| path.to_owned()).collect());
        let entry = DelegatedRole {
            role: role.clone(),
            keys: role_keys(1, std::slice::from_ref(&key)),
            paths,
            terminating: false,
        };
        let delegations = self.delegations(from);
        delegations.keys.extend(key_map([&key]));
        if let DelegatedTo::Roles(roles) = &mut delegations.to {
            roles.push(entry);
        }
        self.signers.entry(role.clone()).or_default().push(key);
        let header = Header::new(0, NOW.plus(30 * DAY));
        self.targets.entry(role.clone()).or_insert_with(|| Targets::new(header, [].into()));
        role
    }

    /// What a role delegates, to be changed.
    pub fn delegations(&mut self, from: &Role) -> &mut Delegations {
        let empty = || Delegations::to_roles(Keys::new(), Vec::new());
        self.targets(from).delegations.get_or_insert_with(empty)
    }

    /// The last role `from` delegated to, to be changed.
    pub fn last_delegated(&mut self, from: &Role) -> &mut DelegatedRole {
        match &mut self.delegations(from).to {
            DelegatedTo::Roles(roles) => roles.last_mut().expect("there is a delegation"),
            DelegatedTo::Succinct(_) => panic!("these are bins"),
        }
    }

    /// Lets a role sign for a target.
    pub fn add_target(&mut self, role: &Role, name: &str, content: &[u8]) {
        let file = TargetFile::of(content, None);
        self.targets(role).targets.insert(name.to_owned(), file);
    }

    /// Answers one request.
    pub fn reply(&self, fetch: &Fetch) -> Reply {
        match self.served.get(&fetch.file_name) {
            None => Reply::NotFound,
            Some(bytes) if bytes.len() as u64 > fetch.max_len => Reply::TooLong,
            Some(bytes) => Reply::Bytes(bytes.clone()),
        }
    }
}

/// A node: what it was given, what it trusts, what its clock says.
#[derive(Debug, Clone)]
pub struct Node {
    /// The trust root it was given.
    pub shipped_root: Vec<u8>,
    /// Its trusted state.
    pub stored: Stored,
    /// Its clock.
    pub clock: Clock,
    /// Its limits.
    pub limits: Limits,
    /// The files it asked for, in order.
    pub requests: Vec<String>,
    /// Every state it persisted, in order.
    pub persisted: Vec<Stored>,
    /// A faulty node, that forgets everything but its root after each update.
    pub forgetful: bool,
}

impl Node {
    /// A new node that was given version 1 of the repository's root.
    pub fn of(repo: &Forge) -> Self {
        Node {
            shipped_root: repo.history("1.root.json")[0].clone(),
            stored: Stored::default(),
            clock: Clock { system: NOW, build: UnixTime::EPOCH },
            limits: Limits::default(),
            requests: Vec::new(),
            persisted: Vec::new(),
            forgetful: false,
        }
    }

    /// Updates the top-level metadata.
    pub fn refresh(&mut self, repo: &Forge) -> Result<TrustedSet, TrustError> {
        self.update(|fetch| repo.reply(fetch))
    }

    /// Updates the top-level metadata from whatever answers.
    pub fn update(
        &mut self,
        mut answer: impl FnMut(&Fetch) -> Reply,
    ) -> Result<TrustedSet, TrustError> {
        if self.forgetful {
            self.stored = Stored { root: self.stored.root.clone(), ..Stored::default() };
        }
        let stored = self.stored.clone();
        let mut refresh = Refresh::begin(stored, &self.shipped_root, self.clock, self.limits)?;
        let requests = &mut self.requests;
        run(
            &mut refresh,
            |fetch| {
                requests.push(fetch.file_name.clone());
                answer(fetch)
            },
            |stored| {
                self.persisted.push(stored.clone());
                self.stored = stored;
            },
        )
    }

    /// Updates, then looks a target up.
    pub fn find(&mut self, repo: &Forge, name: &str) -> Result<SignedTarget, TrustError> {
        let mut set = self.refresh(repo)?;
        self.find_in(&mut set, repo, name)
    }

    /// Looks a target up in what was updated.
    pub fn find_in(
        &mut self,
        set: &mut TrustedSet,
        repo: &Forge,
        name: &str,
    ) -> Result<SignedTarget, TrustError> {
        let mut search = set.find_target(name)?;
        let requests = &mut self.requests;
        run(
            &mut search,
            |fetch| {
                requests.push(fetch.file_name.clone());
                repo.reply(fetch)
            },
            |stored| {
                self.persisted.push(stored.clone());
                self.stored = stored;
            },
        )
    }
}
