//! May this node install that release now? Facts in, a named decision out.
//!
//! The rules are asked in a fixed order, and every answer is kept, so that `explain` can show which
//! rule decided and which ones passed:
//!
//! | rule | passes when | otherwise |
//! |---|---|---|
//! | `newer` | the offer is newer than what runs | up to date, or `version_rollback` |
//! | `withdrawn` | its maintainers did not withdraw it; not asked where they did not | `withdrawn` |
//! | `floor` | its security version is not below the floor | `secver_floor` |
//! | `attachments` | it has what this node requires; not asked where nothing is required | `attachment_missing` |
//! | `hardware` | every component of this node is there for its hardware | `hw_mismatch` |
//! | `mixed` | the release allows each component that starts by itself beside what runs | `set_mixed` |
//! | `size` | every image has bytes, and fits its slot | `bundle_format`, `slot_size` |
//! | `failed-before` | it did not fail here, or a retry is asked for | `failed_before` |
//! | `hold` | the channel is not held | deferred |
//! | `wave` | this node's wave has begun | deferred until it does |
//! | `window` | a maintenance window is open, or the release is urgent | deferred until one opens |
//!
//! An operator who names a version, or carries a bundle to the node, skips the last three; nothing
//! skips the others.
//!
//! An image without bytes would leave in its slot whatever older system was there, which would then
//! boot under the new version. The release itself is malformed; the code is one that every agent
//! that ever reads this node's records knows.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use formats::boot_record::{BootRecord, ReleaseId};
use formats::channel::{Channel, Urgency, Wave};
use formats::digest::Sha256;
use formats::reason::Reason;
use formats::release::{AttachmentKind, ComponentName, ComponentSummary, Summary};
use formats::similar::{closest, listed};
use formats::tuf::UnixTime;
use formats::version::Version;

/// What the node knows of itself.
#[derive(Debug, Clone)]
pub struct NodeFacts<'a> {
    /// Unix seconds.
    pub now: u64,
    /// Hardware ids of this node.
    pub hardware: &'a [String],
    /// Capacity in bytes of the inactive slot's partition of each component.
    pub capacity: &'a BTreeMap<ComponentName, u64>,
    /// The release that runs, if this agent installed it.
    pub installed: Option<&'a ReleaseId>,
    /// The version that runs, by its own word, when the agent did not install it.
    pub installed_version: Option<&'a Version>,
    /// Security versions below it are refused.
    pub floor: u64,
    /// Components that start by themselves, from a bank of their own.
    pub switched: &'a [&'a ComponentName],
    /// What failed here before.
    pub record: &'a BootRecord,
    /// Its stable name, of which its wave comes.
    pub id: &'a str,
    /// 1 to 100: the share of all nodes at which this one's wave begins ([`wave_of`]).
    pub wave: u8,
    /// What a release must have attached.
    pub require: &'a [AttachmentKind],
}

/// What is offered to the node.
#[derive(Debug, Clone)]
pub struct Offered<'a> {
    /// SHA-256 of the release index, as signed.
    pub index: Sha256,
    /// What the signed target says.
    pub summary: &'a Summary,
    /// The channel it comes from; none when an operator named the version or carried a bundle.
    pub channel: Option<&'a Channel>,
    /// Whether an operator asked to try a failed release again.
    pub retry: bool,
}

/// What to do with the offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Install these components.
    Install(Vec<ComponentSummary>),
    /// This very release runs already.
    UpToDate,
    /// Later: at that time, or when the channel changes.
    DeferUntil(Option<u64>),
    /// Never, and why.
    Refuse(Reason),
}

/// A rule. They are asked in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The offer is newer than what runs.
    Newer,
    /// Its maintainers did not withdraw it.
    Withdrawn,
    /// It is not below the floor.
    Floor,
    /// It has what this node requires.
    Attachments,
    /// It is for this hardware.
    Hardware,
    /// It may run next to what runs, while its components are switched.
    Mixed,
    /// Its images fit their slots.
    Size,
    /// It did not fail here.
    FailedBefore,
    /// The channel is not held.
    Hold,
    /// This node's wave has begun.
    Wave,
    /// A maintenance window is open.
    Window,
}

impl Rule {
    /// All, in the order in which they are asked.
    pub const ALL: [Rule; 11] = [
        Rule::Newer,
        Rule::Withdrawn,
        Rule::Floor,
        Rule::Attachments,
        Rule::Hardware,
        Rule::Mixed,
        Rule::Size,
        Rule::FailedBefore,
        Rule::Hold,
        Rule::Wave,
        Rule::Window,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Newer => "newer",
            Rule::Withdrawn => "withdrawn",
            Rule::Floor => "floor",
            Rule::Attachments => "attachments",
            Rule::Hardware => "hardware",
            Rule::Mixed => "mixed",
            Rule::Size => "size",
            Rule::FailedBefore => "failed-before",
            Rule::Hold => "hold",
            Rule::Wave => "wave",
            Rule::Window => "window",
        }
    }
}

