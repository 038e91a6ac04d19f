//! Thousands of mutated repositories, judged by us and by python-tuf.
//!
//! ```text
//!  seed ─► forge, mutated, mostly re-signed ─┬─► our node ───────────► accepted? which targets?
//!                                            └─► judge.py: python-tuf ─► the same questions
//! ```
//!
//! | we | python-tuf | |
//! |---|---|---|
//! | accept | accepts, same targets | agreed |
//! | refuse | refuses | agreed |
//! | refuse | accepts | stricter: fine if the reason is in [`STRICTER`] |
//! | accept | refuses | a failure, unless it is in [`PYTHONS_OWN`] |
//!
//! `RACKLET_DIFFERENTIAL=20000 RACKLET_SEED=7 cargo test -p racklet-tests --test differential --
//! --nocapture` runs more. A failure prints the seed of its case; with that seed and one repository
//! it is made again, and its files are printed.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use formats::tuf::{
    DelegatedTo, Delegations, Envelope, Paths, Role, SuccinctRoles, Targets, UnixTime,
};
use racklet_testkit::forge::{DAY, Forge, ForgeKey, NOW, Node, key_map, role_keys};
use racklet_testkit::mutate::mutate;
use racklet_testkit::random::Random;
use serde_json::{Value, json};
use update_core::trust::TrustError;

/// Repositories of a usual run.
const CASES: u64 = 2000;
/// Seed of a usual run.
const SEED: u64 = 3_000_000;

/// A class of disagreement that is understood.
struct Known {
    /// How the refusal begins.
    error: &'static str,
    /// What must be so of the repository, given the whole refusal.
    when: fn(&Case, &str) -> bool,
    /// Why it is right.
    why: &'static str,
}

/// Where we refuse what python-tuf accepts.
const STRICTER: &[Known] = &[
    Known {
        error: "key_duplicate: root.roles.",
        when: |case, _| case.kinds.contains(&"other keys"),
        why: "one public key under two key ids would count twice (case 34)",
    },
    Known {
        error: "meta_format: member ",
        when: |case, _| case.kinds.contains(&"bytes"),
        why: "a member twice is read differently by different parsers (case 52)",
    },
    Known {
        error: "meta_format: number ",
        when: |case, _| case.kinds.contains(&"bytes"),
        why: "no floating point, not even where nobody looks (case 55)",
    },
    Known {
        error: "keyid_mismatch: ",
        when: |case, _| case.kinds.contains(&"signed value"),
        why: "a key id is the hash of its key (case 35)",
    },
    Known {
        error: "sig_threshold: ",
        when: |case, _| case.spells_a_signature_otherwise(),
        why: "a signature has one spelling: lower-case hexadecimal (case 44)",
    },
    Known {
        error: "sig_threshold: ",
        when: |case, _| case.writes_a_time_otherwise(),
        why: "a changed text is changed: it verifies the time as it writes it again",
    },
    Known {
        error: "meta_format: root.consistent_snapshot is neither true nor false",
        when: |case, _| case.kinds.contains(&"signed value"),
        why: "what is true to Python is not therefore a boolean",
    },
    Known {
        error: "meta_format: ",
        when: |_, error| error.ends_with(".keyids holds something other than texts"),
        why: "what is no text is no key id",
    },
    Known {
        error: "meta_format: ",
        when: |_, error| error.ends_with(" is not lower-case hexadecimal of its length"),
        why: "a hash that no file can have is a mistake, not a hash (case 68)",
    },
    Known {
        error: "",
        when: |case, error| case.python_has_it_cached(error),
        why: "a cached file counts by its listed length and hash, not by its version alone",
    },
];

/// Where python-tuf refuses what we accept.
const PYTHONS_OWN: &[Known] = &[
    Known {
        error: "UnsignedMetadataError: timestamp",
        when: |case, _| case.timestamp_lists_more(),
        why: "it verifies what it writes again, and drops what it does not know of `meta`",
    },
    Known {
        error: "LengthOrHashMismatchError: Unsupported algorithm",
        when: |case, _| case.kinds.contains(&"signed value"),
        why: "a hash of an algorithm nobody knows does no harm beside one that is known (case 68)",
    },
];

