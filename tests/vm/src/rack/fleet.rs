//! What the server's page says of the rack, beside what each node says of itself.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::rig::{Rig, Server};
use serde_json::Value;

use super::pages::{self, Shown};

/// The directory of the reports, in the rack's.
pub(super) const DIR: &str = "fleet";

/// What a node should be shown as.
pub(super) struct Expected {
    pub(super) name: &'static str,
    pub(super) state: &'static str,
    /// What the state is about.
    pub(super) release: &'static str,
    /// What runs, confirmed.
    pub(super) runs: &'static str,
    /// Why, as a code of the node.
    pub(super) code: Option<&'static str>,
    pub(super) silent: bool,
}

/// Approves every node that reported, as an operator does who knows how many there are.
pub(super) fn approve(rig: &Rig, nodes: usize) -> Result<()> {
    let listed = fleet(rig, &["list", "--json"]).read()?;
    let listed: Value = serde_json::from_str(&listed).context("the list of nodes")?;
    let rows = listed["nodes"].as_array().context("nodes")?;
    ensure!(rows.len() == nodes, "not {nodes} nodes reported: {listed:#}");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["node"].as_str()).collect();
    fleet(rig, &["approve"]).args(names).run()?;
    Ok(())
}

/// Compares what the server says with what is expected, each node with its own `status --json`, which `status` gives by
/// the node's name, and then what a browser shows of all that. Returns the sentence on top.
pub(super) fn compare(
    rig: &Rig,
    server: &Server,
    expected: &[Expected],
    status: &dyn Fn(&str) -> Result<Value>,
) -> Result<String> {
    let page = Page { ca: rig.path("ca.pem"), server: &server.address };
    let list = page.json("nodes")?;
    let rows = list["nodes"].as_array().context("nodes")?;
    ensure!(rows.len() == expected.len(), "not {} nodes: {list:#}", expected.len());
    let mut nodes = Vec::new();
    for node in expected {
        let row = rows.iter().find(|row| row["name"] == node.name);
        let row = row.with_context(|| format!("no {}: {list:#}", node.name))?;
        let code = row["code"].as_str();
        let said =
            (&row["state"], &row["release"], &row["runs"], code, row["silent_since"].is_null());
        let wanted = (node.state, node.release, node.runs, node.code, !node.silent);
        ensure!(
            said.0 == wanted.0
                && said.1 == wanted.1
                && said.2 == wanted.2
                && said.3 == wanted.3
                && said.4 == wanted.4,
            "{} is shown as {row:#}, expected {wanted:?}",
            node.name
        );
        let id = row["node"].as_str().context("its name")?;
        let shown = page.json(&format!("nodes/{id}"))?;
        let own = status(node.name)?;
        same(&shown, &own).with_context(|| format!("{}: {shown:#}, and {own:#}", node.name))?;
        nodes.push(Shown { expected: node, id: id.to_owned(), own });
    }
    let overview = page.json("")?;
    let sentence = overview["channels"][0]["sentence"].as_str().context("a sentence")?.to_owned();
    pages::read(rig, server, &sentence, &nodes)?;
    Ok(sentence)
}

/// Slot by slot, what the server shows and what the node said.
fn same(shown: &Value, own: &Value) -> Result<()> {
    ensure!(shown["booted"] == own["booted"], "booted");
    for slot in ["a", "b"] {
        let (there, here) = (&shown["slots"][slot], &own["slots"][slot]);
        ensure!(there["version"] == here["version"], "the version in slot {slot}");
        let confirmed = here["confirmed"] == true;
        ensure!((there["state"] == "confirmed") == confirmed, "whether slot {slot} is confirmed");
    }
    let root = &own["metadata"]["root"];
    ensure!(shown["metadata"]["root"] == *root, "the version of its root");
    Ok(())
}

fn fleet(rig: &Rig, command: &[&str]) -> Cmd {
    rig.program("repo-server").arg("fleet").args(command).args(["--fleet", DIR])
}

/// The pages, as a browser or a script asks for them.
struct Page<'a> {
    ca: std::path::PathBuf,
    server: &'a str,
}

impl Page<'_> {
    fn json(&self, path: &str) -> Result<Value> {
        let url = format!("https://{}/fleet/{path}", self.server);
        let ca: &Path = &self.ca;
        let curl = Cmd::new("curl").args(["-sS", "--fail-with-body", "--cacert"]).arg(ca);
        let text = curl.args(["-H", "Accept: application/json"]).arg(url).read()?;
        serde_json::from_str(&text).with_context(|| format!("the page /fleet/{path}: {text}"))
    }
}