/// One rule's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The rule.
    pub rule: Rule,
    /// Whether it passed.
    pub passed: bool,
    /// Why, in words.
    pub why: String,
}

/// The decision and the answers that led to it; the last answer is the one that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// What to do.
    pub decision: Decision,
    /// Answers in the order of the rules.
    pub answers: Vec<Answer>,
    /// What decides nothing and should be known: a sentence each.
    pub notes: Vec<String>,
}

impl Decided {
    /// Why it was decided so, in words.
    pub fn why(&self) -> &str {
        self.answers.last().map_or("", |answer| answer.why.as_str())
    }
}

type Verdict = Result<String, (Decision, String)>;

/// Decides.
pub fn decide(node: &NodeFacts<'_>, offered: &Offered<'_>) -> Decided {
    let mut answers = Vec::new();
    let mut chosen = Vec::new();
    let notes = without_slot(node, offered.summary);
    for rule in Rule::ALL {
        let verdict = match rule {
            Rule::Newer => newer(node, offered),
            Rule::Withdrawn => match withdrawn(offered) {
                Some(verdict) => Err(verdict),
                None => continue,
            },
            Rule::Floor => floor(node, offered),
            Rule::Attachments if node.require.is_empty() => continue,
            Rule::Attachments => attachments(node, offered),
            Rule::Hardware => hardware(node, offered).map(|(components, why)| {
                chosen = components;
                why
            }),
            Rule::Mixed => mixed(node, offered),
            Rule::Size => size(node, &chosen),
            Rule::FailedBefore => failed_before(node, offered),
            Rule::Hold => hold(offered),
            Rule::Wave => wave(node, offered),
            Rule::Window => window(node, offered),
        };
        match verdict {
            Ok(why) => answers.push(Answer { rule, passed: true, why }),
            Err((decision, why)) => {
                answers.push(Answer { rule, passed: false, why });
                return Decided { decision, answers, notes };
            }
        }
    }
    Decided { decision: Decision::Install(chosen), answers, notes }
}

/// Components that are signed for this hardware and go nowhere on this node.
fn without_slot(node: &NodeFacts<'_>, summary: &Summary) -> Vec<String> {
    let goes_nowhere = |component: &&ComponentSummary| {
        !node.capacity.contains_key(&component.name)
            && component.compatible.iter().any(|id| node.hardware.contains(id))
    };
    let names: BTreeSet<&ComponentName> =
        summary.components.iter().filter(goes_nowhere).map(|component| &component.name).collect();
    let note = |name| format!("{name} is signed for this hardware; no slot here takes it");
    names.into_iter().map(note).collect()
}

fn refuse(reason: Reason, why: String) -> (Decision, String) {
    (Decision::Refuse(reason), why)
}

fn newer(node: &NodeFacts<'_>, offered: &Offered<'_>) -> Verdict {
    let version = &offered.summary.version;
    if let Some(installed) = node.installed
        && installed.index == offered.index
    {
        return Err((Decision::UpToDate, format!("{version} is what runs")));
    }
    let runs = match (node.installed, node.installed_version) {
        (Some(installed), _) => installed.version.version(),
        (None, Some(version)) => version.clone(),
        (None, None) => return Ok(format!("{version}; what runs is not known to the agent")),
    };
    match version.compare(&runs) {
        Ordering::Greater => Ok(format!("{version} is newer than {runs}, which runs")),
        Ordering::Less => Err(refuse(
            Reason::VersionRollback,
            format!("{version} is older than {runs}, which runs"),
        )),
        Ordering::Equal if node.installed.is_none() => {
            Err((Decision::UpToDate, format!("{version} is what runs, as its os-release says")))
        }
        Ordering::Equal => Err(refuse(
            Reason::VersionRollback,
            format!(
                "{version} is the version that runs, with other content: publish it as a newer version"
            ),
        )),
    }
}

/// Nobody goes on installing what was taken back, not even an operator who names it.
fn withdrawn(offered: &Offered<'_>) -> Option<(Decision, String)> {
    let Summary { version, withdrawn, .. } = offered.summary;
    let because = &withdrawn.as_ref()?.because;
    Some(refuse(Reason::Withdrawn, format!("{version} was withdrawn: {because}")))
}

