//! Known faults of crates: every lock file against a dated copy of the public advisory database.
//!
//! The database lies in no package registry, so a copy of its facts (ids and version ranges, no prose) is
//! `xtask/data/advisories.json`; `cargo xtask advisories DIR` takes it anew from a checkout. Where cargo-deny is
//! installed and reaches the database itself, it is asked as well.
//!
//! The copy is red [`MAX_AGE_DAYS`] after it was taken: an old copy knows none of the new faults.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use racklet_tools::cmd::{Cmd, which};
use racklet_tools::paths;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

/// A copy older than this fails `cargo xtask test`.
const MAX_AGE_DAYS: i64 = 60;

/// Every lock file of the repository: what is shipped, what fuzzes it, what it is compared with.
const LOCK_FILES: [&str; 3] =
    ["Cargo.lock", "fuzz/engine/Cargo.lock", "tests/witness-clients/Cargo.lock"];

/// Of `cargo xtask advisories`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A checkout of the advisory database (its folder with `crates/`).
    #[arg(value_name = "DIR")]
    from: PathBuf,
}

/// The copy. Dates are days of UTC, `YYYY-MM-DD`.
#[derive(Serialize, Deserialize)]
struct Database {
    /// The address it was copied from.
    source: String,
    /// The commit that was copied, and the day of that commit.
    commit: String,
    committed: String,
    /// The day on which somebody looked for a newer one.
    taken: String,
    advisories: Vec<Advisory>,
}

/// One advisory: its facts, not its words. A version is affected that neither list names.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct Advisory {
    id: String,
    package: String,
    /// `unmaintained`, `unsound`, `notice`; a vulnerability has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    informational: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    patched: Vec<VersionReq>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unaffected: Vec<VersionReq>,
}

impl Advisory {
    fn affects(&self, version: &Version) -> bool {
        !self.patched.iter().chain(&self.unaffected).any(|range| range.matches(version))
    }

    /// Nobody has to act on these today; they are printed.
    fn is_note(&self) -> bool {
        self.informational.as_deref().is_some_and(|kind| kind != "unsound")
    }
}

/// What `deny.toml` accepts, each with its reason.
#[derive(Deserialize)]
struct Accepted {
    advisories: Ignore,
}

#[derive(Deserialize)]
struct Ignore {
    #[serde(default)]
    ignore: Vec<Ignored>,
}

#[derive(Deserialize)]
struct Ignored {
    id: String,
    reason: String,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: Version,
    source: Option<String>,
}

/// Every advisory that hits a lock file and that `deny.toml` does not accept, one line each.
pub(super) fn check(today: i64) -> Result<Vec<String>> {
    let database: Database =
        serde_json::from_str(&read(&data_file())?).context("advisories.json")?;
    let accepted: Accepted = toml::from_str(&read(&paths::root().join("deny.toml"))?)?;
    let mut faults: Vec<String> = age(&database, today)?.into_iter().collect();
    let mut hits = BTreeMap::new();
    for file in LOCK_FILES {
        let lock: Lock = toml::from_str(&read(&paths::root().join(file))?).context(file)?;
        for (id, line) in findings(&database.advisories, &lock.package) {
            hits.entry(id).or_insert_with(|| format!("{file}: {line}"));
        }
    }
    let ignored = &accepted.advisories.ignore;
    let (notes, found) = judge(&database.advisories, hits, ignored);
    for note in notes {
        println!("   note: {note}");
    }
    faults.extend(found);
    println!(
        "   {} advisories of {} (looked for on {}), {} lock files",
        database.advisories.len(),
        database.committed,
        database.taken,
        LOCK_FILES.len()
    );
    if which("cargo-deny").is_some() {
        faults.extend(ask_cargo_deny()?);
    }
    Ok(faults)
}

/// By id, the first crate that each advisory hits.
fn findings(advisories: &[Advisory], packages: &[Locked]) -> BTreeMap<String, String> {
    let mut hits = BTreeMap::new();
    for package in packages.iter().filter(|package| package.source.is_some()) {
        let about = advisories.iter().filter(|one| one.package == package.name);
        for advisory in about.filter(|one| one.affects(&package.version)) {
            let kind = advisory.informational.as_deref().unwrap_or("vulnerable");
            let line = format!("{} {} is {kind} ({})", package.name, package.version, advisory.id);
            hits.entry(advisory.id.clone()).or_insert(line);
        }
    }
    hits
}

