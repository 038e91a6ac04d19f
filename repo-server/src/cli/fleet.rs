//! `repo-server fleet`: what an operator does with reports and restart locks, beside a server that runs or without one.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use formats::digest::Sha256;
use formats::reason::Exit;
use formats::report::{REPORT_LIMIT, SignedReport};
use formats::tuf::UnixTime;
use storage::log::printable;

use super::output::{print_json, say, tell};
use crate::error::ServerError;
use crate::fleet::lock::{ClientId, Group};
use crate::fleet::{Approved, Database, FleetPlace, Overview, Seen, Verdict, WAITING};

/// That of the library, as people write it.
pub(super) const RETENTION: &str = "90d";
/// The same.
pub(super) const LOCK_AGE: &str = "1h";
/// A beginning of a name that may be given instead of the whole: nobody finds a key for it by chance.
const SHORTEST: usize = 12;

#[derive(Debug, Subcommand)]
pub(super) enum FleetCommand {
    /// Approve nodes: from then on their reports count.
    Approve {
        #[command(flatten)]
        place: Place,
        /// Names, as `update-agent report` prints them; of nodes that reported, the first 12 digits are enough.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// List nodes: what they do, and why.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Take reports that came as files, as `update-agent report -o` writes them.
    Import {
        #[command(flatten)]
        place: Place,
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List restart locks: who holds one, since when, and when it ends by itself.
    Locks {
        #[command(flatten)]
        place: Place,
    },
    /// End the restart locks of a node that is lost. A node that still restarts then does so beside another.
    Release {
        #[command(flatten)]
        place: Place,
        /// The id that it holds a lock with, or the first 12 characters of it.
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// `NAME=N` of `serve --fleet-group`.
pub(super) fn group(text: &str) -> Result<(String, usize), String> {
    let (name, budget) = text.split_once('=').ok_or("write NAME=N: workers=2")?;
    let budget = budget.parse().map_err(|_| format!("{budget}: how many may restart at once?"))?;
    Ok((name.to_owned(), budget))
}

#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The database: the directory or address of `serve --fleet`.
    #[arg(long = "fleet", value_name = "DIR|URL", env = "REPO_SERVER_FLEET")]
    place: FleetPlace,
    /// The file with its password, as for `serve`.
    #[arg(long = "fleet-password-file", value_name = "FILE")]
    password: Option<PathBuf>,
    /// Certificates of those who vouch for the PostgreSQL server, as for `serve`.
    #[arg(long = "fleet-ca", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The file of approved nodes, if there is one: that of `serve --fleet-approved`.
    #[arg(long = "fleet-approved", value_name = "FILE")]
    approved: Option<PathBuf>,
}

impl Place {
    fn open(&self) -> Result<Database, ServerError> {
        let place = self.place.clone();
        Database::open(&place.with_files(self.password.clone(), self.ca.clone())?)
    }
}

pub(super) fn run(command: &FleetCommand, json: bool) -> Result<Exit, ServerError> {
    match command {
        FleetCommand::Approve { place, nodes } => approve(place, nodes, json),
        FleetCommand::List { place } => list(place, json),
        FleetCommand::Import { place, files } => import(place, files, json),
        FleetCommand::Locks { place } => locks(place, json),
        FleetCommand::Release { place, id } => release(place, id, json),
    }
}

fn approve(place: &Place, names: &[String], json: bool) -> Result<Exit, ServerError> {
    let mut database = place.open()?;
    let nodes =
        names.iter().map(|name| find(&database, name)).collect::<Result<Vec<Sha256>, _>>()?;
    let added = database.approve(&nodes)?;
    if json {
        print_json(&serde_json::json!({ "ok": true, "approved": nodes, "new": added }))?;
    } else {
        for node in &nodes {
            tell(&format!("approved {node}"))?;
        }
    }
    Ok(if added == 0 { Exit::Nothing } else { Exit::Done })
}

/// A node by its name, or by the beginning of one that reported.
fn find(database: &Database, name: &str) -> Result<Sha256, ServerError> {
    if let Ok(node) = Sha256::from_hex(name) {
        return Ok(node);
    }
    let shown: String = printable(name).chars().take(80).collect();
    let hex = name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !hex || !(SHORTEST..64).contains(&name.len()) {
        return Err(ServerError::Config(format!(
            "{shown:?} is no name of a node: give the 64 digits that `update-agent report` prints, or the first \
             {SHORTEST} of a node that reported"
        )));
    }
    match *database.beginning(name)? {
        [node] => Ok(node),
        [] => {
            Err(ServerError::Config(format!("no node whose name begins with {shown} has reported")))
        }
        _ => {
            Err(ServerError::Config(format!("several nodes begin with {shown}: give more digits")))
        }
    }
}

fn list(place: &Place, json: bool) -> Result<Exit, ServerError> {
    let approved = Approved::read(place.approved.as_deref())?;
    let all = place.open()?.overview(&approved)?;
    if json {
        let rows: Vec<_> = nodes(&all).map(crate::fleet::view::row).collect();
        print_json(&serde_json::json!({ "ok": true, "now": all.now, "nodes": rows }))?;
        return Ok(Exit::Done);
    }
    if nodes(&all).next().is_none() {
        tell("no node has reported yet")?;
    }
    for seen in nodes(&all) {
        tell(&line(seen))?;
    }
    Ok(Exit::Done)
}

fn nodes(all: &Overview) -> impl Iterator<Item = &Seen> {
    all.nodes.iter().chain(&all.waiting)
}

/// `3f9a0c11d2e4  rack-3-node-07  waiting 1.4.2: wave …  (seen 2026-11-30T06:00:00Z)`
fn line(seen: &Seen) -> String {
    let brief = &*seen.brief;
    let short: String = brief.node.to_hex().chars().take(SHORTEST).collect();
    let mut text = format!("{short}  {}  {} {}", brief.name, brief.state.shown(), brief.release);
    if let Some((code, sentence)) = seen.reason() {
        text += &format!(": {code} {sentence}");
    }
    text += &format!("  (seen {}", time(brief.received));
    if let Some(since) = seen.silent {
        text += &format!(", silent since {}", time(since));
    }
    if seen.cloned {
        text += ", two machines share its key";
    }
    if !seen.approved {
        text += ", not approved";
    }
    text.push(')');
    printable(&text)
}

fn time(at: u64) -> String {
    UnixTime::from_secs(i64::try_from(at).unwrap_or(i64::MAX)).to_string()
}

fn import(place: &Place, files: &[PathBuf], json: bool) -> Result<Exit, ServerError> {
    let approved = Approved::read(place.approved.as_deref())?;
    let reports = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let verdicts = place.open()?.import(&reports, &approved, WAITING)?;
    let mut rows = Vec::new();
    let mut kept = 0;
    for ((file, report), verdict) in files.iter().zip(&reports).zip(&verdicts) {
        let node = report.report().node;
        let is_kept = *verdict == Verdict::Kept;
        kept += usize::from(is_kept);
        rows.push(serde_json::json!({ "file": file.display().to_string(), "node": node, "kept": is_kept }));
        if !json && is_kept {
            tell(&printable(&format!("{}: kept, of node {node}", file.display())))?;
        } else if !json {
            say(&printable(&format!("{}: a newer one of node {node} is known", file.display())));
        }
    }
    if json {
        print_json(&serde_json::json!({ "ok": true, "reports": rows }))?;
    }
    Ok(if kept == 0 { Exit::Nothing } else { Exit::Done })
}

fn locks(place: &Place, json: bool) -> Result<Exit, ServerError> {
    let held = place.open()?.locks()?;
    let all = || held.iter().flat_map(|it| it.holders.iter().map(move |holder| (it, holder)));
    if json {
        let rows = all().map(|(it, holder)| {
            let mut row = crate::fleet::view::lock(holder);
            row["group"] = it.group.as_str().into();
            row
        });
        print_json(&serde_json::json!({ "ok": true, "locks": rows.collect::<Vec<_>>() }))?;
        return Ok(Exit::Done);
    }
    if all().next().is_none() {
        tell("nobody holds a restart lock")?;
    }
    for (it, holder) in all() {
        let (since, until) = (time(holder.since), time(holder.until));
        let text = format!("{}  {}  since {since}, until {until}", it.group, holder.client);
        tell(&printable(&text))?;
    }
    Ok(Exit::Done)
}

fn release(place: &Place, name: &str, json: bool) -> Result<Exit, ServerError> {
    let mut database = place.open()?;
    let held = database.locks()?;
    let mut ids: Vec<&ClientId> =
        held.iter().flat_map(|it| it.holders.iter().map(|holder| &holder.client)).collect();
    ids.sort();
    ids.dedup();
    let begins = |id: &&&ClientId| {
        name.len() >= SHORTEST && id.as_str().starts_with(name) || id.as_str() == name
    };
    let found: Vec<&ClientId> = match ids.iter().find(|id| id.as_str() == name) {
        Some(whole) => vec![whole],
        None => ids.iter().filter(begins).copied().collect(),
    };
    let shown: String = printable(name).chars().take(80).collect();
    let [id] = *found else {
        let what = if found.is_empty() { "no node" } else { "more than one node" };
        return Err(ServerError::Config(format!(
            "{what} with an id that is or begins with {shown} holds a restart lock: see `repo-server fleet locks`"
        )));
    };
    let groups = database.release(id)?;
    if json {
        let groups: Vec<&str> = groups.iter().map(Group::as_str).collect();
        print_json(&serde_json::json!({ "ok": true, "id": id.as_str(), "groups": groups }))?;
    } else {
        for group in &groups {
            tell(&printable(&format!("released the lock of {id} in group {group}")))?;
        }
    }
    Ok(if groups.is_empty() { Exit::Nothing } else { Exit::Done })
}

/// A report of a file, verified.
fn read(path: &Path) -> Result<SignedReport, ServerError> {
    let file = File::open(path).map_err(ServerError::io("read", path))?;
    let mut bytes = Vec::new();
    file.take(REPORT_LIMIT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(ServerError::io("read", path))?;
    let wrong = |why| ServerError::NoReport { path: path.to_owned(), why };
    if bytes.len() > REPORT_LIMIT {
        // The rest was not read.
        return Err(wrong(format!("has more than {REPORT_LIMIT} bytes; no report has")));
    }
    SignedReport::verify(&bytes).map_err(|error| wrong(error.to_string()))
}
