//! Rows of figures and ratios, with the goal each is held against.

use racklet_tools::show;

/// What a row's figure must be to reach its goal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Told for orientation: no goal is set.
    None,
}

/// Unit of a row's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Bytes,
    PerSecond,
    Count,
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Row {
    what: String,
    ours: Vec<f64>,
    theirs: Vec<f64>,
    unit: Unit,
    goal: Goal,
    note: String,
}

impl Row {
    /// Ours against a peer, one pair per repetition: the ratio of each pair is held against the goal.
    pub(super) fn ratio(
        what: impl Into<String>,
        unit: Unit,
        ours: &[f64],
        theirs: &[f64],
        goal: Goal,
    ) -> Self {
        let (ours, theirs) = (ours.to_vec(), theirs.to_vec());
        Self { what: what.into(), ours, theirs, unit, goal, note: String::new() }
    }

    /// A figure of ours alone, held against the goal itself.
    pub(super) fn figure(what: impl Into<String>, unit: Unit, ours: &[f64], goal: Goal) -> Self {
        Self::ratio(what, unit, ours, &[], goal)
    }

    /// What could not be measured, and why.
    pub(super) fn absent(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::figure(what, Unit::Count, &[], Goal::None).note(why)
    }

    /// The same row, of which a part could not be measured.
    pub(super) fn missing(self, why: impl Into<String>) -> Self {
        Self::absent(self.what, why)
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// The figures the goal is about: ratios where there is a peer.
    fn held(&self) -> Vec<f64> {
        if self.theirs.is_empty() {
            return self.ours.clone();
        }
        // A figure that does not change between repetitions is measured once and stands for all.
        let count = self.ours.len().max(self.theirs.len());
        let nth = |list: &[f64], n: usize| list.get(n).or(list.last()).copied();
        (0..count).filter_map(|n| Some(nth(&self.ours, n)? / nth(&self.theirs, n)?)).collect()
    }

    /// Whether the median reaches the goal; nothing when there is no goal or no figure.
    fn reached(&self) -> Option<bool> {
        let median = spread(&self.held())?.median;
        match self.goal {
            Goal::AtMost(limit) => Some(median <= limit),
            Goal::AtLeast(limit) => Some(median >= limit),
            Goal::None => None,
        }
    }

    fn cells(&self) -> Vec<String> {
        let median = |list: &[f64]| {
            spread(list).map_or_else(|| "–".to_string(), |found| self.unit.show(found.median))
        };
        let held = match (spread(&self.held()), self.theirs.is_empty()) {
            (None, _) => "–".to_string(),
            (Some(found), false) => found.ratios(),
            (Some(found), true) if found.min == found.max => "–".to_string(),
            (Some(found), true) => format!(
                "{} / {} / {}",
                self.unit.show(found.min),
                self.unit.show(found.median),
                self.unit.show(found.max)
            ),
        };
        let limit = |value: f64| match self.theirs.is_empty() {
            true => self.unit.show(value),
            false => format!("{value} ×"),
        };
        let goal = match self.goal {
            Goal::AtMost(value) => format!("≤ {}", limit(value)),
            Goal::AtLeast(value) => format!("≥ {}", limit(value)),
            Goal::None => "–".to_string(),
        };
        let verdict = match (self.reached(), self.ours.is_empty()) {
            (_, true) => "not measured",
            (Some(true), _) => "reached",
            (Some(false), _) => "**short**",
            (None, _) => "–",
        };
        let note: String =
            self.note.replace('|', "/").replace('\n', " ").chars().take(400).collect();
        vec![
            self.what.clone(),
            median(&self.ours),
            median(&self.theirs),
            held,
            goal,
            verdict.to_string(),
            note,
        ]
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 1e-3 => format!("{:.0} µs", value * 1e6),
            Self::Seconds => format!("{value:.2} s"),
            Self::Bytes => show::bytes(value as u64),
            Self::PerSecond if value >= 1e4 => format!("{:.1} k/s", value / 1e3),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

/// Smallest, middle and largest of some figures.
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn ratios(&self) -> String {
        // Two digits hide a tenfold difference below 0.1, three say nothing above 10.
        let show = |value: f64| match value {
            _ if value >= 10.0 => format!("{value:.0}"),
            _ if value >= 0.1 => format!("{value:.2}"),
            _ => format!("{value:.3}"),
        };
        format!("{} / {} / {}", show(self.min), show(self.median), show(self.max))
    }
}

fn spread(figures: &[f64]) -> Option<Spread> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = *sorted.get(sorted.len() / 2)?;
    Some(Spread { min: *sorted.first()?, median, max: *sorted.last()? })
}

/// Everything measured, in the order of the run.
#[derive(Debug, Default)]
pub(super) struct Table {
    sections: Vec<(String, Vec<Row>)>,
}

const HEADING: [&str; 7] =
    ["what", "ours", "theirs", "ratio min / median / max", "goal", "goal reached", "note"];

impl Table {
    pub(super) fn add(&mut self, section: impl Into<String>, rows: Vec<Row>) {
        self.sections.push((section.into(), rows));
    }

