//! Nodes that lie, that were copied, or whose clock is wrong, and nodes that nobody knows: shown as what they
//! are, and counted for nothing more.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Fixture, exchange, until};
use formats::boot_record::PerSlot;
use formats::report::{Decided, Report, SlotReport};
use racklet_testkit::forge::ForgeKey;
use repo_server::FleetConfig;
use serde_json::Value;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A node that runs a version, and was offered the same one.
fn report(sequence: u64, version: &str) -> Report {
    let slot = SlotReport {
        state: "confirmed".into(),
        version: Some(version.into()),
        ..SlotReport::default()
    };
    Report {
        product: "demo".into(),
        channel: "stable".into(),
        sequence,
        at: now(),
        interval: 3600,
        boot: "boot-1".into(),
        booted: "a".into(),
        standing: "idle".into(),
        slots: PerSlot { a: slot, b: SlotReport::default() },
        decision: Some(Decided {
            version: version.into(),
            code: "up_to_date".into(),
            ..Decided::default()
        }),
        ..Report::default()
    }
}

/// A server, and the command of its operator.
struct Fleet {
    server: Fixture,
    dir: PathBuf,
}

impl Fleet {
    fn new(waiting: usize) -> Self {
        let mut place = PathBuf::new();
        let server = Fixture::with(|config| {
            place = config.dir.with_file_name("fleet");
            config.fleet = Some(FleetConfig { waiting, ..FleetConfig::new(&place) });
        });
        Fleet { server, dir: place }
    }

    fn command(&self, args: &[String]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
        let done = command.arg("fleet").args(args).arg("--fleet").arg(&self.dir).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    fn approve(&self, keys: &[&ForgeKey]) {
        let names = keys.iter().map(|key| key.node().to_hex());
        self.command(&["approve".to_owned()].into_iter().chain(names).collect::<Vec<_>>());
    }

    /// Reports that come on a stick: no pause is needed between those of one node.
    fn import(&self, reports: Vec<(&ForgeKey, Report)>) {
        let mut args = vec!["import".to_owned()];
        for (nth, (key, report)) in reports.into_iter().enumerate() {
            let file = self.server.temp.path().join(format!("{nth}.json"));
            std::fs::write(&file, key.report(report)).unwrap();
            args.push(file.display().to_string());
        }
        self.command(&args);
    }

    fn page(&self, path: &str) -> Value {
        let json = ["Accept: application/json"];
        self.server.ask("GET", path, &json, &[]).expect(200).json()
    }

    fn page_of(&self, key: &ForgeKey) -> Value {
        self.page(&format!("/fleet/nodes/{}", key.node()))
    }
}

#[test]
fn two_machines_with_one_key_are_flagged_and_need_somebody() {
    let fleet = Fleet::new(100);
    let (copied, restarted) = (ForgeKey::new(1), ForgeKey::new(2));
    fleet.approve(&[&copied, &restarted]);
    let boot = |sequence, boot: &str| Report { boot: boot.into(), ..report(sequence, "1.4.1") };
    fleet.import(vec![
        (&copied, boot(1, "x")),
        (&copied, boot(2, "y")),
        (&copied, boot(3, "x")),
        (&restarted, boot(1, "x")),
        (&restarted, boot(2, "y")),
        (&restarted, boot(3, "z")),
    ]);
    assert_eq!(fleet.page_of(&copied)["cloned"], true);
    assert_eq!(fleet.page_of(&restarted)["cloned"], false, "a node restarts as often as it wants");
    assert_eq!(fleet.page("/fleet/")["sentence"], "1 node needs you");
    let listed = fleet.page("/fleet/nodes?state=needs-somebody");
    assert_eq!(listed["nodes"][0]["node"], copied.node().to_hex());
}

#[test]
fn a_clock_that_is_far_off_is_shown_and_changes_nothing_else() {
    let fleet = Fleet::new(100);
    let (ahead, behind, right) = (ForgeKey::new(1), ForgeKey::new(2), ForgeKey::new(3));
    fleet.approve(&[&ahead, &behind, &right]);
    fleet.import(vec![
        (&ahead, Report { at: now() + 30 * 86_400, ..report(1, "1.4.1") }),
        (&behind, Report { at: 0, ..report(1, "1.4.1") }),
        (&right, report(1, "1.4.1")),
    ]);
    let days = |key| fleet.page_of(key)["clock_ahead"].as_i64().unwrap() / 86_400;
    assert!(days(&ahead) >= 29 && days(&behind) < -10_000, "{} {}", days(&ahead), days(&behind));
    assert_eq!(fleet.page_of(&right)["clock_ahead"], Value::Null);
    let all = fleet.page("/fleet/");
    assert_eq!((&all["silent"], &all["need_somebody"]), (&0.into(), &0.into()), "{all}");
    assert_eq!(all["channels"][0]["runs"]["1.4.1"], 3, "{all}");
    // What is expected of them goes by the clock of the server.
    for key in [&ahead, &behind, &right] {
        let page = fleet.page_of(key);
        let seen = page["seen"].as_u64().unwrap();
        assert!(seen.abs_diff(now()) < 86_400, "{page}");
        assert_eq!(page["expected"].as_u64(), Some(seen + 3600), "{page}");
    }
}

#[test]
fn a_release_that_was_never_published_is_marked_and_is_no_headline() {
    let fleet = Fleet::new(100);
    let keys: Vec<ForgeKey> = (1..=4).map(ForgeKey::new).collect();
    fleet.approve(&keys.iter().collect::<Vec<_>>());
    let versions = ["1.4.1", "1.4.1", "1.4.1", "99.0.0"];
    let reports = keys.iter().zip(versions).map(|(key, version)| (key, report(1, version)));
    fleet.import(reports.collect());
    let all = fleet.page("/fleet/");
    let channel = &all["channels"][0];
    assert_eq!(channel["sentence"], "1.4.1 runs on 3 of 4", "{all}");
    assert_eq!(channel["releases"]["99.0.0"]["published"], false, "{all}");
    let html = fleet.server.get("/fleet/").expect(200).body;
    assert!(String::from_utf8(html).unwrap().contains("not published here"));
}

#[test]
fn many_new_nodes_push_out_neither_approved_ones_nor_the_server() {
    let fleet = Fleet::new(10);
    let known = ForgeKey::new(1);
    fleet.approve(&[&known]);
    fleet.import(vec![(&known, report(1, "1.4.1"))]);
    for key in (100..160).map(ForgeKey::new) {
        let target = format!("/fleet/v1/reports/{}", key.node());
        let document = key.report(report(1, "99.0.0"));
        exchange(fleet.server.address(), "PUT", &target, &[], &document).expect(204);
    }
    // What is too much goes after the answer.
    let waiting = || fleet.page("/fleet/")["waiting_for_approval"].as_u64();
    until("all but ten are forgotten", || waiting() == Some(10));
    let all = fleet.page("/fleet/");
    assert_eq!(all["channels"][0]["sentence"], "1.4.1 runs on 1 of 1", "{all}");
    assert_eq!(all["channels"].as_array().map(Vec::len), Some(1), "{all}");
}
