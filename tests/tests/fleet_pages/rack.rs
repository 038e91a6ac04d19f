//! A made rack: a repository with two releases, and the database of its nodes, in every state that a page can show.
//! The clock of everything is fixed, so that two runs make the same pages.

use std::collections::BTreeMap;
use std::fs;

use formats::tuf::UnixTime;
use racklet_testkit::forge::ForgeKey;
use racklet_tests::rig::{Run, Running, World, program, tool};
use racklet_tools::browser::{Browser, http};

use super::hostile;
use super::login;
use super::nodes::nodes;

/// The time on the pages: a Thursday in spring.
pub(crate) const NOW: &str = "2027-03-04T09:30:00Z";
pub(crate) const PRODUCT: &str = "rack-os";
pub(crate) const CHANNEL: &str = "stable";
pub(crate) const OLD: &str = "1.4.1";
pub(crate) const NEW: &str = "1.4.2";
/// `x:a-pull-token-of-a-test`: any name, and the token as the password.
const BASIC: &str = "eDphLXB1bGwtdG9rZW4tb2YtYS10ZXN0";
pub(crate) const TOKEN: &str = "a-pull-token-of-a-test";

/// A server with a rack behind it.
pub(crate) struct Rack {
    pub(crate) world: World,
    pub(crate) address: String,
    _server: Running,
}

impl Rack {
    /// Makes all of it, and starts the server.
    pub(crate) fn start(with_hostile_node: bool) -> Self {
        let world = World::empty();
        publish(&world);
        let mut nodes = nodes();
        if with_hostile_node {
            nodes.push(hostile::node(minutes(0)));
        }
        import(&world, &nodes);
        fs::write(world.path("pull-token"), format!("{TOKEN}\n")).expect("write the token");
        let _private = Run::new("chmod").arg("600").arg(world.path("pull-token")).ok();
        let server = program("repo-server").args(["serve", "--listen", "127.0.0.1:0", "--dir"]);
        let server = server.arg(world.path("repository")).arg("--fleet").arg(world.path("fleet"));
        let server = server.arg("--pull-token-file").arg(world.path("pull-token"));
        let mut server = at(server, 0).start();
        let address = server.await_line(|line| {
            let (_, address) = line.split_once("listening on http://")?;
            Some(address.split(' ').next().unwrap_or(address).to_owned())
        });
        Rack { world, address, _server: server }
    }

    /// A browser that knows nothing yet.
    pub(crate) fn stranger(&self) -> Browser {
        Browser::start(&self.world.path("browser")).expect("a browser")
    }

    /// A browser that is logged in.
    pub(crate) fn browser(&self) -> Browser {
        let browser = self.stranger();
        login::log_in(&browser, self);
        browser
    }

    /// Where a browser reads a page.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A page in one of its two forms.
    pub(crate) fn page(&self, path: &str, media_type: &str) -> String {
        let head =
            format!("GET {path} HTTP/1.1\r\nAccept: {media_type}\r\nAuthorization: Basic {BASIC}");
        let reply = http::ask(&self.address, &head, b"").expect("an answer");
        assert!(reply.head.starts_with("HTTP/1.1 200"), "{path}: {}", reply.head);
        String::from_utf8(reply.body).expect("UTF-8")
    }

    /// The same as JSON.
    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.page(path, "application/json")).expect("JSON")
    }
}

/// Unix seconds, so many minutes before [`NOW`].
pub(crate) fn minutes(before: u64) -> u64 {
    let now = UnixTime::parse(NOW).expect("a time").secs();
    u64::try_from(now).expect("after 1970") - before * 60
}

/// A command whose clock stands at that time. Its timers go on: they are of the monotonic clock.
fn at(run: Run, before: u64) -> Run {
    let seconds = i64::try_from(minutes(before)).expect("a time");
    let time = UnixTime::from_secs(seconds).to_string().replace('T', " ").replace('Z', "");
    let clock = tool("faketime", "faketime").env("TZ", "UTC");
    let clock = clock.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    run.under(clock.args(["-f", &time]))
}

/// Both releases, the newer one in three waves of which two are open.
fn publish(world: &World) {
    let run = |command: &[&str], before: u64| {
        let _done = at(world.signer(command), before).ok();
    };
    run(&["init"], 20_160);
    let image = world.release("0", 1).os;
    let component = format!("os={},hw=rack-a1", image.path.display());
    let waves =
        ["10%@2027-03-03T06:00:00Z", "50%@2027-03-04T06:00:00Z", "100%@2027-03-05T06:00:00Z"];
    let waves: Vec<&str> = waves.iter().flat_map(|wave| ["--wave", wave]).collect();
    for (version, before, waves) in [(OLD, 20_150, &[][..]), (NEW, 1720, &waves)] {
        let publish = ["publish", "--product", PRODUCT, "--version", version];
        let to = ["--component", &component, "--channel", CHANNEL];
        run(&[&publish[..], &to, waves].concat(), before);
    }
    run(&["refresh"], 200);
}

/// What a node reported, the oldest first: minutes before now, and the document.
pub(crate) struct Story {
    pub(crate) key: ForgeKey,
    pub(crate) approved: bool,
    pub(crate) reports: Vec<(u64, Vec<u8>)>,
}

impl Story {
    pub(crate) fn of(key: ForgeKey, document: Vec<u8>) -> Self {
        Story { key, approved: true, reports: vec![(1, document)] }
    }
}

/// Brings the reports as sticks would, each at its time, and approves who may count.
fn import(world: &World, nodes: &[Story]) {
    let mut at_times: BTreeMap<std::cmp::Reverse<u64>, Vec<&[u8]>> = BTreeMap::new();
    for (before, document) in nodes.iter().flat_map(|node| &node.reports) {
        at_times.entry(std::cmp::Reverse(*before)).or_default().push(document);
    }
    let fleet = world.path("fleet");
    for (before, documents) in at_times {
        let mut files = Vec::new();
        for (number, document) in documents.iter().enumerate() {
            files.push(world.path(&format!("report-{}-{number}.json", before.0)));
            fs::write(files.last().expect("pushed"), document).expect("write a report");
        }
        let import = program("repo-server").args(["fleet", "import", "--fleet"]).arg(&fleet);
        let _done = at(import.args(&files), before.0).ok();
    }
    let names = nodes.iter().filter(|node| node.approved).map(|node| node.key.node().to_hex());
    let approve = program("repo-server").args(["fleet", "approve", "--fleet"]).arg(&fleet);
    let _done = at(approve.args(names), 0).ok();
}
