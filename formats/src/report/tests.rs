//! What is signed is read, what is longer is shortened, and nothing else is believed.

use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

use super::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(key: &SigningKey) -> [u8; 32] {
    key.verifying_key().to_bytes()
}

fn sign(report: Report, key: &SigningKey) -> Vec<u8> {
    let prepared = report.prepare(&public(key));
    prepared.document(&key.sign(&prepared.message()).to_bytes())
}

/// A document around any payload, signed by the key.
fn around(payload: &Value, key: &SigningKey) -> Vec<u8> {
    document(&public(key), payload, &key.sign(&payload.canonical()).to_bytes())
}

fn sample() -> Report {
    let slot = |state: &str, version: &str| SlotReport {
        state: state.into(),
        version: Some(version.into()),
        index: Some(Sha256::of(version.as_bytes())),
        security_version: Some(7),
        tries_left: None,
    };
    Report {
        name: Some("rack-3-node-07".into()),
        product: "demo".into(),
        channel: "stable".into(),
        hardware: vec!["racklet-cu-v1".into()],
        agent: "0.1.0".into(),
        sequence: 12,
        at: 1_795_000_000,
        boot: "8c0b5b0e-2f0e-4a7e-9d43-3f1f7c9c6c11".into(),
        uptime: 86_400,
        interval: 3960,
        slots: PerSlot { a: slot("confirmed", "1.4.2"), b: slot("failed", "1.4.3") },
        booted: "a".into(),
        next: Some("a".into()),
        standing: "idle".into(),
        decision: Some(Decided {
            version: "1.4.3".into(),
            code: "failed_before".into(),
            rule: Some("not-failed".into()),
            sentence: "1.4.3 failed on this node before".to_owned(),
            until: None,
        }),
        error: Some(Erred {
            code: "unreachable".into(),
            sentence: "updates.example.org: connection refused".to_owned(),
            at: 1_794_999_000,
        }),
        failure: Some(Failed {
            version: "1.4.3".into(),
            index: Some(Sha256::of(b"1.4.3")),
            code: "unhealthy".into(),
            sentence: "web: answered 500".to_owned(),
            at: 1_794_990_000,
        }),
        floor: Some(FloorKept { security_version: 7, kept: "tpm".into() }),
        metadata: Some(Trusted { root: 2, timestamp: 9, snapshot: 4, targets: 4, expires: 1 }),
        checked: Some(1_794_999_900),
        bytes: Some(BytesBySource { registry: 5, bundle: 2, delta: Some(4), reuse: None }),
        ..Report::default()
    }
}

#[test]
fn a_report_round_trips() {
    let document = sign(sample(), &key(1));
    let read = SignedReport::verify(&document).unwrap();
    let wanted = Report { node: node_of(&public(&key(1))), ..sample() };
    assert_eq!(read.report(), &wanted);
    assert_eq!(read.document(), document);
    assert_eq!(read.unread(), Vec::<String>::new());
    insta::assert_snapshot!(String::from_utf8(document).unwrap());
}

#[test]
fn what_a_later_version_says_is_kept_and_shown() {
    let mut payload = Report { node: node_of(&public(&key(1))), ..sample() }.value();
    let Value::Object(members) = &mut payload else { panic!("an object") };
    members.insert("later".to_owned(), Value::from("something"));
    members.insert("standing".to_owned(), Value::from("levitating"));
    let Some(Value::Object(slots)) = members.get_mut("slots") else { panic!("slots") };
    slots.insert("c".to_owned(), Value::from("third"));
    let Some(Value::Object(a)) = slots.get_mut("a") else { panic!("slot a") };
    a.insert("state".to_owned(), Value::from("quarantined"));
    a.insert("quorum".to_owned(), Value::Int(3));
    let document = around(&payload, &key(1));
    let read = SignedReport::verify(&document).unwrap();
    assert_eq!(read.report().standing, "levitating");
    assert_eq!(read.report().running().unwrap().state, "quarantined");
    assert_eq!(read.unread(), ["later", "slots.a.quorum", "slots.c"]);
    assert_eq!(read.document(), document, "nothing of it is lost");
    assert_eq!(Report::of_document(&document).as_ref(), Ok(read.report()));
}

#[test]
fn what_is_not_the_keys_is_refused() {
    let good = sign(sample(), &key(1));
    // Of somebody else, under this node's name.
    let foreign = Report { node: node_of(&public(&key(1))), ..sample() }.value();
    assert!(matches!(
        SignedReport::verify(&around(&foreign, &key(2))),
        Err(ReportError::Foreign { .. })
    ));
    // Every byte of the document counts: a flipped bit never verifies.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(SignedReport::verify(&bad).is_err(), "bit 0 of byte {at}");
    }
    let mut unsigned = good.clone();
    let at = good.len() - 10;
    unsigned[at] = if good[at] == b'0' { b'1' } else { b'0' };
    assert_eq!(SignedReport::verify(&unsigned), Err(ReportError::Signature));
}

