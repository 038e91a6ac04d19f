//! What the pages say of four nodes: one that confirms a release, one that reverts, one whose wave comes later, and
//! one without a network.

use std::fs;

use racklet_tests::rig::{Credentials, Done, program};
use serde_json::Value;

use crate::rig::{Fleet, NOW, agrees, counted, documented, id, release, reverts, shell, update};

const NAMES: [&str; 4] = ["confirms", "reverts", "waits", "quiet"];
const SENTENCE: &str = "1.1.0 runs on 1 of 4; 1 waiting; 1 reverted; wave 1 of 2 is open";

#[test]
fn pages_say_what_nodes_say_of_themselves() {
    let fleet = Fleet::new(&NAMES);
    reports_are_turned_on(&fleet);
    nodes_are_approved(&fleet);

    let v2 = release(&fleet.world, "1.1.0", 2);
    let waves = ["--channel", "stable", "--wave", "50%@now", "--wave", "100%@+1d"];
    let _done = fleet.world.publish(&v2, &waves);
    fleet.give_ids("waits");
    update(fleet.node("confirms"));
    fleet.reports("confirms", NOW);
    reverts(fleet.node("reverts"));
    fleet.reports("reverts", NOW);
    fleet.reports("waits", NOW);
    a_stick_is_imported(&fleet);

    let overview = the_first_page(&fleet);
    each_node(&fleet);
    reasons_name_their_nodes(&fleet, &overview);
    a_shell_says_the_same(&fleet, &overview);
}

/// With the line of the document, on each node.
fn reports_are_turned_on(fleet: &Fleet) {
    let on = documented("sed -i");
    let on = on.split(" && ").next().unwrap_or_default();
    for (name, node) in &fleet.nodes {
        let config = node.config().display().to_string();
        let server = ("SERVER:5443", fleet.server().authority.as_str());
        let places = [("/etc/update-agent/update-agent.toml", config.as_str()), server];
        let _done = shell(&fleet.world, on, &places);
        fleet.reports(name, NOW);
    }
    let overview = fleet.page("/fleet/");
    assert_eq!((&overview["nodes"], &overview["waiting_for_approval"]), (&0.into(), &4.into()));
}

/// Who reported, and whose reports count, with the lines of the document.
fn nodes_are_approved(fleet: &Fleet) {
    let place = fleet.dir.display().to_string();
    let list = documented("repo-server fleet list");
    let listed = shell(&fleet.world, &list, &[("/var/lib/repo-server/fleet", &place)]).text();
    for name in NAMES {
        assert!(listed.contains(&format!("  {name}  confirmed 1.0.0  ")), "{listed}");
    }
    let approve = documented("repo-server fleet approve");
    let ids: Vec<String> = fleet.nodes.iter().map(|(_, node)| id(node)[..12].to_owned()).collect();
    let (_, examples) = approve.split_once("/fleet ").expect("names follow the directory");
    let places = [("/var/lib/repo-server/fleet", &*place), (examples, &ids.join(" "))];
    let _done = shell(&fleet.world, &approve, &places);
    let overview = fleet.page("/fleet/");
    assert_eq!(overview["channels"][0]["sentence"], "1.0.0 runs on 4 of 4", "{overview}");
    assert_eq!(overview["sentence"], "nobody needs you");
    for name in NAMES {
        agrees(fleet, name);
    }
}

/// Its network is gone: what it says comes on a stick.
fn a_stick_is_imported(fleet: &Fleet) {
    let stick = fleet.world.path("stick");
    fs::create_dir(&stick).expect("make a folder");
    let stick = format!("{}/", stick.display());
    let quiet = fleet.node("quiet");
    let agent = format!("update-agent --config {} report", quiet.config().display());
    let write = documented("update-agent report -o");
    let places = [("update-agent report", &*agent), ("/media/usb/", &*stick)];
    let _done = shell(&fleet.world, &write, &places);
    let before = fleet.page_of("quiet")["sequence"].as_u64();
    let said = imported(fleet, &stick).text();
    assert!(said.contains(&format!("kept, of node {}", id(quiet))), "{said}");
    assert!(fleet.page_of("quiet")["sequence"].as_u64() > before, "the file is newer");
}

fn imported(fleet: &Fleet, stick: &str) -> Done {
    let place = fleet.dir.display().to_string();
    let import = documented("repo-server fleet import");
    let places = [("/var/lib/repo-server/fleet", &*place), ("/media/usb/", stick)];
    shell(&fleet.world, &import, &places)
}

fn the_first_page(fleet: &Fleet) -> Value {
    let overview = fleet.page("/fleet/");
    assert_eq!(overview["channels"][0]["sentence"], SENTENCE, "{overview}");
    assert_eq!(overview["sentence"], "1 node needs you");
    assert_eq!(counted(&overview, "1.1.0"), [1, 1, 1, 0], "{overview}");
    assert_eq!(counted(&overview, "1.0.0"), [1, 0, 0, 0], "{overview}");
    assert_eq!(overview["channels"][0]["releases"]["1.1.0"]["published"], true);
    let html = fleet.html("/fleet/");
    for text in [SENTENCE, "1 node needs you"] {
        assert!(html.contains(text), "{text:?} is missing:\n{html}");
    }
    overview
}

fn each_node(fleet: &Fleet) {
    for (name, state, about, runs) in [
        ("confirms", "confirmed", "1.1.0", "1.1.0"),
        ("reverts", "reverted", "1.1.0", "1.0.0"),
        ("waits", "waiting", "1.1.0", "1.0.0"),
        ("quiet", "confirmed", "1.0.0", "1.0.0"),
    ] {
        let page = agrees(fleet, name);
        assert_eq!(page["name"], name);
        assert_eq!((&page["state"], &page["release"]), (&state.into(), &about.into()), "{page}");
        assert_eq!(page["runs"], runs, "{page}");
    }
    // In the words of `explain`.
    let page = fleet.page_of("waits");
    let explained = fleet.node("waits").agent(&["explain"]).ok().json();
    assert_eq!((&page["code"], &page["sentence"]), (&"wave".into(), &explained["why"]), "{page}");
    assert_eq!(page["decision"]["until"], explained["until"], "{page}\n{explained}");
}

fn reasons_name_their_nodes(fleet: &Fleet, overview: &Value) {
    for name in ["waits", "reverts"] {
        let code = &fleet.page_of(name)["code"];
        let all = overview["reasons"].as_array().into_iter().flatten();
        let found: Vec<_> = all.filter(|reason| reason["code"] == *code).collect();
        let [found] = &found[..] else { panic!("{overview}") };
        assert_eq!(found["nodes"], Value::from(vec![id(fleet.node(name))]), "{overview}");
    }
}

fn a_shell_says_the_same(fleet: &Fleet, overview: &Value) {
    let authority = &fleet.server().authority;
    let url = format!("https://{authority}");
    let ca = Credentials::of(&fleet.world).ca;
    let ask = |json: &[&str]| {
        let status = program("signer").args(["fleet", "status", "--server", &url, "--ca"]);
        status.arg(&ca).args(json).ok()
    };
    assert_eq!(ask(&["--json"]).json()["channels"], overview["channels"]);
    let text = ask(&[]).text();
    for line in [
        format!("{authority}: 1 node needs you"),
        format!("demo/stable: {SENTENCE}"),
        "  1.1.0  1 confirmed, 1 waiting, 1 reverted".to_owned(),
        "  1.0.0  1 confirmed".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is missing:\n{text}");
    }
    assert!(text.contains(&format!("  1 wave [{}]: ", &id(fleet.node("waits"))[..12])), "{text}");
}
