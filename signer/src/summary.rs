//! What a person is about to sign, against what is published: the text that is read before a key
//! is used.
//!
//! Pure. It is made from the same values that are signed, never from the file again (case 191).

mod moved;
mod unknown;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use formats::release::Summary;
use formats::tuf::{
    DelegatedRole, DelegatedTo, Delegations, Header, Key, KeyId, Keys, Metadata, OFFLINE,
    OfflineRule, REPOSITORY, Role, RoleKeys, TargetFile, Targets, UnixTime,
};
use serde::Serialize;

use crate::plan::{
    KEEP_MEMBER, PERIOD_MEMBER, Payload, PlanError, Proposal, counted, key_name, period_of,
    schedule_lines, short_paths,
};
use crate::state::State;

/// One payload for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Which role.
    pub role: String,
    /// Its published version, 0 if there is none.
    pub from: u64,
    /// The version to be signed.
    pub version: u64,
    /// When it ends.
    pub expires: String,
    /// Whole days until then.
    pub days: i64,
    /// SHA-256 of what is signed.
    pub sha256: String,
    /// What changes, one line each: `+` comes, `-` goes, `~` becomes something else.
    pub changes: Vec<String>,
}

impl Section {
    /// As it is shown.
    pub fn text(&self) -> String {
        let days = match u64::try_from(self.days) {
            Ok(days) => counted(days, "day"),
            Err(_) => "expired".to_owned(),
        };
        let mut text = format!(
            "{} version {} → {}, expires {} ({})\n  sha256 {}",
            self.role, self.from, self.version, self.expires, days, self.sha256
        );
        for change in &self.changes {
            text.push_str(&format!("\n  {change}"));
        }
        if self.changes.is_empty() {
            text.push_str("\n  (nothing but version and expiry)");
        }
        text
    }
}

/// All payloads of a change.
pub fn describe(
    before: Option<&State>,
    proposal: &Proposal,
    now: UnixTime,
) -> Result<Vec<Section>, PlanError> {
    let after = proposal.targets(before)?;
    let change = Change { before, proposal, after: &after, now };
    proposal.payloads.iter().map(|payload| section(change, payload)).collect()
}

/// What is published, and what is to be.
#[derive(Clone, Copy)]
struct Change<'a> {
    before: Option<&'a State>,
    proposal: &'a Proposal,
    after: &'a BTreeMap<Role, Cow<'a, Targets>>,
    now: UnixTime,
}

impl Change<'_> {
    fn listed_by(&self, role: &Role) -> Option<&Targets> {
        self.after.get(role).map(AsRef::as_ref)
    }

    /// The names of a role that was delegated to. Thousands of digits say nothing; that they are those
    /// of the names that it listed does.
    fn paths_before(&self, role: &DelegatedRole) -> String {
        let listed = self.before.and_then(|state| state.targets_of(&role.role));
        let short = short_paths(role, listed.map(|signed| &signed.data));
        short.unwrap_or_else(|| role.paths.to_string())
    }
}

fn section(change: Change<'_>, payload: &Payload) -> Result<Section, PlanError> {
    let Change { before, now, .. } = change;
    let mut lines = Vec::new();
    let (header, from) = if let Some(root) = payload.root()? {
        let old = before.map(|state| &state.root);
        for role in Role::TOP_LEVEL {
            let was = old.and_then(|old| old.role(&role).map(|keys| (&old.keys, keys)));
            if let Some(is) = root.role(&role) {
                role_lines(&mut lines, &role, was, (&root.keys, is));
            }
        }
        let was = old.map(|old| (&old.header, &old.unknown));
        period_line(&mut lines, was.map(|(_, unknown)| unknown), &root.unknown);
        other_line(&mut lines, was.map(|(_, unknown)| unknown), &root.unknown);
        let id = |root: &formats::tuf::Root| root.unknown.get(REPOSITORY).map(shown);
        match (old.map(id), id(&root)) {
            (None, Some(is)) => lines.push(format!("+ the repository's id is {is}")),
            (Some(was), is) if was != is => {
                let [was, is] = [was, is].map(|id| id.unwrap_or_else(|| "none".to_owned()));
                lines.push(format!("~ the repository's id is {is}, before {was}"));
            }
            _ => {}
        }
        if old.is_some_and(|old| old.consistent_snapshot != root.consistent_snapshot) {
            lines.push(format!("~ consistent_snapshot {}", root.consistent_snapshot));
        }
        (root.header.clone(), old.map_or(0, |old| old.header.version))
    } else if let Some(targets) = payload.targets()? {
        let old = before.and_then(|state| state.targets_of(&payload.role)).map(|old| &old.data);
        target_lines(&mut lines, change, &payload.role, old, &targets);
        let none = Keys::new();
        let was = old.and_then(|old| old.delegations.as_ref());
        delegation_lines(&mut lines, change, was, &targets, &none);
        period_line(&mut lines, old.map(|old| &old.unknown), &targets.unknown);
        moved::keep_line(&mut lines, old.map(|old| &old.unknown), &targets.unknown);
        offline_line(&mut lines, old.map(|old| &old.unknown), &targets.unknown);
        other_line(&mut lines, old.map(|old| &old.unknown), &targets.unknown);
        (targets.header().clone(), old.map_or(0, |old| old.header.version))
    } else {
        (Header::new(0, now), 0)
    };
    lines.extend(unknown::lines(payload));
    Ok(Section {
        role: payload.role.to_string(),
        from,
        version: header.version,
        expires: header.expires.to_string(),
        days: (header.expires.secs().saturating_sub(now.secs())).div_euclid(86_400),
        sha256: payload.digest().to_hex(),
        changes: lines.iter().map(|line| printable(line)).collect(),
    })
}

