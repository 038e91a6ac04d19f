//! What a configuration of the right form must fulfil, too. All that is wrong is told at once.

use std::collections::BTreeSet;
use std::time::Duration;

use formats::emmc::BootPartition;
use formats::release::{ComponentName, is_word};

use super::{Config, SingleBank};
use crate::place::{Device, Place};

/// What products, channels and hardware ids are called.
const WORD: &str =
    "1 to 64 of a-z 0-9 . _ -, starting and ending with a letter or digit, no two marks in a row";

/// 30 days: a server takes a node that says nothing for longer for one that is gone.
const LONGEST_SILENCE: Duration = Duration::from_secs(30 * 86_400);

impl Config {
    /// A sentence for each mistake, in the order of the file's sections.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = self.of_node();
        problems.extend(self.of_sources());
        problems.extend(self.of_boot());
        problems.extend(self.of_slots());
        for (name, single) in &self.single {
            problems.extend(self.of_single(name, single));
        }
        let index = self.floor.tpm_index;
        let own = formats::tpm::OWNER_INDICES;
        if !own.contains(&index) || !own.contains(&(index.saturating_add(1))) {
            problems.push(format!("floor.tpm_index 0x{index:08x} is not 0x01800000 to 0x01bffffe"));
        }
        if self.policy.interval < Duration::from_secs(1) {
            problems.push("policy.interval is below a second".to_owned());
        }
        problems.extend(self.metrics.check().err());
        let between = self.reports.interval;
        if between < Duration::from_secs(60) || between > LONGEST_SILENCE {
            problems.push("reports.interval is not 1 minute to 30 days".to_owned());
        }
        if self.hooks.timeout.is_zero() {
            problems.push("hooks.timeout is 0: every hook would be killed at once".to_owned());
        }
        problems.extend(self.restart_lock.problems());
        problems
    }

    fn of_node(&self) -> Vec<String> {
        let node = &self.node;
        let mut problems = Vec::new();
        problems.extend(no_word("node.product", "product name", &node.product));
        problems.extend(no_word("node.channel", "channel name", &node.channel));
        if node.hardware.is_empty() && node.hardware_from.is_none() {
            problems.push(
                "node.hardware is empty: no release would fit; list its ids, or set \
                 node.hardware_from"
                    .to_owned(),
            );
        }
        for id in &node.hardware {
            problems.extend(no_word("node.hardware:", "hardware id", id));
        }
        problems
    }

    fn of_sources(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for source in &self.sources {
            if let Err(error) = crate::source::check_place(&source.url) {
                problems.push(format!("[[source]] url: {error}"));
            }
            if source.reports && !source.url.starts_with("docker:") {
                problems.push(format!(
                    "[[source]] {}: reports = true needs a server; only docker:// names one",
                    source.url
                ));
            }
            if let Some(Err(error)) = source.proxy.as_deref().map(crate::source::check_proxy) {
                problems.push(format!("[[source]] {error}"));
            }
        }
        problems
    }

    fn of_boot(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let limit = self.boot.backend.tries_limit();
        if !(1..=limit).contains(&self.boot.tries) {
            problems.push(format!("boot.tries = {} is not 1 to {limit}", self.boot.tries));
        }
        for (key, argv) in self.boot.restart_commands() {
            if argv.is_empty() {
                problems.push(format!("{key} is empty; name a command"));
            }
        }
        if self.boot.backend.has_to_be_asked() {
            let label = &self.boot.autoboot;
            let slots = self.slots.a.values().chain(self.slots.b.values());
            if slots.into_iter().any(|place| matches!(place, Place::Label(own) if own == label)) {
                problems.push(format!(
                    "boot.autoboot {label:?} is a partition of a slot; autoboot.txt needs one of its own"
                ));
            }
        }
        if self.boot.reboot_wait < Duration::from_secs(1) {
            problems.push("boot.reboot_wait is below a second".to_owned());
        }
        let forced = self.boot.forced_reboot_command.as_ref().and_then(|argv| argv.first());
        if forced.is_some_and(String::is_empty) {
            problems.push(
                "boot.forced_reboot_command names no program; to have none, write []".to_owned(),
            );
        }
        problems
    }

    fn of_slots(&self) -> Vec<String> {
        let (a, b, component) = (&self.slots.a, &self.slots.b, &self.boot.component);
        let mut problems = Vec::new();
        if !a.keys().eq(b.keys()) {
            problems.push("slots.a and slots.b must list the same components".to_owned());
        } else if !a.contains_key(component) {
            problems.push(format!("boot.component {component} is in no slot: add it to both"));
        }
        problems.extend(self.of_boot_component());
        let mut places = BTreeSet::new();
        for (name, place) in a.iter().chain(b) {
            let identity = place.identity();
            if places.contains(&identity) {
                problems.push(format!(
                    "{identity} is used twice in [slots]; for a board with one bank give {name} a \
                     copy in each slot, and the bank in [single.{name}]"
                ));
            }
            places.insert(identity);
        }
        for (name, single) in &self.single {
            if !places.insert(single.bank.device.display().to_string()) {
                problems.push(format!("the bank of [single.{name}] is used twice"));
            }
        }
        for (name, one) in a {
            let has_switch = |place: &Place| match place {
                Place::Device(own) => own.switch.is_some(),
                Place::Label(_) => false,
            };
            if b.get(name).is_some_and(|other| has_switch(one) != has_switch(other)) {
                problems.push(format!("{name} has a switch in one slot only; it needs both ways"));
            }
            if let (Place::Device(one), Some(Place::Device(other))) = (one, b.get(name)) {
                problems.extend(of_emmc_boot(name, [one, other]));
            }
        }
        problems
    }

    /// A chooser and a Raspberry Pi boot a partition. Other boot loaders read kernel and initrd where their entries
    /// say: the system of a node that runs from memory is a file.
    fn of_boot_component(&self) -> Option<String> {
        let (component, backend) = (&self.boot.component, self.boot.backend);
        let slots = [&self.slots.a, &self.slots.b].into_iter();
        let own = slots.filter_map(|slot| match slot.get(component) {
            Some(Place::Device(own)) => Some(own),
            _ => None,
        });
        let own: Vec<&Device> = own.collect();
        let by_itself = |own: &&Device| own.switch.is_some() || own.runs.is_some();
        if own.is_empty() {
            return None;
        }
        if backend.boots_a_partition() || self.boot.verity {
            let name = backend.name();
            return Some(format!(
                "boot.component {component} must be a partition of boot.disk in both slots for {name}"
            ));
        }
        if own.len() != 2 || own.iter().any(by_itself) {
            return Some(format!(
                "boot.component {component} must be of one kind in both slots, without switch and runs: the boot \
                 flags start it"
            ));
        }
        None
    }

    fn of_single(&self, name: &ComponentName, single: &SingleBank) -> Vec<String> {
        let mut problems = Vec::new();
        let copies = [self.slots.a.get(name), self.slots.b.get(name)];
        let plain = |place: &Option<&Place>| match place {
            Some(Place::Device(own)) => !own.switch.is_some() && own.runs.is_none(),
            Some(Place::Label(_)) => true,
            None => false,
        };
        if *name == self.boot.component || !copies.iter().all(plain) {
            problems.push(format!(
                "[single.{name}] needs a copy of {name} in both slots, without switch and runs, and \
                 another boot.component"
            ));
        }
        if single.bank.switch.is_some() || single.bank.runs.is_some() {
            problems.push(format!("[single.{name}] has one bank: there is nothing to switch"));
        }
        problems
    }
}

