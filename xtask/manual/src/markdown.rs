//! The commands of a program as a part of a page of the book: a section for each command, with its options.

use std::fmt::Write as _;

use clap::{Arg, Command};

use crate::programs::Program;

/// All commands, those without commands below them each as a section. Options that every command of the program has
/// stand once, in the first section.
pub(crate) fn commands(program: &Program) -> String {
    let mut command = (program.command)().disable_help_subcommand(true);
    command.build();
    let mut text = String::new();
    let shared: Vec<&Arg> = command.get_arguments().filter(|arg| arg.is_global_set()).collect();
    text.push_str("## For every command\n\n");
    for arg in &shared {
        text.push_str(&option(arg));
    }
    text.push_str(&standard());
    section(&command, &mut text);
    text
}

/// What clap adds to every command.
fn standard() -> String {
    "- `-h`, `--help`  \n  Print help.\n\n".to_owned()
}

/// The section of a command, and those of the commands below it.
fn section(command: &Command, text: &mut String) {
    let below: Vec<&Command> = command.get_subcommands().filter(|it| !it.is_hide_set()).collect();
    if below.is_empty() {
        text.push_str(&one(command));
    }
    for command in below {
        section(command, text);
    }
}

fn one(command: &Command) -> String {
    let name = command.get_display_name().unwrap_or(command.get_name()).replace('-', " ");
    let name = full_name(command, &name);
    let about = command.get_long_about().or(command.get_about());
    let mut text = format!("## {name}\n\n");
    if let Some(about) = about {
        let _infallible = writeln!(text, "{}\n", plain(&about.to_string()));
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let _infallible = writeln!(text, "```text\n{usage}\n```\n");
    let shown = |arg: &&Arg| !arg.is_hide_set() && !arg.is_global_set();
    let own = |arg: &&Arg| !matches!(arg.get_id().as_str(), "help" | "version");
    for arg in command.get_arguments().filter(shown).filter(own) {
        text.push_str(&option(arg));
    }
    text
}

/// The words of a command: the display name joins them by `-`, which names of programs and commands have, too.
fn full_name(command: &Command, otherwise: &str) -> String {
    let usage = command.clone().render_usage().to_string();
    let words = usage.trim_start_matches("Usage:").split_whitespace();
    let is_word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let name: Vec<&str> =
        words.take_while(is_word).take_while(|word| !word.starts_with("--")).collect();
    if name.is_empty() { otherwise.to_owned() } else { name.join(" ") }
}

/// An option or argument: how it is written, what it does, what else is known of its value.
fn option(arg: &Arg) -> String {
    let values = arg.get_value_names().filter(|_| arg.get_action().takes_values());
    let values: Vec<String> =
        values.unwrap_or_default().iter().map(|name| format!("<{name}>")).collect();
    let values = values.join(" ");
    let short = arg.get_short().map(|letter| format!("-{letter}"));
    let long = arg.get_long().map(|word| format!("--{word}"));
    let mut written: Vec<String> = short.into_iter().chain(long).collect();
    match written.last_mut() {
        Some(last) if !values.is_empty() => *last = format!("{last} {values}"),
        Some(_) => {}
        None => written.push(values),
    }
    let written: Vec<String> = written.iter().map(|form| format!("`{form}`")).collect();
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut notes = Vec::new();
    if arg.is_required_set() {
        notes.push("Required.".to_owned());
    }
    let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    let defaults: Vec<String> = defaults.map(|value| format!("`{value}`")).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() && !arg.is_hide_default_value_set() {
        notes.push(format!("Default: {}.", defaults.join(", ")));
    }
    let possible = arg.get_possible_values();
    if arg.get_action().takes_values() && !possible.is_empty() {
        let names = possible.iter().filter(|value| !value.is_hide_set());
        let names: Vec<String> = names.map(|value| format!("`{}`", value.get_name())).collect();
        notes.push(format!("One of {}.", names.join(", ")));
    }
    let help = plain(help.trim());
    let end = if help.is_empty() || help.ends_with(['.', ':', '`', ')']) { "" } else { "." };
    let lines = format!("{help}{end}\n{}", notes.join(" "));
    let lines = lines.trim().replace('\n', "\n  ");
    format!("- {}  \n  {lines}\n\n", written.join(", "))
}

/// Text of a help as Markdown that shows the same: outside of backticks no letter has a meaning.
fn plain(help: &str) -> String {
    let mut text = String::new();
    let mut code = false;
    for letter in help.chars() {
        code ^= letter == '`';
        if !code && matches!(letter, '<' | '>' | '*' | '_' | '[' | ']' | '\\' | '#') {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, Command};

    use super::*;
    use crate::programs::PROGRAMS;

    #[test]
    fn an_option_says_how_it_is_written_and_what_it_does() {
        let file = Arg::new("file").short('o').long("output").value_name("FILE").required(true);
        assert_eq!(
            option(&file.help("Where to, <0600>")),
            "- `-o`, `--output <FILE>`  \n  Where to, \\<0600\\>.\n  Required.\n\n"
        );
        let kind = Arg::new("kind").value_name("KIND").value_parser(["a", "b"]).default_value("a");
        assert_eq!(
            option(&kind.help("Which")),
            "- `<KIND>`  \n  Which.\n  Default: `a`. One of `a`, `b`.\n\n"
        );
        let flag = Arg::new("yes").long("yes").action(ArgAction::SetTrue);
        assert_eq!(option(&flag.help("`--yes` to_all")), "- `--yes`  \n  `--yes` to\\_all.\n\n");
    }

    /// Every command that can be called has a section, in which every option of its own is named.
    #[test]
    fn every_command_has_a_section() {
        fn look(command: &Command, text: &str, found: &mut usize) {
            let below: Vec<&Command> =
                command.get_subcommands().filter(|it| !it.is_hide_set()).collect();
            for command in &below {
                look(command, text, found);
            }
            if below.is_empty() {
                let name = full_name(command, "");
                let heading = format!("## {name}\n");
                assert_eq!(text.matches(&heading).count(), 1, "{heading}");
                let (_, section) = text.split_once(&heading).expect("its section");
                let section = section.split("\n## ").next().unwrap_or_default();
                let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
                for long in options.filter(|arg| !arg.is_global_set()).filter_map(Arg::get_long) {
                    let named = section.contains(&format!("--{long}"));
                    assert!(named || ["help", "version"].contains(&long), "{name} --{long}");
                }
                *found += 1;
            }
        }
        for program in &PROGRAMS {
            let text = commands(program);
            let mut command = (program.command)().disable_help_subcommand(true);
            command.build();
            let mut found = 0;
            look(&command, &text, &mut found);
            assert_eq!(text.matches("\n## ").count(), found, "{}", program.name);
            assert!(found > 2, "{}", program.name);
        }
    }
}
