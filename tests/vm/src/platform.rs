//! The kinds of machines that are booted: a PC, and an ARMv8 board that is described by a device tree.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use racklet_tools::cache;
use racklet_tools::cmd::Cmd;
use racklet_tools::cross::kernel;
use racklet_tools::debian::foreign::Foreign;

use super::tools::Tools;

/// One kind.
#[derive(Debug)]
pub(super) struct Platform {
    /// QEMU's program.
    pub(super) qemu: &'static str,
    /// How it makes the machine: processor, board, watchdog.
    pub(super) board: &'static [&'static str],
    /// The serial line, as Linux names it.
    pub(super) console: &'static str,
    /// What every kernel is told.
    pub(super) kernel: &'static str,
    /// The hardware id of its releases.
    pub(super) hardware: &'static str,
    /// The line of `[node]` with which the agent knows that.
    pub(super) node: &'static str,
    /// UEFI: its code, and its variables as they leave the factory.
    pub(super) uefi: [&'static str; 2],
    /// Its part of the names of UEFI programs: `BOOTX64.EFI`.
    pub(super) efi: &'static str,
    /// Modules that the chooser loads from its initramfs, of the kernel with drivers as modules.
    pub(super) chooser_modules: &'static [&'static str],
    /// Its kernels with and without built-in drivers; modules that a booted slot loads on each.
    pub(super) slot_modules: &'static [(bool, &'static [&'static str])],
}

/// What every kernel of a PC is told. Without KVM on a busy computer timer interrupts are late, which a
/// kernel that measures them takes for a broken board.
pub(super) const KERNEL: &str = "console=ttyS0 panic=1 quiet no_timer_check";

/// A PC. An old processor is soon emulated: what `max` has to protect itself with costs a quarter of the time.
/// Random numbers must not wait for noise.
pub(super) static PC: Platform = Platform {
    qemu: "usr/bin/qemu-system-x86_64",
    board: &[
        "-cpu",
        "qemu64,+ssse3,+rdrand",
        "-machine",
        "q35",
        "-device",
        "i6300esb",
        "-action",
        "watchdog=reset",
    ],
    console: "ttyS0",
    kernel: KERNEL,
    hardware: super::world::HARDWARE,
    node: "hardware = [\"vm-q35\"]",
    uefi: ["usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"],
    efi: "x64",
    // sha256 may be built in.
    chooser_modules: &[
        "nvme",
        "crc32c_generic",
        "ext4",
        "dm-mod",
        "dm-verity",
        "sha256_generic",
        "i6300esb",
        "tpm_crb",
    ],
    slot_modules: &[
        (
            false,
            &[
                "nvme",
                "crc32c_generic",
                "ext4",
                "i6300esb",
                "tpm_crb",
                "ahci",
                "sd_mod",
                "vfat",
                "nls_cp437",
                "nls_ascii",
            ],
        ),
        (true, &["vfat", "nls_cp437", "nls_ascii"]),
    ],
};

/// An ARMv8 board. Without ACPI its kernel is given the device tree, which names the board, too.
pub(super) static ARM: Platform = Platform {
    qemu: "usr/bin/qemu-system-aarch64",
    board: &["-cpu", "cortex-a72", "-machine", "virt,acpi=off"],
    console: "ttyAMA0",
    kernel: "console=ttyAMA0 panic=1 quiet",
    hardware: "linux.dummy-virt",
    node: "hardware_from = \"/proc/device-tree/compatible\"",
    uefi: ["usr/share/AAVMF/AAVMF_CODE.fd", "usr/share/AAVMF/AAVMF_VARS.fd"],
    efi: "aa64",
    chooser_modules: &[],
    slot_modules: &[(true, &["vfat", "nls_cp437", "nls_ascii", "virtio_pci", "virtio_blk"])],
};

/// The same board with a kernel of our own and a watchdog: Debian's kernels for ARMv8 have no `kexec_file_load`.
pub(super) static ARM_LINUXBOOT: Platform = Platform {
    board: &[
        "-cpu",
        "cortex-a72",
        "-machine",
        "virt,acpi=off",
        "-device",
        "i6300esb",
        "-action",
        "watchdog=reset",
    ],
    slot_modules: &[(false, &[])],
    ..ARM
};

/// Of Debian's packages for ARMv8: what runs in its machines.
const ARM_PACKAGES: &[&str] = &["busybox-static", "systemd-boot-efi"];
/// Of this machine's: what emulates them, and their firmware.
const ARM_EMULATOR: &[&str] = &["qemu-system-arm", "qemu-efi-aarch64"];
/// The metapackage of their kernel.
const ARM_KERNEL: &str = "linux-image-cloud-arm64";

impl Tools {
    /// The same tools for ARMv8 machines.
    pub(super) fn of_arm(&self) -> Result<Tools> {
        let emulator = self.further(ARM_EMULATOR)?;
        let parts = [ARM_PACKAGES, &[ARM_KERNEL]].concat().join(" ");
        let name = format!("{}-arm64-{}", self.name(), cache::digest(&[&parts]));
        let root = cache::entry(&name, |dir| {
            eprintln!("fetching an ARMv8 kernel and what it starts (once) …");
            let foreign = Foreign::of(&dir.join("apt"), "arm64")?;
            let kernel = foreign.depends_on(ARM_KERNEL, "linux-image-")?;
            foreign.unpack(&[ARM_PACKAGES, &[kernel.as_str()]].concat(), dir)?;
            fs::remove_dir_all(dir.join("apt")).context("remove the lists of packages")
        })?;
        Ok(self.with_platform(&ARM, vec![root, emulator]))
    }

    /// The same for an ARMv8 board whose firmware is Linux.
    pub(super) fn of_arm_linuxboot(&self) -> Result<Tools> {
        let arm = self.of_arm()?;
        Ok(arm.with_platform(&ARM_LINUXBOOT, vec![kernel::with_kexec()?]))
    }
}

/// A disk, firmware in flash, and variables of its own.
pub(super) fn uefi(tools: &Tools, vars: &Path) -> Result<Vec<String>> {
    let [code, factory] = tools.platform.uefi.map(|file| tools.file(file));
    // A copy that may be written, whatever the original's mode is.
    Cmd::new("cp").args(["--sparse=always", "--no-preserve=mode"]).arg(factory).arg(vars).run()?;
    let drives = [
        format!("if=pflash,format=raw,readonly=on,file={}", code.display()),
        format!("if=pflash,format=raw,file={}", vars.display()),
    ];
    Ok(drives.into_iter().flat_map(|drive| ["-drive".to_owned(), drive]).collect())
}
