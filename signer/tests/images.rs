//! What is published can boot: files that are no raw image are refused by the real program, before
//! anything is built, with a command that mends it; `--raw` publishes them and is signed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod program;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use program::Program;
use signer::image::kind;

/// A repository with one release, and what it is made of.
struct Desk(Program);

impl Desk {
    fn new() -> Self {
        let desk = Desk(Program::new());
        desk.0.json(&["init", "--repo", "oci:repo", "--keys", "keys"], 0);
        desk.file("os.img", &noise(100_000));
        desk.publish("1.0.0", &["os=os.img,hw=my-board"], &["--channel", "stable"], 0);
        desk
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.path(name), bytes).unwrap();
    }

    #[track_caller]
    fn publish(
        &self,
        version: &str,
        components: &[&str],
        more: &[&str],
        code: i32,
    ) -> serde_json::Value {
        self.0.json(&self.arguments("publish", version, components, more), code)
    }

    fn arguments<'a>(
        &self,
        command: &'a str,
        version: &'a str,
        components: &[&'a str],
        more: &[&'a str],
    ) -> Vec<&'a str> {
        let start = ["--repo", "oci:repo", "--keys", "keys", "--product", "demo", "--version"];
        let components = components.iter().flat_map(|component| ["--component", component]);
        let command = command.split(' ').chain(start).chain([version]).chain(components);
        command.chain(more.iter().copied()).collect()
    }

    /// Refused with that message and hint; the repository is what it was.
    #[track_caller]
    fn refused(&self, file: &str, message: &str, hint: &str) {
        let before = listing(&self.0.path("repo"));
        let component = format!("os={file},hw=my-board");
        for (command, more) in [("publish", &[][..]), ("stage publish", &["--out", "staged"])] {
            let arguments = self.arguments(command, "99.0.0", &[&component], more);
            let refused = self.0.json(&arguments, 15);
            assert_eq!(refused["code"], "image_refused", "{refused}");
            assert_eq!(refused["message"], message);
            assert_eq!(refused["hint"], hint);
        }
        assert!(!self.0.path("staged").exists());
        assert_eq!(listing(&self.0.path("repo")), before, "{file}: the repository is as before");
    }

    /// Runs a command as a person types it, in the folder of the files.
    #[track_caller]
    fn shell(&self, command: &str) {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let output = Command::new("sh")
            .args(["-ec", command])
            .current_dir(self.0.dir())
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
    }
}

/// Names and lengths of all files below a folder.
fn listing(folder: &Path) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        match metadata.is_dir() {
            true => all.extend(listing(&entry.path())),
            false => all.push((entry.path().display().to_string(), metadata.len())),
        }
    }
    all.sort();
    all
}

/// Bytes that no tool made.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| byte()).collect()
}

fn is_there(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().any(|folder| folder.join(tool).exists())
}

const SLOT: &str = "a slot takes the raw image of one partition";

#[test]
fn an_empty_image_is_refused_and_no_reason_helps() {
    let desk = Desk::new();
    desk.file("empty.img", b"");
    let message =
        "image empty.img is empty: a node that installs it keeps the old system in that slot";
    desk.refused("empty.img", message, "make the image again: its build failed");
    let raw = ["--raw", "os=I mean it"];
    let refused = desk.publish("99.0.0", &["os=empty.img,hw=my-board"], &raw, 15);
    assert_eq!(refused["code"], "image_refused");
}

/// They are published, and it is said: as data, as a hole, with a tree behind them, and when staged.
#[test]
fn nothing_but_zeros_is_said() {
    let desk = Desk::new();
    desk.file("zeros.img", &vec![0; 300_000]);
    fs::File::create(desk.0.path("hole.img")).unwrap().set_len(8 << 20).unwrap();
    let no_more: &[&str] = &[];
    for (number, (file, more)) in
        (2..).zip([("zeros.img", no_more), ("hole.img", &["--verity", "os"])])
    {
        let (version, component) = (format!("{number}.0.0"), format!("os={file},hw=my-board"));
        let line = format!("warning: {file} contains only zeros: no system can boot from it");
        let arguments = desk.arguments("stage publish", &version, &[&component], more);
        let staged =
            desk.0.text(&[&arguments[..], &["--out", &format!("staged-{number}")]].concat());
        assert!(staged.contains(&line), "{staged}");
        let text = desk.0.text(&desk.arguments("publish", &version, &[&component], more));
        assert!(text.contains(&line), "{text}");
        // Again, unchanged: it is no less so.
        let value = desk.publish(&version, &[&component], more, 0);
        assert_eq!(value["changed"], false);
        assert_eq!(value["warnings"][0]["code"], "image_refused", "{value}");
        assert_eq!(value["warnings"][0]["level"], "warning", "{value}");
    }
}

