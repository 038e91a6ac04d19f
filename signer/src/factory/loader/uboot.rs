//! U-Boot: its script, the copies of its environment with the flags of the first slot, and where both programs that
//! change them find them. Pure.

use std::fmt::Write as _;

use formats::boot_flags::SlotFlags;
use formats::boot_record::{PerSlot, Slot};
use formats::boot_vars;
use formats::uboot_env::{Env as Variables, EnvCopy, EnvPlace, Layout as EnvLayout, UbootEnvError};
use update_agent::factory::{UBOOT_REDUNDANT, UBOOT_SCRIPT};

use super::super::board::{Board, Env, UBoot};
use super::super::layout::{Holds, Layout};
use super::super::node::Node;
use super::super::plan::FIRST;
use super::root_label;

/// The file with the script on U-Boot's partition.
pub const SCRIPT: &str = "boot.scr";
/// 512 bytes: the blocks that U-Boot counts.
const BLOCK: u64 = 512;

/// The text of the script: what the board is, and the scripts of `update-agent/boot/uboot`.
pub fn script(board: &Board, uboot: &UBoot, env: &Env, node: &Node, layout: &Layout) -> String {
    let (interface, number) = uboot.interface().unwrap_or_default();
    let (options, start) = (&board.kernel.options, &uboot.start);
    let mut text = format!(
        "# Made by `signer factory`.\n{interface} dev {number}\nsetenv bootargs '{options}'\n\
         setenv racklet_type {interface}\nsetenv racklet_start '{start}'\n"
    );
    let system = board.system(&node.boot);
    for slot in Slot::BOTH {
        let part = layout.number(&Holds::Component(system.clone(), slot)).unwrap_or_default();
        let label = root_label(node, &system, slot);
        // U-Boot reads the number of a partition as hexadecimal. Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "setenv racklet_boot_{slot} 'setenv racklet_part {number}:{part:x}; \
             setenv bootargs \"${{bootargs}} root=PARTLABEL={label} ro\"; run racklet_start'"
        );
    }
    if env.initial.is_none() {
        text += &copies(uboot, env, interface);
        text += UBOOT_REDUNDANT;
    }
    text + UBOOT_SCRIPT
}

/// What `redundant.cmd` calls.
fn copies(uboot: &UBoot, env: &Env, interface: &str) -> String {
    let (ram, blocks) = (&uboot.ram, env.size.0.div_ceil(BLOCK));
    let mut text = format!("setenv racklet_ram {ram}\n");
    for ((copy, memory), offset) in [(1, "00000"), (2, "10000")].into_iter().zip(env.offsets()) {
        let block = offset / BLOCK;
        let _ = writeln!(
            text,
            "setenv racklet_read_{copy} '{interface} read 0x{ram}{memory} 0x{block:x} 0x{blocks:x}'\n\
             setenv racklet_write_{copy} '{interface} write 0x{ram}20000 0x{block:x} 0x{blocks:x}'"
        );
    }
    text
}

/// Both copies of the environment: the variables that U-Boot was built with, and slot a confirmed.
pub fn environment(env: &Env, initial: &str) -> Result<[Vec<u8>; 2], UbootEnvError> {
    let mut variables = Variables::default();
    for line in initial.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let wrong = || UbootEnvError::Variable(line.chars().take(80).collect());
        let (name, value) = line.split_once('=').ok_or_else(wrong)?;
        variables.set(name, value)?;
    }
    let flags = PerSlot { a: FIRST, b: SlotFlags::CLEARED };
    for (name, value) in boot_vars::variables(None, flags) {
        variables.set(name, &value)?;
    }
    // The first copy counts, whichever rule compares the flags.
    let copy =
        |flag| EnvCopy { env: variables.clone(), flag }.encode(env.size.0, EnvLayout::Redundant);
    Ok([copy(1)?, copy(0)?])
}

/// The lines of `fw_env.config`.
pub fn env_config(node: &Node, env: &Env) -> String {
    let line =
        |place: EnvPlace| format!("{} 0x{:x} 0x{:x}\n", place.device, place.offset, place.size);
    places(node, env).map(line).concat()
}

/// The same, as it is parsed.
pub fn places(node: &Node, env: &Env) -> [EnvPlace; 2] {
    env.offsets().map(|offset| EnvPlace {
        device: node.disk.display().to_string(),
        offset: i64::try_from(offset).unwrap_or(i64::MAX),
        size: env.size.0,
    })
}
