//! What a run ends with: where its time went, what failed, and the one line that scripts read.

use std::time::Duration;

use racklet_tools::show;

/// Test binaries in the list of the slowest.
const SLOWEST: usize = 10;
/// Characters of one line about a failure: a terminal's two lines.
const WIDTH: usize = 200;

/// One step that ended.
#[derive(Debug)]
pub(super) struct Row {
    /// `test`, `prove`, `night`.
    pub(super) tier: &'static str,
    pub(super) step: &'static str,
    pub(super) took: Duration,
    pub(super) passed: u64,
    pub(super) failed: u64,
    /// What failed, one line each.
    pub(super) failures: Vec<String>,
}

/// One test binary that ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Binary {
    pub(super) name: String,
    pub(super) took: Duration,
}

/// A whole run.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) rows: Vec<Row>,
    /// The test binaries that ran.
    pub(super) binaries: Vec<Binary>,
}

impl Summary {
    /// How many failed.
    pub(super) fn failed(&self) -> u64 {
        self.rows.iter().map(|row| row.failed).sum()
    }

    /// Everything that is printed at the end; the last line is `N passed, N failed`.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut tiers: Vec<&str> = self.rows.iter().map(|row| row.tier).collect();
        tiers.dedup();
        for tier in tiers {
            text.push_str(&format!("\n{}", self.table(tier)));
        }
        text.push_str(&self.slowest());
        if self.failed() > 0 {
            text.push_str("\nfailed:\n");
        }
        for row in &self.rows {
            for failure in &row.failures {
                text.push_str(&format!("  {}: {}\n", row.step, cut(failure)));
            }
        }
        let passed: u64 = self.rows.iter().map(|row| row.passed).sum();
        text + &format!("{passed} passed, {} failed\n", self.failed())
    }

    fn table(&self, tier: &str) -> String {
        let line = |step: &str, took: Duration, passed: u64, failed: u64| {
            vec![step.to_owned(), show::time(took), passed.to_string(), failed.to_string()]
        };
        let mut lines = vec![[tier, "time", "passed", "failed"].map(str::to_owned).to_vec()];
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.tier == tier).collect();
        lines.extend(rows.iter().map(|row| line(row.step, row.took, row.passed, row.failed)));
        let sum = |of: fn(&Row) -> u64| rows.iter().map(|row| of(row)).sum();
        let took = rows.iter().map(|row| row.took).sum();
        lines.push(line("all", took, sum(|row| row.passed), sum(|row| row.failed)));
        show::table(&lines)
    }

    fn slowest(&self) -> String {
        if self.binaries.is_empty() {
            return String::new();
        }
        let mut binaries: Vec<&Binary> = self.binaries.iter().collect();
        binaries.sort_by_key(|binary| std::cmp::Reverse(binary.took));
        let mut lines = vec![["slowest test binaries", "time"].map(str::to_owned).to_vec()];
        let slowest = binaries.iter().take(SLOWEST);
        lines.extend(slowest.map(|binary| vec![binary.name.clone(), show::time(binary.took)]));
        format!("\n{}", show::table(&lines))
    }
}

/// What failed on one line: of a longer error the first line, and the last, which is the cause or what a machine
/// said last.
pub(super) fn cut(failure: &str) -> String {
    let mut lines = failure.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    let line = match lines.next_back() {
        Some(last) => format!("{first} … {last}"),
        None => first,
    };
    match line.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tier: &'static str, step: &'static str, failures: &[&str]) -> Row {
        Row {
            tier,
            step,
            took: Duration::from_secs(61),
            passed: 2,
            failed: failures.len() as u64,
            failures: failures.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_end_names_what_failed_and_the_last_line_counts_both_tiers() {
        let binary = |name: &str, seconds| Binary {
            name: name.to_owned(),
            took: Duration::from_secs(seconds),
        };
        let summary = Summary {
            rows: vec![
                row("test", "tests", &["tests/keys.rs: bad"]),
                row("prove", "virtual machines", &["rack: no answer\n\n  @@ready\n  panic\n"]),
            ],
            binaries: vec![binary("tests/keys.rs", 2), binary("tests/large.rs", 30)],
        };
        let wanted = "\n\
            test   time    passed  failed\n\
            -----  ------  ------  ------\n\
            tests  61.0 s  2       1\n\
            all    61.0 s  2       1\n\
            \n\
            prove             time    passed  failed\n\
            ----------------  ------  ------  ------\n\
            virtual machines  61.0 s  2       1\n\
            all               61.0 s  2       1\n\
            \n\
            slowest test binaries  time\n\
            ---------------------  ------\n\
            tests/large.rs         30.0 s\n\
            tests/keys.rs          2.00 s\n\
            \n\
            failed:\n\
            \u{20} tests: tests/keys.rs: bad\n\
            \u{20} virtual machines: rack: no answer … panic\n\
            4 passed, 2 failed\n";
        assert_eq!(summary.text(), wanted);
    }

    #[test]
    fn a_run_without_failures_ends_with_its_table_and_the_count() {
        let summary = Summary { rows: vec![row("test", "format", &[])], binaries: Vec::new() };
        let text = summary.text();
        assert!(text.ends_with("all     61.0 s  2       0\n2 passed, 0 failed\n"), "{text}");
    }

    #[test]
    fn a_failure_is_cut_between_characters() {
        let long = cut(&"ä".repeat(300));
        assert_eq!(long.chars().count(), WIDTH + 1);
        assert_eq!(cut("one"), "one");
        assert_eq!(cut(""), "");
    }
}