/// Each file is made by the tool that people make it with, is refused, and, where the hint has a
/// command, that command makes a file that is published.
#[test]
fn files_of_the_real_tools_are_refused_and_mended() {
    let desk = Desk::new();
    let image = ["truncate -s 4M fs.img", "mkfs.ext4 -q fs.img"].join(" && ");
    desk.shell(&image);
    let rows = [
        (
            "gzip",
            "gzip -kc fs.img > x.img.gz",
            "x.img.gz",
            "a file compressed with gzip",
            "gzip -dc < x.img.gz > x.img",
        ),
        (
            "xz",
            "xz -0 -kc fs.img > x.img.xz",
            "x.img.xz",
            "a file compressed with xz",
            "xz -dc < x.img.xz > x.img",
        ),
        (
            "xz",
            "xz -0 --format=lzma -kc fs.img > x.lzma",
            "x.lzma",
            "a file compressed with lzma",
            "xz -dc < x.lzma > x.img",
        ),
        (
            "zstd",
            "zstd -q -kc fs.img > x.img.zst",
            "x.img.zst",
            "a file compressed with zstd",
            "zstd -dc < x.img.zst > x.img",
        ),
        (
            "bzip2",
            "bzip2 -kc fs.img > 'my x.bz2'",
            "my x.bz2",
            "a file compressed with bzip2",
            "bzip2 -dc < 'my x.bz2' > 'my x.img'",
        ),
        (
            "lz4",
            "lz4 -q -c fs.img > y.img",
            "y.img",
            "a file compressed with lz4",
            "lz4 -dc < y.img > y.img.raw",
        ),
        (
            "lz4",
            "lz4 -q -l -c fs.img > old.lz4",
            "old.lz4",
            "a file compressed with lz4",
            "lz4 -dc < old.lz4 > old.img",
        ),
        (
            "lzip",
            "lzip -kc fs.img > x.lz",
            "x.lz",
            "a file compressed with lzip",
            "lzip -dc < x.lz > x.img",
        ),
        (
            "lzop",
            "lzop -c fs.img > x.lzo",
            "x.lzo",
            "a file compressed with lzop",
            "lzop -dc < x.lzo > x.img",
        ),
        (
            "qemu-img",
            "qemu-img convert -O qcow2 fs.img x.qcow2",
            "x.qcow2",
            "a virtual disk in qcow format",
            "qemu-img convert -O raw x.qcow2 x.img",
        ),
        (
            "qemu-img",
            "qemu-img convert -O vmdk fs.img x.vmdk",
            "x.vmdk",
            "a virtual disk in VMDK format",
            "qemu-img convert -f vmdk -O raw x.vmdk x.img",
        ),
        (
            "qemu-img",
            "qemu-img convert -O vdi fs.img x.vdi",
            "x.vdi",
            "a virtual disk in VDI format",
            "qemu-img convert -f vdi -O raw x.vdi x.img",
        ),
        (
            "qemu-img",
            "qemu-img convert -O vhdx fs.img x.vhdx",
            "x.vhdx",
            "a virtual disk in VHDX format",
            "qemu-img convert -f vhdx -O raw x.vhdx x.img",
        ),
        (
            "qemu-img",
            "qemu-img convert -O vpc fs.img x.vhd",
            "x.vhd",
            "a virtual disk in VHD format",
            "qemu-img convert -f vpc -O raw x.vhd x.img",
        ),
        (
            "qemu-img",
            "qemu-img convert -O vpc -o subformat=fixed fs.img f.vhd",
            "f.vhd",
            "a virtual disk in VHD format",
            "qemu-img convert -f vpc -O raw f.vhd f.img",
        ),
        (
            "img2simg",
            "img2simg fs.img x.simg",
            "x.simg",
            "an Android sparse image",
            "simg2img x.simg x.img",
        ),
    ];
    let mut tried = 0;
    for (number, (tool, make, file, what, command)) in (2..).zip(rows) {
        if !is_there(tool) {
            continue;
        }
        desk.shell(make);
        let message = format!("image {file} is {what}; {SLOT}");
        let hint = format!("run `{command}`; if it is right as it is: --raw NAME=REASON");
        desk.refused(file, &message, &hint);
        desk.shell(command);
        let made = command.rsplit([' ', '>']).next().unwrap().trim_matches('\'');
        let made = if file.contains(' ') { "my x.img" } else { made };
        let component = format!("os={made},hw=my-board");
        desk.publish(&format!("{number}.0.0"), &[&component], &[], 0);
        tried += 1;
    }
    assert!(tried >= 4, "gzip, xz, lzma and zstd are everywhere: {tried}");
}

