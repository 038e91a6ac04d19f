//! What is advised can be followed, and what was mistyped is called by its name.

use std::fs;

use formats::reason::Reason;
use racklet_tests::rig::Node;

use super::Offered;

/// What the agent says to a person.
#[track_caller]
fn said(node: &Node, args: &[&str]) -> String {
    node.agent_in_words(args).finish().output()
}

#[test]
fn a_mistyped_file_is_called_one() {
    let it = Offered::new();
    for command in ["apply", "plan"] {
        for (place, reason, words) in [
            ("usb.tra", Reason::Usage, "there is no file or directory \"usb.tra\", and"),
            ("nosuch", Reason::Usage, "there is no file or directory \"nosuch\", and"),
            ("./usb.tra", Reason::Unreachable, "is the name right, and the medium mounted?"),
            ("usb.tar", Reason::Unreachable, "is the name right, and the medium mounted?"),
            ("dockr:host", Reason::Usage, "\"dockr:host\" is not a repository: write docker://"),
        ] {
            let done = it.node.agent(&[command, place]).finish();
            done.refused(reason);
            assert!(done.stderr.contains(words), "{command} {place}: {}", done.stderr);
        }
    }
}

/// The lines of the configuration without its health checks.
fn without_checks(text: &str) -> String {
    let mut inside = false;
    let kept = text.lines().filter(|line| {
        if line.starts_with('[') {
            inside = *line == "[[health.check]]";
        }
        !inside
    });
    kept.map(|line| format!("{line}\n")).collect()
}

#[test]
fn apply_is_advised_where_it_would_work() {
    let it = Offered::new();
    let config = fs::read_to_string(it.node.config()).expect("the configuration");
    let none = without_checks(&config);
    assert_ne!(none, config);
    fs::write(it.node.config(), &none).expect("write the configuration");
    let why = "1.1.0, but `update-agent apply` would refuse it: no health check is configured";
    for command in [&["check"][..], &["explain"]] {
        let text = said(&it.node, command);
        assert!(text.contains(&why.replace("1.1.0", "would install 1.1.0")), "{command:?}: {text}");
    }
    let text = said(&it.node, &["run", "--once"]);
    assert!(text.contains(&why.replace("1.1.0", "1.1.0 is available")), "{text}");
    it.node.agent(&["apply"]).finish().refused(Reason::Config);

    fs::write(it.node.config(), &config).expect("write the configuration");
    for (command, how) in
        [(&["check"][..], "would install 1.1.0"), (&["run", "--once"], "available")]
    {
        let text = said(&it.node, command);
        assert!(text.contains(&format!("{how}: run `update-agent apply`")), "{command:?}: {text}");
    }
    let _applied = it.node.agent(&["apply"]).ok();

    // On trial nothing else is installed.
    it.world.publish_stable("1.2.0", 3);
    assert_eq!(it.node.boot(), "b");
    let text = said(&it.node, &["check"]);
    assert!(
        text.contains("would install 1.2.0, but `update-agent apply` would refuse it"),
        "{text}"
    );
    it.node.agent(&["apply"]).finish().refused(Reason::TrialActive);
}
