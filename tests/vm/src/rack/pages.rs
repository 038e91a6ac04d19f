//! The pages of the rack as a person reads them: in Chromium, over TLS, with the server's own CA.

use std::fs;

use anyhow::{Context, Result, ensure};
use racklet_tools::browser::{Browser, Look, plain};
use racklet_tools::rig::{Rig, Server};
use serde_json::{Value, json};

use super::fleet::Expected;

/// Of a sentence so much is looked for: the server shortens long ones.
const SENTENCE: usize = 120;

/// A node that a page should show.
pub(super) struct Shown<'a> {
    pub(super) expected: &'a Expected,
    /// Its name, in addresses.
    pub(super) id: String,
    /// Its own `status --json`.
    pub(super) own: Value,
}

/// What is seen on a page: its address below `/fleet/`, and what its picture is called.
struct Page<'a> {
    path: &'a str,
    picture: &'a str,
}

/// Reads the first page, the list and the page of each node, and keeps pictures beside the logs.
pub(super) fn read(rig: &Rig, server: &Server, sentence: &str, nodes: &[Shown<'_>]) -> Result<()> {
    let ca = rig.path("ca.pem");
    let address = |path: &str| format!("https://{}/fleet/{path}", server.address);
    strangers_are_not_believed(rig, &address(""))?;
    let home = rig.path("browser");
    let browser = Browser::believing(&home, &ca)?;
    browser.look(Look { width: 1400, scheme: "light", scripts: false })?;
    let open = |page: &Page<'_>| -> Result<String> {
        browser.open(&address(page.path))?;
        fs::write(rig.path(page.picture), browser.picture(None)?)?;
        browser.text()
    };
    let text = open(&Page { path: "", picture: "first-page.png" })?;
    ensure!(text.contains(&plain(sentence)), "the first page does not say {sentence:?}: {text}");
    open(&Page { path: "nodes", picture: "nodes.png" })?;
    let rows =
        "return [...document.querySelectorAll('table.nodes tbody tr')].map(it => it.innerText)";
    let rows = browser.run(rows, json!([]))?;
    let rows: Vec<String> =
        rows.as_array().into_iter().flatten().filter_map(Value::as_str).map(plain).collect();
    ensure!(rows.len() == nodes.len(), "not {} rows: {rows:#?}", nodes.len());
    for node in nodes {
        let name = node.expected.name;
        let row = rows.iter().find(|row| row.starts_with(&format!("{name} ")));
        says(row.with_context(|| format!("no row of {name}"))?, node, &[])?;
        let page = Page { path: &format!("nodes/{}", node.id), picture: &format!("{name}.png") };
        says(&open(&page)?, node, &slots(&node.own))?;
    }
    drop(browser);
    // Pictures are kept, a profile is of no use.
    fs::remove_dir_all(home).context("remove the browser's home")
}

/// Without the CA the same browser shows nothing: the pages are read over a connection that it verified.
fn strangers_are_not_believed(rig: &Rig, url: &str) -> Result<()> {
    let home = rig.path("stranger");
    let browser = Browser::start(&home)?;
    browser.open(url)?;
    let text = browser.run("return document.documentElement.textContent", json!([]))?;
    drop(browser);
    fs::remove_dir_all(home)?;
    let text = plain(text.as_str().unwrap_or_default());
    ensure!(text.contains("ERR_CERT_AUTHORITY_INVALID"), "without the CA it shows: {text}");
    Ok(())
}

/// Name, state, release and the sentence that the node says of itself.
fn says(text: &str, node: &Shown<'_>, more: &[String]) -> Result<()> {
    let Expected { name, state, release, silent, .. } = *node.expected;
    let state = if silent { format!("before: {state}") } else { state.to_owned() };
    let mut words = vec![name.to_owned(), state, release.to_owned()];
    words.extend(silent.then(|| "silent, expected".to_owned()));
    words.extend(sentence(node));
    words.extend(more.iter().cloned());
    for word in words {
        ensure!(text.contains(&word), "{name} is shown without {word:?}: {text}");
    }
    Ok(())
}

/// Why the node does what it does, in its own status.
fn sentence(node: &Shown<'_>) -> Option<String> {
    let own = &node.own;
    let said = match node.expected.state {
        "waiting" => &own["offer"]["why"],
        "reverted" => &own["failures"].as_array()?.last()?["detail"],
        _ => return None,
    };
    Some(plain(said.as_str()?).chars().take(SENTENCE).collect())
}

/// The versions in its slots, by its status.
fn slots(own: &Value) -> Vec<String> {
    let version = |slot: &str| own["slots"][slot]["version"].as_str().map(str::to_owned);
    ["a", "b"].into_iter().filter_map(version).collect()
}
