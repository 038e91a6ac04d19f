use update_core::restart::Purpose;

use super::*;

const EXAMPLE: &str = include_str!("../../update-agent.example.toml");

#[test]
fn the_example_is_a_configuration() {
    let config = Config::parse(EXAMPLE, Path::new("/etc/update-agent")).unwrap();
    assert_eq!(config.node.product, "demo");
    assert_eq!(config.trust.root, Path::new("/etc/update-agent/root.json"));
    assert_eq!(config.slots.b.len(), 2);
    config.health.usable().unwrap();
}

#[test]
fn commented_defaults_of_the_example_are_the_defaults() {
    // Uncommenting every `#key = value` line must still parse, and change nothing.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with([' ', '#']) && rest.contains('=') => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_ne!(uncommented, EXAMPLE);
    let base = Path::new("/etc/update-agent");
    assert_eq!(Config::parse(&uncommented, base), Config::parse(EXAMPLE, base));
}

#[test]
fn relative_places_are_below_the_file() {
    let text = EXAMPLE.replace("docker://updates.example.org/racklet", "oci:repo:ns");
    let config = Config::parse(&text, Path::new("/etc/update-agent")).unwrap();
    assert_eq!(config.sources[0].url, "oci:/etc/update-agent/repo:ns");
    let text = text.replace("oci:repo:ns", "oci-archive:/media/b.tar");
    let config = Config::parse(&text, Path::new("/etc/update-agent")).unwrap();
    assert_eq!(config.sources[0].url, "oci-archive:/media/b.tar");
}

/// Files that stand for the kernel's own are those of a rehearsal on somebody's machine.
#[test]
fn only_the_machine_itself_is_restarted_by_force() {
    let forced = |lines: &str| {
        let text = EXAMPLE.replace("[boot]\n", &format!("[boot]\n{lines}\n"));
        let config = Config::parse(&text, Path::new("/etc/update-agent")).unwrap();
        let available = crate::restart::available(&config.boot);
        (config.boot.forced_command().join(" "), available.forced, available.kernel)
    };
    let rows = [
        ("", ("systemctl reboot --force", true, true)),
        ("forced_reboot_command = []", ("", false, false)),
        ("forced_reboot_command = [\"halt\"]", ("halt", true, true)),
        ("boot_id = \"boot_id\"", ("", false, false)),
        ("cmdline = \"cmdline\"", ("", false, false)),
        ("boot_id = \"boot_id\"\nforced_reboot_command = [\"halt\"]", ("halt", true, false)),
    ];
    for (lines, (command, by_force, by_kernel)) in rows {
        assert_eq!(forced(lines), (command.to_owned(), by_force, by_kernel), "{lines}");
    }
}

#[test]
fn only_a_restart_into_the_slot_that_is_next_asks_for_a_trial() {
    let commands = |lines: &str| {
        let text = EXAMPLE.replace("[boot]\n", &format!("[boot]\n{lines}\n"));
        let config = Config::parse(&text, Path::new("/etc/update-agent")).unwrap();
        let of = |purpose| config.boot.command_for(purpose).1.join(" ");
        (of(Purpose::Try), of(Purpose::Leave), config.boot.how_to_try())
    };
    let plain = "systemctl reboot";
    let tryboot = "systemctl reboot --reboot-argument=0 tryboot";
    let quoted = "restart by `systemctl reboot '--reboot-argument=0 tryboot'`";
    let rows = [
        ("", (plain, plain, "reboot")),
        ("try_command = [\"other\"]", (plain, plain, "reboot")),
        ("backend = \"rpi-tryboot\"", (tryboot, plain, quoted)),
        (
            "backend = \"rpi-tryboot\"\ntry_command = [\"./try\"]",
            ("/etc/update-agent/./try", plain, "restart by `/etc/update-agent/./try`"),
        ),
    ];
    for (lines, (to_try, to_leave, how)) in rows {
        let expected = (to_try.to_owned(), to_leave.to_owned(), how.to_owned());
        assert_eq!(commands(lines), expected, "{lines}");
    }
}

#[test]
fn programs_of_commands_are_places_too() {
    let text = EXAMPLE.replace("[boot]\n", "[boot]\nreboot_command = [\"./restart\"]\n")
        + "[[health.check]]\nname = \"own\"\ncommand = [\"checks/own.sh\", \"a/b\"]\n\
           [[health.check]]\nname = \"bare\"\ncommand = [\"true\"]\n";
    let config = Config::parse(&text, Path::new("/etc/update-agent")).unwrap();
    assert_eq!(config.boot.reboot_command, ["/etc/update-agent/./restart"]);
    let commands: Vec<String> = config
        .health
        .checks
        .iter()
        .filter_map(|check| match &check.probe {
            Probe::Command(argv) => Some(argv.join(" ")),
            _ => None,
        })
        .collect();
    assert!(commands.contains(&"/etc/update-agent/checks/own.sh a/b".to_owned()), "{commands:?}");
    assert!(commands.contains(&"true".to_owned()), "{commands:?}");
}

