//! A node that was taken over, and is approved: what it writes is meant for who reads the pages.

use formats::boot_record::PerSlot;
use formats::json::Value;
use formats::report::{Decided, REPORT_LIMIT, Report, SlotReport};
use racklet_testkit::forge::ForgeKey;

use super::rack::Story;

/// Markup, a control sequence, text from right to left.
pub(crate) const MARKUP: &str =
    "<script>hacked=1</script><img src=x onerror=hacked=1>\u{1b}[2J\u{202e}\"'&";
/// What every page but its own must not be able to say.
pub(crate) const KEY: u32 = 666;

/// Its last report, as long as the server takes it.
pub(crate) fn node(at: u64) -> Story {
    let word = || MARKUP.into();
    let slot = || SlotReport { state: word(), version: Some(word()), ..SlotReport::default() };
    let report = Report {
        sequence: 1,
        at,
        interval: 3600,
        slots: PerSlot { a: slot(), b: slot() },
        booted: "a".into(),
        standing: word(),
        decision: Some(Decided { version: word(), code: word(), ..Decided::default() }),
        ..Report::default()
    };
    let mut value = report.value();
    let Value::Object(members) = &mut value else { panic!("a report is an object") };
    let name = "W".repeat(64);
    for (member, text) in
        [("product", MARKUP), ("channel", MARKUP), ("standing", MARKUP), ("name", &name)]
    {
        members.insert(member.to_owned(), Value::from(text));
    }
    members.insert("<b>later</b>".to_owned(), Value::from(MARKUP));
    let key = ForgeKey::new(KEY);
    // A kilometre of text without a space, in a sentence.
    let length = (1..REPORT_LIMIT).rev().find_map(|length| {
        let mut value = value.clone();
        let Value::Object(members) = &mut value else { return None };
        let Some(Value::Object(decision)) = members.get_mut("decision") else { return None };
        decision.insert("sentence".to_owned(), Value::from("M".repeat(length).as_str()));
        let document = key.report_of(value);
        (document.len() <= REPORT_LIMIT).then_some(document)
    });
    Story::of(key, length.expect("something fits"))
}
