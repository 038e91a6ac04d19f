//! The story of an update as the journal gets it: the real program under a socket like journald's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use racklet_tests::rig::{Done, Node, Run, World, redact, tool};
use update_agent::events::KINDS;

/// What ends a recording; no entry of a journal is empty of fields.
const END: &[u8] = b"end";

/// An entry: its fields by name.
type Entry = BTreeMap<String, String>;

/// A socket like journald's, at its path in a mount namespace of the programs that are run here.
struct Journal {
    dir: PathBuf,
    count: Arc<AtomicUsize>,
    reader: JoinHandle<Vec<Entry>>,
}

impl Journal {
    fn begin(world: &World, name: &str) -> Self {
        let dir = world.path(name);
        fs::create_dir(&dir).expect("make a folder");
        let socket = UnixDatagram::bind(dir.join("socket")).expect("bind a socket");
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let reader = thread::spawn(move || {
            let mut entries = Vec::new();
            // journald's own limit of a datagram is that of the socket; ours are below 64 KiB.
            let mut datagram = vec![0; 256 << 10];
            loop {
                let len = socket.recv(&mut datagram).expect("receive");
                match &datagram[..len] {
                    END => return entries,
                    // So a program asks whether somebody listens.
                    [] => {}
                    entry => entries.push(parse(entry)),
                }
                counted.store(entries.len(), Ordering::SeqCst);
            }
        });
        Journal { dir, count, reader }
    }

    /// Runs a command to its end as systemd does: its standard error is a stream of the journal.
    fn run(&self, command: Run) -> Done {
        command.under(self.wrapper()).finish()
    }

    /// What mounts the socket where journald's is, and says that standard error goes there.
    fn wrapper(&self) -> Run {
        let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && \
                      mount --bind \"$1\" /run/systemd/journal && shift && \
                      JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr) exec \"$@\"";
        let unshare = tool("unshare", "util-linux");
        let namespaces = match rustix::process::geteuid().is_root() {
            true => "--mount",
            false => "--map-root-user",
        };
        unshare.args([namespaces, "--mount", "sh", "-c", script, "sh"]).arg(&self.dir)
    }

    /// How many entries there are.
    fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// All entries so far; ends the recording.
    fn end(self) -> Vec<Entry> {
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.send_to(END, self.dir.join("socket")).expect("end the recording");
        self.reader.join().expect("the reader ends")
    }
}

/// The fields of an entry: `NAME=VALUE`, or `NAME`, the length in 64 bits and the value.
fn parse(mut bytes: &[u8]) -> Entry {
    let mut fields = Entry::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').expect("a line");
        let line = std::str::from_utf8(&bytes[..end]).expect("a name in UTF-8").to_owned();
        bytes = &bytes[end + 1..];
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => {
                let (len, rest) = bytes.split_first_chunk::<8>().expect("a length");
                let len = usize::try_from(u64::from_le_bytes(*len)).expect("a short value");
                let value = std::str::from_utf8(&rest[..len]).expect("text").to_owned();
                bytes = &rest[len + 1..];
                (line, value)
            }
        };
        assert_eq!(fields.insert(name.clone(), value), None, "{name} twice");
    }
    fields
}

/// Fields that every entry has.
const EVERY: [&str; 8] = [
    "MESSAGE",
    "MESSAGE_ID",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "TARGET",
    "CODE_FILE",
    "CODE_LINE",
    "CODE_MODULE",
];

/// The story as the page prints it: the sentence of each event.
#[track_caller]
fn story(world: &World, entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let kind = KINDS.iter().find(|kind| kind.id == entry["MESSAGE_ID"]).expect("a known id");
        let priority = match kind.level.to_string().as_str() {
            "ERROR" => "3",
            "WARN" => "4",
            _ => "5",
        };
        assert_eq!(entry["SYSLOG_IDENTIFIER"], "update-agent");
        assert_eq!(entry["PRIORITY"], priority, "{}", kind.name);
        for field in entry.keys().map(String::as_str).filter(|field| !EVERY.contains(field)) {
            assert!(kind.fields.contains(&field), "{} has {field}", kind.name);
        }
        text += &format!("{}\n", entry["MESSAGE"]);
    }
    // The page names what a node has where the test has a folder.
    redact(world, &text)
        .replace("oci:<world>/repository:racklet", "docker://updates.example.org/racklet")
        .replace("touch <world>/node/reboot-asked", "systemctl reboot")
}

