use std::sync::Arc;

use super::*;
use crate::block::Window;
use crate::sim::{Disk, Fault, Loss};

const SIZE: u64 = 2048;

fn env_on(disk: &Arc<Disk>, rule: FlagRule) -> UbootEnv<Arc<Disk>> {
    let place = |offset| Place { device: Arc::clone(disk), offset };
    UbootEnv::new(Places::Redundant([place(512), place(4096)]), SIZE, rule)
}

fn copy(order: &str, flag: u8) -> Vec<u8> {
    let mut env = Env::default();
    env.set("BOOT_ORDER", order).unwrap();
    // Long enough that a torn copy is neither the old nor the new one.
    env.set("padding", &order.repeat(700)).unwrap();
    EnvCopy { env, flag }.encode(SIZE, Layout::Redundant).unwrap()
}

fn disk(first: &[u8], second: &[u8]) -> Disk {
    let mut content = vec![0xff; 8192];
    content[512..512 + first.len()].copy_from_slice(first);
    content[4096..4096 + second.len()].copy_from_slice(second);
    Disk::with_content(content, 512)
}

fn change(env: &mut Env) -> Result<(), UbootEnvError> {
    env.set("BOOT_ORDER", "B")?;
    env.set("padding", &"B".repeat(700))
}

fn order(disk: &Arc<Disk>, rule: FlagRule) -> String {
    env_on(disk, rule).load().unwrap().env.get("BOOT_ORDER").unwrap().to_owned()
}

/// Every way in which both copies, or one of them, can be found.
fn starts(rule: FlagRule) -> Vec<(&'static str, Disk)> {
    let erased = vec![0xff; SIZE as usize];
    let (low, high) = match rule {
        FlagRule::Incrementing => (255, 0),
        FlagRule::ActiveObsolete => (0, 1),
    };
    vec![
        ("second newer", disk(&copy("X", low), &copy("A", high))),
        ("first newer", disk(&copy("A", high), &copy("X", low))),
        ("equal flags", disk(&copy("A", 1), &copy("A", 1))),
        ("equal flags, first taken", disk(&copy("A", 1), &copy("X", 1))),
        ("second never written", disk(&copy("A", 1), &erased)),
        ("first torn", disk(&copy("A", 1)[..700], &copy("A", 1))),
    ]
}

#[test]
fn every_power_cut_leaves_the_old_or_the_new_variables() {
    let losses: Vec<Loss> = [Loss::Nothing, Loss::Everything, Loss::TornLast, Loss::OnlyLast]
        .into_iter()
        .chain((0..40).map(Loss::Random))
        .collect();
    let mut states = 0;
    for rule in [FlagRule::Incrementing, FlagRule::ActiveObsolete] {
        for (start, disk) in starts(rule) {
            let content = disk.content();
            let whole = Arc::new(disk);
            assert_eq!(order(&whole, rule), "A", "{start}");
            env_on(&whole, rule).edit(change).unwrap();
            let count = whole.operations().len();
            for cut in 0..=count {
                let running = Disk::with_content(content.clone(), 512);
                let running = Arc::new(running.with_fault(Fault::CutAfter(cut)));
                let done = env_on(&running, rule).edit(change);
                assert_eq!(done.is_ok(), cut == count, "{start}, {rule:?}, cut {cut}");
                for loss in &losses {
                    let name = format!("{start}, {rule:?}, cut {cut} of {count}, {loss:?}");
                    let found = Arc::new(running.after_power_loss(*loss));
                    let known = order(&found, rule);
                    assert!(known == "A" || known == "B", "{name}: {known}");
                    assert!(known == "B" || cut < count, "{name}: lost after it was done");
                    // The next run completes it.
                    env_on(&found, rule).edit(change).unwrap_or_else(|e| panic!("{name}: {e}"));
                    assert_eq!(order(&found, rule), "B", "{name}");
                    states += 1;
                }
            }
        }
    }
    println!("{states} states after a cut");
}

