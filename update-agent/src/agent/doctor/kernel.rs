//! What the configuration asks of the kernel, and whether the running one has it; for `doctor`.
//!
//! | configured | asked of the kernel | option |
//! |---|---|---|
//! | `health.watchdog` below `/dev` | `/sys/class/watchdog` | `CONFIG_WATCHDOG` |
//! | `floor.tpm` below `/dev` | `/sys/class/tpmrm` | `CONFIG_TCG_TPM` |
//! | a slot on `/dev/mtd…` | `/sys/class/mtd` | `CONFIG_MTD` |
//! | `switch = "emmc-boot"` on `/dev/…` | `/sys/class/mmc_host` | `CONFIG_MMC_BLOCK` |
//! | `boot.backend = "systemd-boot"` | `/sys/firmware/efi`, `vfat` in `/proc/filesystems` | `CONFIG_EFI`, `CONFIG_VFAT_FS` |
//! | `boot.verity` | `/sys/module/dm_verity` or `dm_mod` | `CONFIG_DM_VERITY` |

use std::path::Path;

use crate::config::{Backend, Config};
use crate::place::Place;

/// What is missing, each with what to do. `root` is `/`, but for tests.
pub(super) fn missing(root: &Path, config: &Config) -> Vec<String> {
    let there = |path: &str| root.join(path).exists();
    let mut missing = Vec::new();
    let mut need = |wanted: bool, found: bool, who: &str, options: &str| {
        if wanted && !found {
            missing.push(format!("{who} needs {options}: build it in, or load the module at boot"));
        }
    };
    let is_node = |path: &Option<std::path::PathBuf>| {
        path.as_ref().is_some_and(|path| path.starts_with("/dev"))
    };
    let watchdog = is_node(&config.health.watchdog);
    need(
        watchdog,
        there("sys/class/watchdog"),
        "health.watchdog",
        "CONFIG_WATCHDOG and the driver of your board",
    );
    let tpm = is_node(&config.floor.tpm);
    need(tpm, there("sys/class/tpmrm"), "floor.tpm", "CONFIG_TCG_TPM and its driver (TIS, CRB)");
    let on_mtd = |place: &Place| match place {
        Place::Device(own) => own.device.to_string_lossy().starts_with("/dev/mtd"),
        Place::Label(_) => false,
    };
    let mtd = config.slots.a.values().chain(config.slots.b.values()).any(on_mtd);
    need(mtd, there("sys/class/mtd"), "a slot on /dev/mtd…", "CONFIG_MTD and the flash's driver");
    let on_emmc = |place: &Place| match place {
        Place::Device(own) => own.is_emmc_boot() && own.ext_csd.is_none(),
        Place::Label(_) => false,
    };
    let emmc = config.slots.a.values().any(on_emmc);
    let host = "CONFIG_MMC_BLOCK and the host's driver";
    need(emmc, there("sys/class/mmc_host"), "a slot on an eMMC's boot partition", host);
    let efi = config.boot.backend == Backend::SystemdBoot;
    need(efi, there("sys/firmware/efi"), "systemd-boot", "CONFIG_EFI, and a boot by UEFI");
    let systems = std::fs::read_to_string(root.join("proc/filesystems")).unwrap_or_default();
    let vfat = systems.split_ascii_whitespace().any(|word| word == "vfat");
    need(efi, vfat, "the EFI system partition", "CONFIG_VFAT_FS");
    let verity = there("sys/module/dm_verity") || there("sys/module/dm_mod");
    need(config.boot.verity, verity, "boot.verity", "CONFIG_DM_VERITY");
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../update-agent.example.toml");

    #[test]
    fn each_option_is_asked_for_where_it_is_needed() {
        let config = |from: &str, to: &str| {
            assert!(EXAMPLE.contains(from), "{from}");
            Config::parse(&EXAMPLE.replacen(from, to, 1), Path::new("/etc")).unwrap()
        };
        let boot =
            |slot| format!("{{ device = \"/dev/mmcblk0boot{slot}\", switch = \"emmc-boot\" }}");
        let emmc = EXAMPLE.replacen("\"fw-a\"", &boot(0), 1).replacen("\"fw-b\"", &boot(1), 1);
        let emmc = Config::parse(&emmc, Path::new("/etc")).unwrap();
        let rows = [
            (
                "watchdog",
                config("[health]\n", "[health]\nwatchdog = \"/dev/watchdog\"\n"),
                "CONFIG_WATCHDOG",
            ),
            ("tpm", config("[floor]\n", "[floor]\ntpm = \"/dev/tpmrm0\"\n"), "CONFIG_TCG_TPM"),
            (
                "mtd",
                config("firmware = \"fw-b\"", "firmware = { device = \"/dev/mtd1\" }"),
                "CONFIG_MTD",
            ),
            ("emmc", emmc, "CONFIG_MMC_BLOCK"),
            (
                "esp",
                config("#backend = \"gpt-attributes\"", "backend = \"systemd-boot\""),
                "CONFIG_VFAT_FS",
            ),
        ];
        let empty = tempfile::tempdir().unwrap();
        let full = tempfile::tempdir().unwrap();
        for path in [
            "class/watchdog",
            "class/tpmrm",
            "class/mtd",
            "class/mmc_host",
            "firmware/efi",
            "module/dm_mod",
        ] {
            std::fs::create_dir_all(full.path().join("sys").join(path)).unwrap();
        }
        std::fs::create_dir_all(full.path().join("proc")).unwrap();
        std::fs::write(full.path().join("proc/filesystems"), "nodev\tproc\n\tvfat\n").unwrap();
        for (name, config, option) in rows {
            let found = missing(empty.path(), &config);
            assert!(found.iter().any(|text| text.contains(option)), "{name}: {found:?}");
            assert_eq!(missing(full.path(), &config), Vec::<String>::new(), "{name}");
        }
        let plain = Config::parse(EXAMPLE, Path::new("/etc")).unwrap();
        assert_eq!(missing(empty.path(), &plain), Vec::<String>::new(), "nothing is asked for");
    }
}
