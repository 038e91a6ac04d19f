//! `[retention]`: how many old states a repository keeps.

use serde::Deserialize;

use super::PolicyError;
use crate::plan::Retention;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionForm {
    states: Option<StatesForm>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum StatesForm {
    Number(i64),
    Text(String),
}

impl RetentionForm {
    pub(super) fn read(self) -> Result<Retention, PolicyError> {
        match self.states {
            None => Ok(Retention::default()),
            Some(StatesForm::Text(text)) if text == "all" => Ok(Retention::EVERYTHING),
            Some(StatesForm::Text(text)) => {
                let shown: String = text.chars().take(40).collect();
                Err(PolicyError::Retention(format!("{shown:?}")))
            }
            Some(StatesForm::Number(states)) => {
                let rule = u64::try_from(states).ok().and_then(Retention::of);
                rule.ok_or_else(|| PolicyError::Retention(states.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::*;

    fn read(line: &str) -> Result<Retention, String> {
        let policy = Policy::parse(&format!("[retention]\n{line}"));
        policy.map(|policy| policy.retention).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_kept_is_a_number_or_all_of_it() {
        assert_eq!(Policy::default().retention, Retention::default());
        assert_eq!(read(""), Ok(Retention::default()));
        assert_eq!(read("states = 16"), Ok(Retention::of(16).unwrap()));
        assert_eq!(read("states = \"all\""), Ok(Retention::EVERYTHING));
        for (line, said) in [
            ("states = 0", "[retention] states: 0: give a number of at least 16, or \"all\""),
            ("states = 15", "[retention] states: 15: give"),
            ("states = -1", "[retention] states: -1: give"),
            ("states = \"none\"", "[retention] states: \"none\": give"),
            ("states = 1.5", "did not match"),
            ("state = 16", "unknown field `state`"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
