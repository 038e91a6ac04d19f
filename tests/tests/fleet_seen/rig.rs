//! Nodes, the server that they report to, and what both say.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use formats::digest::Sha256;
use formats::reason::Exit;
use racklet_tests::rig::{
    Credentials, Done, Image, Node, PRODUCT, Release, RepoServer, Run, SlotSizes, TRIES, World,
    program, programs, tool,
};
use racklet_tests::sources::text_of;
use serde_json::Value;
use update_core::policy::wave_of;

pub(crate) const NOW: &str = "+0";

/// 2 MiB and 1 MiB.
pub(crate) const SLOTS: SlotSizes = SlotSizes { root: 4096, firmware: 2048 };

pub(crate) fn release(world: &World, version: &str, byte: u8) -> Release {
    let image = |kind: &str| {
        Image::write(&world.path(&format!("{kind}-{version}.img")), vec![byte; 64 << 10])
    };
    Release { version: version.to_owned(), os: image("os"), firmware: image("firmware") }
}

fn at(later: &str) -> Run {
    tool("faketime", "faketime").args(["-f", later])
}

/// The line of `docs/fleet.md` that has this command, without the words before it.
pub(crate) fn documented(command: &str) -> String {
    let page = text_of("docs/fleet.md");
    let found = page.lines().find_map(|line| line.find(command).map(|at| line[at..].to_owned()));
    found.unwrap_or_else(|| panic!("docs/fleet.md does not have {command:?}"))
}

/// A line of the document in a shell, with the programs of this commit, and with other places.
pub(crate) fn shell(world: &World, line: &str, places: &[(&str, &str)]) -> Done {
    let server = programs().get("repo-server").expect("it is one of ours");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", server.parent().expect("its folder").display());
    let mut line = line.to_owned();
    for (from, to) in places {
        assert!(line.contains(from), "{from:?} in {line:?}");
        line = line.replace(from, to);
    }
    Run::new("env")
        .arg("-C")
        .arg(world.dir())
        .args(["sh", "-eu", "-c", &line])
        .env("PATH", path)
        .ok()
}

/// Nodes, and what they report to.
pub(crate) struct Fleet {
    pub(crate) world: World,
    /// What all nodes run at first.
    pub(crate) first: Release,
    pub(crate) nodes: Vec<(&'static str, Node)>,
    server: Option<RepoServer>,
    pub(crate) dir: PathBuf,
}

impl Fleet {
    /// Nodes as they leave the factory, each confirmed, and each knowing the server.
    pub(crate) fn new(names: &[&'static str]) -> Self {
        let mut world = World::empty();
        let dir = world.path("fleet");
        let server = RepoServer::started(&world, &["--fleet", &dir.display().to_string()]);
        server.is_published_to(&mut world);
        world.init();
        let v1 = release(&world, "1.0.0", 1);
        let _done = world.publish(&v1, &["--channel", "stable"]);
        let node = |name: &&'static str| {
            let node = Node::with_slots(&world, name, &v1, &server.reference(), SLOTS);
            node.reconfigure("mode = \"notify\"", "mode = \"auto\"");
            let text = fs::read_to_string(node.config()).expect("read the configuration");
            let text = format!("{text}\n[reports]\nname = {name:?}\n");
            fs::write(node.config(), text).expect("write the configuration");
            (*name, node)
        };
        let nodes = names.iter().map(node).collect();
        Fleet { world, first: v1, nodes, server: Some(server), dir }
    }

    /// The same with reports that are on and count, and each node's first one.
    pub(crate) fn approved(names: &[&'static str]) -> Self {
        let fleet = Fleet::new(names);
        for (name, node) in &fleet.nodes {
            node.reconfigure("[[source]]\n", "[[source]]\nreports = true\n");
            let approve = program("repo-server").args(["fleet", "approve", "--fleet"]);
            let _done = approve.arg(&fleet.dir).arg(id(node)).ok();
            fleet.reports(name, NOW);
        }
        fleet
    }

    pub(crate) fn server(&self) -> &RepoServer {
        self.server.as_ref().expect("a server runs")
    }

    pub(crate) fn node(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|(known, _)| *known == name);
        &found.unwrap_or_else(|| panic!("no node {name}")).1
    }

