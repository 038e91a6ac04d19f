//! A trial ends by itself: failed checks, a deadline that belongs to the boot, an agent that dies, a
//! hardware watchdog that is fed only while things go well. And a boot that nobody counted is found.

use std::fs;
use std::time::{Duration, Instant};

use formats::boot_flags::SlotFlags;
use formats::gpt::{Image, TableCopy};
use formats::reason::{Exit, Reason};
use racklet_testkit::random::Random;
use racklet_tests::rig::{CLEAR, Node, TRIES, World, confirmed, trial};
use rustix::process::Signal;
use storage::block::{Access, BlockDevice as _, FileDevice};
use storage::partition_table;

/// A node whose slot b is on trial.
fn on_trial(world: &World) -> Node {
    let node = Node::with_next(world);
    assert_eq!(node.boot(), "b");
    node
}

fn with_watchdog(node: &Node) {
    fs::write(node.path("watchdog"), "").expect("write the watchdog's double");
    node.reconfigure(
        "[health]\n",
        "[health]\nwatchdog = \"watchdog\"\nwatchdog_timeout = \"1s\"\n",
    );
}

fn meals(node: &Node) -> String {
    fs::read_to_string(node.path("watchdog")).expect("read the watchdog's double")
}

#[test]
fn the_watchdog_is_fed_while_the_trial_goes_well_and_released_by_the_confirm() {
    let world = World::with_repository();
    let node = on_trial(&world);
    with_watchdog(&node);
    node.reconfigure("deadline = \"600ms\"", "deadline = \"20s\"");
    node.reconfigure("interval = \"100ms\"", "interval = \"700ms\"");
    let done = node.run_once().exits(Exit::Done).json();
    assert_eq!(done["did"], "confirmed", "{done}");
    let fed = meals(&node);
    assert!(fed.len() > 2 && fed.ends_with("1V") && !fed.contains("V1"), "{fed}");
    // On a boot that is no trial it is only taken off: a chooser may have armed it.
    assert_eq!(node.boot(), "b");
    let _idle = node.run_once();
    assert!(meals(&node).ends_with("1V1V"), "{}", meals(&node));
}

#[test]
fn a_failed_trial_leaves_the_watchdog_hungry() {
    let world = World::with_repository();
    let node = on_trial(&world);
    with_watchdog(&node);
    node.set_healthy(false);
    let done = node.run_once().exits(Exit::Boot).json();
    assert_eq!(done["did"], "trial_failed", "{done}");
    assert!(node.reboot_was_asked());
    let fed = meals(&node);
    assert!(fed.starts_with('1') && !fed.contains('V'), "if the reboot hangs, it fires: {fed}");
}

/// Dead agent: nobody feeds it any more, and nobody has taken it off.
#[test]
fn a_killed_agent_leaves_the_watchdog_hungry() {
    let world = World::with_repository();
    let node = on_trial(&world);
    with_watchdog(&node);
    node.reconfigure("deadline = \"600ms\"", "deadline = \"5m\"");
    node.set_healthy(false);
    let running = node.agent(&["run", "--once"]).start();
    let until = Instant::now() + Duration::from_secs(120);
    while meals(&node).len() < 2 {
        assert!(Instant::now() < until, "never fed");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.kill();
    let fed = meals(&node);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(meals(&node), fed, "nobody feeds it");
    assert!(!fed.contains('V'));
    // The watchdog fires: that boot's try is spent, and after the last one the old slot boots.
    for left in (0..TRIES - 1).rev() {
        assert_eq!(node.boot(), "b");
        node.disk.expect(confirmed(1), trial(left));
    }
    assert_eq!(node.boot(), "a");
    let _settled = node.run_once().exits(Exit::Done);
    let status = node.status();
    assert_eq!(status["failures"][0]["reason"], "unhealthy", "{status}");
    let detail = status["failures"][0]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("before the agent could say why"), "{detail}");
    node.agent(&["apply"]).finish().refused(Reason::FailedBefore);
    let update = node.apply(&["--retry"]);
    assert_eq!(update["activated"], true, "{update}");
}

