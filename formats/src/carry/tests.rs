use proptest::prelude::*;

use super::*;

fn carried(stored: &str, before: &str, after: &str) -> String {
    String::from_utf8(carry(stored.as_bytes(), before.as_bytes(), after.as_bytes())).unwrap()
}

#[test]
fn what_is_carried() {
    let rows = [
        ("nothing unknown", r#"{"a":1}"#, r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":2}"#),
        ("a member", r#"{"a":1,"x":2}"#, r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":2,"x":2}"#),
        ("in place", r#"{"x":1e400,"a":1}"#, r#"{"a":1}"#, r#"{"a":2}"#, r#"{"x":1e400,"a":2}"#),
        ("a new member", r#"{"x":2}"#, "{}", r#"{"a":2}"#, r#"{"x":2,"a":2}"#),
        ("a removed member", r#"{"a":{"x":1},"y":1}"#, r#"{"a":{}}"#, "{}", r#"{"y":1}"#),
        ("one that was unread", r#"{"a":"new"}"#, "{}", r#"{"a":1}"#, r#"{"a":1}"#),
        (
            "one that stays unread",
            r#"{"a":"new"}"#,
            r#"{"a":null}"#,
            r#"{"a":null}"#,
            r#"{"a":"new"}"#,
        ),
        (
            "deeper",
            r#"{"a":{"b":1,"x":[ 1 ]}}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":{"b":2}}"#,
            r#"{"a":{"b":2,"x":[1]}}"#,
        ),
        (
            "another thing",
            r#"{"a":{"name":"p","x":1}}"#,
            r#"{"a":{"name":"p"}}"#,
            r#"{"a":{"name":"q"}}"#,
            r#"{"a":{"name":"q"}}"#,
        ),
        (
            "an element that was unread",
            r#"[{"at":1,"x":1},{"later":1},{"at":2}]"#,
            r#"[{"at":1},{"at":2}]"#,
            r#"[{"at":1},{"at":2},{"at":3}]"#,
            r#"[{"at":1,"x":1},{"later":1},{"at":2},{"at":3}]"#,
        ),
        (
            "the oldest is forgotten",
            r#"[{"at":1,"x":1},{"at":2,"x":2}]"#,
            r#"[{"at":1},{"at":2}]"#,
            r#"[{"at":2},{"at":3}]"#,
            r#"[{"at":2,"x":2},{"at":3}]"#,
        ),
        (
            "a list is emptied",
            r#"{"l":[{"at":1},"later"]}"#,
            r#"{"l":[{"at":1}]}"#,
            r#"{"l":[]}"#,
            r#"{"l":["later"]}"#,
        ),
        ("no JSON", "{", "{}", r#"{"a":1}"#, r#"{"a":1}"#),
    ];
    for (name, stored, before, after, expected) in rows {
        assert_eq!(carried(stored, before, after), expected, "{name}");
    }
}

#[test]
fn what_is_unread_is_named() {
    let stored = br#"{"a":{"b":1,"x":2},"l":[{"at":1},{"later":1}],"y":{},"z":"new","n":"new"}"#;
    let before = br#"{"a":{"b":1},"l":[{"at":1}],"n":null}"#;
    assert_eq!(unread(stored, before), ["a.x", "l[1]", "z", "n"]);
    assert_eq!(unread(before, before), [""; 0]);
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_tree_is_its_text(value in json()) {
        let text = value.to_string();
        prop_assert_eq!(Tree::parse(text.as_bytes()).unwrap().to_string(), &text[..]);
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(Tree::parse(pretty.as_bytes()).unwrap().to_string(), text);
    }

    /// Whatever is stored: nothing changed, nothing is lost; and what this version writes is in it.
    #[test]
    fn what_did_not_change_stays(stored in json(), known in json()) {
        let (stored, known) = (stored.to_string(), known.to_string());
        prop_assert_eq!(carried(&stored, &known, &known), &stored[..]);
        prop_assert_eq!(carried(&stored, &stored, &known), known);
    }

    #[test]
    fn bytes_never_panic(bytes: Vec<u8>, more in ".{0,20}") {
        let _ = carry(&bytes, more.as_bytes(), b"{\"a\":1}");
        let _ = unread(more.as_bytes(), &bytes);
    }
}
