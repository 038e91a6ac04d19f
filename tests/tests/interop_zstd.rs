//! The `zstd` program reads our image blobs, although they are many frames with a table behind.

use std::io::Write as _;

use racklet_tests::rig::{World, tool};

#[test]
fn zstd_tests_and_unpacks_the_image_blob() {
    let world = World::with_repository();
    let release = world.publish_stable("1.0.0", 1);
    for (component, image) in [("os", &release.os), ("firmware", &release.firmware)] {
        let blob = world.repository().image_blob("demo:1.0.0", component);
        let zstd = |option: &str| tool("zstd", "zstd").args([option, "--"]).arg(&blob).ok();
        let _tested = zstd("-t");
        let unpacked = zstd("-dcf").stdout;
        assert!(unpacked == image.bytes, "{component}: zstd -dc is not the source image");
    }
}

#[test]
fn zstd_finds_one_flipped_bit() {
    // The other side of the test above: what zstd accepts, it has really looked at.
    let world = World::with_repository();
    let _release = world.publish_stable("1.0.0", 1);
    let blob = world.repository().image_blob("demo:1.0.0", "os");
    let mut bytes = std::fs::read(&blob).expect("read the blob");
    bytes[3] ^= 1;
    let mut file = std::fs::File::create(&blob).expect("open the blob");
    file.write_all(&bytes).expect("write the blob");
    let done = tool("zstd", "zstd").args(["-t", "--"]).arg(&blob).finish();
    assert_ne!(done.code, 0, "{}", done.output());
}
