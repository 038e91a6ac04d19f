//! `release archive`: old releases leave what every node reads, and stay where they are found.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod program;

use formats::tuf::UnixTime;
use program::Program;
use serde_json::{Value, json};
use signer::commands::status;
use signer::repository::{Access, ClientOptions, open};

const AT: [&str; 4] = ["--repo", "oci:repo", "--keys", "keys"];

/// A repository with releases 1.1 to 1.`last`; channel `stable` offers the last one.
fn repository(last: usize) -> Program {
    let signer = Program::new();
    signer.json(&[&["init"], &AT[..]].concat(), 0);
    std::fs::write(signer.path("os.img"), b"an operating system".repeat(1000)).unwrap();
    (1..=last).for_each(|n| drop(publish(&signer, n)));
    signer
}

#[track_caller]
fn publish(signer: &Program, n: usize) -> Value {
    let version = format!("1.{n}");
    let release = ["publish", "--product", "demo", "--version", &version, "--channel", "stable"];
    let component = ["--component", "os=os.img,hw=cu-v1"];
    signer.json(&[&release, &component[..], &AT].concat(), 0)
}

#[track_caller]
fn run(signer: &Program, command: &[&str], code: i32) -> Value {
    signer.json(&[command, &AT].concat(), code)
}

fn archive(signer: &Program, keep: &str) -> Value {
    run(signer, &["release", "archive", "--keep", keep], 0)
}

/// The role of each release, in their order.
fn roles(signer: &Program) -> Vec<String> {
    let report = run(signer, &["release", "list"], 0);
    let releases = report["releases"].as_array().unwrap();
    releases.iter().map(|it| short(&it["role"])).collect()
}

/// A role's name, without what says that it is a delegated one.
fn short(role: &Value) -> String {
    let role = role.as_str().unwrap().trim_start_matches("delegated role ");
    role.trim_matches('"').to_owned()
}

fn targets_version(report: &Value) -> u64 {
    report["targets_version"].as_u64().unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn old_releases_move_and_everything_still_works_on_them() {
    let signer = repository(6);
    let plan = run(&signer, &["release", "archive", "--keep", "2", "--dry-run"], 0);
    assert_eq!(roles(&signer), ["targets"; 6], "{plan}");
    let report = archive(&signer, "2");
    assert_eq!(
        (&report["what"], &report["changed"]),
        (&json!("archive old releases"), &json!(true))
    );
    assert_eq!(report["warnings"], json!([]), "{report}");
    let recent = "history-recent";
    assert_eq!(roles(&signer), [recent, recent, recent, recent, "targets", "targets"]);
    assert_eq!(archive(&signer, "2")["changed"], false, "there is nothing left to move");
    for check in [["verify", "oci:repo"], ["lint", "oci:repo"]] {
        signer.json(&[&check, &AT[2..]].concat(), 0);
    }

    // A channel goes back to an old one: nodes that follow it find it at once.
    let set = ["channel", "set", "--product", "demo", "--channel", "old", "--release", "1.2"];
    run(&signer, &set, 0);
    assert_eq!(roles(&signer)[1], "targets");
    let withdraw = ["release", "withdraw", "1.1", "--product", "demo", "--because", "loses data"];
    run(&signer, &withdraw, 0);
    let listed = run(&signer, &["release", "list"], 0);
    assert_eq!(listed["releases"][0]["withdrawn"]["because"], "loses data");
    assert_eq!(short(&listed["releases"][0]["role"]), recent);
    let same = publish(&signer, 6);
    assert_eq!(same["changed"], false, "{same}");
    let again = ["publish", "--product", "demo", "--version", "1.3", "--component"];
    let again = [&again[..], &["os=os.img,hw=cu-v1"]].concat();
    assert_eq!(run(&signer, &again, 0)["changed"], false, "published, and archived");
    assert_eq!(
        run(&signer, &["prune", "--keep", "1"], 0)["unlisted"],
        json!(["demo/1.3", "demo/1.4", "demo/1.5"])
    );
    assert_eq!(roles(&signer), [recent, "targets", "targets"]);
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);
}

