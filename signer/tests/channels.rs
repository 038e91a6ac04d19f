//! Channels from the command line: waves, windows, holds and promotions, and what is said of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod program;

use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use formats::tuf::UnixTime;
use program::Program;
use serde_json::{Value, json};

const AT: [&str; 4] = ["--repo", "oci:repo", "--keys", "keys"];
const STABLE: [&str; 4] = ["--product", "demo", "--channel", "stable"];

/// A repository whose channel `stable` offers 1.0.0.
fn repository() -> Program {
    let signer = Program::new();
    signer.json(&[&["init"], &AT[..]].concat(), 0);
    std::fs::write(signer.path("os.img"), b"an operating system".repeat(1000)).unwrap();
    publish(&signer, "1.0.0", &["--channel", "stable"]);
    signer
}

#[track_caller]
fn publish(signer: &Program, version: &str, more: &[&str]) -> Value {
    let release = ["publish", "--product", "demo", "--version", version];
    let component = ["--component", "os=os.img,hw=cu-v1"];
    signer.json(&[&release, &component[..], &AT, more].concat(), 0)
}

#[track_caller]
fn set(signer: &Program, more: &[&str], code: i32) -> Value {
    signer.json(&[&["channel", "set"], &AT[..], &STABLE, more].concat(), code)
}

#[track_caller]
fn show(signer: &Program) -> Value {
    signer.json(&[&["channel", "show"], &AT[..], &STABLE].concat(), 0)
}

/// The same for people.
fn words(signer: &Program, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signer"));
    command.current_dir(signer.dir()).args(arguments).output().unwrap()
}

/// That many hours from now, as it is written.
fn hours(later: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    UnixTime::from_secs(i64::try_from(now).unwrap()).plus(later * 3600).to_string()
}

fn starts(channel: &Value) -> Vec<i64> {
    let waves = channel["waves"].as_array().unwrap().iter();
    waves.map(|wave| UnixTime::parse(wave["start"].as_str().unwrap()).unwrap().secs()).collect()
}

#[test]
fn a_schedule_is_set_shown_and_cleared() {
    let signer = repository();
    let (past, later) = (format!("10%@{}", hours(-2)), format!("60%@{}", hours(2)));
    let window = ["--window", "22:00+4h", "--window", "06:30+90m"];
    let report = set(&signer, &[&["--wave", &past, "--wave", &later], &window[..]].concat(), 0);
    assert_eq!(
        report["what"],
        "channel demo/stable offers 1.0.0 (normal, 2 waves to 60 %, window 22:00+4h, window \
         06:30+1h30m)"
    );
    assert_eq!(report["notes"], json!(["the roll-out stops at 60 %"]));
    let shown = show(&signer);
    assert_eq!(shown["release"], "1.0.0");
    assert_eq!(shown["windows"], json!(["22:00+4h", "06:30+1h30m"]));
    assert_eq!((&shown["share"], &shown["waves_begun"]), (&10.into(), &1.into()));
    assert_eq!(shown["waves"][1]["start"], later.strip_prefix("60%@").unwrap());
    assert!(shown["index"].as_str().unwrap().starts_with("sha256:"), "{shown}");
    assert!(shown["next_opening"].is_string(), "{shown}");
    // What is not named stays; held, nobody may install.
    let held = signer.json(&[&["channel", "hold"], &AT[..], &STABLE].concat(), 0);
    assert_eq!(
        (&held["channel"]["hold"], show(&signer)["share"].as_u64()),
        (&true.into(), Some(0))
    );
    let go_on = signer.json(&[&["channel", "hold", "--off"], &AT[..], &STABLE].concat(), 0);
    let note = "the waves went on while the channel was held: 10 % of the nodes may install now";
    assert_eq!(go_on["notes"][1], note, "{go_on}");
    set(&signer, &["--clear-windows"], 0);
    let shown = show(&signer);
    assert_eq!((&shown["windows"], &shown["waves_begun"]), (&json!([]), &1.into()));
    set(&signer, &["--clear-waves"], 0);
    assert_eq!(
        (show(&signer)["share"].as_u64(), show(&signer)["waves"].clone()),
        (Some(100), json!([]))
    );
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);
}

