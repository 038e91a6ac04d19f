//! The systemd units as they are shipped: what systemd says of them, how far each is limited, the commands
//! in them, and that those of the agent do what they promise.
//!
//! That they work together with the example configuration under a real systemd is for `cargo xtask vm
//! --cell units`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use racklet_tests::rig::{Node, Run, World, program, tool};

/// Every folder with units, and the program in them.
const FOLDERS: [(&str, &str); 3] = [
    ("update-agent/systemd", "update-agent"),
    ("signer/systemd", "signer"),
    ("repo-server/systemd", "repo-server"),
];

/// The exposure that `systemd-analyze security` may find, in tenths. Above 20 each unit says why, at its
/// limits: [`what_is_not_limited_has_its_reason`].
const EXPOSURE: [(&str, u32); 9] = [
    ("update-agent.service", 28),
    ("update-agent-confirm.service", 28),
    ("update-agent-doctor.service", 28),
    ("update-agent-trial-failed.service", 14),
    ("update-agent-trial-lost.service", 14),
    ("signer-refresh.service", 13),
    ("signer-alarm.service", 13),
    ("signer-notify@.service", 3),
    ("repo-server.service", 13),
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every unit by its name: the folder's program and the text.
fn units() -> BTreeMap<String, (&'static str, String)> {
    let mut found = BTreeMap::new();
    for (folder, program) in FOLDERS {
        for entry in fs::read_dir(repository().join(folder)).expect("read the units").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if ![".conf", ".catalog", ".env"].iter().any(|other| name.ends_with(other)) {
                let text = fs::read_to_string(entry.path()).expect("read a unit");
                found.insert(name, (program, text));
            }
        }
    }
    found
}

fn unit(name: &str) -> String {
    units().remove(name).unwrap_or_else(|| panic!("no unit {name}")).1
}

/// The values of a setting, in order.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let begin = format!("{key}=");
    text.lines().filter_map(|line| line.strip_prefix(&begin)).collect()
}

/// The units in a folder of their own, our programs where the installed ones need not be.
fn staged(world: &World) -> PathBuf {
    let folder = world.path("units");
    fs::create_dir(&folder).expect("make a folder");
    let here = std::env::current_exe().expect("where this test is");
    let here = here.ancestors().nth(2).expect("target/<profile>/deps/<test>").to_owned();
    for (name, (own, text)) in units() {
        let _built = program(own);
        let installed = format!("/usr/bin/{own}");
        let text = text.replace(&installed, &here.join(own).display().to_string());
        fs::write(folder.join(name), text).expect("write a unit");
    }
    folder
}

#[test]
fn systemd_has_nothing_to_say_of_any_unit_or_drop_in() {
    let world = World::empty();
    let folder = staged(&world);
    // The drop-in where it says that it goes.
    let drop_in = fs::read_to_string(repository().join("update-agent/systemd/state-dir.conf"))
        .expect("read the drop-in");
    for place in ["update-agent.service.d", "update-agent-.service.d"] {
        assert!(drop_in.contains(&format!("/etc/systemd/system/{place}/")), "{place}");
        fs::create_dir(folder.join(place)).expect("make a folder");
        fs::write(folder.join(place).join("state-dir.conf"), &drop_in).expect("write the drop-in");
    }
    for name in units().into_keys() {
        // A template is verified as one of its instances.
        let name = name.replace("@.", "@signer-refresh.service.");
        let verify = tool("systemd-analyze", "systemd").args(["verify", "--man=no"]);
        let done = verify.arg(folder.join(&name)).ok();
        assert_eq!(done.output().trim(), "", "systemd has something to say of {name}");
    }
    // A mistake in the drop-in is found.
    let broken = drop_in.replace("ReadWritePaths=", "ReadWritePath=");
    fs::write(folder.join("update-agent-.service.d/state-dir.conf"), broken).expect("write");
    for name in ["update-agent-confirm", "update-agent-doctor", "update-agent-trial-failed"] {
        let verify = tool("systemd-analyze", "systemd").args(["verify", "--man=no"]);
        let done = verify.arg(folder.join(format!("{name}.service"))).finish();
        assert!(
            done.output().contains("ReadWritePath"),
            "{name} has no drop-in: {}",
            done.output()
        );
    }
}