#[test]
fn senseless_configurations_are_refused_with_a_reason() {
    let rows = [
        ("a misspelt key", "\nmode =", "\nmoode ="),
        ("no hardware", "hardware = [\"racklet-cu-v1\"]", "hardware = []"),
        ("no hardware key", "hardware = [\"racklet-cu-v1\"]", ""),
        ("odd product", "product = \"demo\"", "product = \"../demo\""),
        ("one label twice", "os = \"root-b\"", "os = \"root-a\""),
        ("component in one slot only", "firmware = \"fw-b\"", ""),
        (
            "two digits of tries",
            "#backend = \"gpt-attributes\"",
            "backend = \"uboot-env\"\ntries = 10",
        ),
        (
            "no command to try a slot",
            "#backend = \"gpt-attributes\"",
            "backend = \"rpi-tryboot\"\ntry_command = []",
        ),
        (
            "autoboot.txt in a slot",
            "#backend = \"gpt-attributes\"",
            "backend = \"rpi-tryboot\"\nautoboot = \"root-a\"",
        ),
        ("unknown mode", "mode = \"notify\"", "mode = \"yolo\""),
        ("no time to restart in", "[boot]\n", "[boot]\nreboot_wait = \"10ms\"\n"),
        ("no program to force it", "[boot]\n", "[boot]\nforced_reboot_command = [\"\"]\n"),
        ("a source as for other programs", "url = \"docker://", "url = \"https://"),
        ("a misspelt transport", "url = \"docker://", "url = \"dockr://"),
    ];
    for (name, from, to) in rows {
        assert!(EXAMPLE.contains(from), "{name}: the example has no {from:?}");
        let error = Config::parse(&EXAMPLE.replacen(from, to, 1), Path::new("/")).unwrap_err();
        assert_eq!(error.reason(), Reason::Config, "{name}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_with_what_may_be_meant() {
    let text = EXAMPLE
        .replacen("product = \"demo\"", "product = \"Demo\"", 1)
        .replacen("#tries = 3", "tries = 77", 1)
        .replacen("# proxy = \"http://proxy.example.org:3128\"", "proxy = \"socks5://p:1\"", 1);
    let error = Config::parse(&text, Path::new("/")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "node.product \"Demo\" is not a product name: 1 to 64 of a-z 0-9 . _ -, starting and \
         ending with a letter or digit, no two marks in a row; is \"demo\" meant? (and 2 other \
         mistakes)"
    );
    assert_eq!(
        error.lines(),
        Some(
            "  also: [[source]] proxy \"socks5://p:1\": only HTTP proxies are supported: \
             http://HOST[:PORT]\n  also: boot.tries = 77 is not 1 to 15"
        )
    );
}

#[test]
fn a_mistake_is_shown_where_it_is() {
    let text = EXAMPLE.replacen("\nmode =", "\nmoode =", 1);
    let line = 1 + text.lines().position(|line| line.starts_with("moode")).unwrap();
    let error = Config::parse(&text, Path::new("/")).unwrap_err();
    let start = format!("line {line}: unknown field `moode`, expected one of `mode`");
    assert!(error.to_string().starts_with(&start), "{error}");
    assert!(error.to_string().ends_with("; is `mode` meant?"), "{error}");
    assert!(!error.to_string().contains('\n'), "one sentence: {error}");
    let excerpt = error.lines().unwrap();
    assert!(excerpt.contains(&format!("{line} | moode =")), "{excerpt}");
    assert!(excerpt.ends_with("| ^^^^^"), "{excerpt}");
}

#[test]
fn a_configuration_that_cannot_be_read_says_what_helps() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    let missing = Config::load(&file).unwrap_err();
    assert_eq!(missing.reason(), Reason::Config);
    assert!(missing.to_string().contains(&file.display().to_string()), "{missing}");
    assert!(missing.advice().unwrap().contains("--config"));
    std::fs::write(&file, EXAMPLE).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let open = Config::load(&file).unwrap_err();
    assert_eq!(open.reason(), Reason::InsecurePerms);
    assert_eq!(open.advice(), Some(&*format!("chmod go-w {}", file.display())));
}
