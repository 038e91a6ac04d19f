//! Every command the documents print, run: README.md, all pages below `docs/`, and what lies in
//! `keys-example/`, with the real programs, as the reader's own user and as an ordinary one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use racklet_tests::pages::{Fault, Page, Reader, Report, Site};

/// The page with commands that build the workspace itself; CI runs those as they are.
const README: &str = "README.md";
const BUILD: [&str; 2] = ["cargo xtask demo", "cargo xtask test"];

/// A page for developers, whose commands build this workspace.
const DEVELOPERS: [&str; 1] = ["CONTRIBUTING.md"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All pages of the documents, by name, as they are in the workspace.
fn texts() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(workspace().join(&folder)).expect("list a folder") {
            let entry = entry.expect("list a folder");
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            let kind = entry.file_type().expect("a kind of file");
            if kind.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(folder.join(&name));
            } else if name.ends_with(".md") {
                let path = folder.join(&name).to_str().expect("a path in UTF-8").to_owned();
                let text = fs::read_to_string(entry.path()).expect("read a page");
                found.insert(path, text);
            }
        }
    }
    found
}

/// Whether the commands of a page are run here.
fn is_run(name: &str) -> bool {
    name == README || name.starts_with("docs/") || name.starts_with("keys-example/")
}

/// The pages that are run, without README's two commands; faults where a page cannot be run.
fn pages(texts: &BTreeMap<String, String>) -> Result<BTreeMap<String, Page>, Vec<Fault>> {
    let mut pages = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, text) in texts {
        let mut page = match Page::parse(name, text) {
            Ok(page) => page,
            Err(found) if is_run(name) => {
                faults.extend(found);
                continue;
            }
            Err(_) => continue,
        };
        let builds = |command: &str| command.starts_with("cargo ");
        for step in &page.steps {
            let command = step.command.split('#').next().unwrap_or_default().trim();
            let fits = match (builds(command), is_run(name)) {
                (true, true) => name == README && BUILD.contains(&command),
                (true, false) => DEVELOPERS.contains(&name.as_str()),
                (false, run) => run,
            };
            if !fits {
                let what = format!("`{command}` is run by no test: write it as text");
                faults.push(Fault { page: name.clone(), line: step.line, what });
            }
        }
        page.steps.retain(|step| !builds(&step.command));
        if is_run(name) && !page.steps.is_empty() {
            pages.insert(name.clone(), page);
        }
    }
    if faults.is_empty() { Ok(pages) } else { Err(faults) }
}

/// The pages that have to be followed before, those of each of them first.
fn before<'a>(pages: &'a BTreeMap<String, Page>, page: &Page) -> Result<Vec<&'a Page>, Fault> {
    let mut found = Vec::new();
    for name in &page.after {
        let Some(earlier) = pages.get(name) else {
            let what = format!("after: {name} is no page with commands");
            return Err(Fault { page: page.name.clone(), line: 1, what });
        };
        found.extend(before(pages, earlier)?);
        found.push(earlier);
    }
    Ok(found)
}

fn follow(site: &Site, pages: &BTreeMap<String, Page>, page: &Page) -> Report {
    match before(pages, page) {
        Ok(before) => site.follow(page, &before),
        Err(fault) => Report { ran: 0, faults: vec![fault] },
    }
}

