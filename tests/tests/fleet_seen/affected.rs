//! `signer fleet affected`: what was signed with releases, and what nodes say they run.

use std::fs;

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{Credentials, Done, Run, program};
use serde_json::{Value, json};

use crate::rig::{Fleet, NOW, release, update};

const XZ: &str = "CVE-2024-3094";
const OTHER: &str = "CVE-2023-0464";

#[test]
fn nodes_with_an_affected_release_are_named() {
    let fleet = Fleet::approved(&["new", "old"]);
    let v2 = release(&fleet.world, "1.1.0", 2);
    let status = "Package: liblzma5\nStatus: install ok installed\nSource: xz-utils\nVersion: 5.6.1-1\n\
                  Architecture: amd64\n";
    let status = file(&fleet, "status", status);
    let vex = file(&fleet, "vex.intoto.json", &signed_vex().to_string());
    let described = ["--channel", "stable", "--dpkg-status", &status, "--provenance", &vex];
    let _done = fleet.world.publish(&v2, &described);
    update(fleet.node("new"));
    fleet.reports("new", NOW);

    // A record of Debian's; the release before has no SBOM.
    let osv = file(&fleet, "osv.json", &record().to_string());
    let answer = asked(&fleet, &[XZ, "--osv", &osv]).exits(Exit::Done).json();
    assert_eq!((&answer["affected"], &answer["unknown"]), (&1.into(), &1.into()), "{answer}");
    let [new, old] = &answer["releases"].as_array().expect("a list")[..] else {
        panic!("{answer}")
    };
    assert_eq!((&new["version"], &new["verdict"]), (&"1.1.0".into(), &"affected".into()), "{new}");
    assert_eq!(new["why"], json!(["liblzma5 5.6.1-1 is listed by osv.json"]), "{new}");
    assert_eq!(names(new), ["new"], "{new}");
    assert_eq!((&old["version"], &old["verdict"]), (&"1.0.0".into(), &"unknown".into()), "{old}");
    assert_eq!((names(old), &old["why"]), (vec!["old".to_owned()], &json!(["it has no SBOM"])));

    // What maintainers know now counts before it.
    let ours = file(&fleet, "ours.json", &vex_of("demo@1.1.0", XZ).to_string());
    let text = in_words(&fleet, &[XZ, "--osv", &osv, "--vex", &ours]).ok().text();
    let wanted = format!(
        "{XZ}: 0 of 2 nodes affected, 1 unknown\n\
         unknown: demo 1.0.0 on 1 node\n  it has no SBOM\n  confirmed: old\n\
         not affected: demo 1.1.0 on 1 node\n  not affected (vulnerable_code_not_present), says ours.json\n  \
         confirmed: new\n"
    );
    assert_eq!(text, wanted);

    // What was signed with the release; nobody has to be asked.
    let answer = asked(&fleet, &[OTHER]).exits(Exit::Done).json();
    let new = &answer["releases"][1];
    assert_eq!((&new["version"], &new["verdict"]), (&"1.1.0".into(), &"not_affected".into()));
    assert_eq!(new["why"][0], "not affected (vulnerable_code_not_present), says vex.intoto.json");
    // A record of something else is refused.
    asked(&fleet, &[OTHER, "--osv", &osv]).refused(Reason::Usage);
}

#[test]
fn a_server_without_reports_says_how_they_are_turned_on() {
    let (world, server) = racklet_tests::rig::RepoServer::with_repository();
    let url = format!("https://{}", server.authority);
    let ca = Credentials::of(&world).ca;
    let status = |url: &str| {
        let status = program("signer").args(["fleet", "status", "--json", "--server", url, "--ca"]);
        status.arg(&ca).finish()
    };
    let refused = status(&url);
    assert!(
        refused.output().contains("this server keeps no reports of nodes"),
        "{}",
        refused.output()
    );
    assert!(refused.output().contains("repo-server serve --fleet DIR"), "{}", refused.output());
    // Nothing was to become visible where one only reads.
    let gone = status("https://127.0.0.1:9");
    assert_eq!(gone.code, i32::from(Exit::Transport.code()), "{}", gone.output());
    assert!(!gone.output().contains("visible"), "{}", gone.output());
}

fn in_words(fleet: &Fleet, words: &[&str]) -> Run {
    let Credentials { ca, token, .. } = Credentials::of(&fleet.world);
    let run = program("signer").args(["fleet", "affected"]).args(words);
    let run = run.arg("--repo").arg(fleet.server().reference()).arg("--ca").arg(ca);
    run.arg("--token-file").arg(token).arg("--root").arg(fleet.world.path("root.json"))
}

fn asked(fleet: &Fleet, words: &[&str]) -> Done {
    in_words(fleet, words).arg("--json").finish()
}

fn names(release: &Value) -> Vec<String> {
    let nodes = release["confirmed"].as_array().into_iter().flatten();
    nodes.filter_map(|node| node["name"].as_str().map(str::to_owned)).collect()
}

fn file(fleet: &Fleet, name: &str, text: &str) -> String {
    let path = fleet.world.path(name);
    fs::write(&path, text).expect("write a document");
    path.display().to_string()
}

/// As osv.dev has Debian's.
fn record() -> Value {
    json!({ "id": "DSA-5649-1", "upstream": [XZ], "affected": [{
        "package": { "ecosystem": "Debian:13", "name": "xz-utils", "purl": "pkg:deb/debian/xz-utils?arch=source" },
        "ranges": [{ "type": "ECOSYSTEM", "events": [
            { "introduced": "5.5.1alpha-0.1" }, { "fixed": "5.6.1+really5.4.5-1" },
        ] }],
    }] })
}

fn vex_of(product: &str, vulnerability: &str) -> Value {
    json!({ "@context": "https://openvex.dev/ns/v0.2.0", "timestamp": "2026-11-30T00:00:00Z", "statements": [{
        "vulnerability": { "name": vulnerability }, "products": [{ "@id": product }],
        "status": "not_affected", "justification": "vulnerable_code_not_present",
    }] })
}

/// As `vexctl attest` makes it.
fn signed_vex() -> Value {
    json!({ "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://openvex.dev/ns/v0.2.0",
        "subject": [{ "name": "demo", "digest": { "sha256": "00".repeat(32) } }],
        "predicate": vex_of("pkg:generic/demo@1.1.0", OTHER) })
}