fn floor(node: &NodeFacts<'_>, offered: &Offered<'_>) -> Verdict {
    let (offers, floor) = (offered.summary.security_version, node.floor);
    if offers < floor {
        let why = format!("security version {offers} is below this node's floor {floor}");
        return Err(refuse(Reason::SecverFloor, why));
    }
    Ok(format!("security version {offers}, floor {floor}"))
}

fn attachments(node: &NodeFacts<'_>, offered: &Offered<'_>) -> Verdict {
    let missing =
        node.require.iter().find(|kind| offered.summary.attached(**kind).next().is_none());
    if let Some(kind) = missing {
        let (word, version) = (kind.word(), &offered.summary.version);
        let why = format!(
            "{version} comes without {word}, which this node requires; publish it with --{word}"
        );
        return Err(refuse(Reason::AttachmentMissing, why));
    }
    let words: Vec<String> = node.require.iter().map(|kind| kind.word().to_owned()).collect();
    Ok(format!("{} attached", list(&words)))
}

/// Whether a release has one image for each of these components, for this hardware.
pub fn fits<'a>(
    components: impl IntoIterator<Item = &'a ComponentName>,
    hardware: &[String],
    summary: &Summary,
) -> bool {
    let for_node =
        |component: &ComponentSummary| component.compatible.iter().any(|id| hardware.contains(id));
    components.into_iter().all(|name| {
        let found = summary.components.iter();
        found.filter(|found| found.name == *name && for_node(found)).count() == 1
    })
}

/// Why no image of a component fits, with the ids that they are for: one of them may be meant.
fn other_hardware(node: &NodeFacts<'_>, offered: &Offered<'_>, name: &ComponentName) -> String {
    let of_name = offered.summary.components.iter().filter(|found| found.name == *name);
    let ids: BTreeSet<&str> =
        of_name.flat_map(|found| found.compatible.iter().map(String::as_str)).collect();
    let own = list(node.hardware);
    let mut why = format!(
        "no {name} for {own} in {}; this release is for other hardware",
        offered.summary.version
    );
    if !ids.is_empty() {
        why += &format!(": {}", listed(ids.iter().copied()));
    }
    let meant = node.hardware.iter().find_map(|own| closest(own, ids.iter().copied()));
    if let Some(meant) = meant {
        why += &format!("; is {meant} meant by node.hardware?");
    }
    why
}

fn hardware(
    node: &NodeFacts<'_>,
    offered: &Offered<'_>,
) -> Result<(Vec<ComponentSummary>, String), (Decision, String)> {
    let fits = |component: &&ComponentSummary| {
        component.compatible.iter().any(|id| node.hardware.contains(id))
    };
    let mut chosen = Vec::new();
    for name in node.capacity.keys() {
        let of_name = offered.summary.components.iter().filter(|found| found.name == *name);
        let mut fitting = of_name.filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(component), None) => chosen.push(component.clone()),
            (None, _) => {
                return Err(refuse(Reason::HwMismatch, other_hardware(node, offered, name)));
            }
            (Some(_), Some(_)) => {
                let why = format!("two {name} images fit {}", list(node.hardware));
                return Err(refuse(Reason::HwMismatch, why));
            }
        }
    }
    let names: Vec<String> = chosen.iter().map(|component| component.name.to_string()).collect();
    Ok((chosen, format!("{} for {}", list(&names), list(node.hardware))))
}

/// While a set is under way, its components run from different releases. Only what whoever signs has
/// listed was tested.
fn mixed(node: &NodeFacts<'_>, offered: &Offered<'_>) -> Verdict {
    if node.switched.is_empty() {
        return Ok("all components are switched as one".to_owned());
    }
    let by_agent = node.installed.map(|installed| installed.version.version());
    let Some(runs) = by_agent.as_ref().or(node.installed_version) else {
        let why = "it is unknown what runs, so nothing says what the new set may run beside";
        return Err(refuse(Reason::SetMixed, why.to_owned()));
    };
    for name in node.switched {
        let allowed = offered.summary.mixed.iter().filter(|mixture| mixture.component == **name);
        if !allowed.flat_map(|mixture| &mixture.with).any(|version| version == runs) {
            let why = format!(
                "{} does not allow its {name} beside {runs}; install a release in between, or \
                 publish it with --mixed {name}={runs}",
                offered.summary.version
            );
            return Err(refuse(Reason::SetMixed, why));
        }
    }
    Ok(format!("signed for a set that passes through {runs}"))
}