/// Targets both are asked for: top-level, delegated, two levels down, hashed, nowhere.
const NAMES: [&str; 6] =
    ["demo/1.0.0", "ops/tool", "ops/deep/tool", "hash/x", "last/x", "nobody/x"];

/// Two repositories of different delegations, at version 2.
fn base(nth: usize) -> Forge {
    let mut repo = Forge::new();
    let ops = repo.delegate(&Role::Targets, "ops", &["ops/*", "ops/*/*"]);
    let deep = repo.delegate(&ops, "deep", &["ops/deep/*"]);
    let last = repo.delegate(&Role::Targets, "last", &["last/*", "hash/*"]);
    repo.last_delegated(&Role::Targets).terminating = nth == 0;
    let hash = repo.delegate(&Role::Targets, "hash", &[]);
    let every: Vec<String> = (0..16).map(|digit| format!("{digit:x}")).collect();
    repo.last_delegated(&Role::Targets).paths = Paths::HashPrefixes(every.into());
    for (role, name) in
        [(&ops, "ops/tool"), (&deep, "ops/deep/tool"), (&last, "last/x"), (&hash, "hash/x")]
    {
        repo.add_target(role, name, name.as_bytes());
    }
    let mut roles = vec![Role::Targets, ops.clone(), deep, last, hash];
    if nth == 1 {
        // One level further down, bins.
        let key = ForgeKey::new(800);
        repo.targets(&ops).delegations = Some(Delegations {
            keys: key_map([&key]),
            to: DelegatedTo::Succinct(SuccinctRoles {
                keys: role_keys(1, std::slice::from_ref(&key)),
                bit_length: 1,
                name_prefix: "bin".into(),
            }),
            unknown: Default::default(),
        });
        for bin in ["bin-0", "bin-1"] {
            let bin = Role::delegated(bin).unwrap();
            let header = repo.header(&ops).clone();
            repo.targets.insert(bin.clone(), Targets::new(header, [].into()));
            repo.signers.insert(bin.clone(), vec![key.clone()]);
            repo.add_target(&bin, "ops/deep/tool", b"binned");
            roles.push(bin);
        }
    }
    repo.publish(&roles);
    repo
}

/// What one client makes of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// The update is refused, for this reason.
    Refused(String),
    /// It is accepted; for each name its length, `none`, or why the search was refused.
    Accepted(Vec<Result<String, String>>),
}

fn ours(node: &mut Node, repo: &Forge) -> Answer {
    let mut set = match node.refresh(repo) {
        Ok(set) => set,
        Err(error) => return Answer::Refused(why(&error)),
    };
    let find = |name: &&str| match node.find_in(&mut set, repo, name) {
        Ok(found) => Ok(format!("{} {:?}", found.file().length, found.file().hashes.as_sha256())),
        Err(TrustError::TargetNotFound { .. }) => Ok("none".to_owned()),
        Err(error) => Err(why(&error)),
    };
    Answer::Accepted(NAMES.iter().map(find).collect())
}

/// The reason code, and the text without what varies.
fn why(error: &TrustError) -> String {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        text = source.to_string();
    }
    format!("{}: {text}", error.reason().code())
}

fn pythons(answer: &Value) -> Answer {
    if let Some(error) = answer["refresh"].as_str() {
        return Answer::Refused(error.to_owned());
    }
    let target = |value: &Value| match value {
        Value::String(none) => Ok(none.clone()),
        value => match value["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => {
                let sha256 = value["hashes"]["sha256"].as_str();
                let sha256 = sha256.and_then(|hex| formats::digest::Sha256::from_hex(hex).ok());
                Ok(format!("{} {sha256:?}", value["length"]))
            }
        },
    };
    Answer::Accepted(answer["targets"].as_array().unwrap().iter().map(target).collect())
}

