//! `cgpt` and `sgdisk` agree with our boot attributes and find both tables valid, after each thing
//! that changes them.

use formats::reason::Exit;
use racklet_tests::rig::{CLEAR, Flags, Node, TRIES, World, confirmed, tool, trial};

/// What `cgpt` and our own `status` say of both slots, which must be the same.
#[track_caller]
fn agreed(node: &Node) -> [Flags; 2] {
    let status = node.status();
    ["a", "b"].map(|slot| {
        let found = node.disk.flags(&format!("root-{slot}"));
        let ours = &status["slots"][slot];
        let number = |name: &str| u8::try_from(ours[name].as_u64().expect("a number"));
        let said = Flags {
            priority: number("priority").expect("four bits"),
            tries: number("tries").expect("four bits"),
            successful: ours["successful"] == true,
        };
        assert_eq!(said, found, "slot {slot}: status and cgpt");
        found
    })
}

/// Everything `sgdisk -p -i N` tells of the partitions but the attribute flags.
#[track_caller]
fn identity(node: &Node) -> String {
    let mut text = String::new();
    for number in 1..=4 {
        let done = tool("sgdisk", "gdisk").arg(format!("-i{number}")).arg(node.disk.path()).ok();
        text.extend(done.text().lines().filter(|line| !line.contains("Attribute flags")));
    }
    text
}

#[test]
fn after_apply_confirm_and_revert() {
    let world = World::with_repository();
    let (v1, _) = (world.publish_stable("1.0.0", 1), world.publish_stable("1.1.0", 2));
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let before = identity(&node);
    let check = |when: &str, a: Flags, b: Flags| {
        node.disk.expect(a, b);
        assert_eq!(agreed(&node), [a, b], "{when}");
        assert_eq!(identity(&node), before, "{when}: more than the attributes has changed");
    };

    check("factory", confirmed(1), CLEAR);
    node.apply(&[]);
    check("apply", confirmed(1), trial(TRIES));
    node.boot();
    check("first trial boot", confirmed(1), trial(TRIES - 1));
    let _confirmed = node.run_once().exits(Exit::Done);
    check("confirm", confirmed(1), confirmed(2));

    world.publish_stable("1.2.0", 3);
    node.apply(&[]);
    check("apply to the other slot", trial(TRIES), confirmed(1));
    node.set_healthy(false);
    for left in (0..TRIES).rev() {
        assert_eq!(node.boot(), "a");
        check("failing trial boot", trial(left), confirmed(1));
        let _failed = node.run_once().exits(Exit::Boot);
    }
    assert_eq!(node.boot(), "b");
    check("the boot loader reverts", trial(0), confirmed(1));
    node.set_healthy(true);
    let _recorded = node.run_once().exits(Exit::Done);
    check("the revert is recorded", CLEAR, confirmed(1));

    world.publish_stable("1.3.0", 4);
    node.apply(&[]);
    node.agent(&["revert"]).ok();
    check("revert before the reboot", CLEAR, confirmed(1));
}

#[test]
fn a_table_that_cgpt_mended_is_ours_too() {
    use std::os::unix::fs::FileExt as _;
    let world = World::with_repository();
    let (v1, _) = (world.publish_stable("1.0.0", 1), world.publish_stable("1.1.0", 2));
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let file = std::fs::OpenOptions::new().write(true).open(node.disk.path()).expect("open");
    for (number, offset) in [(1, 512), (2, 1024 + 48)] {
        // Damage to the primary header, then to the primary array.
        file.write_all_at(&[0xff; 16], offset).expect("damage the table");
        let _mended = tool("cgpt", "cgpt").arg("repair").arg(node.disk.path()).ok();
        node.disk.expect_valid();
        assert_eq!(agreed(&node), [confirmed(1), CLEAR], "damage {number}");
    }
    // And what we mended is theirs.
    file.write_all_at(&[0xff; 16], 512).expect("damage the table");
    assert_eq!(node.boot(), "a");
    node.disk.expect(confirmed(1), CLEAR);
}
