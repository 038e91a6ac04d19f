//! Nothing refers to a file that is not in the repository, or cites a number that is defined nowhere.
//!
//! A word of a text refers to a file when it is the name of a document (`….md`), begins with a folder of ours
//! (`docs/…`), or stands in backticks and ends as a source or script does (`boot.cmd`). Of Rust the comments are
//! looked at, and what programs may print: documents in `docs/`. Other files are text throughout.

use std::collections::BTreeSet;

use racklet_tests::sources::{files, quoted, text_of};

use super::{cases, promises};

/// Endings of files that are written for people or compiled, not made by a program.
const SOURCES: [&str; 9] =
    [".rs", ".sh", ".cmd", ".cfg", ".service", ".timer", ".toml", ".py", ".yml"];

/// Names that look like ours, and belong to somebody else.
const FOREIGN: &[(&str, &str)] = &[
    ("agent.toml", "a file of the tutorials"),
    ("initramfs.toml", "a file that operators write for the slot's initramfs"),
    ("oauth.md", "of docker's registry, in its repository"),
    ("proto.md", "of the network block device, in its repository"),
    ("repository_simulator.py", "of the public TUF suite"),
    ("setup.sh", "a script in the guest of a virtual machine"),
    ("signer.toml", "a file that operators write beside their keys"),
    ("update-agent.toml", "a file that operators write"),
    ("your.target", "an operator's own unit"),
];

/// Phrases that point outside: at documents that readers of the repository do not have.
const OUTSIDE: [&str; 4] = ["threats §", "design §", "threats.md", "the design's"];

/// A text of the repository, line by line.
struct Text {
    file: String,
    lines: Vec<String>,
}

/// The texts that people wrote: no corpora, snapshots, lock files, keys, and not this test.
fn texts() -> Vec<Text> {
    let machine = [".snap", ".lock", ".key", ".pub", ".png", "LICENSE"];
    let written = |file: &String| {
        !machine.iter().any(|end| file.ends_with(end))
            && !file.starts_with("fuzz/corpus/")
            && !file.starts_with("tests/tests/previous_landing/fixtures/")
            && !file.starts_with("tests/tests/house/")
    };
    let read = |file: String| {
        let lines = text_of(&file).lines().map(str::to_owned).collect();
        Text { file, lines }
    };
    files().into_iter().filter(written).map(read).collect()
}

/// What the files of the repository are called, and how a word is resolved.
struct Tree {
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
}

impl Tree {
    fn new() -> Self {
        let files: BTreeSet<String> = files().into_iter().collect();
        let above = |file: &String| {
            let ends: Vec<usize> = file.match_indices('/').map(|(at, _)| at).collect();
            ends.into_iter().map(|at| file[..at].to_owned()).collect::<Vec<_>>()
        };
        let folders = files.iter().flat_map(above).collect();
        Tree { files, folders }
    }

    fn is_top(&self, folder: &str) -> bool {
        self.folders.contains(folder) && !folder.contains('/')
    }

    fn holds(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        match path.split_once('*').zip(path.rsplit('*').next()) {
            Some(((before, _), after)) => {
                let fits = |file: &String| file.starts_with(before) && file.ends_with(after);
                self.files.iter().any(fits)
            }
            None => self.files.contains(path) || self.folders.contains(path),
        }
    }

    /// Whether a word of `file` names something: from the root, from the file's own folder, or from that of
    /// its crate.
    fn resolves(&self, file: &str, word: &str) -> bool {
        let mut bases = vec![String::new()];
        let mut folder = file;
        while let Some((above, _)) = folder.rsplit_once('/') {
            bases.push(format!("{above}/"));
            folder = above;
        }
        bases.iter().any(|base| {
            self.holds(&normal(&format!("{base}{word}")))
                || self.holds(&normal(&format!("{base}src/{word}")))
        })
    }

    /// Whether some file has this name, or ends with this path.
    fn ends_with(&self, word: &str) -> bool {
        let end = format!("/{word}");
        self.files.iter().any(|file| file == word || file.ends_with(&end))
    }
}

/// A path without `.` and `..`.
pub(crate) fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| *part != ".") {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The words of a line that could be paths. What holds a placeholder, a variable or a URL is none.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let of_a_path =
        |letter: char| letter.is_ascii_alphanumeric() || "/._-*:~<>{}$…".contains(letter);
    line.split(move |letter| !of_a_path(letter))
        .filter(|word| !word.contains("://") && !word.contains(['<', '>', '{', '}', '$', '~', '…']))
        .map(|word| word.split(':').next().unwrap_or_default().trim_end_matches('.'))
        .filter(|word| !word.starts_with('/') && !word.is_empty())
}

/// The comment of a line of Rust, or nothing.
fn comment(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("//").or_else(|| line.split_once(" // ").map(|(_, said)| said))
}

/// The words of a line that refer to files that are not there.
fn missing<'a>(tree: &Tree, file: &str, line: &'a str) -> Vec<&'a str> {
    let rust = file.ends_with(".rs");
    let said = if rust { comment(line) } else { Some(line) };
    let foreign = |word: &str| {
        let name = word.rsplit('/').next().unwrap_or(word);
        FOREIGN.iter().any(|(known, _)| *known == name)
    };
    let document = |word: &&str| word.ends_with(".md") && !tree.resolves(file, word);
    let folder = |word: &&str| {
        let top = word.split_once('/').is_some_and(|(top, _)| tree.is_top(top));
        top && !tree.resolves(file, word) && !tree.ends_with(word)
    };
    let printed = |word: &&str| word.starts_with("docs/") && document(word);
    let source = |word: &&str| {
        SOURCES.iter().any(|end| word.ends_with(end) && word.len() > end.len())
            && !tree.resolves(file, word)
            && !tree.ends_with(word)
    };
    let mut found: BTreeSet<&str> = BTreeSet::new();
    if let Some(said) = said {
        found.extend(words(said).filter(document));
        found.extend(words(said).filter(folder));
        found.extend(quoted(said).flat_map(words).filter(source));
    } else if !format!("/{file}").contains("/tests/") {
        found.extend(words(line).filter(printed));
    }
    found.into_iter().filter(|word| !foreign(word)).collect()
}