/// python-tuf in one process.
struct Judge {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Judge {
    fn start() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = racklet_tools::setup::python();
        let python = python.expect("python-tuf is missing: run `cargo xtask setup`");
        let mut child = Command::new(python)
            .arg("-I")
            .arg(here.join("tests/differential/judge.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Judge { child, to, from }
    }

    fn ask(&mut self, mut question: Value, repo: &Forge, now: i64) {
        let encode = |bytes: &[u8]| formats::digest::hex(bytes);
        let files: serde_json::Map<_, _> =
            repo.served.iter().map(|(name, bytes)| (name.clone(), encode(bytes).into())).collect();
        question["files"] = files.into();
        question["root"] = encode(&repo.history("1.root.json")[0]).into();
        question["now"] = now.into();
        question["names"] = json!(NAMES);
        writeln!(self.to, "{question}").unwrap();
    }

    fn answer(&mut self) -> Answer {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the judge has died");
        pythons(&serde_json::from_str(&line).unwrap())
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A repository that was made from a seed, and what we say of it.
struct Case {
    seed: u64,
    /// On which base, and whether the node is up to date with it.
    which: usize,
    fresh: bool,
    kinds: Vec<&'static str>,
    served: BTreeMap<String, Vec<u8>>,
    ours: Answer,
}

impl Case {
    /// Whether a file of the base, which python-tuf then has and looks at no more, was published
    /// again with another content, or is the one that is refused.
    fn python_has_it_cached(&self, error: &str) -> bool {
        let base = base(self.which).served;
        let differs = |name: &String, old: &Vec<u8>| {
            let versioned = !name.ends_with("root.json") && name != "timestamp.json";
            let again = self.served.get(name).is_some_and(|new| new != old);
            versioned && (again || error.contains(name.as_str()))
        };
        !self.fresh && base.iter().any(|(name, old)| differs(name, old))
    }

    /// Whether a signature is good hexadecimal to Python, and not to us.
    fn spells_a_signature_otherwise(&self) -> bool {
        let otherwise = |sig: &str| {
            let plain = sig.split_whitespace().collect::<String>().to_lowercase();
            plain != sig && formats::digest::unhex(&plain).is_some_and(|bytes| bytes.len() == 64)
        };
        self.served
            .values()
            .filter_map(|bytes| Envelope::parse(bytes).ok())
            .any(|envelope| envelope.signatures().iter().any(|one| otherwise(&one.sig)))
    }

    /// Whether an expiry has a form that only Python reads, such as `00:0:00`.
    fn writes_a_time_otherwise(&self) -> bool {
        let expiry = |bytes: &Vec<u8>| {
            let file: Value = serde_json::from_slice(bytes).ok()?;
            file["signed"]["expires"].as_str().map(str::to_owned)
        };
        self.served.values().filter_map(expiry).any(|text| UnixTime::parse(&text).is_err())
    }

    fn timestamp_lists_more(&self) -> bool {
        let timestamp: Option<Value> =
            self.served.get("timestamp.json").and_then(|bytes| serde_json::from_slice(bytes).ok());
        timestamp
            .and_then(|file| file["signed"]["meta"].as_object().map(|meta| meta.len() > 1))
            .unwrap_or(false)
    }
}

/// How the two answers relate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Agreed(&'static str),
    /// Our reason.
    Stricter(String),
    /// Their reason.
    Looser(String),
    /// Both accept, and find different things.
    Different(String),
}

fn classes(ours: &Answer, pythons: &Answer) -> Vec<Class> {
    match (ours, pythons) {
        (Answer::Refused(_), Answer::Refused(_)) => vec![Class::Agreed("refused")],
        (Answer::Refused(why), Answer::Accepted(_)) => vec![Class::Stricter(why.clone())],
        (Answer::Accepted(_), Answer::Refused(why)) => vec![Class::Looser(why.clone())],
        (Answer::Accepted(a), Answer::Accepted(b)) => {
            let pairs = a.iter().zip(b).map(|pair| match pair {
                (Ok(a), Ok(b)) if a == b => Class::Agreed("accepted"),
                (Err(_), Err(_)) => Class::Agreed("target refused"),
                // Not found and refused both install nothing.
                (Err(why), Ok(_)) => Class::Stricter(why.clone()),
                (Ok(none), Ok(_)) if none == "none" => Class::Stricter("not found".into()),
                (Ok(none), Err(_)) if none == "none" => Class::Agreed("target refused"),
                (Ok(_), Err(why)) => Class::Looser(why.clone()),
                (Ok(a), Ok(b)) => Class::Different(format!("{a} against {b}")),
            });
            let mut all: Vec<Class> = pairs.collect();
            all.sort();
            all.dedup();
            if all.len() > 1 {
                all.retain(|class| *class != Class::Agreed("accepted"));
            }
            all
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

#[test]
fn we_accept_nothing_that_python_tuf_refuses() {
    let (count, seed) = (number("RACKLET_DIFFERENTIAL", CASES), number("RACKLET_SEED", SEED));
    println!("seed {seed}, {count} repositories");
    let begun = Instant::now();
    let mut judge = Judge::start();
    let mut settled = Vec::new();
    for nth in 0..2 {
        let repo = base(nth);
        let mut node = Node::of(&repo);
        let Answer::Accepted(found) = ours(&mut node, &repo) else { panic!("an honest base") };
        assert!(found.iter().all(Result::is_ok), "{found:?}");
        judge.ask(json!({"base": nth}), &repo, NOW.secs());
        settled.push(node);
    }
    let mut waiting: VecDeque<Case> = VecDeque::new();
    let mut table: BTreeMap<String, usize> = BTreeMap::new();
    let mut failed = 0;
    let mut settle = |judge: &mut Judge, case: Case| {
        let theirs = judge.answer();
        for class in classes(&case.ours, &theirs) {
            let known = |list: &'static [Known], error: &str| {
                list.iter()
                    .find(|known| error.starts_with(known.error) && (known.when)(&case, error))
            };
            let row = match &class {
                Class::Agreed(what) => format!("agreed: {what}"),
                Class::Stricter(error) => match known(STRICTER, error) {
                    Some(known) => format!("we are stricter: {}", known.why),
                    None => format!("FAILED, unknown: {error:.60}"),
                },
                Class::Looser(error) => match known(PYTHONS_OWN, error) {
                    Some(known) => format!("python-tuf is: {}", known.why),
                    None => format!("FAILED, accepted by us alone: {error:.60}"),
                },
                Class::Different(_) => "FAILED, different targets".to_owned(),
            };
            if row.starts_with("FAILED") && table.get(&row).is_none_or(|count| *count < 2) {
                let Case { seed, kinds, ours, .. } = &case;
                println!("seed {seed} {kinds:?}\n  {class:?}\n  we {ours:?}\n  they {theirs:?}");
            }
            failed += usize::from(row.starts_with("FAILED"));
            *table.entry(row).or_default() += 1;
        }
    };
    for nth in 0..count {
        let case_seed = seed.wrapping_add(nth);
        let mut random = Random::seeded(case_seed);
        let which = random.below(2);
        let mut repo = base(which);
        let fresh = random.chance(4);
        let mut node = if fresh { Node::of(&repo) } else { settled[which].clone() };
        let kinds = mutate(&mut repo, &mut random);
        let later =
            if random.chance(5) { *random.of(&[1, DAY - 1, DAY, 8 * DAY, 400 * DAY]) } else { 0 };
        node.clock.system = NOW.plus(later);
        if count == 1 {
            for (name, bytes) in &repo.served {
                println!("{name}: {}", String::from_utf8_lossy(bytes));
            }
        }
        let on = if fresh { Value::Null } else { which.into() };
        judge.ask(json!({ "on": on }), &repo, NOW.secs() + later);
        let ours = ours(&mut node, &repo);
        let served = repo.served;
        waiting.push_back(Case { seed: case_seed, which, fresh, kinds, served, ours });
        // The pipe holds some answers; both sides work at once.
        if waiting.len() > 16 {
            settle(&mut judge, waiting.pop_front().unwrap());
        }
    }
    while let Some(case) = waiting.pop_front() {
        settle(&mut judge, case);
    }
    println!("{:?}", begun.elapsed());
    for (row, count) in &table {
        println!("{count:7} {row}");
    }
    assert_eq!(failed, 0, "disagreements that nobody has explained");
}
