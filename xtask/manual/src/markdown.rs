//! The commands of a program as a part of a page of the book: a section for each command, with its options.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

use crate::programs::Program;

/// All commands, each with a section. Options that every command of the program has stand once, in the first section.
pub(crate) fn commands(program: &Program) -> String {
    let mut command = (program.command)().disable_help_subcommand(true);
    command.build();
    let mut text = String::from("## For every command\n\n");
    for arg in command.get_arguments().filter(|arg| arg.is_global_set()) {
        text.push_str(&option(arg));
    }
    text.push_str("- `-h`, `--help`  \n  Print help.\n\n");
    sections(&command, program.name, &mut text);
    text
}

/// The section of a command that does something itself, and those of the commands below it. `name` are its words.
fn sections(command: &Command, name: &str, text: &mut String) {
    if !command.is_subcommand_required_set() {
        text.push_str(&section(command, name));
    }
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        sections(below, &format!("{name} {}", below.get_name()), text);
    }
}

fn section(command: &Command, name: &str) -> String {
    let mut text = format!("## {name}\n\n");
    if let Some(about) = command.get_long_about().or(command.get_about()) {
        let _infallible = writeln!(text, "{}\n", plain(&about.to_string()));
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let _infallible = writeln!(text, "```text\n{usage}\n```\n");
    for arg in command.get_arguments().filter(|arg| is_own(arg)) {
        text.push_str(&option(arg));
    }
    text
}

/// Whether the section of a command has to describe it: no option of every command, and none that clap adds.
fn is_own(arg: &Arg) -> bool {
    use ArgAction::{Help, HelpLong, HelpShort, Version};
    let added = matches!(arg.get_action(), Help | HelpShort | HelpLong | Version);
    !(arg.is_hide_set() || arg.is_global_set() || added)
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

    /// The words of each command that can be called, and its own options.
    fn callable(command: &Command, name: &str, found: &mut Vec<(String, Vec<String>)>) {
        if !command.is_subcommand_required_set() {
            let own = command.get_arguments().filter(|arg| is_own(arg));
            let longs = own.filter_map(Arg::get_long).map(|long| format!("--{long}"));
            found.push((name.to_owned(), longs.collect()));
        }
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            callable(below, &format!("{name} {}", below.get_name()), found);
        }
    }

    #[test]
    fn every_command_has_a_section_with_its_options() {
        for program in &PROGRAMS {
            let mut command = (program.command)().disable_help_subcommand(true);
            command.build();
            let mut wanted = Vec::new();
            callable(&command, program.name, &mut wanted);
            let text = commands(program);
            let sections = text.split("\n## ").skip(1).map(|section| {
                let (name, section) = section.split_once('\n').expect("more than a heading");
                let forms = section.split('`').filter(|form| form.starts_with("--"));
                let longs = forms.map(|form| form.split(' ').next().unwrap_or(form).to_owned());
                (name.to_owned(), longs.collect::<Vec<_>>())
            });
            let sections: Vec<_> = sections.collect();
            assert_eq!(sections.len(), wanted.len(), "{}", program.name);
            for ((name, longs), (section, found)) in wanted.iter().zip(&sections) {
                assert_eq!(name, section);
                let missing: Vec<_> = longs.iter().filter(|long| !found.contains(long)).collect();
                assert!(missing.is_empty(), "{name} has {missing:?}, too");
            }
        }
        let signer = commands(&PROGRAMS[1]);
        for heading in ["signer key pkcs11", "signer log", "signer log abandon"] {
            assert!(signer.contains(&format!("\n## {heading}\n")), "{heading}");
        }
        let publish = signer.split("\n## signer publish\n").nth(1).expect("its section");
        let publish = publish.split("\n## ").next().unwrap_or_default();
        assert!(publish.contains("- `--version <VERSION>`"), "{publish}");
    }
}
