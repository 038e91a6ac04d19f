//! Release versions and their order: that of the UAPI.10 Version Format Specification
//! (`systemd-analyze compare-versions`), in which `1.1.0~rc1` comes before `1.1.0`, and the usual
//! spellings of pre-releases, `1.1.0-rc1`, `1.1.0-beta.2`, `1.1.0.dev5`, mean the same.
//! `docs/versions.md` has the table.
//!
//! A version is at most 64 letters, digits, `.`, `-` and `~`, starting with a letter or digit. It
//! names a TUF target as it is, and a registry tag with `_` for `~` ([`Version::tag`]). Two spellings
//! may be the same version (`1.0` and `1.00`, `1.1.0-rc1` and `1.1.0~rc1`); that is why [`Version`]
//! has [`Version::compare`] and no `Ord`.

mod order;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use self::order::compare;
use self::order::{marked, runs};
use crate::oci::Tag;

/// A text that is not a version, and if there is one the spelling that is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Characters, a beginning or a length that no version has.
    #[error(
        "{0:?} is not a version (1 to 64 letters, digits, '.', '-' and '~', starting with a letter or digit)"
    )]
    Form(String),
    /// `+` and `_` are refused: neither a registry tag nor the order has a place for them.
    #[error("{text:?} is not a version: {sign:?} cannot stand in one; write {instead}")]
    Sign {
        /// What was given.
        text: String,
        /// The character.
        sign: char,
        /// The spelling that works, and how it sorts.
        instead: String,
    },
}

/// A release version, as published.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(String);

impl Version {
    /// The spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which of two versions is newer: UAPI.10 §"Version Comparison", once `~` stands before the
    /// pre-release words alpha, beta, dev, pre, prerelease, preview, rc and snapshot, whatever stood
    /// there. A total preorder.
    pub fn compare(&self, other: &Version) -> Ordering {
        compare(marked(&self.0).as_bytes(), marked(&other.0).as_bytes())
    }

    /// Whether this version comes after `other`.
    pub fn is_newer_than(&self, other: &Version) -> bool {
        self.compare(other) == Ordering::Greater
    }

    /// The registry tag of a release of this version: `_` stands for `~`, which no tag may hold.
    /// No two versions have one tag.
    pub fn tag(&self) -> Tag {
        self.0.replace('~', "_").parse().expect("64 letters, digits, '.', '-' and '_' are a tag")
    }

    /// The version that has this tag.
    pub fn of_tag(tag: &Tag) -> Option<Self> {
        tag.as_str().replace('_', "~").parse().ok()
    }

    /// For a version that reads like a pre-release and sorts after its stem (`1.1.0-hotfix1`): the
    /// stem, and the spelling that would sort before it.
    pub fn as_prerelease(&self) -> Option<(Version, Version)> {
        let after_mark = |start: usize| self.0.get(..start)?.strip_suffix(['-', '.']);
        let stem_of = |run: order::Run<'_>| match run.is_prerelease() {
            true => None,
            false => after_mark(run.start).map(|stem| (stem, run.start)),
        };
        let (stem, start) = runs(&self.0).find_map(stem_of)?;
        let spelt = format!("{stem}~{}", self.0.get(start..)?);
        let (stem, spelt): (Version, Version) = (stem.parse().ok()?, spelt.parse().ok()?);
        self.is_newer_than(&stem).then_some((stem, spelt))
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'~');
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(known)
            && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if good {
            return Ok(Version(text.to_owned()));
        }
        Err(sign(text).unwrap_or_else(|| VersionError::Form(text.chars().take(80).collect())))
    }
}

/// What to write instead of a text whose only fault is a `+` or a `_`.
fn sign(text: &str) -> Option<VersionError> {
    let sign = text.chars().find(|c| matches!(c, '+' | '_'))?;
    let with = |other: &str| text.replace(['+', '_'], other).parse::<Version>().ok();
    let dashed = with("-")?;
    let instead = match (sign, text.split(['+', '_']).next()?.parse::<Version>()) {
        ('+', Ok(stem)) => {
            let newer = if dashed.is_newer_than(&stem) { "newer" } else { "older" };
            format!("{dashed}, which is {newer} than {stem}")
        }
        _ => format!("{dashed} or {}", with(".")?),
    };
    Some(VersionError::Sign { text: text.to_owned(), sign, instead })
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_safe_names() {
        for good in ["1", "1.1.0", "2026.11.21-rc1", "v3", "1.0~rc1"] {
            assert_eq!(version(good).as_str(), good);
        }
        for bad in
            ["", ".", "..", "-1", "~1", "a/b", "a b", "1+2", "1_2", "1^2", "é", &"1".repeat(65)]
        {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refused_sign_comes_with_the_spelling_that_works() {
        for (text, instead) in [
            ("1.0.0+5", "write 1.0.0-5, which is newer than 1.0.0"),
            ("1.0.0+rc1", "write 1.0.0-rc1, which is older than 1.0.0"),
            ("1_0", "write 1-0 or 1.0"),
        ] {
            let error = text.parse::<Version>().unwrap_err().to_string();
            assert!(error.ends_with(instead), "{error}");
        }
        for text in ["+5", "1 +5", "_", "1.0^5"] {
            assert!(matches!(text.parse::<Version>(), Err(VersionError::Form(_))), "{text}");
        }
    }

    /// The page's table is what this function does.
    #[test]
    fn the_table_of_the_documentation() {
        let page = include_str!("../../../docs/versions.md");
        let table = page.split("<!-- order -->").nth(1).expect("the page has a table");
        // Header and ruler go first; the first cell of a row holds spellings of one version.
        let rows: Vec<Vec<Version>> = table
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| {
                let cell = line.split('|').nth(1).expect("a row has cells");
                cell.split('`').skip(1).step_by(2).map(version).collect()
            })
            .collect();
        assert!(rows.len() >= 12, "{} rows", rows.len());
        for (i, low) in rows.iter().enumerate() {
            for (j, high) in rows.iter().enumerate() {
                for (a, b) in low.iter().flat_map(|a| high.iter().map(move |b| (a, b))) {
                    assert_eq!(a.compare(b), i.cmp(&j), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn what_reads_like_a_pre_release_and_is_none() {
        for (text, expected) in [
            ("1.1.0-hotfix1", Some(("1.1.0", "1.1.0~hotfix1"))),
            ("1.1.0.build7", Some(("1.1.0", "1.1.0~build7"))),
            ("1.1.0-rc1", None),
            ("1.1.0~hotfix1", None),
            ("1.1.0-1", None),
            ("1.1.0a", None),
            ("v3", None),
        ] {
            let expected = expected.map(|(stem, spelt)| (version(stem), version(spelt)));
            assert_eq!(version(text).as_prerelease(), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_two_versions_have_one_tag(a in "[0-9a][0-9a.~-]{0,8}", b in "[0-9a][0-9a.~-]{0,8}") {
            let (a, b) = (version(&a), version(&b));
            proptest::prop_assert_eq!(a == b, a.tag() == b.tag());
            proptest::prop_assert_eq!(Version::of_tag(&a.tag()), Some(a));
        }
    }
}