#[test]
fn what_is_no_schedule_is_usage() {
    let signer = repository();
    let before = show(&signer);
    for wrong in [
        &["--wave", "0%@now"][..],
        &["--wave", "101%@now"],
        &["--wave", "10@now"],
        &["--wave", "10%@yesterday"],
        &["--wave", "10%@-1h"],
        &["--wave", "10%@+900d"],
        &["--wave", "50%@now", "--wave", "20%@+1h"],
        &["--window", "25:00+1h"],
        &["--window", "22:00+25h"],
    ] {
        let refused = set(&signer, wrong, 2);
        assert_eq!(refused["code"], "usage", "{wrong:?}");
        let named = format!("{:?}", wrong.last().unwrap());
        assert!(refused["message"].as_str().unwrap().contains(&named), "{refused}");
    }
    let all = [&["channel", "set"], &AT[..], &STABLE].concat();
    for odd in [["--wave", "10%@now", "--clear-waves"], ["--window", "22:00+4h", "--clear-windows"]]
    {
        assert_eq!(signer.run(&[&all[..], &odd].concat()).status.code(), Some(2), "{odd:?}");
    }
    let release = ["publish", "--product", "demo", "--version", "2.0.0"];
    let component = ["--component", "os=os.img,hw=cu-v1", "--wave", "10%@now"];
    let refused = signer.json(&[&release, &component[..], &AT].concat(), 2);
    assert!(refused["message"].as_str().unwrap().contains("give --channel"), "{refused}");
    assert_eq!(show(&signer), before, "nothing was signed");
}

#[test]
fn waves_start_again_for_the_next_release() {
    let signer = repository();
    let waves = [format!("10%@{}", hours(-3)), format!("100%@{}", hours(-1))];
    set(&signer, &["--wave", &waves[0], "--wave", &waves[1], "--window", "22:00+4h"], 0);
    let old = starts(&show(&signer));
    let before = UnixTime::parse(&hours(0)).unwrap().secs();
    let published = publish(&signer, "1.1.0", &["--channel", "stable"]);
    let note = published["notes"][0].as_str().unwrap();
    assert!(note.starts_with("the waves start again for 1.1.0: 3 h"), "{note}");
    let shown = show(&signer);
    let new = starts(&shown);
    assert!(new[0] >= before && new[0] <= before + 600, "{shown}");
    assert_eq!(new[1] - new[0], old[1] - old[0], "the same distance");
    assert_eq!(shown["windows"], json!(["22:00+4h"]), "windows stay");
    // The same again is nothing to do, and starts nothing again.
    assert_eq!(publish(&signer, "1.1.0", &["--channel", "stable"])["changed"], false);
    assert_eq!(set(&signer, &["--release", "1.1.0"], 0)["changed"], false);
    assert_eq!(starts(&show(&signer)), new);
    // A schedule that has not begun stays where it is; one that is given is taken.
    set(&signer, &["--wave", &format!("10%@{}", hours(5))], 0);
    let ahead = starts(&show(&signer));
    publish(&signer, "1.2.0", &["--channel", "beta"]);
    let promote = ["channel", "promote", "--product", "demo", "--from", "beta", "--to", "stable"];
    let promoted = signer.json(&[&promote[..], &AT].concat(), 0);
    assert_eq!((&promoted["channel"]["release"], starts(&show(&signer))), (&"1.2.0".into(), ahead));
    publish(&signer, "1.3.0", &["--channel", "stable", "--clear-waves"]);
    assert_eq!(show(&signer)["waves"], json!([]));
}