#[test]
fn a_writer_without_the_second_copy_is_caught_by_the_sweep() {
    let disk = Arc::new(disk(&copy("A", 1), &copy("A", 0)));
    disk.write_at(&copy("B", 2), 512).unwrap();
    disk.write_at(&copy("B", 3), 4096).unwrap();
    let lost = (0..200).any(|seed| {
        let found = Arc::new(disk.after_power_loss(Loss::Random(seed)));
        env_on(&found, FlagRule::Incrementing).load().is_err()
    });
    assert!(lost, "no state without an environment was found");
}

#[test]
fn an_environment_that_is_what_it_should_be_is_not_written() {
    let disk = Arc::new(disk(&copy("A", 1), &copy("B", 2)));
    env_on(&disk, FlagRule::Incrementing).edit(change).unwrap();
    assert_eq!(disk.operations(), []);
}

#[test]
fn a_u_boot_with_one_copy_is_noticed_before_any_write() {
    let mut env = Env::default();
    env.set("BOOT_ORDER", "A").unwrap();
    let single = EnvCopy { env, flag: 0 }.encode(SIZE, Layout::Single).unwrap();
    for (first, second) in [(single.clone(), copy("A", 1)), (copy("A", 1), single.clone())] {
        let disk = Arc::new(disk(&first, &second));
        let error = env_on(&disk, FlagRule::Incrementing).edit(change).unwrap_err();
        assert!(matches!(error, UbootStoreError::NotRedundant(_)), "{error}");
        assert_eq!(disk.operations(), []);
    }
    let disk = Arc::new(disk(&single, &[]));
    let place = Place { device: Arc::clone(&disk), offset: 512 };
    let one = UbootEnv::new(Places::Single(place), SIZE, FlagRule::Incrementing);
    assert!(matches!(one.edit(change), Err(UbootStoreError::SingleCopy(_))));
    assert_eq!(disk.operations(), []);
    one.edit_single(change).unwrap();
    assert_eq!(one.load().unwrap().env.get("BOOT_ORDER"), Some("B"));
}

#[test]
fn two_names_of_the_same_bytes_are_noticed_by_the_canary() {
    let disk = Arc::new(disk(&copy("A", 1), &[]));
    let alias = |name| Window::new(Arc::clone(&disk), 512, SIZE, name).unwrap();
    let place = |name| Place { device: alias(name), offset: 0 };
    let places = Places::Redundant([place("mtd1"), place("mtd2")]);
    let env = UbootEnv::new(places, SIZE, FlagRule::Incrementing);
    let error = env.edit(change).unwrap_err();
    assert!(matches!(error, UbootStoreError::SameBytes(_)), "{error}");
    assert_eq!(env.load().unwrap().env.get("BOOT_ORDER"), Some("A"), "nothing was lost");
}

#[test]
fn writes_that_do_not_arrive_are_noticed() {
    for fault in [Fault::LoseAt(0), Fault::FlipAt(0), Fault::LoseAt(2), Fault::FlipAt(2)] {
        let disk = Arc::new(disk(&copy("A", 1), &copy("X", 0)).with_fault(fault));
        let error = env_on(&disk, FlagRule::Incrementing).edit(change).unwrap_err();
        assert_eq!(error.reason(), Reason::Readback, "{fault:?}");
        assert_eq!(order(&disk, FlagRule::Incrementing), "A", "{fault:?}");
    }
}

#[test]
fn nothing_whole_and_nothing_fitting_change_nothing() {
    let empty = Arc::new(disk(&[], &[]));
    let error = env_on(&empty, FlagRule::Incrementing).edit(change).unwrap_err();
    assert_eq!(error.reason(), Reason::BootRecord);
    let full = Arc::new(disk(&copy("A", 1), &copy("X", 0)));
    let error = env_on(&full, FlagRule::Incrementing).edit(|env| env.set("x", &"x".repeat(4000)));
    assert!(matches!(error, Err(UbootStoreError::Env(UbootEnvError::Full { .. }))));
    assert_eq!((empty.operations(), full.operations()), (vec![], vec![]));
}
