//! The version of the packages, and the changelog that Debian's tools read it from.

use anyhow::{Context, Result};
use racklet_tools::cmd::Cmd;
use racklet_tools::{paths, programs};

/// What packages say of the commit that they are built from.
#[derive(Debug, PartialEq)]
pub(crate) struct Commit {
    /// Unix seconds.
    pub(crate) time: String,
    /// `2026-11-29`, in UTC.
    pub(crate) date: String,
    /// `20261129123456`, in UTC.
    compact: String,
    /// As Debian's changelogs write it.
    mail: String,
    /// Twelve digits, and `-dirty` if tracked files were changed since.
    hash: String,
    /// Of the workspace: `0.1.0`.
    number: String,
    /// Whether the tag of that number is at this commit.
    released: bool,
}

impl Commit {
    /// Of the work tree.
    pub(crate) fn of_head() -> Result<Self> {
        let git = |args: &[&str]| {
            let git = Cmd::new("git").args(args).current_dir(&paths::root());
            git.env("TZ", "UTC0").env("LC_ALL", "C").read()
        };
        let date = "--date=format-local:%Y-%m-%d|%Y%m%d%H%M%S|%a, %d %b %Y %H:%M:%S +0000";
        let line = git(&["log", "-1", date, "--format=%ct|%cd"])?;
        let parts: Vec<&str> = line.split('|').collect();
        let [time, date, compact, mail] = parts[..] else {
            anyhow::bail!("git log wrote {line:?}");
        };
        let hash = programs::built_from().split(' ').next().unwrap_or_default().to_owned();
        let number = number()?;
        let tags = git(&["tag", "--points-at", "HEAD"])?;
        let released = tags.lines().any(|tag| tag == format!("v{number}"));
        Ok(Self {
            time: time.to_owned(),
            date: date.to_owned(),
            compact: compact.to_owned(),
            mail: mail.to_owned(),
            hash,
            number,
            released,
        })
    }

    /// `0.1.0` if this commit has the tag `v0.1.0` and nothing was changed since; otherwise a version before it that
    /// grows with the time of the commit: `0.1.0~git20261129123456.0123456789ab`.
    pub(crate) fn version(&self) -> String {
        match (self.released, self.hash.strip_suffix("-dirty")) {
            (true, None) => self.number.clone(),
            (_, None) => format!("{}~git{}.{}", self.number, self.compact, self.hash),
            (_, Some(hash)) => format!("{}~git{}.{hash}+dirty", self.number, self.compact),
        }
    }

    /// `debian/changelog` for this version.
    pub(crate) fn changelog(&self, version: &str, maintainer: &str) -> String {
        format!(
            "racklet-update ({version}) unstable; urgency=medium\n\n  * Built from commit {}.\n    What operators \
             have to know of its changes is in racklet-update-doc:\n    \
             /usr/share/doc/racklet-update/CHANGELOG.md\n\n -- {maintainer}  {}\n",
            self.hash, self.mail
        )
    }
}

fn number() -> Result<String> {
    let manifest = std::fs::read_to_string(paths::root().join("Cargo.toml"))?;
    let manifest: toml::Table = toml::from_str(&manifest)?;
    let version = manifest.get("workspace").and_then(|one| one.get("package")?.get("version"));
    Ok(version.and_then(toml::Value::as_str).context("Cargo.toml names a version")?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;

    fn commit(compact: &str, hash: &str, released: bool) -> Commit {
        Commit {
            time: "1".into(),
            date: "2026-11-29".into(),
            compact: compact.into(),
            mail: "Sun, 29 Nov 2026 12:34:56 +0000".into(),
            hash: hash.into(),
            number: "0.1.0".into(),
            released,
        }
    }

    /// In the order in which dpkg has to upgrade.
    #[test]
    fn versions_grow_up_to_the_release() {
        let versions = [
            commit("20261129123456", "ffff", false).version(),
            commit("20261129123456", "ffff-dirty", true).version(),
            commit("20261129123457", "0000", false).version(),
            commit("20261130000000", "aaaa", true).version(),
        ];
        assert_eq!(versions[0], "0.1.0~git20261129123456.ffff");
        assert_eq!(versions[3], "0.1.0");
        for pair in versions.windows(2) {
            let dpkg = Cmd::new("dpkg").args(["--compare-versions", &pair[0], "lt", &pair[1]]);
            let done = dpkg.finish().expect("dpkg runs");
            assert_eq!(done.code.cmp(&0), Ordering::Equal, "{pair:?}");
        }
    }

    #[test]
    fn debian_reads_the_changelog() {
        let text =
            commit("20261129123456", "ffff", false).changelog("0.1.0~x", "A B <a@b.invalid>");
        let parsed =
            Cmd::new("dpkg-parsechangelog").args(["-l", "-", "-S", "Version"]).input(text.clone());
        assert_eq!(parsed.read().expect("it is read"), "0.1.0~x");
        // lintian's rule.
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
