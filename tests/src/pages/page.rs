//! A page of markdown: its commands, what it says they print, what must have happened before.

use std::fmt;

/// Something wrong with a page, where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The page, relative to the workspace.
    pub page: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.page, self.line, self.what)
    }
}

/// A page as its reader follows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Its path, relative to the workspace.
    pub name: String,
    /// Pages that are followed first, by their names.
    pub after: Vec<String>,
    /// Commands that run before the first block.
    pub given: Vec<String>,
    /// How many `sh` and `console` blocks there are.
    pub blocks: usize,
    /// The commands, in order.
    pub steps: Vec<Step>,
}

/// A command of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where it begins.
    pub line: usize,
    /// The command, without a prompt; several lines when it goes on.
    pub command: String,
    /// The exit code it has to end with.
    pub code: i32,
    /// What a `console` block says it prints; `None` in a `sh` block.
    pub printed: Option<Vec<String>>,
}

/// The languages of blocks that are not run.
const NOT_RUN: [&str; 7] = ["text", "toml", "ini", "json", "rust", "mermaid", "diff"];

impl Page {
    /// Reads a page. Whatever is wrong with it is told at once.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<Fault>> {
        let mut page = Page { name: name.to_owned(), ..Page::default() };
        let mut faults = Vec::new();
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
        while let Some((at, line)) = lines.next() {
            if let Some(after) = comment(line, "after:") {
                page.after.extend(after.split_whitespace().map(str::to_owned));
            } else if let Some(given) = comment(line, "given:") {
                page.given.push(given.to_owned());
            }
            let Some(language) = line.trim_start().strip_prefix("```") else { continue };
            let indent = line.len() - line.trim_start().len();
            let mut block = Vec::new();
            let mut closed = false;
            for (at, line) in lines.by_ref() {
                if line.trim() == "```" {
                    closed = true;
                    break;
                }
                block.push((at, line.get(indent..).unwrap_or("")));
            }
            let mut fault = |what: &str| {
                faults.push(Fault { page: name.to_owned(), line: at, what: what.into() })
            };
            if !closed {
                fault("this block has no end");
            }
            let steps = match language {
                "sh" => Ok(script(&block)),
                "console" => session(&block),
                other if NOT_RUN.contains(&other) => continue,
                _ => Err("this block's language is not known here; write sh, console or text"),
            };
            match steps {
                Ok(steps) => {
                    page.blocks += 1;
                    page.steps.extend(steps);
                }
                Err(what) => fault(what),
            }
        }
        if faults.is_empty() { Ok(page) } else { Err(faults) }
    }

    /// All commands as one script.
    pub fn script(&self) -> String {
        self.steps.iter().map(|step| format!("{}\n", step.command)).collect()
    }
}

/// The rest of `<!-- word REST -->`.
fn comment<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.strip_prefix("<!-- ")?.strip_suffix(" -->")?.strip_prefix(word).map(str::trim)
}

/// The commands of a `sh` block.
fn script(block: &[(usize, &str)]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = block.iter();
    while let Some(&(at, line)) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let command = whole(line, &mut lines);
        steps.push(Step { line: at, code: expected_code(&command), command, printed: None });
    }
    steps
}

/// The commands of a `console` block, and what they print.
fn session(block: &[(usize, &str)]) -> Result<Vec<Step>, &'static str> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = block.iter();
    while let Some(&(at, line)) = lines.next() {
        if let Some(first) = line.strip_prefix("$ ") {
            let command = whole(first, &mut lines);
            let (code, printed) = (expected_code(&command), Some(Vec::new()));
            steps.push(Step { line: at, code, command, printed });
        } else if let Some(printed) = steps.last_mut().and_then(|step| step.printed.as_mut()) {
            printed.push(line.to_owned());
        } else {
            return Err("this block begins with what a command prints; begin commands with `$ `");
        }
    }
    for printed in steps.iter_mut().filter_map(|step| step.printed.as_mut()) {
        while printed.last().is_some_and(|line| line.trim().is_empty()) {
            printed.pop();
        }
    }
    Ok(steps)
}

