//! The machine's own apt sources, asked from apt itself: no mirror name stands in this repository.

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::cmd::Cmd;

/// Where packages come from on this machine.
#[derive(Debug, PartialEq)]
pub(crate) struct Sources {
    /// Archive with the suite's `main`.
    pub(crate) archive: String,
    /// Archive with its security updates, where the machine has one configured.
    pub(crate) security: Option<String>,
    /// apt's transport settings (proxies, retries) as configuration lines.
    pub(crate) options: String,
}

impl Sources {
    /// `sources.list` for the upgraded system: main, updates and security of `suite`.
    pub(crate) fn list(&self, suite: &str) -> String {
        let mut text =
            format!("deb {0} {suite} main\ndeb {0} {suite}-updates main\n", self.archive);
        if let Some(security) = &self.security {
            text.push_str(&format!("deb {security} {suite}-security main\n"));
        }
        text
    }

    /// The proxy debootstrap's downloads need, which reads no apt configuration.
    pub(crate) fn http_proxy(&self) -> Option<&str> {
        let line = self.options.lines().find(|l| l.starts_with("Acquire::http::Proxy "))?;
        line.split('"').nth(1).filter(|proxy| !proxy.is_empty())
    }
}

/// Asks apt what this machine is configured to use; fetches its lists first when there are none.
pub(crate) fn of_host(suite: &str) -> Result<Sources> {
    if targets()?.is_empty() {
        apt::update()?;
    }
    let dump = Cmd::new("apt-config").arg("dump").arg("Acquire").read()?;
    let sources = choose(&targets()?, &dump);
    sources.with_context(|| format!("apt on this machine has no Debian archive ({suite} wanted)"))
}

fn targets() -> Result<String> {
    let format = "$(CREATED_BY)|$(LABEL)|$(COMPONENT)|$(REPO_URI)";
    Cmd::new("apt-get").args(["indextargets", "--format", format]).read()
}

fn choose(targets: &str, dump: &str) -> Result<Sources> {
    let archive = |label: &str| {
        targets.lines().find_map(|line| match line.split('|').collect::<Vec<_>>()[..] {
            ["Packages", found, "main", uri] if found == label => {
                Some(uri.trim_end_matches('/').to_string())
            }
            _ => None,
        })
    };
    let Some(main) = archive("Debian") else {
        bail!("no archive labelled Debian in apt's sources")
    };
    let kept = [
        "Acquire::http",
        "Acquire::https",
        "Acquire::Check-",
        "Acquire::Retries",
        "Acquire::Force",
    ];
    let options: Vec<&str> = dump
        .lines()
        .filter(|line| kept.iter().any(|prefix| line.starts_with(prefix)))
        .filter(|line| !line.ends_with(" \"\";"))
        .collect();
    Ok(Sources { archive: main, security: archive("Debian-Security"), options: options.join("\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_found_by_label() {
        let targets = "Translations|Debian|main|http://x/\n\
                       Packages|Other|main|http://other.example/\n\
                       Packages|Debian|contrib|http://mirror.example/contrib/\n\
                       Packages|Debian|main|http://mirror.example/debian/\n\
                       Packages|Debian-Security|main|http://mirror.example/debian-security/";
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://proxy.example:3128\";\n\
                    Acquire::IndexTargets \"\";\nAcquire::Check-Date \"false\";";
        let sources = choose(targets, dump).expect("a Debian archive is listed");
        assert_eq!(sources.http_proxy(), Some("http://proxy.example:3128"));
        assert_eq!(sources.options.lines().count(), 2);
        assert_eq!(
            sources.list("stable"),
            "deb http://mirror.example/debian stable main\n\
             deb http://mirror.example/debian stable-updates main\n\
             deb http://mirror.example/debian-security stable-security main\n"
        );
    }

    #[test]
    fn a_machine_without_debian_is_said_to_be_one() {
        assert!(choose("Packages|Ubuntu|main|http://x/", "").is_err());
    }
}