#[test]
fn forms_that_are_refused() {
    let owner = node_of(&public(&key(1)));
    let with = |name: &str, value: Value| {
        let mut payload = Report { node: owner, ..sample() }.value();
        let Value::Object(members) = &mut payload else { panic!("an object") };
        members.insert(name.to_owned(), value);
        SignedReport::verify(&around(&payload, &key(1)))
    };
    assert!(with("uptime", Value::Int(0)).is_ok());
    assert!(with("product", Value::from("x".repeat(WORD_LIMIT))).is_ok());
    assert!(matches!(
        with("product", Value::from("x".repeat(WORD_LIMIT + 1))),
        Err(ReportError::Form(_))
    ));
    assert!(matches!(with("sequence", Value::Int(0)), Err(ReportError::Form(_))));
    assert!(matches!(with("sequence", Value::Int(-1)), Err(ReportError::Form(_))));
    assert!(matches!(with("slots", Value::Null), Err(ReportError::Form(_))));
    assert!(matches!(with("type", Value::from("racklet-report-2")), Err(ReportError::Type(_))));
    assert!(matches!(with("type", Value::Int(1)), Err(ReportError::Form(_))));
    assert!(matches!(with("pad", Value::from("x".repeat(4096))), Err(ReportError::TooLong(_))));
    for bytes in [&b""[..], b"{}", b"[]", b"{\"key\":1}", b"{\"report\":{},\"report\":{}}"] {
        assert!(SignedReport::verify(bytes).is_err());
    }
    // A point of small order signs anything.
    let mut weak = [0; 32];
    weak[0] = 1;
    let payload = Report { node: node_of(&weak), ..sample() }.value();
    let verified = SignedReport::verify(&document(&weak, &payload, &[0; 64]));
    assert_eq!(verified, Err(ReportError::Key));
}

#[test]
fn news_are_more_than_time_and_counters() {
    let news = sample().content();
    let same = |edit: &dyn Fn(&mut Report)| {
        let mut report = sample();
        edit(&mut report);
        report.content() == news
    };
    assert!(same(&|it| it.at += 60));
    assert!(same(&|it| (it.sequence, it.uptime, it.checked) = (13, 1, None)));
    assert!(same(&|it| it.metadata = None));
    assert!(same(&|it| it.error.as_mut().unwrap().at += 60));
    assert!(same(&|it| it.decision.as_mut().unwrap().sentence = "in 40 s".to_owned()));
    assert!(!same(&|it| it.boot = "another".into()));
    assert!(!same(&|it| it.standing = "on_trial".into()));
    assert!(!same(&|it| it.slots.b.state = "staged".into()));
    assert!(!same(&|it| it.error = None));
    assert!(!same(&|it| it.decision.as_mut().unwrap().code = "install".into()));
    assert!(!same(&|it| it.name = None));
}

/// Each text as long and as expensive as it can be.
fn largest() -> Report {
    let word = || Word::new(&"\"\\".repeat(100));
    let sentence = || "\"\u{1}é\u{202e}".repeat(4000);
    let slot = || SlotReport {
        state: word(),
        version: Some(word()),
        index: Some(Sha256([0xff; 32])),
        security_version: Some(u64::MAX),
        tries_left: Some(u64::MAX),
    };
    Report {
        name: Some(word()),
        product: word(),
        channel: word(),
        hardware: vec![word(); 100],
        agent: word(),
        sequence: u64::MAX,
        at: u64::MAX,
        boot: word(),
        uptime: u64::MAX,
        interval: u64::MAX,
        slots: PerSlot { a: slot(), b: slot() },
        booted: word(),
        next: Some(word()),
        standing: word(),
        decision: Some(Decided {
            version: word(),
            code: word(),
            rule: Some(word()),
            sentence: sentence(),
            until: Some(u64::MAX),
        }),
        error: Some(Erred { code: word(), sentence: sentence(), at: u64::MAX }),
        failure: Some(Failed {
            version: word(),
            index: Some(Sha256([0xff; 32])),
            code: word(),
            sentence: sentence(),
            at: u64::MAX,
        }),
        floor: Some(FloorKept { security_version: u64::MAX, kept: word() }),
        metadata: Some(Trusted {
            root: u64::MAX,
            timestamp: u64::MAX,
            snapshot: u64::MAX,
            targets: u64::MAX,
            expires: u64::MAX,
        }),
        checked: Some(u64::MAX),
        bytes: Some(BytesBySource {
            registry: u64::MAX,
            bundle: u64::MAX,
            delta: Some(u64::MAX),
            reuse: Some(u64::MAX),
        }),
        ..Report::default()
    }
}

