//! The floor that the TPM keeps, as the chooser sees it. What it means is
//! [`update_core::chooser::ChooserFloor`].

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use update_core::chooser::ChooserFloor;
use update_core::floor::Tpm;

use super::watchdog::Watchdog;
use super::{DISK_POLL, say};
use crate::config::FloorConfig;
use crate::tpm::{Counter, Keys, observe};

/// How long a TPM's node may take to appear after its driver is there.
const NODE_WAIT: Duration = Duration::from_secs(2);
/// How long two commands may take: a TPM that is busy with itself answers within seconds. One that
/// never answers must not keep the machine from booting.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Asks the TPM, and says on the console what it means when it means anything.
pub(super) fn ask(config: &FloorConfig, watchdog: &mut Watchdog) -> ChooserFloor {
    let tpm = answer(config, watchdog);
    let floor = ChooserFloor::of(&tpm);
    match (floor, tpm) {
        (ChooserFloor::Unset, _) => {}
        (ChooserFloor::At(floor), _) => say(format_args!("floor {floor}, by the TPM")),
        (ChooserFloor::Open(gap), tpm) => {
            let why = match tpm {
                Tpm::Unusable(why) => why,
                _ => "none was made yet, or the TPM was cleared".to_owned(),
            };
            say(format_args!("no floor: {}: {why}; booting without", gap.code()));
        }
    }
    floor
}

fn answer(config: &FloorConfig, watchdog: &mut Watchdog) -> Tpm {
    let Some(path) = config.tpm.clone() else { return Tpm::NotConfigured };
    let until = Instant::now() + NODE_WAIT;
    while !path.exists() && Instant::now() < until {
        std::thread::sleep(DISK_POLL);
    }
    let index = config.tpm_index;
    let (tell, told) = channel();
    // On a thread of its own: a driver that hangs cannot be interrupted, only left behind. Passwords
    // are for making and raising counters; reading one needs none.
    let asked = std::thread::Builder::new().spawn(move || {
        let found = match Counter::open(&path, index, Keys::default()) {
            Ok(mut counter) => observe(&mut counter),
            Err(error) => Tpm::Unusable(crate::error::chain_of(&error)),
        };
        // The receiver is gone once the wait has timed out.
        let _ = tell.send(found);
    });
    if let Err(error) = asked {
        return Tpm::Unusable(crate::exhausted::no_thread(&error).chain());
    }
    let until = Instant::now() + ANSWER_WAIT;
    loop {
        watchdog.feed();
        match told.recv_timeout(Duration::from_secs(1)) {
            Ok(found) => return found,
            Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
            Err(_) => {
                let text = format!("it did not answer in {} s", ANSWER_WAIT.as_secs());
                return Tpm::Unusable(text);
            }
        }
    }
}