#[test]
fn every_service_is_limited() {
    let world = World::empty();
    let folder = staged(&world);
    let services: Vec<String> =
        units().into_keys().filter(|name| name.ends_with(".service")).collect();
    assert_eq!(services.len(), EXPOSURE.len(), "each has its line: {services:?}");
    for (name, allowed) in EXPOSURE {
        let security = tool("systemd-analyze", "systemd");
        let security = security.args(["security", "--offline=true", "--no-pager"]);
        let threshold = format!("--threshold={allowed}");
        let done = security.arg(threshold).arg(folder.join(name)).finish();
        let last = done.output().lines().last().unwrap_or_default().to_owned();
        assert!(last.contains("Overall exposure level"), "{name}: {}", done.output());
        let _limited = done.exits_with(0);
    }
}

/// Above 2.0 a unit says of each thing that it may do why it may.
#[test]
fn what_is_not_limited_has_its_reason() {
    for (name, _) in EXPOSURE.iter().filter(|(_, allowed)| *allowed > 20) {
        let text = unit(name);
        let reasons: String = text.lines().filter(|line| line.starts_with('#')).collect();
        for thing in [
            "root",
            "DeviceAllow=",
            "CAP_SYS_ADMIN",
            "CAP_SYS_BOOT",
            "CAP_DAC_READ_SEARCH",
            "@reboot",
            "@privileged",
            "@resources",
            "ProtectProc=",
            "ProcSubset=",
            "network",
            "AF_UNIX",
        ] {
            assert!(reasons.contains(thing), "{name} does not say why {thing}");
        }
    }
}