/// A check that hangs is not fed beyond the deadline, whatever its own timeout.
#[test]
fn a_hanging_check_is_not_fed_beyond_the_deadline() {
    let world = World::with_repository();
    let node = on_trial(&world);
    with_watchdog(&node);
    let healthy = format!("{:?}", node.path("healthy"));
    node.reconfigure(&format!("[\"test\", \"-e\", {healthy}]"), "[\"sleep\", \"600\"]");
    node.reconfigure("timeout = \"5s\"", "timeout = \"10m\"");
    let begun = Instant::now();
    let done = node.run_once().exits(Exit::Boot).json();
    assert_eq!(done["did"], "trial_failed", "{done}");
    // Well before the check itself would end.
    assert!(begun.elapsed() < Duration::from_secs(300));
    assert!(!meals(&node).contains('V') && meals(&node).len() < 8, "{}", meals(&node));
}

/// The deadline is the boot's: an agent that is restarted again and again does not prolong it.
#[test]
fn the_deadline_does_not_begin_anew_with_the_agent() {
    let world = World::with_repository();
    let node = on_trial(&world);
    node.reconfigure("deadline = \"600ms\"", "deadline = \"12s\"");
    node.set_healthy(false);
    let first = node.agent(&["run", "--once"]).start();
    std::thread::sleep(Duration::from_secs(9));
    first.kill();
    let begun = Instant::now();
    let done = node.run_once().exits(Exit::Boot).json();
    assert_eq!(done["did"], "trial_failed", "{done}");
    // With a deadline of its own it would have waited for all of it.
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    // The next boot has a deadline of its own.
    assert_eq!(node.boot(), "b");
    node.set_healthy(true);
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
}

/// Fifty times the power fails at a random moment of a boot: a confirmed slot spends nothing. The seed
/// is printed.
#[test]
fn fifty_power_cycles_at_random_moments_change_nothing() {
    let world = World::with_repository();
    let node = on_trial(&world);
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    let mut random = Random::of_this_run();
    let before = node.disk.content("root-b", 4096);
    for cycle in 0..50 {
        // The chooser, or the agent after it, dies at any moment.
        let command: &[&str] = match random.below(3) {
            0 => &["run", "--once"],
            _ => &["boot-select", "--simulate"],
        };
        let running = node.agent(command).start();
        std::thread::sleep(Duration::from_micros(random.below(12_000) as u64));
        running.kill();
        node.disk.expect(confirmed(1), confirmed(2));
        assert_eq!(node.boot(), "b", "cycle {cycle}");
    }
    node.disk.expect(confirmed(1), confirmed(2));
    assert_eq!(node.disk.content("root-b", 4096), before);
    let _idle = node.run_once().exits(Exit::Done);
}

/// Each boot has to be counted: another boot loader that starts the same slot is found.
#[test]
fn a_boot_that_nobody_counted_refuses_updates_until_the_chooser_is_back() {
    let world = World::with_repository();
    let node = on_trial(&world);
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    world.publish_stable("1.2.0", 3);
    let counted = fs::read_to_string(node.path("cmdline")).expect("read");
    let words = counted.split_whitespace().filter(|word| !word.starts_with("racklet.boot="));
    let uncounted = words.collect::<Vec<_>>().join(" ");
    fs::write(node.path("cmdline"), uncounted).expect("write");
    node.agent(&["apply"]).finish().refused(Reason::CountingInactive);
    let output = node.agent_in_words(&["doctor"]).finish().output();
    let found = output.lines().find(|line| line.starts_with("BAD  boot counting"));
    assert!(found.is_some_and(|line| line.contains("put back the chooser")), "{output}");
    node.disk.expect(confirmed(1), confirmed(2));
    fs::write(node.path("cmdline"), counted).expect("write");
    node.update(&[], "a");
}

/// A boot loader that spends no try: said at once, and the next update is refused.
#[test]
fn a_trial_without_a_try_spent_refuses_the_next_update() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    // A loader that knows the slot and nothing of the flags, from the first boot on.
    let boot = |slot: &str| {
        let boot_id = format!("{}-{slot}", node.path("boot_id").display());
        fs::write(node.path("cmdline"), format!("racklet.slot={slot}\n")).expect("write");
        fs::write(node.path("boot_id"), boot_id).expect("write");
    };
    boot("a");
    world.publish_stable("1.1.0", 2);
    node.apply(&[]);
    boot("b");
    node.disk.expect(confirmed(1), trial(TRIES));
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    world.publish_stable("1.2.0", 3);
    node.agent(&["apply"]).finish().refused(Reason::CountingInactive);
}

