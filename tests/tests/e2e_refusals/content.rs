//! The bytes are not what was signed.

use std::fs;
use std::path::{Path, PathBuf};

use formats::reason::Reason;
use racklet_tests::rig::{CLEAR, Run, confirmed};

use super::Offered;

/// Flips one bit of a file in its middle; gives the place.
fn flip_bit(path: &Path) -> usize {
    let mut bytes = fs::read(path).expect("read the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).expect("write the file");
    middle
}

#[test]
fn wrong_digest_in_one_chunk() {
    let it = Offered::new();
    let before = it.before();
    // Damaged in every form, or another form makes up for it. The second time mends it.
    let damage_or_mend = || {
        for blob in it.world.repository().image_blobs("demo:1.1.0", "os") {
            let mut bytes = fs::read(&blob).expect("read the blob");
            bytes.iter_mut().step_by(32 << 10).for_each(|byte| *byte ^= 0x10);
            fs::write(&blob, bytes).expect("write the blob");
        }
    };
    damage_or_mend();
    it.node.agent(&["apply"]).finish().refused(Reason::HashMismatch);
    // Slot b was being written: it must not be bootable, and a is as it was.
    it.node.disk.expect(confirmed(1), CLEAR);
    before.untouched(&it.node, "F");
    assert_eq!(it.node.boot(), "a");
    let status = it.node.status();
    assert_eq!(status["last_error"]["code"], "hash_mismatch", "{status}");
    damage_or_mend();
    it.recovers();
}

#[test]
fn wrong_digest_in_the_second_component() {
    let it = Offered::new();
    let before = it.before();
    let blob = it.world.repository().image_blob("demo:1.1.0", "firmware");
    flip_bit(&blob);
    it.node.agent(&["apply"]).finish().refused(Reason::HashMismatch);
    it.node.disk.expect(confirmed(1), CLEAR);
    before.untouched(&it.node, "F");
    flip_bit(&blob);
    it.recovers();
}

#[test]
fn wrong_bytes_in_any_document() {
    let it = Offered::new();
    let repository = it.world.repository();
    let index = repository.tagged("demo:1.1.0");
    let text = |value: &serde_json::Value| value.as_str().expect("a digest").to_owned();
    let manifest = text(&repository.document(&index)["manifests"][0]["digest"]);
    let list = text(&repository.document(&manifest)["layers"][1]["digest"]);
    for (name, digest) in [("index", index), ("manifest", manifest), ("chunk list", list)] {
        let before = it.before();
        let file = repository.blob(&digest);
        flip_bit(&file);
        let done = it.node.agent(&["apply"]).finish();
        flip_bit(&file);
        assert!(done.code != 0, "{name}: {}", done.output());
        done.refused(Reason::HashMismatch);
        before.untouched(&it.node, "SBF");
    }
    it.recovers();
}

#[test]
fn image_that_is_cut_off() {
    let it = Offered::new();
    let before = it.before();
    let blob = it.world.repository().image_blob("demo:1.1.0", "os");
    let whole = fs::read(&blob).expect("read the blob");
    fs::write(&blob, &whole[..whole.len() / 3]).expect("cut the blob");
    let done = it.node.agent(&["apply"]).finish();
    assert!(matches!(done.code, 10 | 14 | 15), "{}", done.output());
    it.node.disk.expect(confirmed(1), CLEAR);
    before.untouched(&it.node, "F");
    fs::write(&blob, &whole).expect("restore the blob");
    it.recovers();
}

#[test]
fn damaged_source_and_a_good_one_after_it() {
    let it = Offered::new();
    let good = it.world.repository().copy_to(&it.world.path("good"));
    flip_bit(&it.world.repository().image_blob("demo:1.1.0", "os"));
    // L2: one bad mirror costs its own time, no more.
    let boot = "[boot]\nbackend";
    let second = format!("[[source]]\nurl = {:?}\n\n{boot}", good.reference());
    it.node.reconfigure(boot, &second);
    it.recovers();
}

/// A bundle of 1.1.0 in a tar, with further entries of GNU tar.
fn bundle_with(it: &Offered, name: &str, tar: impl FnOnce(Run) -> Run) -> PathBuf {
    let file = it.world.path(name);
    it.world.bundle("1.1.0", &file);
    let append = Run::new("tar").args(["--format=ustar", "--append", "--file"]).arg(&file);
    let _done = tar(append.arg("--directory").arg(it.world.path("evil"))).ok();
    file
}

#[test]
fn hostile_bundles() {
    let it = Offered::new();
    let evil = it.world.path("evil");
    fs::create_dir_all(evil.join("blobs/sha256")).expect("make a folder");
    fs::write(evil.join("file"), "evil").expect("write a file");
    std::os::unix::fs::symlink("/etc/passwd", evil.join("blobs/sha256/link")).expect("link");
    std::os::unix::fs::symlink("file", evil.join("oci-layout-link")).expect("link");
    fs::hard_link(evil.join("file"), evil.join("hard")).expect("link");
    let _pipe = Run::new("mkfifo").arg(evil.join("pipe")).ok();
    // GNU tar writes names that climb or begin with a slash only when told so.
    let renamed = |to: &str| {
        let to = format!("--transform=s,^file$,{to},");
        move |tar: Run| tar.args(["--absolute-names", &to, "file"])
    };
    let rooted = it.world.path("climbed-from-the-root");
    let rooted_name = rooted.to_str().expect("UTF-8");
    let before = it.before();
    let rows: Vec<(&str, PathBuf, Reason)> = vec![
        (
            "link.tar",
            bundle_with(&it, "link.tar", |tar| tar.arg("blobs/sha256/link")),
            Reason::BundleFormat,
        ),
        (
            "hard.tar",
            bundle_with(&it, "hard.tar", |tar| tar.args(["file", "hard"])),
            Reason::BundleFormat,
        ),
        ("pipe.tar", bundle_with(&it, "pipe.tar", |tar| tar.arg("pipe")), Reason::BundleFormat),
        ("climb.tar", bundle_with(&it, "climb.tar", renamed("../../climbed")), Reason::PathRefused),
        ("root.tar", bundle_with(&it, "root.tar", renamed(rooted_name)), Reason::PathRefused),
        (
            "dots.tar",
            bundle_with(&it, "dots.tar", renamed("blobs/../climbed")),
            Reason::PathRefused,
        ),
    ];
    for (name, file, reason) in rows {
        let done = it.node.agent(&["apply"]).arg(&file).finish();
        assert!(done.code == i32::from(reason.exit().code()), "{name}: {}", done.output());
        done.refused(reason);
        before.untouched(&it.node, "MSBF");
    }
    assert!(!rooted.exists());
    it.recovers();
}

#[test]
fn bundles_that_are_no_bundles() {
    let it = Offered::new();
    let path = |name: &str| it.world.path(name);
    fs::write(path("empty.tar"), "").expect("write a file");
    fs::write(path("noise.tar"), vec![0x5a; 10_240]).expect("write a file");
    let whole = path("whole.tar");
    it.world.bundle("1.1.0", &whole);
    let bytes = fs::read(&whole).expect("read the bundle");
    fs::write(path("cut.tar"), &bytes[..bytes.len() / 2]).expect("write a file");
    std::os::unix::fs::symlink(&whole, path("linked.tar")).expect("link");
    fs::create_dir(path("folder")).expect("make a folder");
    let rows = [
        ("empty.tar", Reason::BundleFormat),
        ("noise.tar", Reason::BundleFormat),
        ("cut.tar", Reason::BundleFormat),
        ("folder", Reason::BundleFormat),
        ("linked.tar", Reason::PathRefused),
        ("nowhere.tar", Reason::Unreachable),
    ];
    let before = it.before();
    for (name, reason) in rows {
        let done = it.node.agent(&["apply"]).arg(path(name)).finish();
        assert!(done.code == i32::from(reason.exit().code()), "{name}: {}", done.output());
        done.refused(reason);
        before.untouched(&it.node, "MSBF");
    }
    it.node.update(&[&whole.display().to_string()], "b");
}
