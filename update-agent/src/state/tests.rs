use formats::boot_record::{ReleaseId, TpmSeen};
use formats::digest::Sha256;
use formats::tuf::UnixTime;
use storage::host::System;

use super::*;

fn component() -> ComponentName {
    "bmc".parse().unwrap()
}

/// A state in which every kind of record was written several times.
fn full(dir: &Path) -> State {
    let state = State::open(dir, Arc::new(System)).unwrap();
    let held = state.hold().unwrap();
    for nth in 1..4u64 {
        let record = BootRecord { counting: Some(nth == 3), ..BootRecord::default() };
        state.save_boot_record(&held, &record).unwrap();
        let tpm = Some(TpmSeen { index: 1, base: 1, origin: 1, counter: nth });
        let floor = Floor { security_version: nth, tpm, older_since: None };
        state.save_floor(&held, &floor).unwrap();
        state.save_tpm_secret(&held, &[u8::try_from(nth).unwrap(); 32]).unwrap();
        let stored = Stored {
            known_time: UnixTime::from_secs(i64::try_from(nth).unwrap()),
            ..Stored::default()
        };
        state.save_trust(&held, &stored).unwrap();
        state.write("root", format!("root {nth}").as_bytes()).unwrap();
        let digest = Digest::sha256_of(b"bank");
        let taken = BankBackup { slot: Slot::A, len: nth, digest, erased_since: false };
        state.save_taken(&held, &component(), &taken).unwrap();
        state.remember(&held, event(nth)).unwrap();
        let report = Report { last_success: Some(nth), ..Report::default() };
        state.save_report(&held, &report).unwrap();
        state.save_channel_document(&held, format!("channel {nth}").as_bytes()).unwrap();
        state.save_offline_statement(&held, format!("offline {nth}").as_bytes()).unwrap();
        let began = Began { boot_id: "boot".to_owned(), uptime_ms: nth };
        state.save_probation(&held, &began).unwrap();
        state.save_journal(&held, Some(&journal(nth))).unwrap();
    }
    state
}

fn event(nth: u64) -> HistoryEvent {
    HistoryEvent {
        at: nth,
        event: "confirmed".to_owned(),
        release: None,
        slot: None,
        reason: None,
        detail: String::new(),
    }
}

fn journal(nth: u64) -> Journal {
    let index = Sha256::of(b"release");
    let version = "1.0.0".parse::<formats::version::Version>().unwrap().into();
    let release = ReleaseId { index, version, security_version: 1 };
    Journal { release, slot: Slot::B, fetched: nth, components: Vec::new() }
}

/// Everything that is read of a state.
fn everything(state: &State) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        state.boot_record().unwrap(),
        state.floor_record().unwrap(),
        state.tpm_secret().unwrap(),
        state.trust().unwrap(),
        state.enrolled_root().unwrap(),
        state.taken(&component()).unwrap(),
        state.history().unwrap(),
        state.report(),
        state.channel_document(),
        state.offline_statement(),
        state.probation(),
        state.journal(),
    )
}

/// Of every kind of record, every byte of either copy: nothing that is read changes, `doctor` can name the
/// copy, and the next command that takes the lock makes it whole.
#[test]
fn one_damaged_copy_of_any_record_changes_nothing_and_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let state = full(dir.path());
    let wanted = everything(&state);
    let names = record::names(&state.dir).unwrap();
    assert_eq!(names.len(), 12, "{names:?}");
    for file in names.iter().flat_map(|name| [format!("{name}.0"), format!("{name}.1")]) {
        let path = dir.path().join(&file);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(everything(&state), wanted, "{file}, byte {at}");
        }
        let flaws = state.flaws().unwrap();
        let named = matches!(&flaws[..], [Flaw::Damaged { file: own, .. }] if *own == file);
        assert!(named, "{file}: {flaws:?}");
        drop(state.hold().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), whole, "{file}: mended");
        assert_eq!(state.flaws().unwrap(), []);
    }
}
