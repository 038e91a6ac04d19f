//! The file of approved nodes: one name a line, as `update-agent report` prints it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use formats::digest::Sha256;

use crate::error::ServerError;

/// 16 MiB: two hundred thousand nodes with a comment each; bounds what a wrong path makes us read.
const FILE_LIMIT: u64 = 16 << 20;

/// Nodes that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Approved(HashSet<Sha256>);

impl Approved {
    /// Reads the file, if there is one.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, ServerError> {
        let Some(path) = path else { return Ok(Approved::default()) };
        let unread = |source| ServerError::Io { doing: "read", path: path.to_owned(), source };
        let wrong = |why: String| ServerError::Config(format!("{}: {why}", path.display()));
        if fs::metadata(path).map_err(unread)?.len() > FILE_LIMIT {
            return Err(wrong(format!("it has more than {} MiB", FILE_LIMIT >> 20)));
        }
        Self::parse(&fs::read_to_string(path).map_err(unread)?).map_err(wrong)
    }

    /// Nodes by line; what follows the name is a comment, and so is a line that begins with `#`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut nodes = HashSet::new();
        for (number, line) in text.lines().enumerate() {
            let Some(word) = line.split_whitespace().next().filter(|it| !it.starts_with('#'))
            else {
                continue;
            };
            let node = Sha256::from_hex(word)
                .map_err(|error| format!("line {}: no name of a node: {error}", number + 1))?;
            nodes.insert(node);
        }
        Ok(Approved(nodes))
    }

    pub(crate) fn contains(&self, node: &Sha256) -> bool {
        self.0.contains(node)
    }
}