#[test]
fn archives_of_the_real_tools_are_refused() {
    let desk = Desk::new();
    let rows = [
        ("tar", "tar -cf x.tar os.img", "x.tar", "a tar archive", "tar -xf x.tar"),
        ("tar", "tar --format=pax -cf p.tar os.img", "p.tar", "a tar archive", "tar -xf p.tar"),
        (
            "tar",
            "mkdir -p lay/blobs && echo '{}' > lay/oci-layout && tar -C lay -cf oci.tar .",
            "oci.tar",
            "a tar archive",
            "tar -xf oci.tar",
        ),
        ("zip", "zip -q x.zip os.img", "x.zip", "a zip archive", "unzip x.zip"),
        ("7z", "7z a x.7z os.img >/dev/null", "x.7z", "a 7z archive", "7z x x.7z"),
        (
            "cpio",
            "echo os.img | cpio -o -H newc > x.cpio",
            "x.cpio",
            "a cpio archive",
            "cpio -id < x.cpio",
        ),
        ("ar", "ar rc x.a os.img", "x.a", "an ar archive", "ar x x.a"),
        (
            "dpkg-deb",
            "mkdir -p d/DEBIAN && printf 'Package: a\\nVersion: 1\\nArchitecture: all\\nMaintainer: a\\nDescription: a\\n' > d/DEBIAN/control && chmod 755 d d/DEBIAN && dpkg-deb -b d x.deb",
            "x.deb",
            "a Debian package",
            "dpkg-deb -x x.deb FOLDER",
        ),
    ];
    for (tool, make, file, what, command) in rows {
        if is_there(tool) {
            desk.shell(make);
            let message = format!("image {file} is {what}; {SLOT}");
            let hint = format!("run `{command}`; if it is right as it is: --raw NAME=REASON");
            desk.refused(file, &message, &hint);
        }
    }
}

#[test]
fn a_partition_is_cut_out_of_a_whole_disk() {
    if !is_there("sgdisk") || !is_there("mkfs.ext4") {
        return;
    }
    let desk = Desk::new();
    desk.shell(
        "truncate -s 4M fs.img && mkfs.ext4 -q fs.img && truncate -s 16M disk.img && \
         sgdisk -n 1:2048:4095 -c 1:esp -n 2:6144:14335 -c 2:root disk.img >/dev/null && \
         dd if=fs.img of=disk.img bs=1M seek=3 conv=notrunc status=none",
    );
    let message = format!("image disk.img is the image of a whole disk; {SLOT}");
    let command = "dd if=disk.img of=disk.img.part2 bs=1048576 skip=3 count=4";
    let hint = format!(
        "run `{command}` for partition 2 of 1 (esp, 1 MiB), 2 (root, 4 MiB); if it is right as \
         it is: --raw NAME=REASON"
    );
    desk.refused("disk.img", &message, &hint);
    desk.shell(command);
    let [cut, whole] =
        ["disk.img.part2", "fs.img"].map(|name| fs::read(desk.0.path(name)).unwrap());
    assert!(cut == whole, "what was cut out is the file system");
    desk.publish("2.0.0", &["os=disk.img.part2,hw=my-board"], &[], 0);
}

/// What a server or Git leaves where an image should be; what somebody wrote may be meant.
#[test]
fn pages_and_pointers_are_refused_and_texts_taken() {
    let desk = Desk::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
    let rows = [
        (
            "page.img",
            "<!DOCTYPE html>\n<title>404 Not Found</title>\n",
            "a page of HTML or XML",
            "head -c 512 page.img",
        ),
        ("lfs.img", pointer, "a pointer of Git LFS", "git lfs pull"),
    ];
    for (file, text, what, command) in rows {
        desk.file(file, text.as_bytes());
        let message = format!("image {file} is {what}; {SLOT}");
        let hint = format!("run `{command}`; if it is right as it is: --raw NAME=REASON");
        desk.refused(file, &message, &hint);
    }
    let written =
        ["the first system\n", "#!/bin/sh\nexec start\n", "{\"fans\": \"slow\"}\n", "<a/>\n"];
    for (number, text) in (2..).zip(written) {
        desk.file("written", text.as_bytes());
        desk.publish(&format!("{number}.0.0"), &["os=written,hw=my-board"], &[], 0);
    }
}

