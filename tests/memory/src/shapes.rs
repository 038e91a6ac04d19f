//! JSON of the shapes that grow most when they are read.

/// A shape: its name, and a value of about so many bytes of text, never more.
pub type Shape = (&'static str, fn(usize) -> String);

/// Values of any kind, each of which is costly in another way: a tree's nodes, names, escapes,
/// depth, members that come in the wrong order.
pub const VALUES: &[Shape] = &[
    ("empty objects", |len| list(len, |_| "{}".to_owned())),
    ("empty lists", |len| list(len, |_| "[]".to_owned())),
    ("empty texts", |len| list(len, |_| "\"\"".to_owned())),
    ("short texts", |len| list(len, |_| "\"ab\"".to_owned())),
    ("numbers", |len| list(len, |_| "0".to_owned())),
    ("large numbers", |len| list(len, |_| i64::MIN.to_string())),
    ("objects of one member", |len| list(len, |_| r#"{"":0}"#.to_owned())),
    ("objects of one member, nested", |len| list(len, |_| r#"{"":{"":{"":0}}}"#.to_owned())),
    ("lists of one list", |len| list(len, |_| "[[[]]]".to_owned())),
    ("objects of two members, turned round", |len| list(len, |_| r#"{"b":"","a":""}"#.to_owned())),
    ("members", |len| members(len, |i| format!(r#""{i:x}":0"#))),
    ("members, descending", |len| members(len, |i| format!(r#""{:x}":0"#, usize::MAX - i))),
    ("members of empty objects", |len| members(len, |i| format!(r#""{i:x}":{{}}"#))),
    ("members with escapes", |len| members(len, |i| format!(r#""\"\\\n{i:x}":"\u0001""#))),
    ("one text", |len| format!("\"{}\"", "x".repeat(len.saturating_sub(2)))),
    ("one text of escapes", |len| format!("\"{}\"", r"\u00e9".repeat(len.saturating_sub(2) / 6))),
    ("one text of control characters", |len| {
        format!("\"{}\"", r"\n".repeat(len.saturating_sub(2) / 2))
    }),
    ("one long name", |len| format!("{{\"{}\":0}}", "x".repeat(len.saturating_sub(6)))),
    ("long texts", |len| list(len, |_| format!("\"{}\"", "x".repeat(4000)))),
    ("depth", |len| list(len, |_| format!("{}{}", "[".repeat(50), "]".repeat(50)))),
    ("depth of objects", |len| {
        list(len, |_| format!("{}0{}", r#"{"":"#.repeat(50), "}".repeat(50)))
    }),
    ("depth without end", |len| "[".repeat(len)),
    ("white space", |len| format!("{}0", " ".repeat(len.saturating_sub(1)))),
];

/// A list of the items `item` makes, of at most `len` bytes.
pub fn list(len: usize, item: impl Fn(usize) -> String) -> String {
    joined(len, '[', ']', item)
}

/// An object of the members `member` makes, of at most `len` bytes.
pub fn members(len: usize, member: impl Fn(usize) -> String) -> String {
    joined(len, '{', '}', member)
}

fn joined(len: usize, open: char, close: char, item: impl Fn(usize) -> String) -> String {
    let mut out = String::with_capacity(len);
    out.push(open);
    for i in 0.. {
        let next = item(i);
        if out.len() + next.len() + 2 > len {
            break;
        }
        if i > 0 {
            out.push(',');
        }
        out.push_str(&next);
    }
    out.push(close);
    out
}

/// A document: `frame` around a value, at `{}`, of `len` bytes together at most.
pub fn within(frame: &str, len: usize, value: fn(usize) -> String) -> Vec<u8> {
    let room = len.saturating_sub(frame.len());
    frame.replacen("{}", &value(room), 1).into_bytes()
}