/// What both places of a component must be when one is a boot partition of an eMMC.
fn of_emmc_boot(name: &ComponentName, places: [&Device; 2]) -> Option<String> {
    let [one, other] = places;
    if !one.is_emmc_boot() && !other.is_emmc_boot() {
        let stray = places.iter().any(|place| place.ext_csd.is_some());
        return stray.then(|| format!("{name} has ext_csd, which is for switch = \"emmc-boot\""));
    }
    if one.is_emmc_boot() != other.is_emmc_boot() || one.ext_csd != other.ext_csd {
        return Some(format!(
            "{name} needs switch = \"emmc-boot\" in both slots, and one ext_csd or none"
        ));
    }
    if places.iter().any(|place| place.runs.is_some() || place.flash.is_some()) {
        return Some(format!(
            "{name} has runs or flash beside switch = \"emmc-boot\": the card says what boots"
        ));
    }
    let parts = places.map(|place| {
        let text = place.device.to_str()?;
        let partition = BootPartition::of_name(text)?;
        Some((text.strip_suffix(partition.name())?, partition))
    });
    match parts {
        [Some((card, one)), Some((other_card, other))] if card == other_card && one != other => {
            None
        }
        _ => Some(format!(
            "{name} needs boot0 and boot1 of one card, by names that end so: /dev/mmcblk0boot0"
        )),
    }
}

/// Why a text is no name, and the name that is nearest to it.
fn no_word(key: &str, kind: &str, text: &str) -> Option<String> {
    if is_word(text, 64) {
        return None;
    }
    let shown: String = text.chars().take(80).collect();
    let lower: String = text.trim().to_lowercase().replace(' ', "-");
    let meant = match is_word(&lower, 64) {
        true => format!("; is {lower:?} meant?"),
        false => String::new(),
    };
    Some(format!("{key} {shown:?} is not a {kind}: {WORD}{meant}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A node whose slots are files.
    const FILES: &str = r#"
state_dir = "/data/update-agent"
[node]
product = "demo"
hardware = ["board-1"]
[trust]
root = "root.json"
[boot]
backend = "systemd-boot"
disk = "/dev/vda"
component = "initrd"
[slots.a]
kernel = { device = "/efi/racklet/a/vmlinuz" }
initrd = { device = "/efi/racklet/a/initrd.img" }
[slots.b]
kernel = { device = "/efi/racklet/b/vmlinuz" }
initrd = { device = "/efi/racklet/b/initrd.img" }
[health]
accept_no_checks = true
"#;

    #[test]
    fn what_boots_is_a_partition_or_a_file_that_the_boot_loader_reads() {
        let initrd = "initrd = { device = \"/efi/racklet/b/initrd.img\" }";
        let switched = "initrd = { device = \"/efi/racklet/b/initrd.img\", switch = [\"other\"] }";
        let (partition, one_kind) = ("must be a partition", "of one kind in both slots");
        let rows = [
            ("systemd-boot", "", "", None),
            ("GRUB", "systemd-boot", "grub-env", None),
            ("U-Boot", "systemd-boot", "uboot-env", None),
            ("a chooser", "systemd-boot", "gpt-attributes", Some(partition)),
            ("a Raspberry Pi", "systemd-boot", "rpi-tryboot", Some(partition)),
            ("a chooser that verifies", "[boot]", "[boot]\nverity = true", Some(partition)),
            ("a partition in one slot", initrd, "initrd = \"initrd-b\"", Some(one_kind)),
            ("a switch", initrd, switched, Some(one_kind)),
        ];
        for (name, from, to, said) in rows {
            assert!(FILES.contains(from), "{name}: {from}");
            let found = Config::parse(&FILES.replacen(from, to, 1), Path::new("/etc"));
            match (found, said) {
                (Ok(_), None) => {}
                (Err(error), Some(said)) => {
                    assert!(error.to_string().contains(said), "{name}: {error}");
                }
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }
}