#[test]
fn file_systems_of_the_real_tools_are_taken() {
    let desk = Desk::new();
    let rows = [
        ("mkfs.ext4", "truncate -s 4M x && mkfs.ext4 -q x"),
        ("mksquashfs", "rm -f x; mkdir -p t && cp os.img t && mksquashfs t x -quiet -no-progress"),
        ("mkfs.erofs", "rm -f x; mkdir -p t && cp os.img t && mkfs.erofs x t"),
        ("mkfs.vfat", "rm -f x; truncate -s 4M x && mkfs.vfat x"),
        ("mkfs.vfat", "rm -f x; truncate -s 64M x && mkfs.vfat -F 32 x"),
        ("mkfs.btrfs", "rm -f x; truncate -s 128M x && mkfs.btrfs -q x"),
        ("mkfs.xfs", "rm -f x; truncate -s 320M x && mkfs.xfs -q x"),
        ("mkfs.f2fs", "rm -f x; truncate -s 64M x && mkfs.f2fs -q x"),
        ("mkimage", "rm -f x; mkimage -A arm64 -T kernel -C none -d os.img x"),
        ("grub-mkimage", "rm -f x; grub-mkimage -O x86_64-efi -p /boot -o x || cp os.img x"),
    ];
    for (number, (tool, make)) in (2..).zip(rows) {
        if is_there(tool) {
            desk.shell(make);
            desk.publish(&format!("{number}.0.0"), &["os=x,hw=my-board"], &[], 0);
        }
    }
}

/// What is taken as it is is said to whoever publishes, signs or looks, and is signed.
#[test]
fn a_reason_is_signed_and_shown() {
    let desk = Desk::new();
    desk.file("kernel.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03kernel");
    let reason = "booti unpacks it by itself";
    let raw = format!("kernel={reason}");
    let components = ["os=os.img,hw=my-board", "kernel=kernel.gz,hw=my-board"];
    let arguments = desk.arguments("stage publish", "2.0.0", &components, &["--raw", &raw]);
    let staged = desk.0.text(&[&arguments[..], &["--out", "staged"]].concat());
    let line = format!("kernel is taken as it is: {reason}");
    assert!(staged.contains(&line), "{staged}");
    assert!(desk.0.text(&["status", "staged"]).contains(&line));

    let published = desk.0.text(&desk.arguments("publish", "2.0.0", &components, &["--raw", &raw]));
    assert!(published.contains(&format!("taken as it is: {reason}\n  os")), "{published}");
    let tree = desk.0.json(&["inspect", "oci:repo", "--keys", "keys"], 0);
    let release = &tree["releases"][1]["components"];
    assert_eq!(
        (&release[0]["raw"], &release[1]["raw"]),
        (&reason.into(), &serde_json::Value::Null)
    );
    let tree = desk.0.text(&["inspect", "oci:repo", "--keys", "keys"]);
    assert!(tree.contains(&format!("├─ taken as it is: {reason}")), "{tree}");

    for (raw, why) in [("kernel=", "empty"), ("web=x", "no such --component"), ("kernel", "NAME")] {
        let refused = desk.publish("3.0.0", &components, &["--raw", raw], 2);
        assert!(refused["message"].as_str().unwrap().contains(why), "{refused}");
    }
}

#[test]
fn what_is_no_file_never_blocks() {
    let desk = Desk::new();
    desk.shell("mkfifo pipe && mkdir folder");
    for name in ["pipe", "folder", "/dev/zero"] {
        let component = format!("os={name},hw=my-board");
        let refused = desk.publish("2.0.0", &[&component], &[], 23);
        assert_eq!(refused["code"], "config");
        assert_eq!(
            refused["hint"],
            "a pipe or directory has no length: write the image to a file first"
        );
    }
    let refused = desk.publish("2.0.0", &["os=-,hw=my-board"], &[], 2);
    assert!(refused["message"].as_str().unwrap().ends_with("write it to a file first"));
}