/// What is only said, and what is a fault: an exception that no longer excepts anything is one, too.
fn judge(
    advisories: &[Advisory],
    mut hits: BTreeMap<String, String>,
    ignored: &[Ignored],
) -> (Vec<String>, Vec<String>) {
    let (mut notes, mut faults) = (Vec::new(), Vec::new());
    for exception in ignored {
        match hits.remove(&exception.id) {
            Some(line) => notes.push(format!("{line}; accepted: {}", exception.reason)),
            None => faults.push(format!("deny.toml accepts {}, which nothing has", exception.id)),
        }
    }
    for (id, line) in hits {
        let note = advisories.iter().any(|advisory| advisory.id == id && advisory.is_note());
        if note { notes.push(line) } else { faults.push(line) }
    }
    (notes, faults)
}

/// The fault of a copy that is too old; days are counted since 1970-01-01.
fn age(database: &Database, today: i64) -> Result<Option<String>> {
    let days = today - day(&database.taken)?;
    Ok((days > MAX_AGE_DAYS).then(|| {
        format!(
            "xtask/data/advisories.json was taken {days} days ago, at most {MAX_AGE_DAYS} are allowed: \
             clone {} and run `cargo xtask advisories DIR`",
            database.source
        )
    }))
}

/// Days from 1970-01-01 to a day `YYYY-MM-DD` of this or a later year.
fn day(text: &str) -> Result<i64> {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let number = |at: std::ops::Range<usize>| text.get(at)?.parse::<i64>().ok();
    let parts = (text.len() == 10).then(|| (number(0..4), number(5..7), number(8..10)));
    let Some((Some(year @ 1970..), Some(month @ 1..=12), Some(of_month @ 1..=31))) = parts else {
        bail!("{text:?} is no day")
    };
    // Years that ended with a 29th of February before this month began.
    let leaps = |years: i64| years / 4 - years / 100 + years / 400;
    let ended = leaps(if month > 2 { year } else { year - 1 }) - leaps(1969);
    Ok((year - 1970) * 365 + ended + BEFORE[month as usize - 1] + of_month - 1)
}

/// The real tool on the real database. Without a line to it, the copy has to do.
fn ask_cargo_deny() -> Result<Option<String>> {
    let done = Cmd::new("cargo")
        .args(["deny", "check", "advisories"])
        .current_dir(&paths::root())
        .finish()?;
    let output = done.output();
    if done.code == 0 {
        return Ok(None);
    }
    if output.contains("failed to fetch") || output.contains("failed to acquire") {
        println!("   note: cargo-deny cannot reach the advisory database");
        return Ok(None);
    }
    Ok(Some(output))
}

/// `cargo xtask advisories DIR`: writes the copy.
pub(crate) fn take(options: &Options) -> Result<()> {
    let git = |args: &[&str]| Cmd::new("git").args(args).current_dir(&options.from).read();
    let today = Cmd::new("date").args(["-u", "+%F"]).read()?.trim().to_owned();
    let database = Database {
        source: "https://github.com/rustsec/advisory-db".to_owned(),
        commit: git(&["rev-parse", "HEAD"])?.trim().to_owned(),
        committed: git(&["log", "-1", "--format=%cs"])?.trim().to_owned(),
        taken: today,
        advisories: read_all(&options.from.join("crates"))?,
    };
    ensure!(!database.advisories.is_empty(), "{} holds no advisory", options.from.display());
    println!("{} advisories of {}", database.advisories.len(), database.committed);
    fs::write(data_file(), to_text(database)?).context("write advisories.json")
}

/// JSON with one advisory in a line, so that a newer copy is a readable change.
fn to_text(mut database: Database) -> Result<String> {
    let advisories = std::mem::take(&mut database.advisories);
    let head = serde_json::to_string_pretty(&database)?;
    let lines: Vec<String> =
        advisories.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok(head.replace("[]", &format!("[\n{}\n]", lines.join(",\n"))) + "\n")
}