/// Asked after [`Rule::Hardware`], which chose the components.
fn size(node: &NodeFacts<'_>, chosen: &[ComponentSummary]) -> Verdict {
    for component in chosen {
        if component.raw_size == 0 {
            let why = format!(
                "{} is an image of 0 bytes: its slot would keep the system it has",
                component.name
            );
            return Err(refuse(Reason::BundleFormat, why));
        }
        let capacity = node.capacity.get(&component.name).copied().unwrap_or(0);
        if component.raw_size > capacity {
            let why = format!(
                "{} is {} bytes, its slot has {capacity}",
                component.name, component.raw_size
            );
            return Err(refuse(Reason::SlotSize, why));
        }
    }
    Ok("every image fits its slot".to_owned())
}

fn failed_before(node: &NodeFacts<'_>, offered: &Offered<'_>) -> Verdict {
    match node.record.failure_of(offered.index) {
        Some(failure) if !offered.retry => Err(refuse(
            Reason::FailedBefore,
            format!(
                "{} failed on this node: {}; publish a newer release, or use --retry",
                failure.release.version, failure.detail
            ),
        )),
        Some(_) => Ok("it failed here before; a retry was asked for".to_owned()),
        None => Ok("it did not fail here before".to_owned()),
    }
}

fn hold(offered: &Offered<'_>) -> Verdict {
    match offered.channel {
        Some(channel) if channel.hold => Err((
            Decision::DeferUntil(None),
            format!("channel {} is held by its maintainers", channel.channel),
        )),
        Some(channel) => Ok(format!("channel {} is not held", channel.channel)),
        None => Ok("the version was named by an operator".to_owned()),
    }
}

fn wave(node: &NodeFacts<'_>, offered: &Offered<'_>) -> Verdict {
    let waves: &[Wave] = offered.channel.map_or(&[], |channel| &channel.waves);
    let Some(last) = waves.last() else { return Ok("no waves".to_owned()) };
    let place = format!("{} is at {} %", node.id, node.wave);
    match waves.iter().find(|wave| node.wave <= wave.percent) {
        Some(own) if own.start <= node.now => {
            Ok(format!("{place}: its wave ({} %) began {}", own.percent, time(own.start)))
        }
        Some(own) => {
            let mut why =
                format!("{place}: its wave ({} %) begins {}", own.percent, time(own.start));
            let opens = offered.channel.and_then(|channel| channel.opens(own.start));
            if let Some(opens) = opens.filter(|opens| *opens > own.start) {
                why.push_str(&format!(", and the next window opens {}", time(opens)));
            }
            Err((Decision::DeferUntil(Some(own.start)), why))
        }
        None => Err((
            Decision::DeferUntil(None),
            format!("{place}: the roll-out stops at {} %", last.percent),
        )),
    }
}

fn window(node: &NodeFacts<'_>, offered: &Offered<'_>) -> Verdict {
    let Some(channel) = offered.channel else { return Ok("no windows".to_owned()) };
    if channel.urgency == Urgency::Security {
        return Ok("a security release does not wait for a window".to_owned());
    }
    match channel.opens(node.now) {
        None => Ok("no windows".to_owned()),
        Some(at) if at <= node.now => Ok("a maintenance window is open".to_owned()),
        Some(at) => Err((
            Decision::DeferUntil(Some(at)),
            format!("no maintenance window is open; the next opens {}", time(at)),
        )),
    }
}

/// `2026-11-21T10:00:00Z` (RFC 3339).
fn time(secs: u64) -> UnixTime {
    UnixTime::from_secs(i64::try_from(secs).unwrap_or(i64::MAX))
}

fn list(words: &[String]) -> String {
    if words.is_empty() { "(none)".to_owned() } else { words.join(", ") }
}

/// The share of all nodes at which this node's wave begins, 1 to 100: from a stable id of the node,
/// so that it keeps its place, and the release, so that not always the same nodes go first.
///
/// The first 64 bits of SHA-256 over the id's bytes and the 32 bytes of the release index's digest, as a
/// fraction of 2⁶⁴: each of the 100 shares has the same number of hashes, but for less than one in 2⁵⁷.
pub fn wave_of(node_id: &str, release: Sha256) -> u8 {
    let hash = Sha256::of(&[node_id.as_bytes(), &release.0].concat());
    let number = hash.0.iter().take(8).fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let share = (u128::from(number) * 100) >> 64;
    u8::try_from(share).expect("less than 2^64 hundredths of 2^64 are less than 100") + 1
}

/// Why an id does not tell a node from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedId {
    /// There is none.
    Empty,
    /// `uninitialized`: an image that no boot has filled in (machine-id(5)).
    Uninitialized,
    /// Nothing but zeros.
    Zeros,
}