#[test]
fn mark_bad_gives_up_what_is_next_what_runs_and_what_is_the_fallback() {
    let world = World::with_repository();
    let node = on_trial(&world);
    // On trial.
    let done = node.agent(&["mark-bad", "--reason", "smells"]).ok().json();
    assert_eq!((&done["given_up"], &done["reboot"]), (&"b".into(), &true.into()), "{done}");
    node.disk.expect(confirmed(1), CLEAR);
    assert_eq!(node.boot(), "a");
    node.agent(&["apply"]).finish().refused(Reason::FailedBefore);
    node.agent(&["mark-bad"]).finish().refused(Reason::NotPending);
    // The fallback of a confirmed slot.
    node.update(&["--retry"], "b");
    world.publish_stable("1.2.0", 3);
    node.update(&[], "a");
    let done = node.agent(&["mark-bad", "--slot", "b"]).ok().json();
    assert_eq!((&done["given_up"], &done["reboot"]), (&"b".into(), &false.into()), "{done}");
    node.disk.expect(confirmed(2), CLEAR);
    node.agent(&["apply", "--version", "1.1.0"]).finish().refused(Reason::VersionRollback);
    // Nothing would be left to boot.
    node.agent(&["mark-bad", "--slot", "a"]).finish().refused(Reason::BootRecord);
    node.disk.expect(confirmed(2), CLEAR);
    // The slot that was bad is usable again.
    world.publish_stable("1.3.0", 4);
    node.update(&[], "b");
}

#[test]
fn what_doctor_says_of_watchdogs() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let doctor = || node.agent_in_words(&["doctor"]).finish().output();
    assert!(doctor().lines().any(|line| line.starts_with("weak watchdog")), "{}", doctor());
    with_watchdog(&node);
    assert!(doctor().lines().any(|line| line.starts_with("ok   watchdog")), "{}", doctor());
    fs::remove_file(node.path("watchdog")).expect("remove");
    assert!(doctor().lines().any(|line| line.starts_with("BAD  watchdog")), "{}", doctor());
}

/// SIGTERM, SIGINT, SIGSTOP with SIGCONT, SIGKILL, at random moments of applies and trials. The seed is
/// printed.
#[test]
fn signals_at_random_moments_leave_a_node_that_works() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let v2 = world.publish_stable("1.1.0", 2);
    let mut random = Random::of_this_run();
    for round in 0..40 {
        let running = node.agent(&["apply"]).start();
        std::thread::sleep(Duration::from_millis(random.below(120) as u64));
        let signal = [Signal::TERM, Signal::INT, Signal::PIPE, Signal::KILL, Signal::STOP];
        let signal = *random.of(&signal);
        running.signal(signal);
        if signal == Signal::STOP {
            std::thread::sleep(Duration::from_millis(random.below(30) as u64));
            running.signal(Signal::CONT);
        }
        let done = running.finish();
        // Whoever ends it, and whenever: one outcome is told, not two.
        let errors = done.stderr.lines().filter(|line| line.starts_with("error[")).count();
        assert!(errors <= 1 && done.text().lines().count() <= 1, "{signal:?}: {}", done.output());
        node.expect_slot("a", &v1);
        node.disk.expect_valid();
        assert_eq!(node.boot(), if node.disk.flags("root-b").priority == 2 { "b" } else { "a" });
        if node.disk.flags("root-b").priority == 2 {
            node.expect_slot("b", &v2);
            println!("next after {round} rounds");
            break;
        }
    }
    if node.disk.flags("root-b").priority != 2 {
        node.apply(&[]);
        assert_eq!(node.boot(), "b");
    }
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    node.expect_slot("b", &v2);
}

