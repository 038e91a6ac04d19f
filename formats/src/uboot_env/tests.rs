use proptest::prelude::*;

use super::*;

fn copy(vars: &[(&str, &str)], flag: u8) -> EnvCopy {
    let mut env = Env::default();
    for (name, value) in vars {
        env.set(name, value).unwrap();
    }
    EnvCopy { env, flag }
}

#[test]
fn the_bytes_are_where_u_boot_has_them() {
    let bytes = copy(&[("a", "1"), ("b", "")], 7).encode(64, Layout::Redundant).unwrap();
    assert_eq!(bytes.len(), 64);
    assert_eq!(bytes[4], 7);
    assert_eq!(&bytes[5..14], b"a=1\0b=\0\0\0");
    // zlib.crc32(b"a=1\0b=\0" + bytes(52))
    assert_eq!(bytes[..4], crc32fast::hash(&bytes[5..]).to_le_bytes());
    let single = copy(&[("a", "1")], 7).encode(64, Layout::Single).unwrap();
    assert_eq!(&single[4..10], b"a=1\0\0\0");
}

#[test]
fn the_copy_that_counts() {
    let rows = [
        ("one ahead", FlagRule::Incrementing, [4, 5], 1),
        ("one behind", FlagRule::Incrementing, [5, 4], 0),
        ("equal", FlagRule::Incrementing, [5, 5], 0),
        ("wrapped", FlagRule::Incrementing, [255, 0], 1),
        ("wrapped, the other way", FlagRule::Incrementing, [0, 255], 0),
        ("first active", FlagRule::ActiveObsolete, [1, 0], 0),
        ("second active", FlagRule::ActiveObsolete, [0, 1], 1),
        ("cut between two writes", FlagRule::ActiveObsolete, [1, 1], 0),
        ("written, not marked", FlagRule::ActiveObsolete, [1, 255], 1),
        ("written, not marked, first", FlagRule::ActiveObsolete, [255, 1], 0),
    ];
    for (name, rule, flags, expected) in rows {
        assert_eq!(rule.newer(flags), expected, "{name}");
    }
}

#[test]
fn the_next_flag_wins_in_each_place() {
    for current in 0..=255 {
        let next = FlagRule::Incrementing.next(current);
        assert_eq!(FlagRule::Incrementing.newer([current, next]), 1, "{current}");
        assert_eq!(FlagRule::Incrementing.newer([next, current]), 0, "{current}");
    }
}

#[test]
fn setting_keeps_everything_else() {
    let mut env = Env::parse(b"one=1\0\xff\xfe=\xfd\0no equals sign\0two=2\0\0junk").unwrap();
    env.set("one", "x=y").unwrap();
    env.set("three", "3").unwrap();
    assert_eq!(env.get("one"), Some("x=y"));
    let bytes = EnvCopy { env, flag: 0 }.encode(64, Layout::Single).unwrap();
    assert!(bytes[4..].starts_with(b"one=x=y\0\xff\xfe=\xfd\0no equals sign\0two=2\0three=3\0\0"));
}

#[test]
fn what_is_no_environment_is_refused() {
    let good = copy(&[("a", "1")], 1).encode(64, Layout::Redundant).unwrap();
    assert_eq!(EnvCopy::parse(&good, Layout::Single), Err(UbootEnvError::Checksum));
    for index in (0..good.len()).filter(|index| *index != 4) {
        let mut bad = good.clone();
        bad[index] ^= 0x10;
        assert_eq!(EnvCopy::parse(&bad, Layout::Redundant), Err(UbootEnvError::Checksum));
    }
    assert_eq!(EnvCopy::parse(&[0xff; 64], Layout::Redundant), Err(UbootEnvError::Checksum));
    assert_eq!(EnvCopy::parse(&[0; 3], Layout::Single), Err(UbootEnvError::Size(3)));
    let data = [b'x'; 60];
    let endless = [&crc32fast::hash(&data).to_le_bytes()[..], &data].concat();
    assert_eq!(EnvCopy::parse(&endless, Layout::Single), Err(UbootEnvError::Endless));
    let full = copy(&[("a", &"1".repeat(58))], 0).encode(64, Layout::Single);
    assert!(matches!(full, Err(UbootEnvError::Full { needed: 62, room: 60 })), "{full:?}");
    for (name, value) in [("", "x"), ("a=b", "x"), ("a b", "x"), ("a", "x\0y")] {
        assert!(Env::default().set(name, value).is_err(), "{name:?} {value:?}");
    }
}

#[test]
fn places_of_a_configuration() {
    let text = "# comment\n\n/dev/mmcblk0 0x3f8000 0x4000\n/dev/mmcblk0\t-0x4000 0x4000 0x200 1\n";
    let places = parse_config(text).unwrap();
    assert_eq!(
        places[0],
        EnvPlace { device: "/dev/mmcblk0".into(), offset: 0x3f_8000, size: 0x4000 }
    );
    assert_eq!(places[1].offset, -0x4000);
    let rows = [
        ("nothing", "# none\n", EnvConfigError::Copies(0)),
        ("three", "a 0 0x80\nb 0 0x80\nc 0 0x80", EnvConfigError::Copies(3)),
        ("sizes", "a 0 0x80\nb 0 0x100", EnvConfigError::Sizes),
        ("the same place", "a 0 0x80\na 0 0x80", EnvConfigError::Overlap),
        ("overlap", "a 0x40 0x80\na 0 0x80", EnvConfigError::Overlap),
    ];
    for (name, text, error) in rows {
        assert_eq!(parse_config(text), Err(error), "{name}");
    }
    for text in ["a 0 16384", "a", "a 0", "a x 0x80", "a 0 0x8", "a 0 0x10000000", "a 0 0xzz"] {
        assert!(matches!(parse_config(text), Err(EnvConfigError::Line { .. })), "{text}");
    }
    assert!(parse_config("a 0 0x80\na 0x80 0x80").is_ok(), "side by side");
}

proptest! {
    #[test]
    fn strangers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC*") {
        for layout in [Layout::Single, Layout::Redundant] {
            let _ = EnvCopy::parse(&bytes, layout);
            let _ = Env::parse(&bytes);
        }
        let _ = parse_config(&text);
    }

    #[test]
    fn round_trip(vars in proptest::collection::btree_map("[a-z_.]{1,8}", "[ -~]{0,20}", 0..9), flag: u8) {
        let vars: Vec<(&str, &str)> = vars.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let one = copy(&vars, flag);
        let bytes = one.encode(512, Layout::Redundant).unwrap();
        prop_assert_eq!(EnvCopy::parse(&bytes, Layout::Redundant), Ok(one.clone()));
        prop_assert_eq!(one.env.iter().collect::<Vec<_>>(), vars);
    }
}