/// The doctor and the confirm at boot meet what the daemon meets.
#[test]
fn the_agents_units_have_one_set_of_limits() {
    let limits = |name: &str| -> Vec<String> {
        let text = unit(name);
        let begin = text.find("StateDirectory=").expect("where the state is");
        let limits = text[begin..].lines().take_while(|line| *line != "[Install]");
        limits.filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    let daemon = limits("update-agent.service");
    assert!(daemon.len() > 30, "{daemon:?}");
    assert_eq!(limits("update-agent-confirm.service"), daemon);
    assert_eq!(limits("update-agent-doctor.service"), daemon);
}

/// What a unit names is there: other units, and documents as a package installs them.
#[test]
fn what_units_name_exists() {
    let all = units();
    for (name, (_, text)) in &all {
        let documents = values(text, "Documentation");
        assert!(!documents.is_empty(), "{name} has no Documentation=");
        for document in documents {
            let inside = document.strip_prefix("file:///usr/share/doc/racklet-update/");
            let inside = inside.unwrap_or_else(|| panic!("{name}: {document}"));
            assert!(repository().join(inside).is_file(), "{name} names {inside}");
        }
        for key in ["OnFailure", "Conflicts"] {
            for other in values(text, key).iter().flat_map(|line| line.split_whitespace()) {
                let other = other.replace("%n", "");
                assert!(all.contains_key(&other), "{name}: {key}={other}");
            }
        }
        if let Some(timer) = name.strip_suffix(".timer") {
            let own = format!("{timer}.service");
            let started = values(text, "Unit").first().map_or(own, |unit| (*unit).to_owned());
            assert!(all.contains_key(&started), "{name} starts nothing");
        }
    }
    for name in ["update-agent.service", "update-agent-confirm.service"] {
        let text = unit(name);
        let on_failure = values(&text, "OnFailure").join(" ");
        let mut on_failure = on_failure.split_whitespace();
        assert_eq!(on_failure.next(), Some("update-agent-trial-failed.service"), "{name}");
    }
    for name in ["signer-refresh.service", "signer-alarm.service"] {
        assert_eq!(values(&unit(name), "OnFailure"), ["signer-notify@%n.service"]);
        assert!(unit(name).contains("time-sync.target"), "{name} trusts any clock");
    }
}

/// Their commands, as a shell would run them; the repository here needs no token.
#[test]
fn the_signers_units_run() {
    let world = World::with_repository();
    world.publish_stable("1.0.0", 1);
    let place = world.repository().reference();
    let keys = world.path("keys").display().to_string();
    let command = |name: &str| {
        let text = unit(name);
        let found = values(&text, "ExecStart");
        let [line] = found[..] else { panic!("{name} runs {found:?}") };
        let line = line
            .replace("${REPO}", &place)
            .replace("%S/signer/online", &keys)
            .replace(" --token-file %d/push-token", "");
        let words: Vec<String> = line.split_whitespace().skip(1).map(str::to_owned).collect();
        program("signer").args(words.iter().map(String::as_str))
    };
    let _renewed = command("signer-refresh.service").ok();
    let _quiet = command("signer-alarm.service").ok();
    // The alarm repeats nothing, and the renewal fails only when nothing was published.
    assert!(values(&unit("signer-alarm.service"), "Restart").is_empty());
    assert!(!unit("signer-refresh.service").contains("expires-within"));
}

/// Whoever makes the daemon fail five times has not stopped it for good: the timer that its failure begins
/// starts it after the span in which systemd counts.
#[test]
fn an_agent_never_stays_dead() {
    let (service, timer) = (unit("update-agent.service"), unit("update-agent-again.timer"));
    assert_eq!(values(&service, "Restart"), ["on-failure"]);
    let minutes = |text: &str, key: &str| -> u32 {
        let found = values(text, key);
        let [value] = found[..] else { panic!("{key} stands there {found:?}") };
        value.strip_suffix("min").and_then(|n| n.parse().ok()).expect("a number of minutes")
    };
    let counted = minutes(&service, "StartLimitIntervalSec");
    assert!(values(&service, "OnFailure").join(" ").contains("update-agent-again.timer"));
    assert_eq!(values(&timer, "Unit"), ["update-agent.service"]);
    assert!(minutes(&timer, "OnUnitInactiveSec") > counted, "it would be refused again");
    // Stopped by hand, it stays stopped.
    assert_eq!(values(&timer, "PartOf"), ["update-agent.service"]);
}

#[test]
fn a_failed_agent_is_restarted_only_out_of_a_trial() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    world.publish_stable("1.1.0", 2);
    let restarts = node.path("reboot-asked");
    let ask = || {
        let _old = fs::remove_file(&restarts);
        let said = node.agent(&["restart-trial"]).ok().json();
        assert_eq!(said["restarting"] == true, restarts.exists(), "{said}");
        (said["restarting"] == true, said["why"].as_str().unwrap_or_default().to_owned())
    };
    assert!(!ask().0, "nothing is under way");
    node.apply(&[]);
    assert!(!ask().0, "it is next, not on trial");
    assert_eq!(node.boot(), "b");
    assert_eq!(ask(), (true, "this boot is a trial that nobody has confirmed".to_owned()));

    // Its record is damaged: the flags are left, and without the disk the boot loader's word.
    let state = node.path("state");
    let damaged = || {
        let kept: Vec<(PathBuf, Vec<u8>)> = records(&state, "boot-record");
        for (path, bytes) in &kept {
            fs::write(path, &bytes[..bytes.len() / 2]).expect("damage the record");
        }
        let told = ask();
        let (disk, away) = (node.path("disk.img"), node.path("away.img"));
        fs::rename(&disk, &away).expect("move the disk away");
        let blind = ask();
        fs::rename(&away, &disk).expect("move the disk back");
        for (path, bytes) in &kept {
            fs::write(path, bytes).expect("mend the record");
        }
        (told, blind)
    };
    let by_flags = "the slot that runs is not confirmed, and the other one is".to_owned();
    let by_word = "the boot loader said that this boot is a trial".to_owned();
    assert_eq!(damaged(), ((true, by_flags), (true, by_word.clone())));

    node.agent(&["run", "--once"]).ok();
    assert_eq!(ask(), (false, "this boot is no trial".to_owned()), "after the confirm");
    // The boot loader's word is that of the boot, which was a trial.
    let confirmed = "the slot that runs is confirmed".to_owned();
    assert_eq!(damaged(), ((false, confirmed), (true, by_word)));
    // Whatever the agent's trouble is.
    let config = fs::read_to_string(node.config()).expect("read");
    fs::write(node.config(), format!("{config}\nnonsense = ")).expect("write");
    let said = node.agent_in_words(&["restart-trial"]).ok().output();
    assert!(said.contains("nothing is done"), "{said}");
}

