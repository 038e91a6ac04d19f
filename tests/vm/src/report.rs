//! What became of the cells: a table for people, a document for `cargo xtask prove`.

use std::time::Duration;

use anyhow::Result;
use racklet_tools::report::Cell;
use racklet_tools::show;

/// What became of a cell.
pub(crate) struct Done {
    /// Its name.
    pub(crate) name: &'static str,
    /// Who judged it, beside the serial line.
    pub(crate) judges: &'static str,
    pub(crate) took: Duration,
    /// What it saw, or why it failed.
    pub(crate) result: Result<String>,
}

/// The cells as a table.
pub(crate) fn table(done: &[Done]) -> String {
    let mut rows = vec![["cell", "result", "time", "judged by", "saw"].map(str::to_owned).to_vec()];
    for cell in done {
        let (word, saw) = match &cell.result {
            Ok(saw) => ("ok", saw.clone()),
            Err(error) => ("FAILED", error.to_string().lines().next().unwrap_or("").to_owned()),
        };
        let (name, judges) = (cell.name.to_owned(), cell.judges.to_owned());
        rows.push(vec![name, word.to_owned(), show::time(cell.took), judges, saw]);
    }
    show::table(&rows)
}

/// The cells as a JSON array.
pub(crate) fn json(done: &[Done]) -> Result<String> {
    let cells: Vec<Cell> = done
        .iter()
        .map(|cell| Cell {
            name: cell.name.to_owned(),
            seconds: cell.took.as_secs_f64(),
            error: cell.result.as_ref().err().map(|error| format!("{error:#}")),
        })
        .collect();
    Ok(serde_json::to_string_pretty(&cells)?)
}
