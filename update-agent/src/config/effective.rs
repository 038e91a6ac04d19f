//! The configuration that counts: every value with where it comes from.

use std::fmt;
use std::path::Path;

use formats::reason::Reason;
use registry_auth::Proxies;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::hardware::HARDWARE_FROM;
use super::{Config, base_of, text_of};
use crate::error::{AgentError, Because as _};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This line of the file.
    Line(usize),
    /// The agent itself.
    Default,
    /// Something outside of the file, which counts because the file leaves it open.
    Outside(&'static str),
}

/// A value of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    /// The header of its table as it is written in the file: `[boot]`, `[[source]]`; empty for the
    /// first one.
    pub(crate) table: String,
    /// Its place: `boot.tries`, `source[0].url`.
    pub(crate) place: String,
    /// The last part of it.
    pub(crate) key: String,
    /// The value, with paths as they are used.
    pub(crate) value: Value,
    /// Where it comes from.
    pub(crate) from: Origin,
}

/// A configuration file that was read, with all that is wrong with it by itself.
pub(crate) struct Effective {
    /// What counts.
    pub(crate) config: Config,
    /// Its values, in the order of a file.
    pub(crate) settings: Vec<Setting>,
    /// What is wrong.
    pub(crate) problems: Vec<String>,
}

impl Effective {
    /// Reads a file. An error: it cannot be read, or is of another form.
    ///
    /// `variable` is the environment, `machine` the id of the machine, if it has one.
    pub(crate) fn of(
        path: &Path,
        variable: impl Fn(&str) -> Option<String>,
        machine: Option<String>,
    ) -> Result<Self, AgentError> {
        let text = text_of(path)?;
        let mut config = Config::read(&text, base_of(path))
            .map_err(|error| error.context(format!("configuration {}", path.display())))?;
        let mut settings = settings(&config, &text)?;
        let mut problems = config.problems();
        match config.own_hardware() {
            Ok(None) => {}
            Ok(Some(ids)) => {
                let row = settings.iter_mut().find(|setting| setting.place == "node.hardware");
                if let Some(row) = row {
                    row.value = Value::from(ids.clone());
                    row.from = Origin::Outside(HARDWARE_FROM);
                }
                config.node.hardware = ids;
            }
            Err(error) => problems.push(error.chain()),
        }
        let outside = match Proxies::from_environment(variable) {
            Ok(proxies) => proxies.named().map(|(name, proxy)| (name, proxy.to_string())),
            Err(error) => {
                let asks = |source: &crate::source::SourceConfig| {
                    source.proxy.is_none() && source.url.starts_with("docker:")
                };
                if config.sources.iter().any(asks) {
                    problems.push(crate::http::HttpError::from(error).to_string());
                }
                None
            }
        };
        let mut add = |table: &str, place: String, key: &str, value: String, from| {
            let after = settings
                .iter()
                .rposition(|known| known.table == table && prefix(&known.place) == prefix(&place));
            let at = after.map_or(settings.len(), |at| at + 1);
            let (table, key, value) = (table.to_owned(), key.to_owned(), Value::String(value));
            settings.insert(at, Setting { table, place, key, value, from: Origin::Outside(from) });
        };
        for (nth, source) in config.sources.iter().enumerate() {
            if let (None, Some((name, proxy))) = (&source.proxy, &outside)
                && source.url.starts_with("docker:")
            {
                add("[[source]]", format!("source[{nth}].proxy"), "proxy", proxy.clone(), name);
            }
        }
        if let (None, Some(id)) = (&config.node.id, machine) {
            add("[node]", "node.id".to_owned(), "id", id, "/etc/machine-id");
        }
        Ok(Effective { config, settings, problems })
    }
}

/// A place without its last part.
fn prefix(place: &str) -> &str {
    place.rsplit_once('.').map_or("", |(table, _)| table)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line(line) => write!(f, "line {line}"),
            Origin::Default => f.write_str("default"),
            Origin::Outside(name) => f.write_str(name),
        }
    }
}

/// The values of a configuration, with the lines of the text that it was read from.
fn settings(config: &Config, text: &str) -> Result<Vec<Setting>, AgentError> {
    let table = Table::try_from(config).because(Reason::Config, "show the configuration")?;
    let written = DeTable::parse(text).because(Reason::Config, "read the configuration again")?;
    let mut walk = Walk { text, settings: Vec::new() };
    walk.table("", "", "", &table, Some(written.get_ref()));
    Ok(walk.settings)
}