/// The story that the page prints below a heading.
fn printed(heading: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/journal.md");
    let page = fs::read_to_string(page).expect("read the page");
    let (_, below) = page.split_once(heading).expect("the heading");
    let (_, block) = below.split_once("```text\n").expect("a block");
    block.split_once("```").expect("its end").0.to_owned()
}

/// A node that boots and acts as its boot loader and its daemon do.
fn boot(node: &Node, journal: &Journal) {
    let _slot = node.boot();
    let _ended = journal.run(node.agent_in_words(&["run", "--once"]));
}

#[test]
fn the_journal_tells_a_good_and_a_reverted_update() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    node.reconfigure("mode = \"notify\"", "mode = \"auto\"");

    world.publish_stable("1.1.0", 2);
    let journal = Journal::begin(&world, "good");
    let _ended = journal.run(node.agent_in_words(&["run", "--once"]));
    boot(&node, &journal);
    let entries = journal.end();
    assert_eq!(story(&world, &entries), printed("## A release that works\n"));
    let activated = entries.iter().find(|entry| entry["MESSAGE"].contains("and next")).unwrap();
    assert_eq!((&*activated["UPDATE_VERSION"], &*activated["UPDATE_SLOT"]), ("1.1.0", "b"));
    for moved in ["BYTES_FETCHED", "BYTES_REUSED", "BYTES_WRITTEN"] {
        assert!(activated[moved].parse::<u64>().is_ok_and(|bytes| bytes > 0), "{moved}");
    }

    world.publish_stable("1.2.0", 3);
    let journal = Journal::begin(&world, "bad");
    let _ended = journal.run(node.agent_in_words(&["run", "--once"]));
    node.set_healthy(false);
    for _ in 0..4 {
        boot(&node, &journal);
    }
    let entries = journal.end();
    assert_eq!(story(&world, &entries), printed("## A release that does not work\n"));
    let reverted = entries.last().unwrap();
    assert_eq!((&*reverted["REASON_CODE"], &*reverted["UPDATE_SLOT"]), ("unhealthy", "a"));
}

/// The daemon says what it follows, and a round that fails has its code.
#[test]
fn the_daemon_tells_what_it_follows_and_why_it_failed() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, "docker://127.0.0.1:9/nobody");
    let journal = Journal::begin(&world, "journal");
    let mut daemon = node.agent_in_words(&["run"]).under(journal.wrapper()).start();
    while journal.len() < 2 {
        assert!(daemon.is_running(), "{}", daemon.log());
        thread::sleep(Duration::from_millis(20));
    }
    drop(daemon);
    let entries = journal.end();
    assert_eq!(entries[0]["UPDATE_PRODUCT"], "demo");
    let failed = entries.iter().find(|entry| entry["MESSAGE"].contains("cannot reach")).unwrap();
    assert_eq!(failed["REASON_CODE"], "unreachable");
}

/// systemd's own compiler takes the catalog.
#[test]
fn the_catalog_compiles() {
    let world = World::empty();
    let root = world.path("root");
    let folder = root.join("usr/lib/systemd/catalog");
    fs::create_dir_all(&folder).expect("make a folder");
    fs::create_dir_all(root.join("var/lib/systemd/catalog")).expect("make a folder");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../update-agent/systemd");
    fs::copy(own.join("update-agent.catalog"), folder.join("update-agent.catalog")).expect("copy");
    let journalctl = || tool("journalctl", "systemd").arg(format!("--root={}", root.display()));
    let compiled = journalctl().arg("--update-catalog").ok();
    assert_eq!(compiled.stderr.trim(), "", "what it has to say");
    let listed = journalctl().arg("--dump-catalog").ok().text();
    for kind in KINDS {
        assert!(listed.contains(&format!("-- {}", kind.id)), "{}:\n{listed}", kind.name);
    }
}
