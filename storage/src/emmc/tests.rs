use std::sync::Mutex;

use formats::emmc::BootPartition::{Boot0, Boot1};
use formats::emmc::Protection;

use super::*;
use crate::block::Access::{Exclusive, Read};

/// The kernel's folders of a card, and plain files for its nodes.
struct Kernel {
    dir: tempfile::TempDir,
}

impl Kernel {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for boot in ["boot0", "boot1"] {
            let folder = dir.path().join("block/mmcblk0").join(format!("mmcblk0{boot}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("force_ro"), "1\n").unwrap();
            fs::write(dir.path().join(boot), vec![0; 8192]).unwrap();
        }
        fs::create_dir_all(dir.path().join("block/mmcblk0/mmcblk0p1")).unwrap();
        Kernel { dir }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join("block/mmcblk0").join(name)
    }

    fn area(&self, boot: &str) -> BootArea {
        let node = self.dir.path().join(boot);
        BootArea::of(node, &self.folder(&format!("mmcblk0{boot}"))).unwrap()
    }

    fn force_ro(&self, boot: &str) -> String {
        let text = fs::read_to_string(self.folder(&format!("mmcblk0{boot}")).join("force_ro"));
        text.unwrap().trim().to_owned()
    }
}

#[test]
fn a_boot_partition_is_known_by_the_kernels_folders() {
    let kernel = Kernel::new();
    let area = kernel.area("boot1");
    assert_eq!((area.partition, area.card.as_path()), (Boot1, Path::new("/dev/mmcblk0")));
    // A partition, the card, a disk that is merely called so, a partition without the kernel's lock.
    fs::create_dir_all(kernel.folder("other_boot0")).unwrap();
    fs::write(kernel.folder("other_boot0").join("force_ro"), "1").unwrap();
    fs::remove_file(kernel.folder("mmcblk0boot0").join("force_ro")).unwrap();
    for name in ["mmcblk0p1", "other_boot0", "mmcblk0boot0", "."] {
        assert!(BootArea::of(PathBuf::from("/dev/x"), &kernel.folder(name)).is_none(), "{name}");
    }
    assert!(BootArea::at(Path::new("/dev/null")).is_none());
    assert!(BootArea::at(&kernel.dir.path().join("boot0")).is_none(), "a plain file is none");
}

#[test]
fn the_kernel_allows_writes_while_somebody_writes_and_no_longer() {
    let kernel = Kernel::new();
    let area = kernel.area("boot0");
    let device = area.open(Read).unwrap();
    assert_eq!(kernel.force_ro("boot0"), "1", "a reader unlocks nothing");
    drop(device);
    let device = area.open(Exclusive).unwrap();
    assert_eq!((kernel.force_ro("boot0"), kernel.force_ro("boot1")), ("0".into(), "1".into()));
    assert!(area.is_unlocked());
    device.write_at(b"image", 512).unwrap();
    device.sync().unwrap();
    device.write_at(b"x", 8192).unwrap_err();
    drop(device);
    assert_eq!(kernel.force_ro("boot0"), "1", "also after an error");
    assert!(!area.is_unlocked());
    assert_eq!(fs::read(kernel.dir.path().join("boot0")).unwrap()[512..517], *b"image");
    // It cannot be opened: locked again.
    fs::remove_file(kernel.dir.path().join("boot0")).unwrap();
    assert!(matches!(area.open(Exclusive), Err(DeviceError::Missing(_))));
    assert_eq!(kernel.force_ro("boot0"), "1");
    // It cannot be unlocked: nothing is opened.
    fs::write(kernel.dir.path().join("boot0"), vec![0; 8192]).unwrap();
    fs::remove_dir_all(kernel.folder("mmcblk0boot0")).unwrap();
    let Err(error) = area.open(Exclusive) else { panic!("it was opened") };
    assert!(error.to_string().contains("unlock"), "{error}");
}

fn register_file(dir: &Path, config: u8) -> RegisterFile {
    let path = dir.join("ext_csd");
    let mut bytes = [0; EXT_CSD_LEN];
    write_config(&mut bytes, PartitionConfig(config));
    fs::write(&path, bytes).unwrap();
    RegisterFile::over(Box::new(FileDevice::open(&path, Access::Write).unwrap()))
}

#[test]
fn what_boots_is_switched_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = register_file(dir.path(), 0x48);
    enable(&file, Boot1).unwrap();
    assert_eq!(file.read().unwrap().config, PartitionConfig(0x50), "BOOT_ACK is kept");
    enable(&file, Boot0).unwrap();
    assert_eq!(file.read().unwrap().config, PartitionConfig(0x48));
    assert_eq!(file.read().unwrap().protection(Boot0), Protection::Off);
}

/// A card that takes a command and does something else.
struct Stubborn {
    config: Mutex<PartitionConfig>,
    becomes: Option<PartitionConfig>,
    sent: Mutex<u32>,
}

impl Registers for Stubborn {
    fn read(&self) -> Result<ExtCsd, DeviceError> {
        let mut bytes = [0; EXT_CSD_LEN];
        write_config(&mut bytes, *self.config.lock().unwrap());
        Ok(ExtCsd::parse(&bytes))
    }

    fn boot_from(&self, _: PartitionConfig, _: BootPartition) -> Result<(), DeviceError> {
        *self.sent.lock().unwrap() += 1;
        if let Some(config) = self.becomes {
            *self.config.lock().unwrap() = config;
        }
        Ok(())
    }

    fn describe(&self) -> String {
        "a card".to_owned()
    }
}

#[test]
fn a_card_that_did_not_switch_is_not_believed() {
    let card = |becomes| Stubborn {
        config: Mutex::new(PartitionConfig(0x48)),
        becomes,
        sent: Mutex::new(0),
    };
    // Nothing, another partition, the right one without BOOT_ACK.
    for becomes in [None, Some(PartitionConfig(0x78)), Some(PartitionConfig(0x10))] {
        let card = card(becomes);
        let error = enable(&card, Boot1).unwrap_err();
        assert_eq!(error.reason(), formats::reason::Reason::SlotIo, "{becomes:?}");
    }
    // The kernel may have selected a partition since.
    enable(&card(Some(PartitionConfig(0x51))), Boot1).unwrap();
    let done = card(None);
    enable(&done, Boot0).unwrap();
    assert_eq!(*done.sent.lock().unwrap(), 0, "nothing is sent when it boots already");
}
