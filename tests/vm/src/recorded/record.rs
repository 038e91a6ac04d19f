//! Making a recording, reading it again, and making it worse.

use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use serde_json::json;

use super::log::{self, Entry};
use super::{Keeper, Recording, SECTOR, env_config, fresh, ranges};
use crate::machine::Machine;
use crate::qmp::{self, Qmp};
use crate::small::{Lab, apply};

/// From the factory's release to the next one, confirmed. With the chooser that is one life of a
/// machine; without it two, and between them the boot loader's part is done here, unrecorded.
pub(super) fn record(lab: &Lab<'_>, keeper: Keeper, logs: &Path) -> Result<()> {
    let disk = lab.dir.join("disk.img");
    lab.disk(&disk, "1.0.0", &keeper.node())?;
    let bundles = lab.bundles(&["1.1.0"])?;
    let applied = |machine: &mut Machine| -> Result<()> {
        machine.expect("@@ready slot=a version=1.0.0")?;
        let said = machine.ok(&apply("1.1.0"))?;
        ensure!(said.contains("\"activated\":true"), "apply said {said}");
        Ok(())
    };
    let confirmed = |machine: &mut Machine| -> Result<()> {
        machine.expect("\"did\":\"confirmed\"")?;
        machine.expect("@@ready slot=b version=1.1.0")?;
        Ok(())
    };
    match keeper {
        Keeper::Tables => life(lab, 1, logs, lab.board(Some(&bundles))?, &|machine| {
            applied(machine)?;
            machine.send("reboot-now")?;
            machine.expect("racklet: slot b, 1.1.0 verified, on trial, 1 tries left")?;
            confirmed(machine)
        })?,
        Keeper::Environment => {
            let loader = lab.dir.join("loader");
            fresh(&loader)?;
            fs::write(loader.join("fw_env.config"), env_config(&disk, ranges()["env"].start))?;
            let factory = loader.join("factory.env");
            fs::write(&factory, "BOOT_ORDER=A\nBOOT_A_LEFT=9999999\nBOOT_B_LEFT=0\n")?;
            // Each run writes one copy.
            for _ in 0..2 {
                let set = Cmd::new("fw_setenv").arg("-c").arg(loader.join("fw_env.config"));
                set.arg("-f").arg(&factory).arg("-s").arg(&factory).run()?;
            }
            fs::write(loader.join("cmdline"), "")?;
            fs::write(loader.join("root.json"), lab.root()?)?;
            let here = lab.host(&loader, &disk, "state", "root.json", &keeper.node())?;
            let boot = || -> Result<String> {
                here.agent(&["boot-select", "--simulate"]).run()?;
                Ok(fs::read_to_string(loader.join("cmdline"))?.trim().to_owned())
            };
            life(lab, 1, logs, lab.direct("1.0.0", &boot()?, Some(&bundles))?, &applied)?;
            life(lab, 2, logs, lab.direct("1.1.0", &boot()?, Some(&bundles))?, &confirmed)?;
        }
    }
    fs::remove_file(&disk)?;
    Ok(())
}

/// One life of a machine on the recorded disk.
fn life(
    lab: &Lab<'_>,
    number: u32,
    logs: &Path,
    mut arguments: Vec<String>,
    story: &dyn Fn(&mut Machine) -> Result<()>,
) -> Result<()> {
    let disk = lab.dir.join("disk.img");
    let base = lab.dir.join(format!("base-{number}.img"));
    Cmd::new("cp").arg("--sparse=always").args([&disk, &base]).run()?;
    let log = lab.dir.join(format!("writes-{number}.log"));
    File::create(&log)?.set_len(1 << 30)?;
    let socket = lab.dir.join("qmp");
    // Flushes go to the log; that they reach this computer's disk is of no use to anybody.
    let nodes = [
        format!("driver=file,node-name=f0,filename={},cache.no-flush=on", disk.display()),
        "driver=raw,node-name=r0,file=f0".to_owned(),
        format!("driver=file,node-name=lg,filename={},cache.no-flush=on", log.display()),
        "driver=blklogwrites,node-name=d0,file=r0,log=lg,log-sector-size=512".to_owned(),
    ];
    for node in nodes {
        arguments.extend(["-blockdev".to_owned(), node]);
    }
    arguments.extend(qmp::arguments(&socket));
    let serial = logs.join(format!("serial-{number}.log"));
    let mut machine = lab.start(arguments, 240, &serial)?;
    story(&mut machine)?;
    machine.ok("sync")?;
    Qmp::connect(&socket, lab.world.life(10))?.execute("quit", &json!({}))?;
    machine.ended()
}

/// The recordings in a folder.
pub(super) fn read(dir: &Path) -> Result<Vec<Recording>> {
    let mut found = Vec::new();
    for number in 1.. {
        let base = dir.join(format!("base-{number}.img"));
        if !base.exists() {
            break;
        }
        let entries = log::read(&dir.join(format!("writes-{number}.log")))?;
        found.push(Recording { base: fs::read(&base)?, entries });
    }
    ensure!(!found.is_empty(), "no recording in {}: make one without --state", dir.display());
    Ok(found)
}

/// What a program would have recorded that flushes too little: the entries whose flushes it lacks.
pub(super) fn faulty(len: u64, entries: &[Entry]) -> Result<Vec<(&'static str, Range<usize>)>> {
    const MIB: u64 = 1 << 20;
    let touches = |entry: &Entry, from: u64, to: u64| {
        let start = entry.first * SECTOR;
        !entry.bytes.is_empty() && start < to && start + entry.bytes.len() as u64 > from
    };
    let slot = ranges()["root-b"].clone();
    let primary = entries.iter().rposition(|entry| touches(entry, 0, MIB));
    let primary = primary.context("the recording has no write of a table")?;
    let backup = entries[..primary].iter().rposition(|entry| touches(entry, len - MIB, len));
    let backup = backup.context("the recording has no write of a backup table")?;
    let content = entries.iter().position(|entry| touches(entry, slot.start, slot.end));
    let content = content.context("the recording has no write of a slot")?;
    let activated = entries[content..].iter().position(|entry| touches(entry, 0, MIB));
    let activated = content + activated.context("nothing was activated")?;
    Ok(vec![
        ("both tables without a flush between", backup..primary),
        ("made next before the slot is flushed", content..activated),
    ])
}