#[test]
fn names_that_are_new_are_said() {
    let desk = Desk::new();
    let warnings = |value: &serde_json::Value| -> Vec<String> {
        let all = value["warnings"].as_array().unwrap().iter();
        all.map(|it| format!("{}: {}", it["code"], it["message"]).replace('"', "")).collect()
    };
    let typed = desk.publish(
        "1.1.0",
        &["os=os.img,hw=my-board,hw=my-bord", "oss=os.img,hw=my-board"],
        &["--channel", "stabel"],
        0,
    );
    assert_eq!(
        warnings(&typed),
        [
            "hw_mismatch: component oss is new for demo; earlier releases have os",
            "hw_mismatch: hardware id my-bord is new for demo; earlier releases are for my-board",
            "target_not_found: channel stabel is new; demo has stable",
        ]
    );
    let known = desk.publish("1.2.0", &["os=os.img,hw=my-board"], &["--channel", "stable"], 0);
    assert_eq!(warnings(&known), [""; 0], "what was said at init is not said again");
    let lint = desk.0.json(&["lint", "oci:repo", "--keys", "keys"], 0);
    let said = lint["findings"].as_array().unwrap().iter();
    assert!(said.clone().any(|it| it["code"] == "sig_threshold"), "{lint}");
}

#[test]
fn a_held_channel_is_said_to_be_held() {
    let desk = Desk::new();
    let hold = ["channel", "set", "--repo", "oci:repo", "--keys", "keys", "--product", "demo"];
    desk.0.json(&[&hold[..], &["--channel", "stable", "--hold"]].concat(), 0);
    let more = ["--channel", "stable"];
    let text = desk.0.text(&desk.arguments("publish", "2.0.0", &["os=os.img,hw=my-board"], &more));
    let line = "\noffered by channel stable, which is HELD: no node installs it until `channel set --no-hold`\n";
    assert!(text.contains(line), "{text}");
    let value = desk.publish("2.0.0", &["os=os.img,hw=my-board"], &more, 0);
    assert_eq!((&value["changed"], &value["held"]), (&false.into(), &true.into()));
}

#[test]
fn a_mistyped_repository_is_not_made() {
    let desk = Desk::new();
    let publish = desk.arguments("publish", "2.0.0", &["os=os.img,hw=my-board"], &[]);
    let publish: Vec<&str> =
        publish.into_iter().map(|word| if word == "oci:repo" { "oci:rep" } else { word }).collect();
    desk.0.json(&publish, 23);
    desk.0.json(&["refresh", "--repo", "oci:rep", "--keys", "keys"], 23);
    assert!(!desk.0.path("rep").exists());
}

/// The page lists what the program refuses, no more and no less, in the same order.
#[test]
fn the_page_has_the_table_of_the_program() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/images.md");
    let page = fs::read_to_string(page).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .filter(|line| line.starts_with("| "))
        .collect();
    let expected: Vec<String> = kind::ALL.iter().map(kind::Kind::row).collect();
    assert_eq!(rows, expected, "docs/images.md:\n{}", expected.join("\n"));
}

/// The same image has the same bytes after any release: of one that the same encoder made, of one that
/// another made, and of one whose blobs are damaged since.
#[test]
fn what_is_copied_from_the_release_before_is_what_compressing_gives() {
    let words = |count: u32| -> Vec<u8> {
        let word = |n: u32| format!("{:x} ", n.wrapping_mul(2_654_435_761) >> 12);
        (0..count).flat_map(|n| word(n).into_bytes()).collect()
    };
    let before = words(600_000);
    let mut after = before.clone();
    after[2_000_000..2_000_100].fill(b'!');
    let published = |level: &str, spoil: bool| {
        let desk = Desk::new();
        desk.file("first.img", &before);
        desk.file("second.img", &after);
        desk.publish("1.1.0", &["os=first.img,hw=my-board"], &["--level", level], 0);
        if spoil {
            for (path, len) in listing(&desk.0.path("repo/blobs/sha256")) {
                if len > 1_000_000 {
                    fs::write(path, vec![7; usize::try_from(len).unwrap()]).unwrap();
                }
            }
        }
        let second = desk.publish("1.2.0", &["os=second.img,hw=my-board"], &[], 0);
        second["components"][0]["manifest"].as_str().unwrap().to_owned()
    };
    let copied = published("3", false);
    assert_eq!(published("1", false), copied, "another encoder");
    assert_eq!(published("3", true), copied, "damaged blobs");
}
