//! `docs/reference/configuration.md` has the keys of the example configuration, with the defaults that it shows.

use std::collections::BTreeMap;

use racklet_tests::sources::{cells, quoted, text_of};

const EXAMPLE: &str = "update-agent/update-agent.example.toml";
const PAGE: &str = "docs/reference/configuration.md";

/// Sections whose keys are names that operators choose.
const OF_COMPONENTS: [&str; 2] = ["slots", "single"];

/// Section and key → the default, where there is one.
type Keys = BTreeMap<(String, String), Option<String>>;

/// The keys of the example. A line that begins with `#` and no space shows a default.
fn of_the_example(text: &str) -> Keys {
    let (mut section, mut found) = (String::new(), Keys::new());
    for line in text.lines() {
        let said = line.trim_start_matches('#').trim_start();
        if let Some(name) = header(said) {
            section = name.to_owned();
            continue;
        }
        let Some((key, value)) = said.split_once(" = ").filter(|(key, _)| is_key(key)) else {
            continue;
        };
        let is_default = line.starts_with('#') && !line.starts_with("# ");
        let default = is_default.then(|| value.to_owned());
        found.entry((section.clone(), key.to_owned())).or_insert(default);
    }
    found
}

/// The keys of the page: a heading for each section, and below it a table of key, default and meaning.
fn of_the_page(text: &str) -> Keys {
    let (mut section, mut found) = (String::new(), Keys::new());
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = quoted(heading).next().and_then(header).unwrap_or_default().to_owned();
        }
        let Some([key, default, _]) = cells(line).and_then(|row| <[&str; 3]>::try_from(row).ok())
        else {
            continue;
        };
        if let Some(key) = quoted(key).next() {
            let default = quoted(default).next().map(str::to_owned);
            found.insert((section.clone(), key.to_owned()), default);
        }
    }
    found
}

/// The name of a table in TOML: `[node]`, `[[source]]`.
fn header(line: &str) -> Option<&str> {
    let name = line.strip_prefix('[')?.strip_suffix(']')?;
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.split('.').all(is_key).then_some(name)
}

fn is_key(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[test]
fn the_page_has_every_key_of_the_example_and_no_other() {
    let is_fixed = |section: &str| !OF_COMPONENTS.iter().any(|name| section.starts_with(name));
    let mut example = of_the_example(&text_of(EXAMPLE));
    example.retain(|(section, _), _| is_fixed(section));
    assert!(example.len() > 60, "{} keys in the example", example.len());
    let page = of_the_page(&text_of(PAGE));
    let missing: Vec<_> = example.keys().filter(|key| !page.contains_key(key)).collect();
    assert!(missing.is_empty(), "{PAGE} lacks {missing:?}");
    let surplus: Vec<_> = page.keys().filter(|key| !example.contains_key(key)).collect();
    assert!(surplus.is_empty(), "{EXAMPLE} lacks {surplus:?}");
    // Of a key that the example sets, it does not show the default.
    for (key, default) in example.into_iter().filter(|(_, default)| default.is_some()) {
        assert_eq!(page[&key], default, "the default of {key:?}");
    }
}

#[test]
fn keys_and_defaults_are_read() {
    let example = "a = 1\n[node]\n#b = \"x\"\n# c = 2\n# Prose = no\n# [[seed]]\n# d = []\n";
    let page = "## Top\n| `a` | – | A |\n## `[node]`\n| `b` | `\"x\"` | B |\n| `c` | – | C |\n\
                ## `[[seed]]`\n| `d` | – | D |\n| two | cells |\n";
    assert_eq!(of_the_example(example), of_the_page(page));
    assert_eq!(of_the_page(page).len(), 4);
}
