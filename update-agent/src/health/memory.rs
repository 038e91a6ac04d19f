//! Whether the kernel killed something for want of memory while a check ran.
//!
//! | count | says |
//! |---|---|
//! | `oom_kill` of `memory.events` (cgroup v2) or `memory.oom_control` (v1) of the agent's cgroup | its service met `MemoryMax=` |
//! | `oom_kill` of `/proc/vmstat` | the machine is out of memory |
//!
//! Both only grow, so a check is judged by what they grew by while it ran, not by what is in them.

use std::path::Path;

/// How often the kernel has killed for memory; `None` where it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kills {
    /// In the cgroup of this process.
    service: Option<u64>,
    /// On the machine, the cgroup included.
    machine: Option<u64>,
}

impl Kills {
    /// As the kernel counts them now.
    pub(crate) fn now() -> Self {
        Kills::below(Path::new("/"))
    }

    fn below(root: &Path) -> Self {
        let read = |path: &str| {
            std::fs::read_to_string(root.join(path.trim_start_matches('/'))).unwrap_or_default()
        };
        let groups = read("proc/self/cgroup");
        let service = counter_files(&groups).find_map(|file| count(&read(&file)));
        Kills { service, machine: count(&read("proc/vmstat")) }
    }

    /// What killed something since, in words that end a sentence; `None`: nothing did.
    pub(crate) fn since(self, before: Kills) -> Option<&'static str> {
        let grew = |now: Option<u64>, then: Option<u64>| now.zip(then).is_some_and(|(n, t)| n > t);
        if grew(self.service, before.service) {
            return Some("the agent's service has no more memory, see MemoryMax= of its unit");
        }
        grew(self.machine, before.machine).then_some("the machine has no more memory")
    }
}

/// Where the count of the cgroups in `/proc/self/cgroup` lies: v1's first, which has the memory
/// controller where both are mounted.
fn counter_files(groups: &str) -> impl Iterator<Item = String> {
    let own = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some((controllers.to_owned(), path.trim_end_matches('/').to_owned()))
    };
    let own: Vec<(String, String)> = groups.lines().filter_map(own).collect();
    let v1 =
        own.iter().filter(|(controllers, _)| controllers.split(',').any(|one| one == "memory"));
    let v1 = v1.map(|(_, path)| format!("/sys/fs/cgroup/memory{path}/memory.oom_control"));
    let v2 = own.iter().filter(|(controllers, _)| controllers.is_empty());
    let v2 = v2.map(|(_, path)| format!("/sys/fs/cgroup{path}/memory.events"));
    v1.chain(v2).collect::<Vec<_>>().into_iter()
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kills(service: u64, machine: u64) -> Kills {
        Kills { service: Some(service), machine: Some(machine) }
    }

    #[test]
    fn only_what_was_killed_meanwhile_counts() {
        let unknown = Kills { service: None, machine: None };
        // (before, after, whose memory)
        let rows = [
            (kills(3, 7), kills(3, 7), None),
            (kills(3, 7), kills(4, 8), Some("service")),
            (kills(3, 7), kills(3, 8), Some("machine")),
            (unknown, unknown, None),
            (unknown, kills(4, 8), None),
            (kills(3, 7), unknown, None),
            (
                Kills { service: None, ..kills(0, 7) },
                Kills { service: None, ..kills(0, 8) },
                Some("machine"),
            ),
        ];
        for (before, after, whose) in rows {
            let said = after.since(before);
            assert_eq!(said.is_some(), whose.is_some(), "{before:?} {after:?}: {said:?}");
            assert!(said.unwrap_or_default().contains(whose.unwrap_or_default()), "{said:?}");
        }
    }

    #[test]
    fn the_counts_of_both_kinds_of_cgroups_are_read() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        let v2 = "low 0\nhigh 0\nmax 31\noom 1\noom_kill 5\noom_group_kill 0\n";
        let rows = [
            ("0::/system.slice/update-agent.service\n", Some(5)),
            ("4:memory:/system.slice/update-agent.service\n0::/\n", Some(2)),
            ("4:cpu,memory:/system.slice/update-agent.service\n0::/other\n", Some(2)),
            ("0::/elsewhere\n", None),
            ("", None),
        ];
        let unit = "system.slice/update-agent.service";
        for (groups, service) in rows {
            let root = tempfile::tempdir().unwrap();
            for (file, text) in [
                ("proc/self/cgroup".to_owned(), groups),
                ("proc/vmstat".to_owned(), "nr_free_pages 1\noom_kill 9\n"),
                (format!("sys/fs/cgroup/memory/{unit}/memory.oom_control"), v1),
                (format!("sys/fs/cgroup/{unit}/memory.events"), v2),
            ] {
                let file = root.path().join(file);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, text).unwrap();
            }
            let found = Kills::below(root.path());
            assert_eq!(found, Kills { service, machine: Some(9) }, "{groups:?}");
        }
    }
}