    /// A page as JSON.
    pub(crate) fn page(&self, path: &str) -> Value {
        self.asked(path, "application/json").json()
    }

    /// A page as a browser gets it.
    pub(crate) fn html(&self, path: &str) -> String {
        self.asked(path, "text/html").text()
    }

    fn asked(&self, path: &str, accept: &str) -> Done {
        let url = format!("https://{}{path}", self.server().authority);
        let curl = tool("curl", "curl").args(["-fsS", "--noproxy", "*", "--cacert"]);
        let curl = curl.arg(Credentials::of(&self.world).ca);
        curl.args(["-H", &format!("Accept: {accept}"), &url]).ok()
    }

    pub(crate) fn page_of(&self, name: &str) -> Value {
        self.page(&format!("/fleet/nodes/{}", id(self.node(name))))
    }

    /// Rounds of a node's daemon until what it says has arrived: a server takes a report of it every five
    /// seconds.
    pub(crate) fn reports(&self, name: &str, later: &str) {
        let node = self.node(name);
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let _round = node.agent(&["run", "--once"]).under(at(later)).finish().exits(Exit::Done);
            let sources = node.agent(&["report"]).ok().json()["sources"].clone();
            if sources[0]["acknowledged"].is_object() && sources[0]["failed"].is_null() {
                return;
            }
            assert!(Instant::now() < until, "{name}: {sources}");
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// What a node says now is carried to the server as a file.
    pub(crate) fn carries_a_report(&self, name: &str) {
        let file = self.world.path(&format!("{name}.json"));
        let _absent = fs::remove_file(&file);
        let _done = self.node(name).agent_in_words(&["report", "-o"]).arg(&file).ok();
        let import = program("repo-server").args(["fleet", "import", "--fleet"]);
        let _kept = import.arg(&self.dir).arg(&file).ok();
    }

    /// Nodes that take what the channel offers at once, and one, `later`, whose wave of the second half comes
    /// tomorrow.
    pub(crate) fn give_ids(&self, later: &str) {
        let show = ["channel", "show", "--product", PRODUCT, "--channel", "stable"];
        let channel = self.world.signer(&show).ok().json();
        let index = channel["index"].as_str().and_then(|text| text.strip_prefix("sha256:"));
        let release = index.and_then(|hex| Sha256::from_hex(hex).ok()).expect("a release");
        let mut ids = (1..).map(|number| format!("node-{number}"));
        for (name, node) in &self.nodes {
            let waits = *name == later;
            let id = ids.find(|id| (wave_of(id, release) > 50) == waits).expect("half of all ids");
            node.reconfigure("id = \"node-1\"", &format!("id = {id:?}"));
        }
    }

    /// The server ends; another one takes its place, at another address, after `meanwhile`.
    pub(crate) fn exchange_server(&mut self, later: &str, meanwhile: impl FnOnce(&Fleet)) {
        let before = self.server().authority.clone();
        let _log = self.server.take().map(RepoServer::stop);
        meanwhile(self);
        let place = self.dir.display().to_string();
        let options = ["--fleet", &place];
        let server = match later {
            NOW => RepoServer::started(&self.world, &options),
            _ => RepoServer::started_later(&self.world, later, &options),
        };
        server.is_published_to(&mut self.world);
        for (_, node) in &self.nodes {
            node.reconfigure(&before, &server.authority);
        }
        self.server = Some(server);
    }
}

/// A node's name, as it says it.
pub(crate) fn id(node: &Node) -> String {
    let said = node.agent(&["report"]).ok().json();
    said["node"].as_str().expect("a node has a name").to_owned()
}

/// What the server shows of a node is what the node says to its own operator.
#[track_caller]
pub(crate) fn agrees(fleet: &Fleet, name: &str) -> Value {
    let (page, status) = (fleet.page_of(name), fleet.node(name).status());
    let html = fleet.html(&format!("/fleet/nodes/{}", id(fleet.node(name))));
    for member in ["booted", "next", "standing", "product", "channel"] {
        assert_eq!(page[member], status[member], "{member}: {page}\n{status}");
    }
    // What is on trial does not count as running.
    let runs = if page["state"] == "on_trial" { &page["release"] } else { &page["runs"] };
    assert_eq!(*runs, status["runs"], "{page}\n{status}");
    for slot in ["a", "b"] {
        let (shown, own) = (&page["slots"][slot], &status["slots"][slot]);
        assert_eq!(shown["state"] == "confirmed", own["confirmed"] == true, "{slot}: {page}");
        // A report has the bare digits.
        let digits = |index: &Value| index.as_str()?.strip_prefix("sha256:").map(str::to_owned);
        assert_eq!(shown["index"].as_str(), digits(&own["index"]).as_deref(), "{slot}: {page}");
        if !own["version"].is_null() {
            assert_eq!(shown["version"], own["version"], "{slot}: {page}\n{status}");
        }
    }
    let (decision, offer) = (&page["decision"], &status["offer"]);
    for (shown, own) in
        [("version", "version"), ("code", "decision"), ("sentence", "why"), ("rule", "rule")]
    {
        assert_eq!(decision[shown], offer[own], "{shown}: {page}\n{status}");
    }
    let last = status["failures"].as_array().and_then(|failures| failures.last());
    let last = last.cloned().unwrap_or_default();
    assert_eq!(page["failure"]["version"], last["release"]["version"], "{page}\n{status}");
    assert_eq!(page["failure"]["code"], last["reason"], "{page}\n{status}");
    assert_eq!(page["failure"]["sentence"], last["detail"], "{page}\n{status}");
    for member in ["root", "timestamp", "snapshot", "targets", "expires"] {
        assert_eq!(page["metadata"][member], status["metadata"][member], "{member}: {page}");
    }
    let floor = &status["floor"];
    assert_eq!(page["floor"]["security_version"], floor["security_version"], "{page}");
    assert_eq!(page["floor"]["kept"], floor["kept_in"], "{page}");
    for member in ["code", "sentence"] {
        for told in ["decision", "failure"] {
            in_html(&html, &page[told][member]);
        }
    }
    in_html(&html, &page["runs"]);
    page
}

/// A text of a node, as HTML shows it; nothing where it is absent.
#[track_caller]
fn in_html(html: &str, text: &Value) {
    let text = text.as_str().unwrap_or_default();
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let escaped = escaped.replace('"', "&quot;");
    assert!(html.contains(&escaped), "{text:?} is missing:\n{html}");
}

/// What the first page counts of a release, in the order confirmed, waiting, reverted, silent.
pub(crate) fn counted(overview: &Value, version: &str) -> [u64; 4] {
    let row = &overview["channels"][0]["releases"][version];
    ["confirmed", "waiting", "reverted", "silent"].map(|word| row[word].as_u64().unwrap_or(0))
}

/// One update, as the daemon does it: the release is on trial afterwards.
pub(crate) fn update(node: &Node) {
    let did = node.run_once().exits(Exit::Done).json();
    assert_eq!(did["did"], "applied", "{did}");
    assert!(node.reboot_was_asked(), "{did}");
    assert_eq!(node.boot(), "b");
}

/// An update that fails its health checks until the boot loader goes back.
pub(crate) fn reverts(node: &Node) {
    update(node);
    node.set_healthy(false);
    for left in (0..TRIES).rev() {
        let _failed = node.run_once().exits(Exit::Boot);
        assert!(node.reboot_was_asked());
        assert_eq!(node.boot(), if left > 0 { "b" } else { "a" });
    }
    node.set_healthy(true);
}
