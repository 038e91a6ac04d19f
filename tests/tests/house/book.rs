//! The book: `docs/SUMMARY.md` lists every page below `docs/` once, under the title that the page has, and no page
//! links to a file that the book has not.

use std::collections::{BTreeMap, BTreeSet};

use racklet_tests::sources::{files, text_of};

use super::references::normal;

/// The contents of the book.
const SUMMARY: &str = "docs/SUMMARY.md";

/// A line of the contents: the page, from the root of the repository, and the title it is listed under.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    page: String,
    title: String,
}

/// The pages that contents list, in order. Headings name parts of the book and are passed over.
fn listed(summary: &str) -> Vec<Listed> {
    let entries = summary.lines().filter_map(|line| {
        let entry = line.trim_start().trim_start_matches("- ").strip_prefix('[')?;
        let (title, rest) = entry.split_once("](")?;
        let page = rest.strip_suffix(')')?;
        Some(Listed { page: format!("docs/{page}"), title: title.to_owned() })
    });
    entries.collect()
}

/// The first heading of a page.
fn title(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("# "))
}

/// Where the relative links of a text lead, from the root of the repository, without anchors. Blocks of code hold
/// none.
fn links(page: &str, text: &str) -> Vec<String> {
    let folder = page.rsplit_once('/').map_or(String::new(), |(above, _)| format!("{above}/"));
    let mut code = false;
    let prose = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    });
    let targets = prose.flat_map(|line| line.split("](").skip(1));
    let targets = targets.filter_map(|rest| rest.split([')', '#']).next());
    let inside = targets.filter(|target| !target.is_empty() && !target.contains("://"));
    inside.map(|target| normal(&format!("{folder}{target}"))).collect()
}

/// The pages that are there.
fn pages() -> BTreeSet<String> {
    let is_page = |file: &String| file.starts_with("docs/") && file.ends_with(".md");
    files().into_iter().filter(is_page).filter(|file| file != SUMMARY).collect()
}

#[test]
fn every_page_is_in_the_book_once() {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for Listed { page, .. } in listed(&text_of(SUMMARY)) {
        *times.entry(page).or_default() += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "more than once in {SUMMARY}: {twice:?}");
    let listed: BTreeSet<String> = times.into_keys().collect();
    let there = pages();
    let missing: Vec<_> = there.difference(&listed).collect();
    assert!(missing.is_empty(), "not in {SUMMARY}: {missing:?}");
    let gone: Vec<_> = listed.difference(&there).collect();
    assert!(gone.is_empty(), "in {SUMMARY}, and not there: {gone:?}");
}

#[test]
fn the_contents_have_the_titles_of_the_pages() {
    for Listed { page, title: said } in listed(&text_of(SUMMARY)) {
        assert_eq!(Some(said.as_str()), title(&text_of(&page)), "{page}");
    }
}

/// A link out of `docs/` works where the repository is read, and nowhere else.
#[test]
fn links_between_pages_stay_in_the_book() {
    let files: BTreeSet<String> = files().into_iter().collect();
    let mut outside = Vec::new();
    for page in pages() {
        let text = text_of(&page);
        let leaves = |target: &String| !target.starts_with("docs/") || !files.contains(target);
        let leaving = links(&page, &text).into_iter().filter(leaves);
        outside.extend(leaving.map(|target| format!("{page}: {target}")));
    }
    assert!(outside.is_empty(), "links that the book has not:\n{}", outside.join("\n"));
}

#[test]
fn contents_titles_and_links_are_read() {
    let summary = "# Summary\n\n[A](README.md)\n\n# Part\n\n- [B `c`](b.md)\n  - [D](d/e.md)\n";
    let entry = |page: &str, title: &str| Listed { page: page.to_owned(), title: title.to_owned() };
    let wanted =
        [entry("docs/README.md", "A"), entry("docs/b.md", "B `c`"), entry("docs/d/e.md", "D")];
    assert_eq!(listed(summary), wanted);
    assert_eq!(title("<!-- after: x -->\n\n# A title\n\n# Another\n"), Some("A title"));
    let text =
        "[a](../b.md#c) [d](e.json)\n[f](#g) [h](https://i.example/)\n```text\n[j](k)\n```\n";
    assert_eq!(links("docs/x/y.md", text), ["docs/b.md", "docs/x/e.json"]);
}