/// Every advisory below `crates/NAME/`, in the order of their names; withdrawn ones are left out.
fn read_all(crates: &Path) -> Result<Vec<Advisory>> {
    let mut files = Vec::new();
    for folder in fs::read_dir(crates).with_context(|| format!("read {}", crates.display()))? {
        for file in fs::read_dir(folder?.path())? {
            files.push(file?.path());
        }
    }
    files.sort();
    let read =
        files.iter().map(|file| parse(&read(file)?).with_context(|| file.display().to_string()));
    Ok(read.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The TOML block at the start of an advisory's Markdown; nothing of one that was withdrawn.
fn parse(markdown: &str) -> Result<Option<Advisory>> {
    #[derive(Deserialize)]
    struct File {
        advisory: About,
        versions: Versions,
    }
    #[derive(Deserialize)]
    struct About {
        id: String,
        package: String,
        informational: Option<String>,
        withdrawn: Option<String>,
    }
    #[derive(Deserialize)]
    struct Versions {
        #[serde(default)]
        patched: Vec<VersionReq>,
        #[serde(default)]
        unaffected: Vec<VersionReq>,
    }
    let block = markdown.split("```").nth(1).context("a block of TOML")?;
    let File { advisory, versions } = toml::from_str(block.strip_prefix("toml").unwrap_or(block))?;
    Ok(advisory.withdrawn.is_none().then_some(Advisory {
        id: advisory.id,
        package: advisory.package,
        informational: advisory.informational,
        patched: versions.patched,
        unaffected: versions.unaffected,
    }))
}

fn data_file() -> PathBuf {
    paths::root().join("xtask/data/advisories.json")
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKDOWN: &str = "```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"bad\"\n\
        [versions]\npatched = [\">= 1.2.0\"]\nunaffected = [\"< 1.0.0\"]\n```\n# Title\n";

    fn locked(name: &str, version: &str) -> Locked {
        let source = Some("registry+https://registry.example".to_owned());
        Locked { name: name.to_owned(), version: version.parse().expect("a version"), source }
    }

    #[test]
    fn a_version_is_affected_that_no_range_names() {
        let advisory = parse(MARKDOWN).expect("it parses").expect("it stands");
        let rows = [("0.9.0", false), ("1.0.0", true), ("1.1.9", true), ("1.2.0", false)];
        for (version, affected) in rows {
            let found = findings(std::slice::from_ref(&advisory), &[locked("bad", version)]);
            assert_eq!(found.len(), usize::from(affected), "{version}");
        }
        assert!(findings(&[advisory], &[locked("good", "1.0.0")]).is_empty());
    }

    #[test]
    fn a_withdrawn_advisory_is_none() {
        let text = MARKDOWN.replace("[versions]", "withdrawn = \"2026-01-01\"\n[versions]");
        assert_eq!(parse(&text).expect("it parses"), None);
    }

    #[test]
    fn unmaintained_is_a_note_and_an_idle_exception_a_fault() {
        let advisory = parse(MARKDOWN).expect("it parses").expect("it stands");
        let of_kind =
            |kind: &str| Advisory { informational: Some(kind.to_owned()), ..advisory.clone() };
        let hits = || findings(std::slice::from_ref(&advisory), &[locked("bad", "1.0.0")]);
        assert_eq!(judge(std::slice::from_ref(&advisory), hits(), &[]).1.len(), 1);
        assert_eq!(judge(&[of_kind("unsound")], hits(), &[]).1.len(), 1);
        assert!(judge(&[of_kind("unmaintained")], hits(), &[]).1.is_empty());
        let ignored = |id: &str| [Ignored { id: id.to_owned(), reason: "not called".to_owned() }];
        assert!(
            judge(std::slice::from_ref(&advisory), hits(), &ignored("RUSTSEC-2026-0001"))
                .1
                .is_empty()
        );
        assert_eq!(judge(&[advisory], BTreeMap::new(), &ignored("RUSTSEC-2026-0001")).1.len(), 1);
    }

    #[test]
    fn days_are_counted() {
        let rows =
            [("1970-01-01", 0), ("1970-03-01", 59), ("2000-02-29", 11_016), ("2000-03-01", 11_017)];
        for (text, days) in rows.into_iter().chain([("2026-11-29", 20_786), ("2100-03-01", 47_541)])
        {
            assert_eq!(day(text).expect(text), days, "{text}");
        }
        for text in ["", "soon", "2026-13-01", "2026-01-1", "2026-01-011"] {
            assert!(day(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_old_copy_is_a_fault() {
        let mut database = Database {
            source: "https://db.example".to_owned(),
            commit: String::new(),
            committed: "2026-01-01".to_owned(),
            taken: "2026-01-01".to_owned(),
            advisories: Vec::new(),
        };
        let at = |text: &str| day(text).expect("a day");
        assert_eq!(age(&database, at("2026-03-02")).expect("a day"), None);
        assert!(age(&database, at("2026-03-03")).expect("a day").is_some());
        database.taken = "soon".to_owned();
        assert!(age(&database, at("2026-03-03")).is_err());
    }
}