/// A line that shows what it says: no control characters, and none that turn the direction of
/// the text around (CVE-2021-42574).
pub(crate) fn printable(line: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    line.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

fn role_lines(
    lines: &mut Vec<String>,
    role: &Role,
    was: Option<(&Keys, &RoleKeys)>,
    (keys, is): (&Keys, &RoleKeys),
) {
    let name = |keys: &Keys, id: &KeyId| keys.get(id).map_or_else(|| id.to_string(), short_id);
    let had = |id: &KeyId| was.is_some_and(|(_, was)| was.keyids.contains(id));
    for id in is.keyids.iter().filter(|id| !had(id)) {
        lines.push(format!("+ key {} signs for {role}", name(keys, id)));
    }
    if let Some((old_keys, old)) = was {
        for id in old.keyids.iter().filter(|id| !is.keyids.contains(id)) {
            lines.push(format!("- key {} no longer signs for {role}", name(old_keys, id)));
        }
        if (old.threshold, old.keyids.len()) != (is.threshold, is.keyids.len()) {
            lines.push(format!(
                "~ {role} needs {} of {}, before {} of {}",
                is.threshold,
                counted(is.keyids.len() as u64, "key"),
                old.threshold,
                old.keyids.len()
            ));
        }
    } else {
        let keys = counted(is.keyids.len() as u64, "key");
        lines.push(format!("+ {role} needs {} of {keys}", is.threshold));
    }
}

fn short_id(key: &Key) -> String {
    format!("{} ({})", key_name(key), key.id())
}

fn target_lines(
    lines: &mut Vec<String>,
    change: Change<'_>,
    role: &Role,
    old: Option<&Targets>,
    new: &Targets,
) {
    let Change { before, proposal, now, .. } = change;
    let empty = BTreeMap::new();
    let old = old.map_or(&empty, |old| &old.targets);
    let names: BTreeSet<&String> = old.keys().chain(new.targets.keys()).collect();
    let mut moved = moved::Moved::default();
    for name in names {
        match (old.get(name), new.targets.get(name)) {
            (Some(was), Some(is)) if was == is => {}
            (was, is) if moved.takes(change, role, name, (was, is)) => {}
            (was, Some(is)) => {
                let mark = if was.is_some() { '~' } else { '+' };
                lines.push(format!("{mark} {}", target_line(before, proposal, name, is)));
                lines.extend(component_lines(is));
                if let Some(channel) = proposal.channels.get(name) {
                    let was = before.and_then(|state| state.channels.get(name));
                    let schedule = schedule_lines(was.map(|was| &was.data), channel, now);
                    lines.extend(schedule.into_iter().map(|line| format!("    {line}")));
                }
            }
            (_, None) => lines.push(format!("- {name}")),
        }
    }
    lines.extend(moved.lines());
}

fn target_line(
    before: Option<&State>,
    proposal: &Proposal,
    name: &str,
    file: &TargetFile,
) -> String {
    let hash = file.hashes.as_sha256().map(|hash| hash.to_hex()).unwrap_or_default();
    if let Some(channel) = proposal.channels.get(name) {
        let offer = |channel: &formats::channel::Channel| {
            let release = channel.release.as_ref().map(|offer| offer.version.to_string());
            let hold = if channel.hold { ", HELD" } else { "" };
            format!("{} ({:?}{hold})", release.as_deref().unwrap_or("nothing"), channel.urgency)
                .to_lowercase()
        };
        let was = before.and_then(|state| state.channels.get(name)).map(|was| offer(&was.data));
        let was = was.map(|was| format!(", before {was}")).unwrap_or_default();
        return format!("channel {name} offers {}{was}", offer(channel));
    }
    match summary_of(file) {
        Some(summary) => format!(
            "release {name}, security version {}, index sha256:{hash}",
            summary.security_version
        ),
        None => format!("target {name}, {} bytes, sha256:{hash}", file.length),
    }
}

/// Everything that is signed about a release, what this program has no words for included.
fn component_lines(file: &TargetFile) -> Vec<String> {
    let Some(summary) = summary_of(file) else { return Vec::new() };
    let mut lines = Vec::new();
    for component in &summary.components {
        lines.push(format!(
            "    {} of {} bytes for {}, {}",
            component.name,
            component.raw_size,
            component.compatible.join(", "),
            component.manifest
        ));
        if let Some(reason) = &component.raw {
            let reason: String = reason.chars().take(200).collect();
            lines.push(format!("    {} is taken as it is: {reason}", component.name));
        }
        if let Some(verity) = &component.verity {
            lines.push(format!(
                "    {} verified at boot by {}",
                component.name,
                verity.root_hash.to_hex()
            ));
        }
    }
    if let Some(withdrawn) = &summary.withdrawn {
        lines.push(format!("    WITHDRAWN: {}", withdrawn.because));
    }
    for mixture in &summary.mixed {
        let with: Vec<&str> = mixture.with.iter().map(|version| version.as_str()).collect();
        lines.push(format!("    {} may run beside {}", mixture.component, with.join(", ")));
    }
    if !summary.order.is_empty() {
        let names: Vec<&str> = summary.order.iter().map(|name| name.as_str()).collect();
        lines.push(format!("    switched in the order {}", names.join(", ")));
    }
    for attachment in &summary.attachments {
        let (kind, manifest) = (&attachment.artifact_type, &attachment.manifest);
        lines.push(format!("    attached: {kind}, {manifest}"));
    }
    let known = formats::json::Value::parse(&summary.to_custom()).ok();
    if let Some(custom) = file.custom.as_ref().filter(|custom| known.as_ref() != Some(*custom)) {
        lines.push(format!("    with members this program does not know: {}", shown(custom)));
    }
    lines
}

fn summary_of(file: &TargetFile) -> Option<Summary> {
    Summary::parse_custom(&file.custom.as_ref()?.to_bytes()).ok()
}

fn delegation_lines(
    lines: &mut Vec<String>,
    change: Change<'_>,
    old: Option<&Delegations>,
    new: &Targets,
    none: &Keys,
) {
    let roles = |delegations: Option<&Delegations>| -> Vec<DelegatedRole> {
        match delegations.map(|delegations| &delegations.to) {
            Some(DelegatedTo::Roles(roles)) => roles.clone(),
            _ => Vec::new(),
        }
    };
    let new = new.delegations.as_ref();
    let (was, is) = (roles(old), roles(new));
    let old_keys = old.map_or(none, |old| &old.keys);
    let new_keys = new.map_or(none, |new| &new.keys);
    for role in &is {
        let before = was.iter().find(|before| before.role == role.role);
        let ends = if role.terminating { ", nobody after it" } else { "" };
        let short = short_paths(role, change.listed_by(&role.role));
        let paths = short.clone().unwrap_or_else(|| role.paths.to_string());
        match before {
            None => lines.push(format!("+ {} may sign for {paths}{ends}", role.role)),
            Some(before)
                if (&before.paths, before.terminating) != (&role.paths, role.terminating) =>
            {
                let was = change.paths_before(before);
                lines.push(format!("~ {} may sign for {paths}{ends}, before {was}", role.role));
            }
            Some(_) => {}
        }
        // Those of a role beside it, where they are said.
        let is_known = |it: &DelegatedRole| it.role != role.role && it.keys == role.keys;
        if before.is_none() && short.is_some() && is.iter().any(is_known) {
            continue;
        }
        let before = before.map(|before| (old_keys, &before.keys));
        let same = before.is_some_and(|(_, keys)| *keys == role.keys);
        if !same {
            role_lines(lines, &role.role, before, (new_keys, &role.keys));
        }
    }
    for role in was.iter().filter(|was| !is.iter().any(|is| is.role == was.role)) {
        let paths = change.paths_before(role);
        lines.push(format!("- {} no longer signs for {paths}", role.role));
    }
    let order = |roles: &[DelegatedRole]| -> Vec<Role> {
        roles.iter().map(|role| role.role.clone()).collect()
    };
    let kept: Vec<Role> =
        order(&is).into_iter().filter(|role| order(&was).contains(role)).collect();
    let before: Vec<Role> = order(&was).into_iter().filter(|role| kept.contains(role)).collect();
    if kept != before {
        lines.push("~ delegated roles are asked in another order".to_owned());
    }
}

fn period_line(
    lines: &mut Vec<String>,
    old: Option<&formats::json::Object>,
    new: &formats::json::Object,
) {
    let (was, is) = (old.and_then(period_of), period_of(new));
    if old.is_some() && was != is {
        let days = |period: Option<u64>| period.map_or("?".to_owned(), |secs| format!("{secs} s"));
        lines.push(format!("~ each signature lasts {}, before {}", days(is), days(was)));
    }
}

/// Who may let a bundle outlast its timestamp, and for how long.
fn offline_line(
    lines: &mut Vec<String>,
    old: Option<&formats::json::Object>,
    new: &formats::json::Object,
) {
    if old.and_then(|old| old.get(OFFLINE)) == new.get(OFFLINE) {
        return;
    }
    let rule = match OfflineRule::of(new) {
        Ok(None) => "cannot be valid offline".to_owned(),
        Ok(Some(OfflineRule { longest: 0, .. })) => "may not be valid offline".to_owned(),
        Ok(Some(OfflineRule { longest, role })) => {
            let role = role.unwrap_or_else(|| Role::Targets.to_string());
            format!("may be valid offline for {longest} s, when {role} signs for it")
        }
        Err(error) => format!("have a rule that nodes cannot read: {error}"),
    };
    let mark = if old.is_some_and(|old| old.contains_key(OFFLINE)) { '~' } else { '+' };
    lines.push(format!("{mark} bundles {rule}"));
}

/// Members of the top level that this program has no words for, whole: a part that is cut off is not
/// shown. `unknown` has those below.
fn other_line(
    lines: &mut Vec<String>,
    old: Option<&formats::json::Object>,
    new: &formats::json::Object,
) {
    let names: BTreeSet<&String> =
        old.into_iter().flat_map(|old| old.keys()).chain(new.keys()).collect();
    // These have their own words; an id that is not the root's does not verify.
    let known = [PERIOD_MEMBER, REPOSITORY, OFFLINE, KEEP_MEMBER];
    for name in names.into_iter().filter(|name| !known.contains(&name.as_str())) {
        let is = new.get(name);
        if old.and_then(|old| old.get(name)) != is {
            let is = is.map_or_else(|| "gone".to_owned(), shown);
            lines.push(format!("~ member {name:?} is {is}"));
        }
    }
}

fn shown(value: &formats::json::Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => String::from_utf8_lossy(&value.to_bytes()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::json::Value;

    /// A person must not sign what their program did not show.
    #[test]
    fn members_nobody_knows_are_shown_too() {
        let known = r#"{"racklet":{"version":"1.0.0","security_version":1,"components":[{"name":"os",
            "compatible":["cu-v1"],"manifest":"sha256:MANIFEST","raw_size":5}]}}"#;
        let known = known.replace("MANIFEST", &"ab".repeat(32));
        let lines = |custom: &str| {
            let custom = Value::parse(custom.as_bytes()).unwrap();
            component_lines(&TargetFile::of(b"index", Some(custom)))
        };
        assert_eq!(lines(&known).len(), 1, "{:?}", lines(&known));
        for (place, more) in [
            ("\"raw_size\":5", "\"raw_size\":5,\"run\":\"rm\""),
            ("{\"racklet\":", "{\"other\":1,\"racklet\":"),
            ("\"security_version\":1", "\"security_version\":1,\"floor\":0"),
        ] {
            let more = lines(&known.replace(place, more));
            assert_eq!(more.len(), 2, "{more:?}");
            assert!(more[1].contains("does not know: {"), "{more:?}");
        }
    }
}