#[test]
fn publish_moves_what_became_old() {
    let signer = repository(5);
    archive(&signer, "4");
    // More than a quarter of what stays is worth a signature more.
    publish(&signer, 6);
    let recent = "history-recent";
    assert_eq!(roles(&signer), [&[recent][..], &["targets"; 5]].concat());
    publish(&signer, 7);
    assert_eq!(roles(&signer), [&[recent; 3][..], &["targets"; 4]].concat());
    let status = run(&signer, &["status"], 0);
    let versions: Vec<(&str, u64)> = status["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["role"].as_str().unwrap(), it["version"].as_u64().unwrap()))
        .filter(|(role, _)| role.starts_with("history"))
        .collect();
    assert_eq!(versions, [("history", 1), (recent, 2)], "{status}");
    let text = signer.text(&[&["status"], &AT[..]].concat());
    let line = "\n  history   2 roles, first of them history ";
    assert!(text.contains(line), "{text}");
    assert_eq!(text.matches("history-recent").count(), 0, "one line for all: {text}");
}

#[test]
fn signers_are_shown_what_moves_and_sign_it_in_one_ceremony() {
    let signer = repository(12);
    let stage = ["stage", "--out", "change.json", "release", "archive", "--keep", "3"];
    let staged = run(&signer, &stage, 0);
    let text = signer.text(&["status", "change.json", "--keys", "keys"]);
    for line in [
        "~ 9 releases move to delegated role \"history-recent\", unchanged: demo/1.1 to demo/1.9",
        "~ 9 releases come from targets, unchanged: demo/1.1 to demo/1.9",
        "+ delegated role \"history\" may sign for paths \"*/*\"",
        "+ delegated role \"history-recent\" may sign for paths \"*/*\"",
        "+ the newest 3 releases of each product stay in targets",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let roles: Vec<String> =
        staged["signatures"].as_array().unwrap().iter().map(|it| short(&it["role"])).collect();
    assert_eq!(roles, ["targets", "history", "history-recent"], "{staged}");
    let signed = signer.json(&["sign", "change.json", "--keys", "keys"], 0);
    assert_eq!(signed["ready"], true, "{signed}");
    run(&signer, &["commit", "change.json"], 0);
    assert_eq!(self::roles(&signer)[0], "history-recent");
}

#[test]
fn the_history_lasts_as_long_as_targets() {
    let signer = repository(4);
    archive(&signer, "1");
    let expiry = |status: &Value, role: &str| {
        let roles = status["roles"].as_array().unwrap();
        let row = roles.iter().find(|it| it["role"] == role).unwrap();
        // The clock goes on between two programs.
        let days = row["days_left"].as_i64().unwrap() + 1;
        (days / 10 * 10, row["version"].as_u64().unwrap())
    };
    let before = run(&signer, &["status"], 0);
    assert_eq!(expiry(&before, "history"), (90, 1), "{before}");
    let renewed = run(&signer, &["renew", "targets", "--expires", "targets=200d"], 0);
    assert_eq!(targets_version(&renewed), 7, "{renewed}");
    let after = run(&signer, &["status"], 0);
    for role in ["history", "history-recent"] {
        assert_eq!(expiry(&after, role), (200, 2), "{after}");
    }
    run(&signer, &["renew", "history"], 0);
    let after = run(&signer, &["status"], 0);
    assert_eq!((expiry(&after, "history-recent").1, expiry(&after, "targets").1), (3, 7));
    // One word for all of them, five days before they end.
    let roles = after["roles"].as_array().unwrap();
    let role = roles.iter().find(|it| it["role"] == "history-recent").unwrap();
    let then = UnixTime::parse(role["expires"].as_str().unwrap()).unwrap().plus(-5 * 86_400);
    let reference = format!("oci:{}", signer.path("repo").display()).parse().unwrap();
    let registry = open(&reference, Access::Read, &ClientOptions::default()).unwrap();
    let (_, late) = status(registry.as_ref(), None, Some(30), then).unwrap();
    let said = late.unwrap().to_string();
    assert!(said.starts_with("targets, snapshot, timestamp, history expires within "), "{said}");
}

#[test]
fn what_only_this_command_changes() {
    let signer = repository(2);
    archive(&signer, "1");
    signer.json(&["key", "new", "--out", "dave/dave"], 0);
    let keys = ["--role-keys", "dave/dave.pub"];
    for command in [
        &["delegate", "--role", "history", "--path", "x/*"][..],
        &["delegate", "--role", "history-recent", "--path", "x/*"],
        &["delegate", "--role", "history", "--remove"],
        &[&["delegate", "--role", "dave", "--by", "history", "--path", "x/*"], &keys[..]].concat(),
    ] {
        let refused = run(&signer, command, 23);
        assert_eq!(refused["code"], "config", "{command:?}: {refused}");
        assert!(refused["message"].as_str().unwrap().contains("release archive"), "{refused}");
    }
    let usage = signer.run(&[&["release", "archive", "--keep", "0"], &AT[..]].concat());
    assert_eq!(usage.status.code(), Some(2));
}