/// A command with the lines that belong to it: after a `\`, inside quotes, of a here-document.
fn whole<'a>(first: &str, lines: &mut impl Iterator<Item = &'a (usize, &'a str)>) -> String {
    let mut command = first.to_owned();
    while command.ends_with('\\') || open_quote(&command) {
        let Some((_, line)) = lines.next() else { return command };
        command = format!("{command}\n{line}");
    }
    let Some((_, word)) = command.split_once("<<") else { return command };
    let word: String = word.chars().filter(|c| !"'\"".contains(*c)).collect();
    let word = word.split_whitespace().next().unwrap_or_default().to_owned();
    for (_, line) in lines {
        command = format!("{command}\n{line}");
        if *line == word {
            break;
        }
    }
    command
}

/// Whether a quotation mark is still open at the end. Inside single quotes nothing is special, and
/// in a remark not even a quotation mark is.
fn open_quote(command: &str) -> bool {
    let mut open = None;
    let mut before = ' ';
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (open, c) {
            (None | Some('"'), '\\') => {
                let _escaped = chars.next();
            }
            (None, '#') if before.is_whitespace() => {
                let _remark = chars.by_ref().find(|c| *c == '\n');
            }
            (None, '\'' | '"') => open = Some(c),
            (Some(mark), c) if mark == c => open = None,
            _ => {}
        }
        before = c;
    }
    open.is_some()
}

/// The code in a trailing `# exit code N`; else 0.
fn expected_code(command: &str) -> i32 {
    let said = command.rsplit_once("# exit code ").and_then(|(_, code)| code.trim().parse().ok());
    said.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<(usize, String, i32, Option<Vec<String>>)> {
        let page = Page::parse("page.md", text).expect("a good page");
        page.steps.into_iter().map(|s| (s.line, s.command, s.code, s.printed)).collect()
    }

    #[test]
    fn commands_are_whole() {
        let text = "# Title\n```sh\n# a remark\none \\\n  more\n\ncat >f <<'EOF'\na\nEOF\n\
                    two 'x\ny' # it's\nthree\n```\n";
        let found = steps(text);
        let commands: Vec<(usize, &str)> =
            found.iter().map(|(line, command, ..)| (*line, command.as_str())).collect();
        assert_eq!(
            commands,
            [
                (4, "one \\\n  more"),
                (7, "cat >f <<'EOF'\na\nEOF"),
                (10, "two 'x\ny' # it's"),
                (12, "three")
            ]
        );
    }

    #[test]
    fn what_is_printed_belongs_to_the_command_above() {
        let text = "```console\n$ one\nsaid\n\n$ two # exit code 22\n```\n";
        let said = Some(vec!["said".to_owned()]);
        let expected = [
            (2, "one".to_owned(), 0, said),
            (5, "two # exit code 22".to_owned(), 22, Some(Vec::new())),
        ];
        assert_eq!(steps(text), expected);
    }

    #[test]
    fn comments_say_what_is_needed() {
        let text = "<!-- after: first.md -->\n<!-- given: alias x='y z' -->\ntext\n```text\n```\n";
        let page = Page::parse("page.md", text).expect("a good page");
        assert_eq!(
            (page.after, page.given),
            (vec!["first.md".into()], vec!["alias x='y z'".into()])
        );
        assert_eq!((page.blocks, page.steps.len()), (0, 0));
    }

    #[test]
    fn bad_pages_say_where() {
        for (text, line, what) in [
            ("a\n```\nx\n```\n", 2, "language"),
            ("```bash\nx\n```\n", 1, "language"),
            ("```sh\nx\n", 1, "no end"),
            ("a\n\n```console\nx\n```\n", 3, "begins with what"),
        ] {
            let faults = Page::parse("page.md", text).expect_err("a bad page");
            assert_eq!(faults[0].line, line, "{text}");
            assert!(faults[0].to_string().contains(what), "{}", faults[0]);
        }
    }
}
