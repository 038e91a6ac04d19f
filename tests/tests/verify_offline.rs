//! The example `verify_offline` of `update-core` verifies what `signer` published, and refuses the rest.

use std::fs;
use std::path::{Path, PathBuf};

use racklet_tests::rig::{Done, PRODUCT, Run, World};

/// Where Cargo leaves the example; built when only this package is tested.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    // target/<profile>/deps/<test>
    let profile = test.ancestors().nth(2).expect("a test lies two folders below target");
    let built = profile.join("examples/verify_offline");
    if !built.exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let cargo = std::process::Command::new(std::env::var_os("CARGO").expect("cargo runs this"))
            .args(["build", "--locked", "--workspace", "--example", "verify_offline"])
            .arg("--target-dir")
            .arg(profile.parent().expect("the target folder"))
            .current_dir(root)
            .status();
        assert!(cargo.expect("start cargo").success(), "build the example");
    }
    built
}

fn verify(dir: &Path, root: &Path, version: &str) -> Done {
    Run::new(example()).arg(dir).arg(root).args([PRODUCT, version]).finish()
}

#[test]
fn a_release_in_a_directory_is_verified_from_a_trust_root() {
    let world = World::with_repository();
    let release = world.publish_stable("1.0.0", 1);
    let bundle = world.path("usb");
    world.bundle("1.0.0", &bundle);
    let root = world.path("root.json");
    for dir in [world.path("repository"), bundle.clone()] {
        let done = verify(&dir, &root, "1.0.0").exits_with(0);
        assert_eq!(done.text().lines().count(), 2, "{}", done.output());
        assert!(done.text().contains(": os verified, signed by targets"), "{}", done.output());
    }
    assert!(verify(&bundle, &root, "1.1.0").exits_with(1).stderr.contains("1.1.0"));

    let stranger = World::with_repository();
    let _done = verify(&bundle, &stranger.path("root.json"), "1.0.0").exits_with(1);

    // One bit of the largest blob, which is an image.
    let blobs = fs::read_dir(bundle.join("blobs/sha256")).expect("the blobs").flatten();
    let largest = blobs.max_by_key(|entry| entry.metadata().map_or(0, |it| it.len()));
    let image = largest.expect("a blob").path();
    let mut bytes = fs::read(&image).expect("read the image");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&image, bytes).expect("damage the image");
    assert!(verify(&bundle, &root, &release.version).exits_with(1).stderr.contains("is damaged"));
}
