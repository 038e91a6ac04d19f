//! Whether `doctor` meets what the daemon meets: under systemd the daemon runs inside limits, and what a
//! shell may write it may not.

use std::path::Path;

/// Where packages and administrators put units.
const UNITS: [&str; 4] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
];

/// Runs `doctor` inside the limits of the daemon and shows what it said.
const INSIDE: &str = "systemctl start update-agent-doctor.service; \
                                 journalctl -b -o cat -u update-agent-doctor.service";

/// What the sandbox is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts<'a> {
    /// Whether systemd is this system's service manager and has our unit.
    daemon: bool,
    /// `/proc/self/cgroup`.
    cgroup: &'a str,
}

/// Where this process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In one of the agent's units.
    Inside,
    /// No unit of the agent is installed: there are no limits.
    NoDaemon,
    /// Beside the daemon's limits.
    Outside,
}

/// Where a process with these facts runs.
fn place(facts: Facts<'_>) -> Place {
    let ours = |part: &str| {
        part.strip_suffix(".service")
            .is_some_and(|name| name == "update-agent" || name.starts_with("update-agent-"))
    };
    match facts.cgroup.lines().any(|line| line.split('/').any(ours)) {
        true => Place::Inside,
        false if facts.daemon => Place::Outside,
        false => Place::NoDaemon,
    }
}

/// Where this process runs.
pub(crate) fn here() -> Place {
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    place(Facts { daemon: has_daemon(Path::new("/")), cgroup: &cgroup })
}

/// What to say of a judgement outside of the limits.
pub(crate) fn outside() -> String {
    format!("judged without the limits that update-agent.service has: run {INSIDE}")
}

/// Whether systemd runs below `root` and has the daemon's unit.
fn has_daemon(root: &Path) -> bool {
    let unit = |folder: &&str| root.join(folder).join("update-agent.service").exists();
    root.join("run/systemd/system").exists() && UNITS.iter().any(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_unit_of_the_agent_is_inside() {
        let rows = [
            ("0::/system.slice/update-agent.service\n", true, Place::Inside),
            ("0::/system.slice/update-agent-doctor.service\n", true, Place::Inside),
            ("1:name=systemd:/system.slice/update-agent.service\n0::/\n", true, Place::Inside),
            ("0::/user.slice/user-0.slice/session-1.scope\n", true, Place::Outside),
            ("0::/system.slice/ssh.service\n", true, Place::Outside),
            ("0::/system.slice/not-update-agent.service\n", true, Place::Outside),
            ("0::/\n", false, Place::NoDaemon),
            ("", false, Place::NoDaemon),
        ];
        for (cgroup, daemon, found) in rows {
            assert_eq!(place(Facts { daemon, cgroup }), found, "{cgroup:?}");
        }
    }

    #[test]
    fn a_daemon_is_a_unit_under_systemd() {
        let root = tempfile::tempdir().unwrap();
        let units = root.path().join("usr/lib/systemd/system");
        std::fs::create_dir_all(&units).unwrap();
        std::fs::write(units.join("update-agent.service"), "").unwrap();
        assert!(!has_daemon(root.path()), "systemd does not run");
        std::fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        assert!(has_daemon(root.path()));
        std::fs::remove_file(units.join("update-agent.service")).unwrap();
        assert!(!has_daemon(root.path()));
    }
}