fn told(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

/// Follows every page, all at once: they wait more than they work.
fn every_page_runs(reader: Reader) {
    let pages = pages(&texts()).unwrap_or_else(|faults| panic!("{}", told(&faults)));
    let site = Site::new(reader);
    let reports: Vec<(&Page, Report)> = std::thread::scope(|scope| {
        let (site, pages) = (&site, &pages);
        let run = |page| (page, scope.spawn(move || follow(site, pages, page)));
        let running: Vec<_> = pages.values().map(run).collect();
        running.into_iter().map(|(page, run)| (page, run.join().expect("a run"))).collect()
    });
    let (mut blocks, mut commands, mut faults) = (0, 0, Vec::new());
    for (page, report) in reports {
        println!("{}: {} blocks, {} commands", page.name, page.blocks, report.ran);
        (blocks, commands) = (blocks + page.blocks, commands + report.ran);
        if report.faults.is_empty() {
            assert_eq!(report.ran, page.steps.len(), "{} was run to its end", page.name);
        }
        faults.extend(report.faults);
    }
    println!("{} pages, {blocks} blocks, {commands} commands, as {reader:?}", pages.len());
    assert!(faults.is_empty(), "{}", told(&faults));
}

#[test]
fn every_page_runs_as_the_own_user() {
    every_page_runs(Reader::Own);
}

#[test]
fn every_page_runs_as_an_ordinary_user() {
    every_page_runs(Reader::Ordinary);
}

/// A page that was broken on purpose: what was done to it, and where that has to be reported.
struct Broken {
    name: &'static str,
    from: &'static str,
    to: &'static str,
    said: &'static str,
}

const BROKEN: [Broken; 8] = [
    Broken {
        name: "a command that fails",
        from: "signer publish --repo oci:repo ",
        to: "signer publish --repo oci:rep ",
        said: "exit code 23, not 0",
    },
    Broken {
        name: "an unknown program",
        from: "test -e nothing",
        to: "tesst -e nothing",
        said: "exit code 127, not 1",
    },
    Broken {
        name: "an option that is not there",
        from: "signer verify oci:repo --root",
        to: "signer verify oci:repo --rot",
        said: "unexpected argument",
    },
    Broken {
        name: "a word of the output",
        from: "offered by channel stable",
        to: "offered by channel beta",
        said: "prints something else",
    },
    Broken {
        name: "a line too much",
        from: "within an hour\n",
        to: "within an hour\nand nobody else\n",
        said: "prints something else",
    },
    Broken {
        name: "a masked value of another shape",
        from: "expires 2026-11-22T04:45:38Z",
        to: "expires 2026-11-22 04:45:38",
        said: "prints something else",
    },
    Broken {
        name: "another exit code",
        from: "# exit code 1",
        to: "# exit code 3",
        said: "exit code 1, not 3",
    },
    Broken {
        name: "a variable nobody set",
        from: "kill $!",
        to: "kill $server",
        said: "`kill $server` ended with exit code",
    },
];

/// A short page with a line of each kind.
const PAGE: &str = "# A page

```sh
head -c 1M /dev/urandom >os.img
signer init --repo oci:repo --keys keys
```

```console
$ signer publish --repo oci:repo --keys keys --product demo --version 1.0.0 \\
      --component os=os.img,hw=my-board --channel stable
to be signed: channel demo/stable offers 1.0.0 (normal)
  before   no such channel
published demo/1.0.0 (sha256:6176875a50bf0ccb985bc757a063ecb078e953ac6dfee30a22a887459c7bf06d)
  os         1.0 MiB in 19 chunks, 1.0 MiB to download, for my-board
offered by channel stable; nodes see it at their next poll, by default within an hour
timestamp version 2, expires 2026-11-22T04:45:38Z
$ alias look='signer verify oci:repo --root keys/root.json'
$ look
…
$ test -e nothing # exit code 1
$ repo-server serve --dir repo --listen 127.0.0.1:5000 2>server.log &
$ curl -s -o health.json --retry 5 --retry-connrefused http://127.0.0.1:5000/healthz
$ kill $!
```
";

/// The runner is worth something only if it can fail: each kind of line, broken in a copy, is
/// reported, once, with its page and line; the page itself has no fault.
#[test]
fn a_broken_line_of_each_kind_is_reported_where_it_is() {
    let site = Site::new(Reader::Ordinary);
    let faults = |text: &str| {
        let texts = BTreeMap::from([("docs/page.md".to_owned(), text.to_owned())]);
        match pages(&texts) {
            Ok(pages) => follow(&site, &pages, &pages["docs/page.md"]).faults,
            Err(faults) => faults,
        }
    };
    let whole = faults(PAGE);
    assert!(whole.is_empty(), "{}", told(&whole));
    for Broken { name, from, to, said } in &BROKEN {
        let at = PAGE.find(from).unwrap_or_else(|| panic!("{name}: the page has no {from:?}"));
        let found = faults(&PAGE.replacen(from, to, 1));
        let [fault] = &found[..] else {
            panic!("{name}: {} faults\n{}", found.len(), told(&found))
        };
        // What is printed, and how an alias ends, is reported at the command.
        let command = |line: &&str| line.starts_with("$ ") || line.starts_with("signer ");
        let before = PAGE.get(..at).unwrap_or_default();
        let line = before.lines().count() + usize::from(before.ends_with('\n'));
        let lines: Vec<&str> = PAGE.lines().take(line).collect();
        let line = lines.iter().rposition(command).expect("a command") + 1;
        let line = if from.starts_with("signer verify") { line + 1 } else { line };
        assert_eq!((fault.page.as_str(), fault.line), ("docs/page.md", line), "{name}: {fault}");
        assert!(fault.what.contains(said), "{name}: {fault}");
    }
}

/// Blocks that would not be run are faults, in every page of the workspace.
#[test]
fn a_block_that_no_test_runs_is_reported() {
    for (page, text, line, said) in [
        ("SECURITY.md", "a\n```sh\nsigner init\n```\n", 3, "run by no test"),
        ("docs/new.md", "```sh\ncargo xtask vm\n```\n", 2, "run by no test"),
        ("README.md", "```sh\ncargo xtask vm\n```\n", 2, "run by no test"),
        ("docs/new.md", "```bash\nls\n```\n", 1, "language"),
        ("docs/new.md", "\n```sh\nls\n", 2, "no end"),
        ("docs/new.md", "```console\nls\n```\n", 1, "begins with what"),
    ] {
        let texts = BTreeMap::from([(page.to_owned(), text.to_owned())]);
        let faults = pages(&texts).expect_err("a page that cannot be run");
        let [fault] = &faults[..] else { panic!("{page}: {}", told(&faults)) };
        assert_eq!((fault.page.as_str(), fault.line), (page, line), "{fault}");
        assert!(fault.what.contains(said), "{fault}");
    }
    let name = "docs/new.md".to_owned();
    let texts =
        BTreeMap::from([(name.clone(), "<!-- after: docs/old.md -->\n```sh\nls\n```\n".into())]);
    let pages = pages(&texts).unwrap_or_else(|faults| panic!("{}", told(&faults)));
    let fault = before(&pages, &pages[&name]).expect_err("a page that is not there");
    assert!(fault.to_string().starts_with("docs/new.md:1: after: docs/old.md"), "{fault}");
}

/// Exactly the two commands that CI runs as they are stand in README beside those run here.
#[test]
fn the_commands_that_build_are_those_that_ci_runs() {
    let texts = texts();
    let readme = Page::parse(README, &texts[README]).expect("a page");
    let commands = readme.steps.iter().map(|step| step.command.split('#').next().unwrap_or(""));
    let build: Vec<&str> = commands.map(str::trim).filter(|c| c.starts_with("cargo ")).collect();
    assert_eq!(build, BUILD);
}
