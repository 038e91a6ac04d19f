//! A server that is put back from a backup, and a node that says nothing any more.

use std::fs;

use racklet_tests::rig::Run;
use serde_json::Value;

use crate::rig::{Fleet, NOW, agrees, release, update};

/// Three hours: a node that promised a report within 66 minutes has missed two of them.
const LATER: &str = "+3h";

#[test]
fn silence_is_seen_and_a_server_from_a_backup_heals() {
    let mut fleet = Fleet::approved(&["speaks", "quiet"]);
    // As the document makes one without sqlite3; the server comes back at another address.
    let backup = fleet.world.path("backup").display().to_string();
    fleet.exchange_server(NOW, |fleet| {
        let _done = Run::new("cp").args(["-r", "--"]).arg(&fleet.dir).arg(&backup).ok();
    });
    let v2 = release(&fleet.world, "1.1.0", 2);
    let _done = fleet.world.publish(&v2, &["--channel", "stable"]);
    update(fleet.node("speaks"));
    fleet.reports("speaks", NOW);
    let before = fleet.page_of("speaks");
    assert_eq!((&before["state"], &before["runs"]), (&"confirmed".into(), &"1.1.0".into()));

    // Yesterday's is put back, hours pass, and one node says nothing any more.
    fleet.exchange_server(LATER, |fleet| {
        fs::remove_dir_all(&fleet.dir).expect("remove the directory");
        let _done = Run::new("cp").args(["-r", "--", &backup]).arg(&fleet.dir).ok();
    });
    let overview = fleet.page("/fleet/");
    assert_eq!((&overview["nodes"], &overview["silent"]), (&2.into(), &2.into()), "{overview}");
    assert_eq!(fleet.page_of("speaks")["runs"], "1.0.0", "what the backup knew");
    fleet.reports("speaks", LATER);
    let page = agrees(&fleet, "speaks");
    assert_eq!((&page["state"], &page["runs"]), (&"confirmed".into(), &"1.1.0".into()), "{page}");
    assert_eq!(page["silent_since"], Value::Null, "{page}");
    assert!(page["sequence"].as_u64() > before["sequence"].as_u64(), "{page}\n{before}");

    let overview = fleet.page("/fleet/");
    assert_eq!(overview["channels"][0]["sentence"], "1.1.0 runs on 1 of 2; 1 silent", "{overview}");
    assert_eq!(overview["sentence"], "nobody needs you", "silence is no failure");
    let page = fleet.page_of("quiet");
    assert_eq!(page["state"], "confirmed", "what it said last: {page}");
    assert!(page["silent_since"].is_u64(), "{page}");
    let silent = fleet.page("/fleet/nodes?state=silent");
    assert_eq!((&silent["total"], &silent["nodes"][0]["name"]), (&1.into(), &"quiet".into()));
}
