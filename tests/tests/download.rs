//! `signer download`: a component as a file, or no file.

use std::fs;
use std::path::Path;

use formats::reason::Reason;
use racklet_tests::rig::{HARDWARE, PRODUCT, Run, World, program, tool};

/// From a repository or bundle, for whoever has its trust root and no key.
fn download(world: &World, from: &str, component: &str, to: &Path) -> Run {
    program("signer")
        .args(["download", "--json", "--repo", from, "--product", PRODUCT])
        .args(["--component", component, "-o"])
        .arg(to)
        .arg("--root")
        .arg(world.path("root.json"))
}

/// What is left of a download that failed: nothing, its temporary file neither.
fn assert_nothing_at(file: &Path) {
    let folder = file.parent().expect("a folder");
    let folder = fs::read_dir(folder).expect("list the folder").flatten();
    let left: Vec<_> = folder.map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_component_is_a_file_again() {
    let world = World::with_repository();
    let first = world.publish_stable("1.0.0", 1);
    let second = world.publish_stable("1.1.0", 2);
    let bundle = world.path("usb.tar");
    world.bundle("1.0.0", &bundle);
    let (repository, bundle) =
        (world.repository().reference(), format!("oci-archive:{}", bundle.display()));
    let table = [
        (&repository, "os", &[][..], &second.os.path),
        (&repository, "firmware", &["--version", "1.0.0"], &first.firmware.path),
        (&repository, "os", &["--version", "1.0.0", "--hw", HARDWARE], &first.os.path),
        (&bundle, "os", &["--version", "1.0.0"], &first.os.path),
    ];
    for (number, (from, component, more, image)) in table.into_iter().enumerate() {
        let file = world.path(&format!("got-{number}"));
        let report = download(&world, from, component, &file).args(more).ok().json();
        assert_eq!(
            fs::read(&file).unwrap(),
            fs::read(image).unwrap(),
            "{from} {component} {more:?}"
        );
        assert_eq!(report["size"], fs::metadata(image).unwrap().len());
        let sum = Run::new("sha256sum").arg(&file).ok().text();
        assert!(sum.starts_with(report["sha256"].as_str().unwrap()), "{sum} of {report}");
    }
    download(&world, &repository, "os", &world.path("got-0")).finish().refused(Reason::Config);
    assert_eq!(fs::read(world.path("got-0")).unwrap(), fs::read(&second.os.path).unwrap());
}

#[test]
fn what_is_not_verified_is_no_file() {
    let world = World::with_repository();
    let release = world.publish_stable("1.0.0", 1);
    let repository = world.repository().reference();
    fs::create_dir(world.path("downloads")).unwrap();
    let file = world.path("downloads/os.img");
    let get = |component: &str| download(&world, &repository, component, &file);
    get("kernel").finish().refused(Reason::Usage);
    get("os").args(["--hw", "another-board"]).finish().refused(Reason::Usage);
    get("os").args(["--version", "2.0.0"]).finish().refused(Reason::TargetNotFound);
    get("os").args(["--channel", "beta"]).finish().refused(Reason::Usage);
    let clock = tool("faketime", "faketime").arg("2 years");
    get("os").under(clock).finish().refused(Reason::Expired);
    let stranger = World::with_repository();
    download(&stranger, &repository, "os", &file).finish().refused(Reason::SigThreshold);

    // One bit of each long blob: those are the images, in their encodings.
    for blob in fs::read_dir(world.path("repository/blobs/sha256")).unwrap().flatten() {
        let mut bytes = fs::read(blob.path()).unwrap();
        if bytes.len() > 1 << 20 {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(blob.path(), bytes).unwrap();
        }
    }
    get("os").finish().refused(Reason::HashMismatch);
    assert_nothing_at(&file);
    assert!(release.os.path.exists());
}

#[test]
fn what_was_withdrawn_is_not_downloaded() {
    let world = World::with_repository();
    let _v1 = world.publish_stable("1.0.0", 1);
    let _v2 = world.publish_stable("1.1.0", 2);
    let withdraw = ["release", "withdraw", "1.1.0", "--product", PRODUCT, "--because", "it leaks"];
    let _done = world.signer(&withdraw).ok();
    fs::create_dir(world.path("downloads")).unwrap();
    let file = world.path("downloads/os.img");
    let get = |version| {
        let run = download(&world, &world.repository().reference(), "os", &file);
        run.args(["--version", version])
    };
    get("1.1.0").finish().refused(Reason::Withdrawn);
    assert_nothing_at(&file);
    let _done = get("1.0.0").ok();
}