impl SharedId {
    /// In words.
    pub fn why(self) -> &'static str {
        match self {
            SharedId::Empty => "is empty or missing",
            SharedId::Uninitialized => "says \"uninitialized\"",
            SharedId::Zeros => "is all zeros",
        }
    }
}

/// Whether every node with such an id would be in the same wave.
pub fn shared_id(id: &str) -> Option<SharedId> {
    match id.trim() {
        "" => Some(SharedId::Empty),
        "uninitialized" => Some(SharedId::Uninitialized),
        id if id.len() >= 32 && id.bytes().all(|byte| matches!(byte, b'0' | b'-')) => {
            Some(SharedId::Zeros)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::boot_record::Failure;
    use formats::channel::Window;
    use formats::digest::Digest;
    use formats::release::{Attachment, Mixture};

    struct Case {
        installed: Option<(&'static str, u64)>,
        own_word: Option<&'static str>,
        floor: u64,
        hardware: &'static str,
        capacity: u64,
        image: u64,
        failed: bool,
        retry: bool,
        now: u64,
        wave: u8,
        channel: Option<Channel>,
        withdrawn: Option<&'static str>,
        attached: &'static [&'static str],
        require: &'static [AttachmentKind],
    }

    fn attachment(artifact_type: &str) -> Attachment {
        let manifest = Digest::sha256_of(artifact_type.as_bytes());
        Attachment { manifest, artifact_type: artifact_type.to_owned() }
    }

    fn base() -> Case {
        Case {
            installed: Some(("1.0", 1)),
            own_word: None,
            floor: 1,
            hardware: "cu-v1",
            capacity: 100,
            image: 100,
            failed: false,
            retry: false,
            now: 1_800_000_000,
            wave: 50,
            channel: Some(Channel::new("demo", "stable")),
            withdrawn: None,
            attached: &[],
            require: &[],
        }
    }

    fn id(version: &str, security_version: u64) -> ReleaseId {
        let parsed: Version = version.parse().unwrap();
        ReleaseId {
            index: Sha256::of(version.as_bytes()),
            version: parsed.into(),
            security_version,
        }
    }

    fn run(case: &Case) -> Decided {
        let summary = Summary {
            version: "1.1".parse().unwrap(),
            security_version: 2,
            components: vec![ComponentSummary {
                name: "os".parse().unwrap(),
                compatible: vec!["cu-v1".to_owned()],
                manifest: Digest::sha256_of(b"m"),
                raw_size: case.image,
                verity: None,
                raw: None,
            }],
            attachments: case.attached.iter().copied().map(attachment).collect(),
            mixed: Vec::new(),
            order: Vec::new(),
            withdrawn: case
                .withdrawn
                .map(|because| formats::release::Withdrawal { at: 0, because: because.to_owned() }),
        };
        let installed = case.installed.map(|(version, sv)| id(version, sv));
        let own_word = case.own_word.map(|version| version.parse().unwrap());
        let mut record = BootRecord::default();
        if case.failed {
            let detail = "web: refused".to_owned();
            record.remember(Failure {
                release: id("1.1", 2),
                at: 0,
                reason: Reason::Unhealthy.into(),
                detail,
            });
        }
        decide(
            &NodeFacts {
                now: case.now,
                hardware: &[case.hardware.to_owned()],
                capacity: &BTreeMap::from([("os".parse().unwrap(), case.capacity)]),
                installed: installed.as_ref(),
                installed_version: own_word.as_ref(),
                floor: case.floor,
                switched: &[],
                record: &record,
                id: "node-1",
                wave: case.wave,
                require: case.require,
            },
            &Offered {
                index: Sha256::of(b"1.1"),
                summary: &summary,
                channel: case.channel.as_ref(),
                retry: case.retry,
            },
        )
    }

    #[test]
    fn nobody_installs_what_was_withdrawn() {
        let withdrawn = || Case { withdrawn: Some("it loses data"), ..base() };
        let refused = Decision::Refuse(Reason::Withdrawn);
        for (name, case, rule, decision) in [
            ("by channel", withdrawn(), "withdrawn", refused.clone()),
            (
                "named by an operator",
                Case { channel: None, ..withdrawn() },
                "withdrawn",
                refused.clone(),
            ),
            (
                "a retry of what failed",
                Case { failed: true, retry: true, ..withdrawn() },
                "withdrawn",
                refused,
            ),
            (
                "what runs goes on",
                Case { installed: Some(("1.1", 2)), ..withdrawn() },
                "newer",
                Decision::UpToDate,
            ),
        ] {
            let decided = run(&case);
            let last = decided.answers.last().map(|answer| answer.rule.name());
            assert_eq!((last, decided.decision.clone()), (Some(rule), decision), "{name}");
        }
        assert_eq!(run(&withdrawn()).why(), "1.1 was withdrawn: it loses data");
    }

    fn channel(edit: impl FnOnce(&mut Channel)) -> Option<Channel> {
        let mut channel = Channel::new("demo", "stable");
        edit(&mut channel);
        Some(channel)
    }

    #[test]
    fn the_table_of_decisions() {
        let day = 86_400;
        let midnight = 1_800_000_000 / day * day;
        let waves = vec![
            Wave { start: 1_700_000_000, percent: 10 },
            Wave { start: 1_900_000_000, percent: 60 },
        ];
        let held = || channel(|c| c.hold = true);
        let night = || channel(|c| c.windows = vec![Window { from: 23 * 60, minutes: 120 }]);
        let rows: Vec<(&str, Case, &str, Decision)> = vec![
            (
                "same release",
                Case { installed: Some(("1.1", 2)), ..base() },
                "newer",
                Decision::UpToDate,
            ),
            (
                "older than what runs",
                Case { installed: Some(("1.2", 2)), ..base() },
                "newer",
                Decision::Refuse(Reason::VersionRollback),
            ),
            (
                "same version, other content",
                Case { installed: Some(("1.01", 2)), ..base() },
                "newer",
                Decision::Refuse(Reason::VersionRollback),
            ),
            (
                "older than its own word",
                Case { installed: None, own_word: Some("2"), ..base() },
                "newer",
                Decision::Refuse(Reason::VersionRollback),
            ),
            (
                "its own word, same",
                Case { installed: None, own_word: Some("1.1"), ..base() },
                "newer",
                Decision::UpToDate,
            ),
            (
                "below the floor",
                Case { floor: 3, ..base() },
                "floor",
                Decision::Refuse(Reason::SecverFloor),
            ),
            (
                "without the SBOM that is required",
                Case {
                    require: &[AttachmentKind::Sbom, AttachmentKind::Provenance],
                    attached: &["application/vnd.in-toto+json", "text/plain"],
                    ..base()
                },
                "attachments",
                Decision::Refuse(Reason::AttachmentMissing),
            ),
            (
                "with both, for other hardware",
                Case {
                    require: &[AttachmentKind::Sbom, AttachmentKind::Provenance],
                    attached: &["application/vnd.in-toto+json", "application/vnd.cyclonedx+json"],
                    hardware: "other",
                    ..base()
                },
                "hardware",
                Decision::Refuse(Reason::HwMismatch),
            ),
            (
                "below the floor, named",
                Case { floor: 3, channel: None, retry: true, ..base() },
                "floor",
                Decision::Refuse(Reason::SecverFloor),
            ),
            (
                "other hardware",
                Case { hardware: "cu-v2", ..base() },
                "hardware",
                Decision::Refuse(Reason::HwMismatch),
            ),
            (
                "one byte too small",
                Case { capacity: 99, ..base() },
                "size",
                Decision::Refuse(Reason::SlotSize),
            ),
            (
                "no byte",
                Case { image: 0, ..base() },
                "size",
                Decision::Refuse(Reason::BundleFormat),
            ),
            (
                "no byte, named",
                Case { image: 0, channel: None, retry: true, ..base() },
                "size",
                Decision::Refuse(Reason::BundleFormat),
            ),
            (
                "failed before",
                Case { failed: true, ..base() },
                "failed-before",
                Decision::Refuse(Reason::FailedBefore),
            ),
            ("held", Case { channel: held(), ..base() }, "hold", Decision::DeferUntil(None)),
            (
                "wave to come",
                Case { channel: channel(|c| c.waves.clone_from(&waves)), ..base() },
                "wave",
                Decision::DeferUntil(Some(1_900_000_000)),
            ),
            (
                "beyond the last wave",
                Case { wave: 61, channel: channel(|c| c.waves.clone_from(&waves)), ..base() },
                "wave",
                Decision::DeferUntil(None),
            ),
            (
                "before the window",
                Case { now: midnight + 10 * 3600, channel: night(), ..base() },
                "window",
                Decision::DeferUntil(Some(midnight + 23 * 3600)),
            ),
            (
                "after the window",
                Case { now: midnight + 3600, channel: night(), ..base() },
                "window",
                Decision::DeferUntil(Some(midnight + 23 * 3600)),
            ),
        ];
        for (name, case, rule, decision) in rows {
            let decided = run(&case);
            assert_eq!(decided.decision, decision, "{name}: {decided:?}");
            let last = decided.answers.last().unwrap();
            assert_eq!((last.rule.name(), last.passed), (rule, false), "{name}");
        }
        let installs: Vec<(&str, Case)> = vec![
            ("newer", base()),
            ("unknown system", Case { installed: None, ..base() }),
            ("exactly the slot's size", Case { capacity: 100, ..base() }),
            ("retry", Case { failed: true, retry: true, ..base() }),
            ("held but named", Case { channel: None, ..base() }),
            (
                "wave begun",
                Case { wave: 10, channel: channel(|c| c.waves.clone_from(&waves)), ..base() },
            ),
            ("window over midnight", Case { now: midnight + 1800, channel: night(), ..base() }),
            ("window just open", Case { now: midnight + 23 * 3600, channel: night(), ..base() }),
            (
                "urgent outside the window",
                Case {
                    now: midnight + 3600,
                    channel: channel(|c| {
                        c.windows = vec![Window { from: 23 * 60, minutes: 120 }];
                        c.urgency = Urgency::Security;
                    }),
                    ..base()
                },
            ),
        ];
        for (name, case) in installs {
            let decided = run(&case);
            assert!(matches!(decided.decision, Decision::Install(_)), "{name}: {decided:?}");
            assert_eq!(decided.answers.len(), 9, "{name}");
        }
    }

    /// Said, and no reason not to install.
    #[test]
    fn a_component_without_a_slot_is_noted() {
        let component = |name: &str, hardware: &str| ComponentSummary {
            name: name.parse().unwrap(),
            compatible: vec![hardware.to_owned()],
            manifest: Digest::sha256_of(name.as_bytes()),
            raw_size: 1,
            verity: None,
            raw: None,
        };
        let summary = Summary {
            version: "1.1".parse().unwrap(),
            security_version: 2,
            components: vec![
                component("os", "cu-v1"),
                component("firmware", "cu-v1"),
                component("bmc", "cu-v9"),
            ],
            attachments: Vec::new(),
            mixed: Vec::new(),
            order: Vec::new(),
            withdrawn: None,
        };
        let decided = decide(
            &NodeFacts {
                id: "node-1",
                now: 0,
                hardware: &["cu-v1".to_owned()],
                capacity: &BTreeMap::from([("os".parse().unwrap(), 1)]),
                installed: None,
                installed_version: None,
                floor: 0,
                switched: &[],
                record: &BootRecord::default(),
                wave: 1,
                require: &[],
            },
            &Offered { index: Sha256::of(b"1.1"), summary: &summary, channel: None, retry: false },
        );
        assert!(matches!(decided.decision, Decision::Install(_)), "{decided:?}");
        let note = "firmware is signed for this hardware; no slot here takes it";
        assert_eq!(decided.notes, [note]);
    }

    /// Each share holds a hundredth of 10,000 nodes, and each wave as many as it says, within five
    /// standard deviations of a fair draw.
    #[test]
    fn waves_spread_nodes_evenly() {
        for release in ["1.0.0", "1.1.0", "2.0.0"] {
            let release = Sha256::of(release.as_bytes());
            let mut counts = [0u32; 101];
            for node in 0..10_000 {
                counts[usize::from(wave_of(&format!("node-{node}"), release))] += 1;
            }
            assert_eq!(counts[0], 0, "shares begin at 1");
            let mut sum = 0;
            for (percent, count) in counts.iter().enumerate().skip(1) {
                assert!((50..=150).contains(count), "{percent} %: {count} of 10,000");
                sum += count;
                let (share, expected) = (percent as f64 / 100.0, percent as f64 * 100.0);
                let deviation = (10_000.0 * share * (1.0 - share)).sqrt();
                let off = (f64::from(sum) - expected).abs();
                assert!(off <= 5.0 * deviation, "up to {percent} %: {sum} of 10,000");
            }
            assert_eq!(sum, 10_000);
        }
    }

    proptest::proptest! {
        /// A node keeps its place, whatever it is called.
        #[test]
        fn every_node_has_one_wave(id in ".{0,80}", release: [u8; 32]) {
            let wave = wave_of(&id, Sha256(release));
            proptest::prop_assert!((1..=100).contains(&wave));
            proptest::prop_assert_eq!(wave, wave_of(&id, Sha256(release)));
        }
    }

    /// Two agents of different age must agree on who goes first: these never change.
    #[test]
    fn waves_are_those_of_earlier_agents() {
        let release = Sha256::of(b"release");
        let waves = ["", "node-1", "node-2", "0b7a6d2f5f0f4a7c9a3b1e2d3c4f5061", "ünïcode"];
        assert_eq!(waves.map(|id| wave_of(id, release)), [30, 3, 6, 25, 3]);
    }

    #[test]
    fn ids_that_many_nodes_have() {
        for (id, shared) in [
            ("", Some(SharedId::Empty)),
            (" \n", Some(SharedId::Empty)),
            ("uninitialized\n", Some(SharedId::Uninitialized)),
            ("00000000000000000000000000000000\n", Some(SharedId::Zeros)),
            ("00000000-0000-0000-0000-000000000000", Some(SharedId::Zeros)),
            ("0", None),
            ("node-0", None),
            ("0b7a6d2f5f0f4a7c9a3b1e2d3c4f5061", None),
        ] {
            assert_eq!(shared_id(id), shared, "{id:?}");
        }
    }

    /// The table of the module names every rule, in the order in which they are asked.
    #[test]
    fn every_rule_is_in_the_table_of_the_module() {
        let rows =
            include_str!("policy.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let names: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        assert_eq!(names, Rule::ALL.map(Rule::name));
    }

    /// What is deferred says until when, in the words of the rule.
    #[test]
    fn deferrals_name_their_times() {
        let waves = |windows: Vec<Window>| {
            channel(|c| {
                c.waves = vec![Wave { start: 1_900_000_000, percent: 60 }];
                c.windows = windows;
            })
        };
        let night = vec![Window { from: 23 * 60, minutes: 60 }];
        for (case, why) in [
            (
                Case { channel: waves(Vec::new()), ..base() },
                "node-1 is at 50 %: its wave (60 %) begins 2030-03-17T17:46:40Z",
            ),
            (
                Case { channel: waves(night.clone()), ..base() },
                "node-1 is at 50 %: its wave (60 %) begins 2030-03-17T17:46:40Z, and the next window \
                 opens 2030-03-17T23:00:00Z",
            ),
            (
                Case { wave: 61, channel: waves(Vec::new()), ..base() },
                "node-1 is at 61 %: the roll-out stops at 60 %",
            ),
            (
                Case { channel: channel(|c| c.windows = night.clone()), ..base() },
                "no maintenance window is open; the next opens 2027-01-15T23:00:00Z",
            ),
        ] {
            assert_eq!(run(&case).why(), why);
        }
    }

    /// Sets over several devices pass through mixtures; only those that were signed.
    #[test]
    fn a_set_passes_through_signed_mixtures_only() {
        let bmc: ComponentName = "bmc".parse().unwrap();
        let component = |name: &ComponentName| ComponentSummary {
            name: name.clone(),
            compatible: vec!["cu-v1".to_owned()],
            manifest: Digest::sha256_of(b"m"),
            raw_size: 1,
            verity: None,
            raw: None,
        };
        let with = |versions: &[&str]| -> Vec<Mixture> {
            let with = versions.iter().map(|version| version.parse().unwrap()).collect();
            vec![Mixture { component: bmc.clone(), with }]
        };
        type Row = (&'static str, Option<&'static str>, Vec<Mixture>, bool, bool);
        let rows: [Row; 6] = [
            ("signed for what runs", Some("1.0"), with(&["0.9", "1.0"]), true, true),
            ("signed for another", Some("0.8"), with(&["0.9", "1.0"]), true, false),
            ("nothing signed", Some("1.0"), Vec::new(), true, false),
            ("signed for none", Some("1.0"), with(&[]), true, false),
            ("unknown what runs", None, with(&["1.0"]), true, false),
            ("no switch of its own", Some("1.0"), Vec::new(), false, true),
        ];
        for (name, runs, mixed, switched, passes) in rows {
            let summary = Summary {
                version: "1.1".parse().unwrap(),
                security_version: 2,
                components: vec![component(&bmc)],
                attachments: Vec::new(),
                mixed,
                order: Vec::new(),
                withdrawn: None,
            };
            let own_word = runs.map(|version| version.parse().unwrap());
            let switched: &[&ComponentName] = if switched { &[&bmc] } else { &[] };
            let decided = decide(
                &NodeFacts {
                    now: 0,
                    hardware: &["cu-v1".to_owned()],
                    capacity: &BTreeMap::from([(bmc.clone(), 1)]),
                    installed: None,
                    installed_version: own_word.as_ref(),
                    floor: 0,
                    switched,
                    record: &BootRecord::default(),
                    id: "node-1",
                    wave: 1,
                    require: &[],
                },
                &Offered {
                    index: Sha256::of(b"1.1"),
                    summary: &summary,
                    channel: None,
                    retry: false,
                },
            );
            let expected = decided.decision == Decision::Refuse(Reason::SetMixed);
            assert_eq!(expected, !passes, "{name}: {decided:?}");
        }
    }
}
