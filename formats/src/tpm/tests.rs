use proptest::prelude::*;

use super::*;
use crate::digest::{hex, unhex};

const INDEX: u32 = 0x0180_5241;
const MARK: Mark = Mark { base: 1, origin: 7 };

/// The commands as a TPM's documentation has them, byte for byte.
#[test]
fn commands_are_these_bytes() {
    let secret = b"pw";
    let rows: [(&str, Command<'_>, &str); 11] = [
        ("read public", Command::ReadPublic { index: INDEX }, "8001 0000000e 00000169 01805241"),
        (
            "increment",
            Command::Increment { index: INDEX, secret },
            "8002 00000021 00000134 01805241 01805241 0000000b 40000009 0000 00 0002 7077",
        ),
        (
            "lock",
            Command::Lock { index: INDEX, secret },
            "8002 00000021 00000138 01805241 01805241 0000000b 40000009 0000 00 0002 7077",
        ),
        (
            "start reading",
            Command::StartReading,
            "8001 0000002b 00000176 40000007 40000007 0010 00000000000000000000000000000000 0000 01 \
             0010 000b",
        ),
        (
            "allow reading",
            Command::AllowReading { session: 0x0300_0001 },
            "8001 00000012 0000016c 03000001 0000014e",
        ),
        (
            "read by a session",
            Command::ReadBy { session: 0x0300_0001, index: INDEX },
            "8002 00000023 0000014e 01805241 01805241 00000009 03000001 0000 00 0000 0008 0000",
        ),
        ("end", Command::End { session: 0x0300_0001 }, "8001 0000000e 00000165 03000001"),
        (
            "define a guarded counter",
            Command::Define { index: INDEX, shape: Shape::Counter(secret), owner: b"" },
            "8002 0000004f 0000012a 40000001 00000009 40000009 0000 00 0000 0002 7077 \
             002e 01805241 000b 020c4014 0020 47ce3032d8bad1f3089cb0c09088de43 \
             501491d460402b90cd1b7fc0b68ca92f 0008",
        ),
        (
            "read",
            Command::Read { index: INDEX, secret: b"" },
            "8002 00000023 0000014e 01805241 01805241 00000009 40000009 0000 00 0000 0008 0000",
        ),
        (
            "undefine",
            Command::Undefine { index: INDEX, owner: b"pw" },
            "8002 00000021 00000122 40000001 01805241 0000000b 40000009 0000 00 0002 7077",
        ),
        (
            "define an open counter",
            Command::Define { index: INDEX, shape: Shape::Open(MARK), owner: b"" },
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
    let open = &*hex(&MARK.to_policy(Form::OPEN_MAGIC));
    let mark = &*hex(&MARK.to_policy(Form::MARK_MAGIC));
    let read = &*hex(&READ_POLICY);
    let stranger = &*"11".repeat(32);
    let (guarded, opened) = (Some(Form::Guarded), Some(Form::Open(MARK)));
    // name, attributes, policy, (form of a counter, mark), (written, locked)
    let rows = [
        ("guarded, counted", "220c4014", read, (guarded, None), (true, false)),
        ("guarded, locked", "220c4814", read, (guarded, None), (true, true)),
        ("guarded, fresh", "020c4014", read, (guarded, None), (false, false)),
        ("one that also the owner may write", "220c4016", read, (None, None), (true, false)),
        ("one that cannot be locked", "220c0014", read, (None, None), (true, false)),
        ("guarded, another policy", "220c4014", stranger, (None, None), (true, false)),
        ("guarded, with a mark", "220c4014", mark, (None, None), (true, false)),
        ("open, counted", "22060016", open, (opened, None), (true, false)),
        ("open, fresh", "02060016", open, (opened, None), (false, false)),
        ("an ordinary index with our mark", "02060006", open, (None, None), (false, false)),
        ("one that also a policy may write", "2206001e", open, (None, None), (true, false)),
        ("another policy", "22060016", stranger, (None, None), (true, false)),
        ("a mark", "02080008", mark, (None, Some(MARK)), (false, false)),
        ("a mark of the older form", "02080008", open, (None, None), (false, false)),
        ("a mark in a counter", "22080018", mark, (None, None), (true, false)),
    ];
    for (name, attributes, policy, (form, mark), (written, locked)) in rows {
        let found = Public::parse(&public(attributes, policy), INDEX).unwrap();
        assert_eq!((found.counter(), found.mark()), (form, mark), "{name}");
        assert_eq!((found.is_written(), found.is_locked()), (written, locked), "{name}");
    }
    let ours = open;
    let other = Public::parse(&public("22060016", ours), INDEX + 1);
    assert!(matches!(other, Err(TpmError::Form(_))));
    let counter = "8002 0000001d 00000000 0000000a 0008 0000000000000104 0000 01 0000";
    assert_eq!(parse_counter(&bytes(counter)), Ok(0x104));
    assert_eq!(parse_done(&bytes("8002 00000013 00000000 00000000 0000 01 0000")), Ok(()));
    assert_eq!(parse_bare(&bytes("8001 0000000a 00000000")), Ok(()));
    let session = bytes("8001 00000012 00000000 03000001 0002 abcd");
    assert_eq!(parse_session(&session), Ok(0x0300_0001));
}

/// The constant is the policy that a TPM computes.
#[test]
fn the_read_policy_is_that_of_the_command() {
    let extended = [&[0; 32][..], &0x16c_u32.to_be_bytes(), &NV_READ.to_be_bytes()].concat();
    assert_eq!(crate::digest::Sha256::of(&extended).to_string(), hex(&READ_POLICY));
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
        let _ = parse_bare(&junk);
        let _ = parse_session(&junk);
    }

    /// Every byte of a good answer changed: refused, or another value, never a panic.
    #[test]
    fn no_mutation_panics(at in 0usize..94, with: u8) {
        let mut response = public("22060016", &hex(&MARK.to_policy(Form::OPEN_MAGIC)));
        response[at] ^= with;
        let _ = Public::parse(&response, INDEX);
        let _ = parse_counter(&response);
    }

    #[test]
    fn marks_round_trip(base: u64, origin: u64) {
        let mark = Mark { base, origin };
        for (magic, other) in
            [(Form::OPEN_MAGIC, Form::MARK_MAGIC), (Form::MARK_MAGIC, Form::OPEN_MAGIC)]
        {
            prop_assert_eq!(Mark::of_policy(&mark.to_policy(magic), magic), Some(mark));
            prop_assert_eq!(Mark::of_policy(&mark.to_policy(magic), other), None);
        }
    }
}
