//! The files that make a boot loader start the slots. Pure.

pub mod raspberry_pi;
pub mod uboot;

use formats::boot_record::Slot;
use formats::release::ComponentName;

use super::board::Board;
use super::layout::Layout;
use super::node::{Node, Where};

/// A small file of the boot loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderFile {
    /// Its path on the loader's partition, without a leading slash.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// The files of systemd-boot, by path: what an entry of each slot says, and the entry of slot a, confirmed
/// (`update_agent::boot` on how they are used).
pub fn systemd_boot(board: &Board, node: &Node, layout: &Layout) -> Vec<LoaderFile> {
    let file = |path: &str, text: String| LoaderFile { path: path.to_owned(), text };
    let [a, b] = Slot::BOTH.map(|slot| entry(board, node, layout, slot));
    vec![
        file("loader/entries/racklet-1-a.conf", a.clone()),
        file("loader/loader.conf", "timeout 0\n".to_owned()),
        file("loader/racklet/a.conf", a),
        file("loader/racklet/b.conf", b),
    ]
}

/// What boots a slot.
fn entry(board: &Board, node: &Node, layout: &Layout, slot: Slot) -> String {
    let mut text = format!("title {}, slot {slot}\nsort-key racklet\n", node.product);
    for (key, component) in [("linux", &board.kernel.linux), ("initrd", &board.kernel.initrd)] {
        let of = |file: &&super::layout::EspFile| file.slot == slot && file.component == *component;
        if let Some(file) = layout.esp_files.iter().find(of) {
            text.push_str(&format!("{key} /{}\n", file.path));
        }
    }
    let root = root_words(node, &board.system(&node.boot), slot);
    let mut options = format!("{root}racklet.slot={slot}");
    if !board.kernel.options.is_empty() {
        options = format!("{options} {}", board.kernel.options);
    }
    text.push_str(&format!("options {options}\n"));
    text
}

/// What says where `/` is. The kernel stays in the initramfs of a system that runs from memory: it has none.
fn root_words(node: &Node, system: &ComponentName, slot: Slot) -> String {
    match node.places.get(system).map(|places| places.of(slot)) {
        Some(Where::Path(_)) => String::new(),
        _ => format!("root=PARTLABEL={} ro ", root_label(node, system, slot)),
    }
}

/// The label of a component's partition; nothing where it is none.
fn root_label<'a>(node: &'a Node, name: &ComponentName, slot: Slot) -> &'a str {
    match node.places.get(name).map(|places| places.of(slot)) {
        Some(Where::Partition(label)) => label,
        _ => "",
    }
}