struct Walk<'a> {
    text: &'a str,
    settings: Vec<Setting>,
}

impl Walk<'_> {
    /// Values first, as TOML wants it, then the tables below.
    fn table(
        &mut self,
        header: &str,
        path: &str,
        place: &str,
        table: &Table,
        written: Option<&DeTable<'_>>,
    ) {
        let below = |above: &str, key: &str| match above {
            "" => key.to_owned(),
            above => format!("{above}.{key}"),
        };
        let found = |key: &str| written.and_then(|written| written.get(key));
        let (tables, values): (Vec<_>, Vec<_>) =
            table.iter().partition(|(_, value)| has_header(value));
        for (key, value) in values {
            let from = match found(key) {
                Some(written) => Origin::Line(self.line(written.span().start)),
                None => Origin::Default,
            };
            let (table, key, place) = (header.to_owned(), key.clone(), below(place, key));
            self.settings.push(Setting { table, place, key, value: value.clone(), from });
        }
        for (key, value) in tables {
            let (path, place) = (below(path, key), below(place, key));
            let written = found(key).map(|written| written.get_ref());
            match (value, written) {
                (Value::Table(table), Some(DeValue::Table(written))) => {
                    self.table(&format!("[{path}]"), &path, &place, table, Some(written));
                }
                (Value::Table(table), _) => {
                    self.table(&format!("[{path}]"), &path, &place, table, None);
                }
                (Value::Array(items), written) => {
                    for (nth, item) in items.iter().enumerate() {
                        let written = match written {
                            Some(DeValue::Array(all)) => all.get(nth).map(|item| item.get_ref()),
                            _ => None,
                        };
                        let (Value::Table(item), Some(DeValue::Table(written))) = (item, written)
                        else {
                            continue;
                        };
                        let place = format!("{place}[{nth}]");
                        self.table(&format!("[[{path}]]"), &path, &place, item, Some(written));
                    }
                }
                _ => {}
            }
        }
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.get(..at).unwrap_or_default().matches('\n').count()
    }
}

/// Whether a value is written under a header of its own.
fn has_header(value: &Value) -> bool {
    match value {
        Value::Table(_) => true,
        Value::Array(items) => items.first().is_some_and(Value::is_table),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../update-agent.example.toml");

    fn example() -> (Config, Vec<Setting>) {
        let config = Config::parse(EXAMPLE, Path::new("/etc/update-agent")).unwrap();
        let settings = settings(&config, EXAMPLE).unwrap();
        (config, settings)
    }

    /// What is shown is the configuration: read again, it is the same.
    #[test]
    fn the_settings_are_the_configuration() {
        let (config, settings) = example();
        let mut text = String::new();
        let mut before = String::new();
        for setting in &settings {
            let own = format!("{} {}", setting.table, prefix(&setting.place));
            if own != before {
                text += &format!("{}\n", setting.table);
                before = own;
            }
            text += &format!("{} = {}  # {}\n", setting.key, setting.value, setting.from);
        }
        assert_eq!(Config::parse(&text, Path::new("/")).unwrap(), config, "{text}");
    }

    #[test]
    fn each_value_says_where_it_comes_from() {
        let (_, settings) = example();
        let line = |start: &str| {
            Origin::Line(1 + EXAMPLE.lines().position(|line| line.starts_with(start)).unwrap())
        };
        for (place, from) in [
            ("state_dir", line("state_dir =")),
            ("node.product", line("product =")),
            ("node.channel", Origin::Default),
            ("source[0].url", line("url =")),
            ("source[0].plain_http", Origin::Default),
            ("slots.b.firmware", line("firmware = \"fw-b\"")),
            ("health.check[1].tcp", line("tcp =")),
            ("health.check[1].timeout", Origin::Default),
            ("floor.tpm_index", Origin::Default),
            ("policy.interval", Origin::Default),
            ("chooser.rescue", Origin::Default),
        ] {
            let found = settings.iter().find(|setting| setting.place == place);
            assert_eq!(found.map(|setting| &setting.from), Some(&from), "{place}");
        }
    }
}
