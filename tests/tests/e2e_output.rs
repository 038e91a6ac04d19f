//! What the agent's commands print, to people and to programs, through one update.

use racklet_tests::rig::{Node, RepoServer, World, program, redact};

#[test]
fn what_people_read() {
    let (world, server) = RepoServer::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &server.reference());
    let mut told = String::new();
    let mut tell = |when: &str, commands: &[&str]| {
        for command in commands {
            let done = node.agent_in_words(&[command]).finish();
            let (code, text) = (done.code, redact(&world, &done.output()));
            // Whether this machine has a watchdog is its own affair.
            let lines = text.lines().filter(|line| !line.contains("watchdog"));
            let lines: Vec<&str> = lines.map(str::trim_end).collect();
            told += &format!("> {command}    ({when}; exit {code})\n{}\n\n", lines.join("\n"));
        }
    };
    tell("factory", &["status", "explain", "history", "doctor"]);
    tell("1.0.0 is offered and runs", &["check"]);
    world.publish_stable("1.1.0", 2);
    tell("1.1.0 is offered", &["check", "plan", "status", "explain"]);
    tell("1.1.0 is offered", &["apply"]);
    tell("1.1.0 is next", &["status", "doctor", "apply"]);
    node.boot();
    tell("1.1.0 is on trial", &["status", "check", "apply"]);
    tell("1.1.0 is on trial", &["confirm"]);
    tell("1.1.0 is confirmed", &["confirm", "status", "history", "verify", "doctor"]);
    insta::assert_snapshot!("what_people_read", told);
}

#[test]
fn what_programs_read() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let _v2 = world.publish_stable("1.1.0", 2);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let mut told = String::new();
    let mut tell = |command: &[&str]| {
        let done = node.agent(command).finish();
        let mut value = done.json();
        // A node's place comes from the digest of the release, as it is cut and packed today.
        if value.get("wave").is_some_and(serde_json::Value::is_u64) {
            value["wave"] = "<share>".into();
        }
        let value = serde_json::to_string_pretty(&value).expect("a value is written");
        told += &format!(
            "> {} (exit {})\n{}\n\n",
            command.join(" "),
            done.code,
            redact(&world, &value)
        );
    };
    tell(&["check"]);
    tell(&["plan"]);
    tell(&["apply", "--stage-only"]);
    tell(&["apply"]);
    node.boot();
    tell(&["run", "--once"]);
    tell(&["status"]);
    tell(&["explain"]);
    tell(&["revert"]);
    tell(&["history"]);
    tell(&["apply", "--version", "9.9.9"]);
    insta::assert_snapshot!("what_programs_read", told);
}

/// The same four lines of each program, without configuration; `-V` is one line. A commit is named only by release
/// builds, see `build_info`.
#[test]
fn every_program_says_what_it_was_built_from() {
    for name in ["signer", "repo-server", "update-agent"] {
        let said = program(name).args(["--version"]).ok().text();
        let lines: Vec<&str> = said.lines().collect();
        let [first, commit, target, features] = lines[..] else { panic!("{name} says {said}") };
        assert_eq!(program(name).args(["-V"]).ok().text().trim_end(), first);
        assert_eq!(first, concat!("NAME ", env!("CARGO_PKG_VERSION")).replace("NAME", name));
        assert!(commit.starts_with("commit    "), "{said}");
        assert!(target.contains("linux"), "{said}");
        let expected = if name == "signer" { "registry pkcs11" } else { "none" };
        assert_eq!(features, format!("features  {expected}"), "{said}");
    }
}
