//! `fleet status`: what nodes report, as the server counts it that collects their reports.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use formats::reference::Reference;
use formats::version::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use storage::log::printable;

use super::locks::Group;
use super::{DIGITS, asked, authority, odd_answer};
use crate::commands::Report;
use crate::error::SignerError;
use crate::repository::ClientOptions;

/// 16 MiB: a thousand reasons with a hundred names each have half of it.
const LIMIT: usize = 16 << 20;
/// Releases, reasons and groups of a list for people; `--json` has all.
pub(super) const SHOWN: usize = 20;
/// Nodes that are named with a reason.
const NAMED: usize = 3;
/// A line has at least so many characters, however narrow the terminal is.
const NARROWEST: usize = 40;

/// What a server says of the nodes that report to it.
#[derive(Debug, Serialize)]
pub struct FleetReport {
    server: String,
    /// Everything that the server says, as it says it.
    #[serde(flatten)]
    said: Map<String, Value>,
    #[serde(skip)]
    page: Page,
    /// Columns of the terminal that it is printed on.
    #[serde(skip)]
    width: Option<usize>,
}

/// The part of the server's first page that people are shown.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Page {
    sentence: String,
    #[serde(default)]
    waiting_for_approval: u64,
    channels: Vec<Channel>,
    #[serde(default)]
    reasons: Vec<Why>,
    /// A server before the restart locks has none.
    #[serde(default)]
    restart_locks: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Channel {
    product: String,
    channel: String,
    sentence: String,
    /// By version, how many nodes are in each state; states that this version does not know, too.
    releases: BTreeMap<String, Map<String, Value>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Why {
    code: String,
    sentence: String,
    count: u64,
    #[serde(default)]
    nodes: Vec<String>,
}

/// Reads the first page of a server. `width` is that of the terminal, if it is printed on one.
pub fn fleet_status(
    server: &Reference,
    options: &ClientOptions,
    width: Option<usize>,
) -> Result<FleetReport, SignerError> {
    const FIRST: &str = "fleet/";
    let bytes = asked(server, FIRST, LIMIT, options)?;
    FleetReport::of(&authority(server), &bytes, width)
        .map_err(|error| odd_answer(server, FIRST, &error))
}

impl FleetReport {
    fn of(server: &str, bytes: &[u8], width: Option<usize>) -> Result<Self, serde_json::Error> {
        let said: Map<String, Value> = serde_json::from_slice(bytes)?;
        let page = Page::deserialize(Value::Object(said.clone()))?;
        Ok(FleetReport { server: server.to_owned(), said, page, width })
    }

    /// A line that fits, and cannot do anything to a terminal.
    fn line(&self, text: &str) -> String {
        let line = printable(text);
        let Some(width) = self.width.map(|width| width.max(NARROWEST)) else { return line };
        if line.chars().count() <= width {
            return line;
        }
        line.chars().take(width - 1).chain(['…']).collect()
    }
}

impl Channel {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{}/{}: {}", self.product, self.channel, self.sentence)];
        let mut releases: Vec<_> = self.releases.iter().collect();
        releases.sort_by(|(a, _), (b, _)| newest_first(a, b));
        for (version, states) in releases.iter().take(SHOWN) {
            let here = states.get("published").and_then(Value::as_bool) != Some(false);
            let note = if here { "" } else { " (not in this repository)" };
            lines.push(format!("  {version}  {}{note}", counted(states)));
        }
        lines.extend(more(releases.len(), "releases"));
        lines
    }
}

/// What is no version comes last.
fn newest_first(a: &str, b: &str) -> Ordering {
    match (a.parse::<Version>(), b.parse::<Version>()) {
        (Ok(a), Ok(b)) => b.compare(&a),
        (a, b) => b.is_ok().cmp(&a.is_ok()),
    }
}

/// `812 confirmed, 1 on trial`: states in the order of an update, those of later versions at the end.
fn counted(states: &Map<String, Value>) -> String {
    const KNOWN: [&str; 8] = [
        "confirmed",
        "on_trial",
        "staged",
        "downloading",
        "waiting",
        "reverted",
        "other",
        "silent",
    ];
    let others = states.keys().map(String::as_str).filter(|word| !KNOWN.contains(word));
    let words = KNOWN.into_iter().chain(others);
    let counts = words.filter_map(|word| {
        let nodes = states.get(word)?.as_u64().filter(|nodes| *nodes > 0)?;
        Some(format!("{nodes} {}", word.replace('_', " ")))
    });
    counts.collect::<Vec<_>>().join(", ")
}

pub(super) fn more(all: usize, what: &str) -> Option<String> {
    (all > SHOWN).then(|| format!("  and {} {what} more: see --json", all - SHOWN))
}

impl Why {
    fn line(&self) -> String {
        let short = |node: &String| node.chars().take(DIGITS).collect::<String>();
        let mut nodes: Vec<String> = self.nodes.iter().take(NAMED).map(short).collect();
        if self.count > nodes.len() as u64 {
            nodes.push("…".to_owned());
        }
        let Why { code, sentence, count, .. } = self;
        let sentence = if sentence.is_empty() { String::new() } else { format!(": {sentence}") };
        // Nodes first: a long sentence is cut, and they are what one goes on with.
        format!("  {count} {code} [{}]{sentence}", nodes.join(" "))
    }
}