/// The files of a record.
fn records(state: &Path, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(state).expect("read the state").flatten().map(|entry| entry.path());
    let own = files.filter(|path| {
        path.file_name().is_some_and(|found| found.to_string_lossy().starts_with(name))
    });
    let found: Vec<_> = own.map(|path| (path.clone(), fs::read(&path).expect("read"))).collect();
    assert!(!found.is_empty(), "no {name} in {}", state.display());
    found
}

/// `doctor` writes nothing and makes nothing, and one cause is told once.
#[test]
fn doctor_only_looks() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    fs::rename(node.path("state"), node.path("elsewhere")).expect("move the state away");
    let before = listing(&node.path("."));
    let said = node.agent_in_words(&["doctor"]).finish().output();
    assert!(said.contains("state") && said.contains("is not there yet"), "{said}");
    assert_eq!(listing(&node.path(".")), before, "doctor made or changed something\n{said}");

    fs::rename(node.path("disk.img"), node.path("away.img")).expect("move the disk away");
    let said = node.agent_in_words(&["doctor"]).finish().output();
    let told = said.lines().filter(|line| line.contains("does not exist")).count();
    assert_eq!(told, 1, "one cause is told once:\n{said}");
    assert!(said.contains("for the same reason as partition table"), "{said}");
}

/// Names, lengths and times of everything below.
fn listing(dir: &Path) -> String {
    let find = Run::new("find").arg(dir).args(["-printf", "%P %s %T@ %C@ %m\n"]).ok().text();
    let mut lines: Vec<&str> = find.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Commands that can never run are found before a release pays for them.
#[test]
fn doctor_finds_commands_that_cannot_run() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let rows = [
        ("missing", "command = [\"/nope/check\"]", "there is no /nope/check"),
        ("one-word", "command = [\"true -x\"]", "write its arguments as separate strings"),
        ("crlf", "command = [\"./crlf.sh\"]", "has line ends of Windows"),
        ("no-x", "command = [\"./plain.sh\"]", "is not executable"),
        ("folder", "free_space = \"/nope\"\nmib = 1", "there is no /nope"),
    ];
    for (name, check, said) in rows {
        let node = Node::from_factory(&world, name, &v1, &world.repository().reference());
        fs::write(node.path("crlf.sh"), "#!/bin/sh\r\nexit 0\r\n").expect("write");
        fs::write(node.path("plain.sh"), "#!/bin/sh\nexit 0\n").expect("write");
        Run::new("chmod").arg("+x").arg(node.path("crlf.sh")).ok();
        let text = fs::read_to_string(node.config()).expect("read");
        let text = format!("{text}\n[[health.check]]\nname = \"own\"\n{check}\n");
        fs::write(node.config(), text).expect("write");
        let done = node.agent_in_words(&["doctor"]).finish();
        let output = done.output();
        let line = output.lines().find(|line| line.starts_with("BAD  health checks"));
        assert!(line.is_some_and(|line| line.contains("own: ") && line.contains(said)), "{output}");
    }
    let node = Node::from_factory(&world, "restart", &v1, &world.repository().reference());
    node.reconfigure("reboot_command = [\"touch\"", "reboot_command = [\"/nope/reboot\"");
    let output = node.agent_in_words(&["doctor"]).finish().output();
    let line = output.lines().find(|line| line.starts_with("BAD  restart"));
    assert!(line.is_some_and(|line| line.contains("there is no /nope/reboot")), "{output}");
}
