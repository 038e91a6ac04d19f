//! Whether a group is one user's own.
//!
//! Debian, Fedora and others give every user a group of the same name that nobody else is in, and
//! let it write (umask 002). Such a group lets nobody in, so it is not counted as "others", as
//! Debian's `sshd` does not count it. The two files are read, not the name service: a user whom
//! only a directory server knows has no such group here, and is told to `chmod`.

use std::fs;

/// Whether nobody but `user` is in `group`, as `/etc/passwd` and `/etc/group` say.
pub(super) fn is_private(group: u32, user: u32) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    judge(group, user, &read("/etc/passwd"), &read("/etc/group"))
}

/// `name:password:uid:gid:…` and `name:password:gid:members` (passwd(5), group(5)).
fn judge(group: u32, user: u32, passwd: &str, groups: &str) -> bool {
    let mut names = Vec::new();
    for (name, uid, gid) in passwd.lines().filter_map(account) {
        if uid == user {
            names.push((name, gid));
        } else if gid == group {
            return false;
        }
    }
    let mut same_name = false;
    for (name, gid, members) in groups.lines().filter_map(entry) {
        if gid != group {
            continue;
        }
        let own = |member: &str| names.iter().any(|(name, _)| *name == member);
        if members.split(',').any(|member| !member.is_empty() && !own(member)) {
            return false;
        }
        if !own(name) {
            return false;
        }
        same_name = true;
    }
    // A user without a name, as in a container: the number is all there is to go by.
    if names.is_empty() { group == user } else { same_name && names.iter().any(|n| n.1 == group) }
}

fn account(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    Some((name, uid, fields.next()?.parse().ok()?))
}

fn entry(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some((name, gid, fields.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn a_group_is_private_when_nobody_else_is_in_it() {
        let passwd = "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/:\nbob:x:1001:1001::/:\n\
                      eve:x:1002:100::/:\nkim:x:1003:1003::/:\nlee:x:1004:1003::/:\nbroken\n";
        let group = "root:x:0:\nada:x:1000:\nbob:x:1001:bob,ada\nusers:x:100:\nkim:x:1003:\n\
                     team:x:50:\nnumber:x:70\n";
        for (name, gid, uid, private) in [
            ("a group of one's own", 1000, 1000, true),
            ("root's", 0, 0, true),
            ("another user's", 1000, 1001, false),
            ("own, with a second member", 1001, 1001, false),
            ("one for all users", 100, 1002, false),
            ("own, and somebody else's first group", 1003, 1003, false),
            ("a team without members, yet", 50, 1000, false),
            ("a user without a name, of that number", 5000, 5000, true),
            ("a user without a name, of another number", 5000, 5001, false),
            ("a user without a name, and a group with one", 70, 70, false),
        ] {
            assert_eq!(judge(gid, uid, passwd, group), private, "{name}");
        }
    }
}
