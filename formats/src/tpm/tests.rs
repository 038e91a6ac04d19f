use proptest::prelude::*;

use super::*;
use crate::digest::{hex, unhex};

const INDEX: u32 = 0x0180_5241;
const MARK: Mark = Mark { base: 1, origin: 7 };

/// The commands as a TPM's documentation has them, byte for byte.
#[test]
fn commands_are_these_bytes() {
    let rows: [(&str, Command<'_>, &str); 5] = [
        ("read public", Command::ReadPublic { index: INDEX }, "8001 0000000e 00000169 01805241"),
        (
            "increment",
            Command::Increment { index: INDEX },
            "8002 0000001f 00000134 01805241 01805241 00000009 40000009 0000 00 0000",
        ),
        (
            "read",
            Command::Read { index: INDEX },
            "8002 00000023 0000014e 01805241 01805241 00000009 40000009 0000 00 0000 0008 0000",
        ),
        (
            "undefine",
            Command::Undefine { index: INDEX, owner: b"pw" },
            "8002 00000021 00000122 40000001 01805241 0000000b 40000009 0000 00 0002 7077",
        ),
        (
            "define",
            Command::Define { index: INDEX, mark: MARK, owner: b"" },
            "8002 0000004d 0000012a 40000001 00000009 40000009 0000 00 0000 0000 \
             002e 01805241 000b 02060016 0020 7261636b6c657420666c6f6f72203100 \
             0000000000000001 0000000000000007 0008",
        ),
    ];
    for (name, command, expected) in rows {
        assert_eq!(hex(&command.to_bytes()), expected.replace(' ', ""), "{name}");
    }
}

fn bytes(text: &str) -> Vec<u8> {
    unhex(&text.replace(' ', "")).unwrap()
}

fn public(attributes: &str, policy: &str) -> Vec<u8> {
    let area = format!("01805241 000b {attributes} 0020 {policy} 0008");
    let name = "00".repeat(34);
    let len = 10 + 2 + 46 + 2 + 34;
    bytes(&format!("8001 {len:08x} 00000000 002e {area} 0022 {name}"))
}

#[test]
fn responses_are_parsed_and_strangers_known() {
    let ours = hex(&MARK.to_policy());
    let rows = [
        ("ours, counted", "22060016", &*ours, Some(MARK), true),
        ("ours, fresh", "02060016", &*ours, Some(MARK), false),
        ("an ordinary index with our mark", "02060006", &*ours, None, false),
        ("one that also a policy may write", "2206001e", &*ours, None, true),
        ("another policy", "22060016", &*"11".repeat(32), None, true),
    ];
    for (name, attributes, policy, mark, written) in rows {
        let found = Public::parse(&public(attributes, policy), INDEX).unwrap();
        assert_eq!((found.mark(), found.is_written()), (mark, written), "{name}");
    }
    let other = Public::parse(&public("22060016", &ours), INDEX + 1);
    assert!(matches!(other, Err(TpmError::Form(_))));
    let counter = "8002 0000001d 00000000 0000000a 0008 0000000000000104 0000 01 0000";
    assert_eq!(parse_counter(&bytes(counter)), Ok(0x104));
    assert_eq!(parse_done(&bytes("8002 00000013 00000000 00000000 0000 01 0000")), Ok(()));
}

#[test]
fn response_codes_have_names() {
    let rows = [
        (0x18b, TpmError::NoIndex),
        (0x28b, TpmError::NoIndex),
        (0x14c, TpmError::Defined),
        (0x14a, TpmError::Unwritten),
        (0x148, TpmError::Locked),
        (0x14b, TpmError::Full),
        (0x98e, TpmError::Auth(0x98e)),
        (0x9a2, TpmError::Auth(0x9a2)),
        (0x921, TpmError::Auth(0x921)),
        (0x922, TpmError::Busy),
        (0x100, TpmError::NotStarted),
        (0x101, TpmError::Code(0x101)),
    ];
    for (code, expected) in rows {
        let response = bytes(&format!("8001 0000000a {code:08x}"));
        assert_eq!(parse_done(&response), Err(expected), "{code:x}");
        assert_eq!(parse_counter(&response), Err(expected), "{code:x}");
        assert_eq!(Public::parse(&response, INDEX), Err(expected), "{code:x}");
    }
}

#[test]
fn a_value_that_the_mark_rules_out_is_no_floor() {
    assert_eq!(MARK.floor(1), Some(7));
    assert_eq!(MARK.floor(4), Some(10));
    assert_eq!(MARK.floor(0), None, "below its own beginning");
    assert_eq!(Mark { base: 0, origin: u64::MAX }.floor(1), None, "past the end");
}

#[test]
fn lengths_are_bounded() {
    let header = |len: u32| {
        let mut header = [0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        header[2..6].copy_from_slice(&len.to_be_bytes());
        header
    };
    assert_eq!(response_len(&header(10)), Ok(10));
    assert_eq!(response_len(&header(4096)), Ok(4096));
    for len in [0, 9, 4097, u32::MAX] {
        assert!(response_len(&header(len)).is_err(), "{len}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(junk in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = Public::parse(&junk, INDEX);
        let _ = parse_counter(&junk);
        let _ = parse_done(&junk);
    }

    /// Every byte of a good answer changed: refused, or another value, never a panic.
    #[test]
    fn no_mutation_panics(at in 0usize..94, with: u8) {
        let mut response = public("22060016", &hex(&MARK.to_policy()));
        response[at] ^= with;
        let _ = Public::parse(&response, INDEX);
        let _ = parse_counter(&response);
    }

    #[test]
    fn marks_round_trip(base: u64, origin: u64) {
        let mark = Mark { base, origin };
        prop_assert_eq!(Mark::of_policy(&mark.to_policy()), Some(mark));
    }
}