    /// One line: how many goals are reached, how many are not.
    pub(super) fn sentence(&self) -> String {
        let rows = || self.sections.iter().flat_map(|(_, rows)| rows);
        let count = |wanted| rows().filter(|row| row.reached() == wanted).count();
        let absent = rows().filter(|row| row.ours.is_empty()).count();
        format!(
            "{} goals reached, {} fall short, {absent} rows could not be measured",
            count(Some(true)),
            count(Some(false)),
        )
    }

    /// For a terminal: one table, sections as lines of their own.
    pub(super) fn text(&self) -> String {
        let mut rows = vec![HEADING.map(String::from).to_vec()];
        for (section, found) in &self.sections {
            rows.push(vec![format!("[{section}]")]);
            rows.extend(found.iter().map(Row::cells));
        }
        show::table(&rows)
    }

    /// For `docs/benchmarks.md`.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("| {} |\n|{}\n", HEADING.join(" | "), "---|".repeat(HEADING.len()));
        for (section, rows) in &self.sections {
            text.push_str(&format!("| **{section}** |{}\n", " |".repeat(HEADING.len() - 1)));
            for row in rows {
                text.push_str(&format!("| {} |\n", row.cells().join(" | ")));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_pairs_is_held_against_the_goal() {
        let row =
            |goal| Row::ratio("apply", Unit::Seconds, &[1.0, 3.0, 2.0], &[4.0, 4.0, 4.0], goal);
        assert_eq!(row(Goal::AtMost(0.5)).reached(), Some(true));
        assert_eq!(row(Goal::AtMost(0.49)).reached(), Some(false));
        assert_eq!(row(Goal::AtLeast(0.5)).reached(), Some(true));
        assert_eq!(row(Goal::None).reached(), None);
        assert_eq!(
            row(Goal::AtMost(0.4)).cells()[1..6],
            ["2.00 s", "4.00 s", "0.25 / 0.50 / 0.75", "≤ 0.4 ×", "**short**"]
        );
    }

    #[test]
    fn a_figure_measured_once_stands_for_all_repetitions() {
        let row = Row::ratio("bytes", Unit::Bytes, &[50.0], &[100.0, 100.0], Goal::AtMost(1.0));
        assert_eq!(row.held(), [0.5, 0.5]);
    }

    #[test]
    fn what_is_missing_is_counted_and_says_why() {
        let mut table = Table::default();
        table.add("apply", vec![Row::absent("rauc", "no squashfs | here")]);
        assert!(table.sentence().ends_with("1 rows could not be measured"));
        assert!(
            table
                .markdown()
                .contains("| rauc | – | – | – | – | not measured | no squashfs / here |")
        );
    }
}
