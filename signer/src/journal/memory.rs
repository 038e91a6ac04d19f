//! What the lines of the log say together.

use std::collections::{BTreeMap, BTreeSet};

use formats::json::{Object, Value};
use formats::tuf::{Role, UnixTime};

use super::{Event, JournalError};
use crate::state::{Identity, is_history};

/// Labels of a repository and payload digests of its roots, in hexadecimal digits.
pub(super) type Marks = BTreeSet<String>;

/// Version and payload digest by role.
pub(super) type Versions = BTreeMap<String, (u64, String)>;

/// What the lines say together.
///
/// Lines that share a mark are of one repository. So what was written under an older label counts
/// for it as soon as one line, or the state at hand, has a verified root of both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Memory {
    repositories: Vec<Remembered>,
    /// The latest time of any line.
    pub(super) newest: Option<UnixTime>,
}

/// What is remembered of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Remembered {
    marks: Marks,
    /// What was published last, by the repository's reference.
    published: BTreeMap<String, Versions>,
    /// Digests of what people signed and did not abandon, by role and version. Several of one
    /// version are there when it was signed under several labels.
    signed: BTreeMap<(String, u64), BTreeSet<String>>,
}

impl Remembered {
    fn to_value(&self) -> Value {
        let texts = |all: &BTreeSet<String>| {
            Value::from(all.iter().map(|one| Value::from(one.as_str())).collect::<Vec<_>>())
        };
        let version = |version: u64| Value::Int(i64::try_from(version).unwrap_or(i64::MAX));
        let fact = |(role, (number, digest)): (&String, &(u64, String))| {
            let fact = vec![version(*number), Value::from(digest.as_str())];
            (role.clone(), Value::from(fact))
        };
        let published = self.published.iter().map(|(repository, versions)| {
            (repository.clone(), Value::Object(versions.iter().map(fact).collect()))
        });
        let signed = self.signed.iter().map(|((role, number), digests)| {
            Value::from(vec![Value::from(role.as_str()), version(*number), texts(digests)])
        });
        Value::object([
            ("marks", texts(&self.marks)),
            ("published", Value::Object(published.collect())),
            ("signed", Value::from(signed.collect::<Vec<_>>())),
        ])
    }

    fn of_value(value: &Value) -> Option<Self> {
        let texts = |value: &Value| -> Option<BTreeSet<String>> {
            value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        };
        let version = |value: &Value| u64::try_from(value.as_int()?).ok();
        let mut found = Remembered { marks: texts(value.get("marks")?)?, ..Remembered::default() };
        for (repository, versions) in value.get("published")?.as_object()? {
            let known = found.published.entry(repository.clone()).or_default();
            for (role, fact) in versions.as_object()? {
                let [number, digest] = fact.as_array()? else { return None };
                known.insert(role.clone(), (version(number)?, digest.as_str()?.to_owned()));
            }
        }
        for signed in value.get("signed")?.as_array()? {
            let [role, number, digests] = signed.as_array()? else { return None };
            let key = (role.as_str()?.to_owned(), version(number)?);
            found.signed.insert(key, texts(digests)?);
        }
        Some(found)
    }

    fn join(mut self, other: Remembered) -> Self {
        self.marks.extend(other.marks);
        for (repository, versions) in other.published {
            raise(self.published.entry(repository).or_default(), &versions);
        }
        for (key, digests) in other.signed {
            self.signed.entry(key).or_default().extend(digests);
        }
        self
    }
}

/// Takes over what is newer.
fn raise(known: &mut Versions, other: &Versions) {
    for (role, (version, digest)) in other {
        if known.get(role).is_none_or(|(old, _)| old < version) {
            known.insert(role.clone(), (*version, digest.clone()));
        }
    }
}

impl Memory {
    /// The event of a line that says all of it.
    pub(super) const KNOWN: &str = "known";

    /// The event that says all of it.
    pub(super) fn to_sum(&self) -> Event {
        let repositories: Vec<Value> = self.repositories.iter().map(Remembered::to_value).collect();
        let mut members = Object::from([
            ("event".to_owned(), Value::from(Self::KNOWN)),
            ("repositories".to_owned(), Value::from(repositories)),
        ]);
        if let Some(newest) = self.newest {
            members.insert("time".to_owned(), Value::Int(newest.secs()));
        }
        Event { members }
    }

    /// What such a line says; `None` when it says nothing that this version understands.
    pub(super) fn of_sum(line: &Value) -> Option<Self> {
        let repositories = line.get("repositories")?.as_array()?;
        let repositories = repositories.iter().map(Remembered::of_value).collect::<Option<_>>()?;
        let newest = match line.get("time") {
            Some(time) => Some(UnixTime::from_secs(time.as_int()?)),
            None => None,
        };
        Some(Memory { repositories, newest })
    }

