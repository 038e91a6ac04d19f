//! Reads a book as a browser would: every link leads somewhere, and nothing is loaded from a network.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The page that a web server shows for a wrong address. Its links are those of the root of a site.
const NOT_FOUND: &str = "404.html";

/// How many pages a book has, and what is wrong with it.
pub(super) fn whole(book: &Path) -> Result<(usize, Vec<String>)> {
    let files = files(book)?;
    let mut pages = BTreeMap::new();
    for file in files.iter().filter(|file| file.ends_with(".html") && *file != NOT_FOUND) {
        let text = fs::read_to_string(book.join(file)).with_context(|| format!("read {file}"))?;
        pages.insert(file.clone(), text);
    }
    let anchors: BTreeMap<&str, BTreeSet<&str>> =
        pages.iter().map(|(page, text)| (page.as_str(), values(text, " id=").collect())).collect();
    let mut faults = Vec::new();
    for (page, text) in &pages {
        faults.extend(loaded(text).map(|from| format!("{page} loads {from}")));
        let targets = values(text, " href=").chain(values(text, " src="));
        let inside = targets.filter(|target| !is_outside(target));
        let dead = inside.filter(|target| !leads(page, target, &files, &anchors));
        faults.extend(dead.map(|target| format!("{page}: {target} leads nowhere")));
    }
    faults.sort();
    faults.dedup();
    // The first page, as a site's first page, and the contents in a frame are no further pages.
    let copies = ["index.html", "toc.html"];
    let pages = pages.keys().filter(|page| !copies.contains(&page.as_str())).count();
    Ok((pages, faults))
}

/// The files whose bytes two folders do not share.
pub(super) fn differences(one: &Path, other: &Path) -> Result<Vec<String>> {
    let names: BTreeSet<String> = files(one)?.union(&files(other)?).cloned().collect();
    let same = |name: &String| fs::read(one.join(name)).ok() == fs::read(other.join(name)).ok();
    Ok(names.into_iter().filter(|name| !same(name)).collect())
}

/// Every file below a folder, by its path from there.
fn files(top: &Path) -> Result<BTreeSet<String>> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        let list = fs::read_dir(top.join(&folder));
        for entry in list.with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

/// What stands in quotation marks after an attribute.
fn values<'a>(text: &'a str, attribute: &str) -> impl Iterator<Item = &'a str> {
    let rest = text.split(attribute).skip(1);
    rest.filter_map(|rest| rest.strip_prefix('"')?.split('"').next())
}

fn is_outside(target: &str) -> bool {
    target.contains("://") || target.starts_with("data:") || target.starts_with("mailto:")
}

/// What a page makes a browser load from elsewhere: scripts, styles, pictures, fonts.
fn loaded(text: &str) -> impl Iterator<Item = &str> {
    let tags = text.split('<').filter_map(|rest| rest.split('>').next());
    let loading = ["script ", "link ", "img ", "iframe ", "source "];
    let tags = tags.filter(move |tag| loading.iter().any(|name| tag.starts_with(name)));
    let targets = tags.flat_map(|tag| values(tag, " src=").chain(values(tag, " href=")));
    targets.filter(|target| target.contains("://") || target.starts_with("//"))
}

/// Whether a link of a page leads to a file of the book, and to an anchor in it.
fn leads(
    page: &str,
    target: &str,
    files: &BTreeSet<String>,
    anchors: &BTreeMap<&str, BTreeSet<&str>>,
) -> bool {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = path.split('?').next().unwrap_or_default();
    let mut parts: Vec<&str> = page.split('/').collect();
    if !path.is_empty() {
        parts.pop();
        for part in path.split('/').filter(|part| *part != ".") {
            match part {
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
    }
    let file = parts.join("/");
    // What a page has no anchors for is not looked into: a schema, a rule.
    let known = anchors.get(file.as_str());
    files.contains(&file) && (anchor.is_empty() || known.is_none_or(|known| known.contains(anchor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_with_faults_names_each_of_them() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("guides")).expect("made");
        let first = "<a href=\"guides/a.html#here\">1</a><a href=\"guides/a.html#there\">2</a>\
                     <a href=\"b.html\">3</a><a href=\"https://example.org/\">4</a>\
                     <script src=\"https://example.org/x.js\"></script>";
        fs::write(dir.path().join("README.html"), first).expect("written");
        let second = "<h2 id=\"here\"></h2><a href=\"../README.html\">5</a><a href=\"#none\">6</a>";
        fs::write(dir.path().join("guides/a.html"), second).expect("written");
        fs::write(dir.path().join(NOT_FOUND), "<a href=\"nowhere\">7</a>").expect("written");
        let wanted = [
            "README.html loads https://example.org/x.js",
            "README.html: b.html leads nowhere",
            "README.html: guides/a.html#there leads nowhere",
            "guides/a.html: #none leads nowhere",
        ];
        let (pages, faults) = whole(dir.path()).expect("it is read");
        assert_eq!(pages, 2);
        assert_eq!(faults, wanted);
    }
}