/// Fails with every finding, one a line.
#[track_caller]
fn none(what: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{what}:\n{}", findings.join("\n"));
}

/// Every line of every text that `find` says something about.
fn in_all(find: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let mut findings = Vec::new();
    for Text { file, lines } in texts() {
        for (number, line) in (1..).zip(&lines) {
            let found = find(&file, line).into_iter();
            findings.extend(found.map(|said| format!("{file}:{number}: {said}")));
        }
    }
    findings
}

#[test]
fn no_text_refers_to_a_file_that_is_not_in_the_repository() {
    let tree = Tree::new();
    let findings =
        in_all(|file, line| missing(&tree, file, line).into_iter().map(str::to_owned).collect());
    none("not in the repository", &findings);
}

#[test]
fn every_link_leads_somewhere() {
    let tree = Tree::new();
    let findings = in_all(|file, line| {
        if !file.ends_with(".md") {
            return Vec::new();
        }
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let inside = targets.filter(|target| !target.contains("://"));
        let folder = file.rsplit_once('/').map_or(String::new(), |(above, _)| format!("{above}/"));
        let broken = |target: &&str| {
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let path =
                if path.is_empty() { file.to_owned() } else { normal(&format!("{folder}{path}")) };
            !tree.holds(&path) || !(heading.is_empty() || has_heading(&path, heading))
        };
        inside.filter(broken).map(str::to_owned).collect()
    });
    none("leads nowhere", &findings);
}

/// Whether a document has a heading that hosts give this anchor.
fn has_heading(file: &str, anchor: &str) -> bool {
    let text = text_of(file);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchors = headings.map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().replace(' ', "-")
    });
    anchors.into_iter().any(|known| known == anchor)
}

#[test]
fn no_text_points_outside() {
    let findings = in_all(|_, line| {
        let lower = line.to_lowercase();
        let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).collect();
        let issue =
            words.windows(2).any(|pair| pair[0] == "issue" && pair[1].parse::<u32>().is_ok());
        let named =
            OUTSIDE.iter().filter(|phrase| lower.contains(*phrase)).map(|it| (*it).to_owned());
        named.chain(issue.then(|| "a numbered issue".to_owned())).collect()
    });
    none("points outside", &findings);
}

#[test]
fn every_number_that_is_cited_is_defined() {
    let promises = promises::promises();
    let findings = in_all(|_, line| {
        let mut said = Vec::new();
        for word in line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            if promises::number(word).is_some() && !promises.contains_key(word) {
                said.push(format!("there is no promise {word}"));
            }
        }
        said.extend(
            cited(line)
                .filter(|case| !cases::ALL.contains(case))
                .map(|case| format!("there is no case {case}")),
        );
        said
    });
    none("cited and not defined", &findings);
}

/// The numbers after "case" or "cases" in a line: `case 95`, `cases 40, 192`, `Cases 88–102`.
fn cited(line: &str) -> impl Iterator<Item = u32> {
    let lower = line.to_lowercase();
    let mut found = Vec::new();
    for rest in lower.split("case").skip(1) {
        let rest = rest.trim_start_matches('s');
        let list = |c: char| c.is_ascii_digit() || " ,–".contains(c);
        if rest.starts_with(' ') {
            let end = rest.find(|c| !list(c)).unwrap_or(rest.len());
            let numbers = rest[..end].split(|c: char| !c.is_ascii_digit());
            found.extend(numbers.filter_map(|number| number.parse::<u32>().ok()));
        }
    }
    found.into_iter()
}

/// The rules find what they are for: each row is a line that breaks one, or does not.
#[test]
fn what_breaks_a_rule_is_found() {
    let tree = Tree::new();
    let rows = [
        ("a.rs", "// as threats.md says", vec!["threats.md"]),
        ("a.rs", "let path = \"docs/none.md\";", vec!["docs/none.md"]),
        ("a.rs", "//! `storage/src/none.rs`", vec!["storage/src/none.rs"]),
        ("justfile", "    sh keys-example/make.sh", vec!["keys-example/make.sh"]),
        ("docs/a.md", "put `none.cmd` before", vec!["none.cmd"]),
        ("docs/a.md", "see `vm.md`, `docs/*-cases.md`, `docs/**/*.md` and `boot.cmd`.", vec![]),
        ("docs/a.md", "see `docs/<name>.md`, https://a.b/docs/c.md, /etc/docs/x.md", vec![]),
        ("a.rs", "let made = dir.join(\"tests/none\");", vec![]),
    ];
    for (file, line, wanted) in rows {
        assert_eq!(missing(&tree, file, line), wanted, "{line}");
    }
    assert_eq!(cited("cases 32, 35 and 99").collect::<Vec<_>>(), [32, 35]);
    assert_eq!(cited("Cases 88–102, in case of 3").collect::<Vec<_>>(), [88, 102]);
    assert_eq!(promises::number("S15"), Some(('S', 15)));
    assert_eq!(promises::number("S3x"), None);
}
