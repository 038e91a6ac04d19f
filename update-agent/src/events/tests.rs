use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;

use super::*;

const HOSTILE: &str = "x\u{1b}[2K\nMESSAGE_ID=0\r\u{202e}";

/// One of each kind, with every field it may have.
fn samples() -> Vec<Event<'static>> {
    let version = HOSTILE;
    let known = Some(version);
    let why = Why { code: "unhealthy", text: HOSTILE };
    let moved = Written { fetched: 1, reused_seed: 2, written: 3, ..Written::default() };
    let reached: &'static Reached = Box::leak(Box::new(Reached {
        what: HOSTILE.to_owned(),
        done: 1,
        total: 4,
        rate: Some(1),
        left: Some(3),
    }));
    let slot = Slot::B;
    vec![
        Event::Started {
            product: HOSTILE,
            channel: HOSTILE,
            mode: "auto",
            version: known,
            slot: Some(slot),
        },
        Event::Offered { version, next_step: "is available" },
        Event::Declined { version, why },
        Event::Installing { version, from: known, slot, source: HOSTILE },
        Event::Working(reached),
        Event::Staged { version, slot, moved },
        Event::Activated { version, slot, moved },
        Event::InstallFailed { version, why },
        Event::Restarting { command: HOSTILE },
        Event::RestartFailed { why },
        Event::OnTrial { version: known, slot, tries_left: 2 },
        Event::TrialFailed { version: known, slot, why },
        Event::Confirmed { version: known, slot },
        Event::Reverted { version: known, slot, why },
        Event::RestartDelayed {
            version,
            who: "hooks.before_restart",
            again: Duration::from_secs(60),
            left: Duration::from_secs(3600),
        },
        Event::HookFailed { hook: "before_restart", why: HOSTILE },
        Event::RoundFailed { why },
    ]
}

/// The fields of an event, in order, as a subscriber gets them.
#[derive(Default)]
struct Seen(Vec<(String, String)>);

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name().to_owned(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push((field.name().to_owned(), format!("{value:?}")));
    }
}

/// Level, target and fields of each event.
type Told = Arc<Mutex<Vec<(Level, String, Vec<(String, String)>)>>>;

struct Keep(Told);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Keep {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        let (level, target) = (*event.metadata().level(), event.metadata().target().to_owned());
        self.0.lock().unwrap().push((level, target, seen.0));
    }
}

#[test]
fn every_kind_is_told_with_its_fields_and_none_can_be_forged() {
    let told = Told::default();
    tracing::subscriber::with_default(
        tracing_subscriber::registry().with(Keep(Arc::clone(&told))),
        || samples().iter().for_each(Event::tell),
    );
    let told = told.lock().unwrap();
    assert_eq!(told.len(), KINDS.len(), "a sample of each kind");
    for (kind, (level, target, fields)) in KINDS.iter().zip(told.iter()) {
        assert_eq!((*level, target.as_str()), (kind.level, TARGET), "{}", kind.name);
        let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        names.retain(|name| !["message", "MESSAGE_ID"].contains(name));
        assert_eq!(names, kind.fields, "{}", kind.name);
        assert!(fields.contains(&("MESSAGE_ID".to_owned(), kind.id.to_owned())), "{}", kind.name);
        for (name, value) in fields {
            assert!(!value.contains(char::is_control), "{} {name}: {value:?}", kind.name);
            assert!(!value.contains('\u{202e}'), "{} {name}: {value:?}", kind.name);
            assert!(value.len() < 40 << 10, "{} {name}", kind.name);
        }
    }
}

#[test]
fn ids_are_ids_and_differ() {
    let mut found = BTreeSet::new();
    for kind in KINDS {
        assert!(kind.id.len() == 32, "{}", kind.name);
        assert!(kind.id.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{}", kind.name);
        assert!(found.insert(kind.id) && found.insert(kind.name), "{} twice", kind.name);
    }
}

/// The fields that the module explains, by its table.
fn explained() -> Vec<&'static str> {
    let rows = include_str!("mod.rs").lines().filter(|line| line.starts_with("//! | `"));
    rows.flat_map(|row| {
        let names = row.split('|').nth(1).unwrap_or_default();
        names.split('`').skip(1).step_by(2)
    })
    .collect()
}

#[test]
fn every_field_is_explained_where_developers_and_operators_look() {
    let page = include_str!("../../../docs/journal.md");
    let used: BTreeSet<&str> = KINDS.iter().flat_map(|kind| kind.fields).copied().collect();
    let listed: BTreeSet<&str> = explained().into_iter().collect();
    assert_eq!(listed, &used | &BTreeSet::from(["MESSAGE_ID"]));
    for field in listed {
        assert!(page.lines().any(|line| line.starts_with('|') && line.contains(field)), "{field}");
    }
}

#[test]
fn the_page_lists_every_kind() {
    let page = include_str!("../../../docs/journal.md");
    let rows: Vec<String> = KINDS
        .iter()
        .map(|kind| {
            let priority = match kind.level {
                Level::ERROR => "err",
                Level::WARN => "warning",
                _ => "notice",
            };
            format!(
                "| {} | `{}` | {priority} | `{}` |",
                kind.name,
                kind.id,
                kind.fields.join("`, `")
            )
        })
        .collect();
    let found: Vec<&str> = page
        .lines()
        .filter(|line| line.split('|').nth(2).is_some_and(|cell| cell.trim().len() == 34))
        .collect();
    assert_eq!(found, rows, "docs/journal.md");
}

/// Each entry of the catalog: id and the text below it.
fn catalog() -> Vec<(&'static str, &'static str)> {
    let file = include_str!("../../systemd/update-agent.catalog");
    let entries = file.split("\n-- ").skip(1);
    entries.map(|entry| entry.split_once('\n').unwrap()).collect()
}

#[test]
fn the_catalog_says_of_every_kind_what_to_do() {
    let ids: Vec<&str> = catalog().iter().map(|(id, _)| *id).collect();
    let own: Vec<&str> = KINDS.iter().map(|kind| kind.id).collect();
    assert_eq!(ids, own, "in the order of the table");
    for (id, text) in catalog() {
        let kind = KINDS.iter().find(|kind| kind.id == id).unwrap();
        let (header, body) = text.split_once("\n\n").unwrap();
        assert!(header.starts_with("Subject: "), "{id}");
        assert!(header.contains("\nDefined-By: update-agent\n"), "{id}");
        assert!(body.trim().len() > 40, "{id} says nothing");
        // A placeholder of a field that the event does not have would stay as it is.
        for part in text.split('@').skip(1).step_by(2) {
            assert!(kind.fields.contains(&part), "{id}: @{part}@");
        }
        if kind.level <= Level::WARN {
            assert!(body.contains("What to do:"), "{id} says not what to do");
        }
    }
}