    /// What was published last in a repository, from here or seen by somebody who signed here.
    ///
    /// The label of older versions says who served the repository, not which it is. It is believed
    /// only where nothing else is known: it may know an old history of the repository.
    pub(super) fn published(&self, repository: &str, identity: &Identity) -> Versions {
        let of = |all: Vec<&Remembered>| {
            let mut known = Versions::new();
            for versions in all.iter().filter_map(|it| it.published.get(repository)) {
                raise(&mut known, versions);
            }
            known
        };
        let mut known = of(self.verified(identity).collect());
        for (role, fact) in of(self.served(identity).collect()) {
            known.entry(role).or_insert(fact);
        }
        known
    }

    /// Refuses a second content of what was signed.
    pub(super) fn check_signing(
        &self,
        identity: &Identity,
        key: &(String, u64),
        digest: &str,
    ) -> Result<(), JournalError> {
        let all = self.verified(identity).chain(self.served(identity));
        check(all, key, digest)
    }

    /// The same for a line that is to be written.
    pub(super) fn check_line(&self, event: &Event) -> Result<(), JournalError> {
        let marks = event.marks();
        let same = self.repositories.iter().filter(|it| !it.marks.is_disjoint(&marks));
        check(same, &event.signed_version(), event.text("digest"))
    }

    /// A line without what is known of the history: it has many roles, and few of them change.
    pub(super) fn news(&self, event: &Event) -> Event {
        let mut event = event.clone();
        let marks = event.marks();
        let mut same = self.repositories.iter().filter(|it| !it.marks.is_disjoint(&marks));
        let known = match (event.text("event"), same.next(), same.next()) {
            ("published", Some(one), None) => one.published.get(event.text("repository")),
            _ => None,
        };
        let Some(known) = known else { return event };
        let found = versions_in(&event).into_iter().filter(|(role, fact)| {
            let of_history = Role::delegated(role).is_ok_and(|role| is_history(&role));
            of_history && known.get(role) == Some(fact)
        });
        for (role, _) in found {
            for member in ["versions", "digests"] {
                if let Some(Value::Object(all)) = event.members.get_mut(member) {
                    all.remove(&role);
                }
            }
        }
        event
    }

    fn verified(&self, identity: &Identity) -> impl Iterator<Item = &Remembered> {
        let roots = identity.roots().iter().map(|root| root.to_hex());
        let marks: Marks = roots.chain([identity.label().to_hex()]).collect();
        self.repositories.iter().filter(move |it| !it.marks.is_disjoint(&marks))
    }

    fn served(&self, identity: &Identity) -> impl Iterator<Item = &Remembered> {
        let label = identity.first_served().to_hex();
        self.repositories.iter().filter(move |it| it.marks.contains(&label))
    }

    /// The repository of these marks; those that turn out to be one are joined.
    fn repository(&mut self, marks: Marks) -> &mut Remembered {
        let all = std::mem::take(&mut self.repositories);
        let (same, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|it| !it.marks.is_disjoint(&marks));
        self.repositories = others;
        let first = Remembered { marks, ..Remembered::default() };
        self.repositories.push(same.into_iter().fold(first, Remembered::join));
        self.repositories.last_mut().expect("one was pushed")
    }

    pub(super) fn replay(&mut self, event: &Event) {
        let time = event.members.get("time").and_then(Value::as_int).map(UnixTime::from_secs);
        self.newest = self.newest.max(time);
        let key = event.signed_version();
        match event.text("event") {
            // Only what leaves this machine by itself; what `publish` signs is public or nowhere.
            "signed" if event.text("by") == "sign" => {
                let signed = self.repository(event.marks()).signed.entry(key).or_default();
                signed.insert(event.text("digest").to_owned());
            }
            "abandoned" => drop(self.repository(event.marks()).signed.remove(&key)),
            "published" | "seen" => self.replay_versions(event),
            _ => {}
        }
    }

    fn replay_versions(&mut self, event: &Event) {
        let repository = self.repository(event.marks());
        let known = repository.published.entry(event.text("repository").to_owned()).or_default();
        if event.members.get("restart").and_then(Value::as_bool) == Some(true) {
            known.remove(Role::Snapshot.name());
            known.remove(Role::Timestamp.name());
        }
        let found = versions_in(event);
        match event.text("event") {
            "published" => known.extend(found),
            // What was only seen may be older than what is known: a copy that was late.
            _ => raise(known, &found),
        }
    }
}

/// Version and digest of each role that a line names.
fn versions_in(event: &Event) -> Versions {
    let mut found = Versions::new();
    let versions = event.members.get("versions").and_then(Value::as_object);
    for (role, version) in versions.into_iter().flatten() {
        let digest = event.members.get("digests").and_then(|all| all.get(role));
        let digest = digest.and_then(Value::as_str).unwrap_or_default().to_owned();
        found.insert(role.clone(), (Event::version(Some(version)), digest));
    }
    found
}

fn check<'a>(
    mut repositories: impl Iterator<Item = &'a Remembered>,
    key: &(String, u64),
    digest: &str,
) -> Result<(), JournalError> {
    let other = repositories.find_map(|it| it.signed.get(key)?.iter().find(|it| *it != digest));
    match other {
        Some(before) => Err(JournalError::Equivocation {
            role: key.0.clone(),
            version: key.1,
            digest: before.clone(),
        }),
        None => Ok(()),
    }
}