/// Hundreds of checks, and a daemon that polls: files, descriptors and memory stay what they were.
#[test]
fn hundreds_of_polls_leave_nothing_behind() {
    let world = World::with_repository();
    let node = on_trial(&world);
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    node.reconfigure("interval = \"1h\"", "interval = \"1s\"");
    let files = |node: &Node| {
        let mut names: Vec<_> = fs::read_dir(node.state())
            .expect("read")
            .flatten()
            .map(|entry| (entry.file_name(), entry.metadata().map_or(0, |found| found.len())))
            // The number of the process that held it, which grows by itself.
            .map(|(name, len)| if name == "lock" { (name, 0) } else { (name, len) })
            .collect();
        names.sort();
        names
    };
    let _first = node.agent(&["check"]).finish();
    let before = files(&node);
    for _ in 0..300 {
        let _poll = node.agent(&["check"]).finish().exits(Exit::Nothing);
    }
    assert_eq!(files(&node), before, "the state does not grow");
    let running = node.agent(&["run"]).start();
    let proc = std::path::PathBuf::from(format!("/proc/{}", running.id()));
    let seen = || {
        let fds = fs::read_dir(proc.join("fd")).map_or(0, Iterator::count);
        let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let rss = rss.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0);
        (fds, rss)
    };
    running.await_idle();
    let (fds, rss) = seen();
    std::thread::sleep(Duration::from_secs(4));
    // A poll may have begun again when we look: what is left behind is there between any two of them.
    let until = Instant::now() + Duration::from_secs(60);
    let (fds_later, rss_later) = loop {
        running.await_idle();
        let (fds_later, rss_later) = seen();
        if fds_later <= fds || Instant::now() > until {
            break (fds_later, rss_later);
        }
    };
    assert!(fds > 0 && fds_later <= fds, "{fds} descriptors, then {fds_later}");
    assert!(rss_later <= rss + 2048, "{rss} kB, then {rss_later}");
    running.kill();
}

/// The units, judged by systemd.
#[test]
fn the_units_are_right_by_systemd_analyze() {
    let workspace = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("in it");
    let folder = workspace.join("update-agent/systemd");
    let dir = tempfile::tempdir().expect("a folder");
    let mut units = Vec::new();
    for entry in fs::read_dir(&folder).expect("read").flatten() {
        // The journal's explanations lie there, too.
        if entry.path().extension().is_some_and(|ext| ext == "catalog") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).expect("read");
        // The program is not installed where the tests run.
        let unit = dir.path().join(entry.file_name());
        fs::write(&unit, text.replace("/usr/bin/update-agent", "/bin/true")).expect("write");
        units.push(unit);
    }
    assert!(units.len() >= 2, "{units:?}");
    let done = racklet_tests::rig::tool("systemd-analyze", "systemd")
        .args(["verify", "--man=no"])
        .args(&units)
        .finish();
    let said: Vec<String> = done
        .output()
        .lines()
        .filter(|line| line.contains("update-agent"))
        .map(str::to_owned)
        .collect();
    assert!(said.is_empty(), "{said:#?}");
}

/// Writes one copy of the partition table alone, with the flags of both slots cleared.
fn clear_flags_of(node: &Node, copy: TableCopy) {
    let device = FileDevice::open(node.disk.path(), Access::Write).expect("open the disk");
    let table = partition_table::load(&device).expect("a table").table;
    let slots = ["root-a", "root-b"].map(|label| table.find(label).expect("a slot"));
    let cleared = slots.map(|one| (one.number, SlotFlags::CLEARED.put_into(one.attributes)));
    let Image { array, array_offset, header, header_offset } =
        table.with_attributes(&cleared).expect("clear the flags").image(copy);
    device.write_at(&array, array_offset).expect("write the table");
    device.write_at(&header, header_offset).expect("write the table");
    device.sync().expect("sync");
}

/// The primary table is whole and says that nothing can be booted; the backup knows better. It is booted
/// from, and only then the primary is written again.
#[test]
fn the_only_table_that_names_a_bootable_slot_counts() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    clear_flags_of(&node, TableCopy::Primary);
    let output = node.agent_in_words(&["doctor"]).finish().output();
    assert!(output.contains("the Primary copy is damaged or differs"), "{output}");
    assert_eq!(node.boot(), "a");
    node.disk.expect(confirmed(1), CLEAR);
    // The same for an edit: it begins with the primary.
    world.publish_stable("1.1.0", 2);
    clear_flags_of(&node, TableCopy::Primary);
    node.update(&[], "b");
    node.disk.expect(confirmed(1), confirmed(2));
}

/// Of a disk on which nothing can be booted a boot changes nothing: rescue finds what there was.
#[test]
fn a_disk_that_names_no_slot_is_not_written() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    clear_flags_of(&node, TableCopy::Primary);
    clear_flags_of(&node, TableCopy::Backup);
    let mut disk = fs::read(node.disk.path()).expect("read the disk");
    disk[512] ^= 1; // the primary's signature
    fs::write(node.disk.path(), &disk).expect("damage the primary table");
    let boot = node.agent(&["boot-select", "--simulate"]).finish();
    boot.refused(Reason::BootRecord);
    assert!(fs::read(node.disk.path()).expect("read the disk") == disk, "something was written");
}