#[test]
fn the_largest_report_fits_and_loses_sentences_first() {
    let document = sign(largest(), &key(1));
    assert!(document.len() <= REPORT_LIMIT, "{}", document.len());
    let read = SignedReport::verify(&document).unwrap();
    assert_eq!(read.report().slots.a.version, largest().slots.a.version);
    assert_eq!(read.report().sequence, i64::MAX as u64);

    // Of a real one, what is too long is a sentence, and the others stay whole.
    let mut long = sample();
    long.error.as_mut().unwrap().sentence = "x".repeat(10_000);
    let read = SignedReport::verify(&sign(long, &key(1))).unwrap();
    let sentence = &read.report().error.as_ref().unwrap().sentence;
    assert!(sentence.ends_with('…') && sentence.len() <= SENTENCE_LIMIT, "{sentence}");
    assert_eq!(read.report().failure, sample().failure);
    assert_eq!(read.report().name, sample().name);
}

#[test]
fn texts_of_others_are_shown_on_one_line() {
    assert_eq!(shown("a\nb\u{1b}[31m\u{202e}c", 100), "a b [31m c");
    assert_eq!(shown("äöü", 2), "äö…");
    assert_eq!(shown("äöü", 3), "äöü");
    assert_eq!(cut("äöü", 3), "ä");
    assert_eq!(Word::new("a\u{7}b").as_str(), "ab");
    assert_eq!(Word::new(&"ä".repeat(100)).as_str().len(), WORD_LIMIT);
}

fn words() -> impl Strategy<Value = Word> {
    "\\PC{0,80}|[\"\\\\\\x00-\\x1f]{0,80}".prop_map(|text| Word::new(&text))
}

fn sentences() -> impl Strategy<Value = String> {
    "(?s).{0,1500}|[\"\\\\\\x00-\\x1f]{0,1500}"
}

prop_compose! {
    fn reports()(
        texts in proptest::collection::vec(words(), 12),
        sentences in proptest::collection::vec(sentences(), 3),
        numbers in proptest::collection::vec(any::<u64>(), 6),
        hardware in proptest::collection::vec(words(), 0..9),
        present in any::<[bool; 4]>(),
    ) -> Report {
        let [name, decision, error, failure] = present;
        let word = |at: usize| texts[at].clone();
        Report {
            name: name.then(|| word(0)),
            product: word(1),
            channel: word(2),
            hardware,
            agent: word(3),
            boot: word(4),
            standing: word(5),
            booted: word(6),
            sequence: numbers[0],
            at: numbers[1],
            uptime: numbers[2],
            interval: numbers[3],
            decision: decision.then(|| Decided {
                version: word(7),
                code: word(8),
                rule: Some(word(9)),
                sentence: sentences[0].clone(),
                until: Some(numbers[4]),
            }),
            error: error.then(|| Erred {
                code: word(10),
                sentence: sentences[1].clone(),
                at: numbers[5],
            }),
            failure: failure.then(|| Failed {
                version: word(11),
                sentence: sentences[2].clone(),
                ..Failed::default()
            }),
            ..Report::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_node_says_fits_and_is_read_back(report in reports()) {
        let document = sign(report.clone(), &key(3));
        prop_assert!(document.len() <= REPORT_LIMIT);
        let read = SignedReport::verify(&document).unwrap();
        prop_assert_eq!(&read.report().product, &report.product);
        prop_assert_eq!(read.report().content(), SignedReport::verify(&document).unwrap().report().content());
        prop_assert!(read.unread().is_empty());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = SignedReport::verify(&bytes);
    }

    #[test]
    fn a_document_with_any_byte_exchanged_is_no_other_report(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let good = sign(sample(), &key(1));
        let mut bytes = good.clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = SignedReport::verify(&bytes) {
            let same = SignedReport::verify(&good).unwrap();
            prop_assert_eq!(read.report(), same.report());
        }
    }

    #[test]
    fn shown_texts_have_no_control_characters(text in ".*|[\\x00-\\x1f\u{202e}]*", longest in 0_usize..50) {
        let shown = shown(&text, longest);
        prop_assert!(!shown.chars().any(char::is_control));
        prop_assert!(shown.chars().count() <= longest + 1);
    }
}