impl Report for FleetReport {
    fn text(&self) -> String {
        let page = &self.page;
        let mut lines = vec![format!("{}: {}", self.server, page.sentence)];
        if page.channels.is_empty() {
            lines.push("no approved node has reported yet".to_owned());
        }
        lines.extend(page.channels.iter().flat_map(Channel::lines));
        if !page.reasons.is_empty() {
            lines.push("why:".to_owned());
        }
        lines.extend(page.reasons.iter().take(SHOWN).map(Why::line));
        lines.extend(more(page.reasons.len(), "reasons"));
        if !page.restart_locks.is_empty() {
            lines.push("restart locks:".to_owned());
        }
        lines.extend(page.restart_locks.iter().take(SHOWN).flat_map(Group::lines));
        lines.extend(more(page.restart_locks.len(), "groups"));
        match page.waiting_for_approval {
            0 => {}
            1 => lines.push("1 node waits for approval on the server".to_owned()),
            nodes => lines.push(format!("{nodes} nodes wait for approval on the server")),
        }
        lines.iter().map(|line| self.line(line)).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page() -> Value {
        let node = "3f9a0c1b2d4e".repeat(5) + "0000";
        json!({
            "now": 1000,
            "sentence": "1 node needs you",
            "nodes": 6,
            "need_somebody": 1,
            "waiting_for_approval": 2,
            "channels": [{
                "product": "demo",
                "channel": "stable",
                "sentence": "1.10.0 runs on 2 of 6; 1 waiting; 1 reverted; 1 silent",
                "releases": {
                    "1.10.0": { "confirmed": 2, "waiting": 1, "reverted": 1, "on_trial": 0, "silent": 0, "published": true },
                    "1.9.0": { "confirmed": 0, "silent": 1, "levitating": 1, "published": false },
                },
            }],
            "reasons": [
                { "code": "wave", "sentence": "its wave (100 %) begins 2026-12-01T00:00:00Z", "count": 1, "nodes": [node] },
                { "code": "unhealthy", "sentence": "", "count": 4, "nodes": [node, node, node, node] },
            ],
            "restart_locks": [
                { "group": "db", "budget": 1, "holders": [
                    { "id": node, "name": "rack-3", "since": 1_764_500_400, "until": 1_764_504_000 },
                ] },
                { "group": "default", "budget": 2, "holders": [] },
                { "group": "old", "budget": null, "holders": [
                    { "id": "049ad0f5", "name": null, "since": 1_764_500_400, "until": 1_764_504_000 },
                ] },
            ],
        })
    }

    fn report(page: &Value, width: Option<usize>) -> FleetReport {
        FleetReport::of("updates.example:5443", page.to_string().as_bytes(), width).unwrap()
    }

    #[test]
    fn what_people_read() {
        let wanted = "\
updates.example:5443: 1 node needs you
demo/stable: 1.10.0 runs on 2 of 6; 1 waiting; 1 reverted; 1 silent
  1.10.0  2 confirmed, 1 waiting, 1 reverted
  1.9.0  1 silent, 1 levitating (not in this repository)
why:
  1 wave [3f9a0c1b2d4e]: its wave (100 %) begins 2026-12-01T00:00:00Z
  4 unhealthy [3f9a0c1b2d4e 3f9a0c1b2d4e 3f9a0c1b2d4e …]
restart locks:
  db  1 of 1
    rack-3 [3f9a0c1b2d4e] since 2025-11-30T11:00:00Z, until 2025-11-30T12:00:00Z at the latest
  default  0 of 2
  old  1, not configured any more
    049ad0f5 since 2025-11-30T11:00:00Z, until 2025-11-30T12:00:00Z at the latest
2 nodes wait for approval on the server";
        assert_eq!(report(&page(), None).text(), wanted);
    }

    #[test]
    fn a_line_is_no_longer_than_the_terminal_is_wide() {
        for width in [0, 10, 40, 60, 79] {
            let text = report(&page(), Some(width)).text();
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width.max(NARROWEST)), "{width}: {text}");
            assert!(text.contains("[3f9a0c1b2d4e"), "nodes stay: {text}");
        }
    }

    #[test]
    fn a_hostile_server_moves_no_cursor_and_fills_no_screen() {
        let mut page = page();
        page["sentence"] = json!("\u{1b}[2Jall is well\r\n\u{202e}");
        page["reasons"] = json!(vec![page["reasons"][0].clone(); 1000]);
        page["channels"][0]["product"] = json!("a\nb");
        page["restart_locks"][0]["holders"] =
            json!(vec![page["restart_locks"][2]["holders"][0].clone(); 1000]);
        let text = report(&page, Some(80)).text();
        assert!(!text.contains(['\u{1b}', '\r', '\u{202e}']), "{text}");
        assert!(text.lines().count() < 60, "{text}");
        assert!(text.contains("and 980 reasons more: see --json"), "{text}");
    }

    #[test]
    fn programs_read_what_the_server_said_also_what_is_of_a_later_version() {
        let mut page = page();
        page["weather"] = json!("fine");
        let value = serde_json::to_value(report(&page, None)).unwrap();
        assert_eq!(
            (&value["weather"], &value["server"]),
            (&json!("fine"), &json!("updates.example:5443"))
        );
        assert_eq!(value["channels"], page["channels"]);
        for other in [&b"{}"[..], b"[]", b"<html>", b""] {
            assert!(FleetReport::of("x", other, None).is_err());
        }
    }
}
