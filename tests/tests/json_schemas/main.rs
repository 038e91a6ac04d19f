//! What the programs print with `--json` is what `docs/schemas/` says, by Python's jsonschema: every command of
//! the agent, through an update, a revert and the most common errors.

use std::collections::BTreeSet;
use std::fs;

use racklet_tests::rig::{Done, Node, World, program, venv};
use serde_json::{Value, json};

/// Commands that print no JSON.
const TEXT_ONLY: [&str; 2] = ["completions", "help"];

/// What was printed: a name for messages, the definition, the document.
#[derive(Default)]
struct Printed(Vec<(String, String, Value)>);

impl Printed {
    /// Keeps what a command printed on both streams; gives the object.
    fn keep(&mut self, done: &Done) -> Value {
        let document = done.json();
        let command = done.shown.split_whitespace().nth(3).unwrap_or_default();
        let definition = if document["ok"] == true { command } else { "error" };
        self.0.push((done.shown.clone(), definition.to_owned(), document.clone()));
        for line in done.stderr.lines().filter(|line| line.starts_with('{')) {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            let definition = if line.get("note").is_some() { "note" } else { "progress" };
            self.0.push((format!("{} (stderr)", done.shown), definition.to_owned(), line));
        }
        document
    }

    /// Which definitions were met.
    fn definitions(&self) -> BTreeSet<&str> {
        self.0.iter().map(|(_, definition, _)| definition.as_str()).collect()
    }
}

/// The subcommands of a program, as its help lists them.
fn commands(of: &str) -> Vec<String> {
    let help = program(of).arg("--help").ok().text();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let rows = listed.take_while(|line| line.starts_with("  "));
    let names =
        rows.filter(|row| !row.starts_with("   ")).filter_map(|row| row.split_whitespace().next());
    names.map(str::to_owned).filter(|name| !TEXT_ONLY.contains(&name.as_str())).collect()
}

#[test]
fn every_command_of_the_agent_prints_what_its_schema_says() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let mut printed = Printed::default();
    let mut say = |args: &[&str]| printed.keep(&node.agent(args).finish());
    // A new node, and one that has nothing to do.
    for command in
        ["explain", "status", "history", "floor", "verify", "doctor", "check", "plan", "apply"]
    {
        say(&[command]);
    }
    say(&["config", "check"]);
    say(&["health"]);
    say(&["metrics"]);
    say(&["report"]);
    say(&["report", "-o", "-"]);
    say(&["restart-trial"]);
    say(&["map-root", "--wait", "0"]);
    say(&["confirm"]);
    say(&["confirm", "--adopt"]);
    say(&["run", "--once"]);
    // An update.
    world.publish_stable("1.1.0", 2);
    for command in
        ["check", "explain", "plan", "run --once", "apply --stage-only", "status", "apply"]
    {
        say(&command.split(' ').collect::<Vec<_>>());
    }
    say(&["status"]);
    assert_eq!(node.boot(), "b");
    say(&["status"]);
    say(&["apply"]);
    say(&["run", "--once"]);
    say(&["verify"]);
    say(&["confirm"]);
    // One that fails, and what an operator does.
    world.publish_stable("1.2.0", 3);
    say(&["apply"]);
    say(&["boot-select", "--simulate"]);
    node.set_healthy(false);
    say(&["health"]);
    for _ in 0..3 {
        say(&["run", "--once"]);
        say(&["status"]);
        say(&["boot-select", "--simulate"]);
    }
    node.set_healthy(true);
    say(&["run", "--once"]);
    say(&["apply"]);
    say(&["apply", "--version", "9.9.9"]);
    say(&["apply", "nonsense"]);
    say(&["apply", "--retry"]);
    say(&["revert"]);
    say(&["apply", "--retry"]);
    say(&["mark-bad"]);
    say(&["run", "--once"]);
    let history = say(&["history"]);
    assert!(history["events"].as_array().is_some_and(|events| events.len() > 5), "{history}");
    let status = say(&["status"]);
    assert!(status["failures"][0]["at_time"].is_string(), "{status}");
    assert!(status["last_check_time"].is_string(), "{status}");
    say(&["reset"]);
    node.boot();
    say(&["confirm", "--adopt"]);
    say(&["reset", "--yes"]);
    // Mistakes in the file.
    node.reconfigure("product = \"demo\"", "product = \"Demo\"");
    let wrong = say(&["config", "check"]);
    assert_eq!(wrong["code"], "config", "{wrong}");
    node.reconfigure("product = \"Demo\"", "prodct = \"Demo\"");
    let wrong = say(&["status"]);
    assert!(wrong["lines"].is_array(), "{wrong}");

    agree(&world, "update-agent.json", &printed);
    let met = printed.definitions();
    let missing: Vec<String> =
        commands("update-agent").into_iter().filter(|name| !met.contains(name.as_str())).collect();
    // It succeeds in an initramfs only.
    assert_eq!(missing, ["map-root"], "commands of which no success was compared");
}

/// Requires that the documents are as a schema says.
#[track_caller]
fn agree(world: &World, schema: &str, printed: &Printed) {
    let documents = world.path("documents.json");
    let rows: Vec<Value> = printed
        .0
        .iter()
        .map(|(name, definition, document)| json!([name, definition, document]))
        .collect();
    fs::write(&documents, Value::Array(rows).to_string()).expect("write the documents");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schemas/");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/json_schemas/validate.py");
    let done = venv().arg(script).arg(format!("{folder}{schema}")).arg(documents).finish();
    assert_eq!(
        done.code,
        0,
        "docs/schemas/{schema} does not describe what was printed:\n{}",
        done.output()
    );
}
