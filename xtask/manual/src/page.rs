//! One page: what clap knows of a command, and of a program's own page the sections that clap does not know.

use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::programs::Program;

/// The table of exit codes that operators read, which a test compares with the source.
const EXIT_CODES: &str = include_str!("../../../docs/exit-codes.md");

/// A page, ready to be written.
pub(crate) struct Page {
    /// `update-agent-apply.8`
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
}

/// The page of a program, and of each of its commands.
pub(crate) fn all(program: &Program, date: &str) -> Result<Vec<Page>> {
    let mut command = (program.command)().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(program, &command, date, &mut pages)?;
    Ok(pages)
}

fn collect(program: &Program, command: &Command, date: &str, pages: &mut Vec<Page>) -> Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(program, below, date, pages)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let text = text(program, command, &name, date).with_context(|| format!("the page {name}"))?;
    pages.push(Page { name: format!("{name}.{}", program.section), text });
    Ok(())
}

fn text(program: &Program, command: &Command, name: &str, date: &str) -> Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .section(program.section)
        .date(date)
        .source(concat!("Racklet Update ", env!("CARGO_PKG_VERSION")))
        .manual("Racklet Update");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let more = if name == program.name { of_program(program)? } else { of_command(program) };
    more.to_writer(&mut page)?;
    Ok(page)
}

/// What only a program's own page has.
fn of_program(program: &Program) -> Result<Roff> {
    let mut page = Roff::new();
    page.control("SH", ["EXAMPLES"]);
    for (what, command) in program.examples {
        page.control("PP", []).text([roman(*what)]);
        page.control("RS", ["4"]).control("nf", []).text([roman(*command)]);
        page.control("fi", []).control("RE", []);
    }
    page.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in exit_codes()? {
        page.control("TP", []).text([bold(code)]).text([roman(meaning)]);
    }
    page.control("PP", []).text([roman(
        "An error is one line on standard error, error[CODE]: what happened; the codes are stable.",
    )]);
    for (title, list) in [("ENVIRONMENT", program.environment), ("FILES", program.files)] {
        page.control("SH", [title]);
        for (name, meaning) in list {
            page.control("TP", []).text([italic(*name)]).text([roman(*meaning)]);
        }
    }
    page.control("SH", ["SEE ALSO"]).text([roman(program.see_also)]);
    Ok(page)
}

fn of_command(program: &Program) -> Roff {
    let mut page = Roff::new();
    page.control("SH", ["SEE ALSO"]);
    page.text([bold(program.name), roman(format!("({})", program.section))]);
    page
}

/// Exit codes and their classes, from the table of the document.
fn exit_codes() -> Result<Vec<(&'static str, &'static str)>> {
    let rows = EXIT_CODES.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (code, meaning) = (cells.next()?.trim(), cells.next()?.trim());
        code.bytes().all(|byte| byte.is_ascii_digit()).then_some((code, meaning))
    });
    let codes: Vec<_> = rows.collect();
    anyhow::ensure!(codes.len() > 10, "docs/exit-codes.md has another form: {codes:?}");
    Ok(codes)
}
