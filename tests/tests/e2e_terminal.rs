//! What a person sees on a terminal of some width, and what a reader sees who goes away early.

use racklet_tests::rig::{HARDWARE, Node, PRODUCT, Run, World, programs, tool};

/// Everything that was on a terminal of so many columns while a command of ours ran.
#[track_caller]
fn screen(columns: u16, program: &str, arguments: &[&str]) -> String {
    let program = programs()[program].display();
    let line = format!("stty cols {columns} rows 24; exec {program} {}", arguments.join(" "));
    let script = tool("script", "bsdutils").args(["-qec", &line, "/dev/null"]);
    script.env("SHELL", "/bin/sh").ok().text()
}

/// The lines that were drawn, without colours and the movements of the cursor.
fn drawn(screen: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut chars = screen.chars();
    while let Some(c) = chars.next() {
        match c {
            // ECMA-48 §5.4: a control sequence ends with a byte of columns 4 to 7.
            '\u{1b}' if chars.next() == Some('[') => {
                let _parameters = chars.by_ref().find(|c| matches!(c, '@'..='~'));
            }
            '\r' | '\n' => lines.push(String::new()),
            c => lines.last_mut().expect("there is always one").push(c),
        }
    }
    lines.retain(|line| !line.trim().is_empty());
    lines
}

#[track_caller]
fn expect_fits(columns: u16, screen: &str, label: &str) {
    let lines = drawn(screen);
    let bars: Vec<&String> = lines.iter().filter(|line| line.starts_with(label)).collect();
    assert!(!bars.is_empty(), "no bar of {label:?} on {columns} columns:\n{screen}");
    for bar in bars {
        let width = bar.chars().count();
        assert!(width <= usize::from(columns), "{width} of {columns} columns: {bar:?}");
        assert!(columns < 50 || (bar.contains('[') && bar.contains(']')), "{columns}: {bar:?}");
    }
}

#[test]
fn a_bar_fits_the_terminal() {
    let world = World::with_repository();
    let first = world.publish_stable("1.0.0", 1);
    let repository = world.repository().reference();
    for (number, columns) in [(2, 40), (3, 60), (4, 80), (5, 120)] {
        let version = format!("1.{number}.0");
        let release = world.release(&version, number);
        let component = format!("os={},hw={HARDWARE}", release.os.path.display());
        let firmware = format!("firmware={},hw={HARDWARE}", release.firmware.path.display());
        let keys = world.path("keys").display().to_string();
        let publish = ["publish", "--repo", &repository, "--keys", &keys, "--product", PRODUCT];
        let what = ["--version", &version, "--component", &component, "--component", &firmware];
        let arguments = [&publish[..], &what, &["--channel", "stable"]].concat();
        expect_fits(columns, &screen(columns, "signer", &arguments), "building ");

        let node = Node::from_factory(&world, &format!("node-{columns}"), &first, &repository);
        let config = node.config().display().to_string();
        let shown = screen(columns, "update-agent", &["--config", &config, "apply"]);
        expect_fits(columns, &shown, "write ");
    }
}

/// The pages of a program's help: its own, and those of all commands below.
fn pages(program: &str) -> Vec<Vec<String>> {
    let mut pages = vec![Vec::new()];
    let mut read = 0;
    while let Some(page) = pages.get(read).cloned() {
        read += 1;
        let help = Run::new(&programs()[program]).args(&page).arg("--help").ok().text();
        let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let names = commands.take_while(|line| !line.is_empty());
        // Further lines of a description are indented more.
        let names = names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        let names = names.filter(|name| !matches!(*name, "" | "help"));
        pages.extend(names.map(|name| [&page[..], &[name.to_owned()]].concat()));
    }
    pages
}

/// All but the line that clap never breaks, and words that cannot be.
#[test]
fn help_fits_the_terminal() {
    for program in ["signer", "update-agent", "repo-server"] {
        let pages = pages(program);
        assert!(pages.len() > 4, "{program}: {pages:?}");
        std::thread::scope(|scope| {
            for page in &pages {
                scope.spawn(move || {
                    let words: Vec<&str> =
                        page.iter().map(String::as_str).chain(["--help"]).collect();
                    for line in drawn(&screen(60, program, &words)) {
                        let unbroken = line.starts_with("Usage: ") || !line.trim().contains(' ');
                        let width = line.chars().count();
                        assert!(unbroken || width <= 61, "{program} {page:?}: {width}: {line}");
                    }
                });
            }
        });
    }
}

/// `| head` is no reason to panic: the exit code is that of the command, nothing is on stderr.
#[test]
fn a_reader_of_completions_may_go_away() {
    for name in ["signer", "update-agent", "repo-server"] {
        let program = programs()[name].display();
        let script = format!(
            "{{ {program} completions bash; echo \"code $?\" >&2; }} | head -n 1 >/dev/null"
        );
        let done = Run::new("sh").args(["-c", &script]).ok();
        assert_eq!(done.stderr, "code 0\n", "{name}");
    }
}

/// A log on a full disk, or one that nobody reads any more, changes no outcome.
#[test]
fn a_standard_error_that_cannot_be_written_changes_no_outcome() {
    let world = World::with_repository();
    let first = world.publish_stable("1.0.0", 1);
    let repository = world.repository().reference();
    let node = Node::from_factory(&world, "node", &first, &repository);
    let (keys, config) = (world.path("keys"), node.config());
    let signer = format!("status {repository} --keys {}", keys.display());
    let channel = format!(
        "channel set --repo {repository} --keys {} --product {PRODUCT} --channel stable --hold",
        keys.display()
    );
    for (name, arguments) in [
        ("signer", signer.as_str()),
        ("signer", "status oci:nowhere"),
        ("signer", channel.as_str()),
        ("update-agent", &format!("--config {} doctor", config.display())),
        ("update-agent", &format!("--config {} -v check", config.display())),
        ("update-agent", "--config nowhere.toml check"),
        ("repo-server", "serve --dir nowhere --listen nonsense"),
        ("repo-server", "serve --dir /dev/null --listen 127.0.0.1:0"),
    ] {
        let command = format!("{} {arguments}", programs()[name].display());
        let code = |script: &str| Run::new("sh").args(["-c", script]).finish().code;
        let expected = code(&command);
        assert_eq!(code(&format!("{command} 2>/dev/full")), expected, "{arguments}");
        let unread = format!("{{ {{ {command}; echo $? >&3; }} 2>&1 >/dev/null | true; }} 3>&1");
        let told = Run::new("sh").args(["-c", &unread]).ok().text();
        assert_eq!(told.trim(), expected.to_string(), "{arguments}: a reader that went away");
    }
}
