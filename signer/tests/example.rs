//! The example program of this crate does what it says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../examples/publish.rs"]
#[allow(dead_code, reason = "its `main` is for people")]
mod publish;

use formats::tuf::UnixTime;
use signer::commands::read_trust_root;
use signer::published;
use signer::repository::{Access, ClientOptions, open};

#[test]
fn the_example_publishes_a_release() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().join("demo");
    // 2027-01-01T00:00:00Z.
    publish::run(&directory, UnixTime::from_secs(1_798_761_600)).unwrap();
    let reference = format!("oci:{}", directory.join("repository").display()).parse().unwrap();
    let registry = open(&reference, Access::Read, &ClientOptions::default()).unwrap();
    let root = read_trust_root(&directory.join("keys/root.json")).unwrap();
    let state = published::load(registry.as_ref(), Some(&root)).unwrap().state;
    assert_eq!(state.releases().unwrap()[0].target, "demo/1.0.0");
    assert_eq!(state.channel_names("demo").collect::<Vec<_>>(), ["stable"]);
}