#[test]
fn staged_waves_are_absolute() {
    let signer = repository();
    let change = ["--wave", "10%@now", "--wave", "100%@+1d", "--out", "change.json"];
    let staged =
        signer.json(&[&["stage", "channel", "set"], &AT[..], &STABLE, &change].concat(), 0);
    let lines = staged["sections"][0]["changes"].as_array().unwrap();
    let wave = lines.iter().filter_map(Value::as_str).find(|line| line.contains("10 %")).unwrap();
    signer.json(&["sign", "change.json", "--keys", "keys"], 0);
    signer.json(&[&["commit", "change.json"], &AT[..]].concat(), 0);
    let shown = show(&signer);
    assert!(wave.contains(shown["waves"][0]["start"].as_str().unwrap()), "{wave} {shown}");
}

#[test]
fn a_misspelt_channel_is_noticed() {
    let signer = repository();
    publish(&signer, "1.1.0", &["--channel", "beta"]);
    let typo = ["--product", "demo", "--channel", "stabel"];
    for (arguments, code) in
        [(&["channel", "hold"][..], "target_not_found"), (&["channel", "show"], "target_not_found")]
    {
        let refused = signer.json(&[arguments, &AT, &typo].concat(), 10);
        assert_eq!(refused["code"], code, "{arguments:?}");
        assert_eq!(refused["message"], "demo has no channel stabel; it has beta, stable");
    }
    let promote = |from: &str, to: &str, code| {
        let channels = ["channel", "promote", "--product", "demo", "--from", from, "--to", to];
        signer.json(&[&channels[..], &AT].concat(), code)
    };
    assert_eq!(promote("stabel", "stable", 10)["code"], "target_not_found");
    let made = signer.json(&[&["channel", "set", "--hold"], &AT[..], &typo].concat(), 0);
    let warning = "channel stabel is new; demo has beta, stable; is stable meant?";
    let warnings = made["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|found| found["message"] == warning), "{made}");
    // What is held, or empty, is not promoted.
    assert_eq!(promote("stabel", "stable", 23)["code"], "config");
    signer.json(&[&["channel", "hold", "--off"], &AT[..], &typo].concat(), 0);
    let refused = promote("stabel", "stable", 23);
    assert!(refused["message"].as_str().unwrap().contains("offers no release"), "{refused}");
}

#[test]
fn what_is_signed_is_shown_to_people() {
    let signer = repository();
    let change = ["channel", "set", "--wave", "10%@now", "--wave", "50%@+4h"];
    let output = words(&signer, &[&change, &AT[..], &STABLE].concat());
    let (out, err) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{err}");
    for line in [
        "to be signed: channel demo/stable offers 1.0.0 (normal, 2 waves to 50 %)",
        "  before   1.0.0 (normal)",
        "(now)",
        "(in 4 h)",
        "  note     the roll-out stops at 50 %",
    ] {
        assert!(err.contains(line), "{line:?}: {err}");
    }
    assert!(
        out.starts_with("channel demo/stable offers 1.0.0 (normal, 2 waves to 50 %)\n"),
        "{out}"
    );
    assert!(out.contains("\nnodes see it at their next poll, by default within an hour"), "{out}");
    let output = signer.run(&[&["channel", "hold"], &AT[..], &STABLE].concat());
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));

    let shown = signer.text(&[&["channel", "show"], &AT[..], &STABLE].concat());
    let first = "channel demo/stable offers 1.0.0 (normal, 2 waves to 50 %, HELD); 0 % of the nodes may install now\n";
    assert!(shown.starts_with(first) && shown.contains("hold     HELD"), "{shown}");
    let listed = signer.text(&["channel", "list", "oci:repo", "--root", "keys/root.json"]);
    assert_eq!(format!("{}\n", listed.trim_end()), first, "one line each");
    for product in [&[][..], &["--product", "demo"], &["--product", "other"]] {
        let list = ["channel", "list", "--repo", "oci:repo", "--keys", "keys"];
        let listed = signer.json(&[&list[..], product].concat(), 0);
        let expected = usize::from(product != ["--product", "other"]);
        assert_eq!(listed["channels"].as_array().unwrap().len(), expected, "{product:?}");
    }
    assert_eq!(signer.json(&["channel", "list", "oci:repo"], 2)["code"], "usage");
}
