//! The nodes of the rack: each tells what it did, so that every state has some.

use formats::boot_record::PerSlot;
use formats::digest::Sha256;
use formats::report::{
    BytesBySource, Decided, Erred, Failed, FloorKept, Report, SlotReport, Trusted,
};
use formats::tuf::UnixTime;
use racklet_testkit::forge::ForgeKey;

use super::rack::{CHANNEL, NEW, OLD, PRODUCT, Story, minutes};

/// One node while its story is told.
struct Teller {
    key: u32,
    boot: u32,
    report: Report,
    approved: bool,
    reports: Vec<(u64, Vec<u8>)>,
}

impl Teller {
    /// A node that has run the older release for two weeks.
    fn new(key: u32) -> Self {
        let report = Report {
            name: Some(format!("r{}-n{:02}", 1 + key / 16, 1 + key % 16).as_str().into()),
            product: PRODUCT.into(),
            channel: CHANNEL.into(),
            hardware: vec!["rack-a1".into()],
            agent: "0.9.0".into(),
            interval: 3600,
            booted: "a".into(),
            next: Some("a".into()),
            standing: "idle".into(),
            slots: PerSlot { a: slot("confirmed", OLD), b: slot("empty", "") },
            decision: Some(decided(OLD, "up_to_date", None, "1.4.1 is what runs", None)),
            floor: Some(FloorKept { security_version: 3, kept: "tpm".into() }),
            metadata: Some(Trusted {
                root: 1,
                timestamp: 4,
                snapshot: 4,
                targets: 3,
                expires: minutes(0) + 86_400,
            }),
            bytes: Some(BytesBySource {
                registry: 412 << 20,
                bundle: 0,
                delta: Some(290 << 20),
                reuse: Some(3 << 30),
            }),
            ..Report::default()
        };
        let mut teller = Teller { key, boot: 1, report, approved: true, reports: Vec::new() };
        teller.tell(20_100);
        teller
    }

    /// It reports, that long ago.
    fn tell(&mut self, before: u64) -> &mut Self {
        let report = &mut self.report;
        report.sequence += 1;
        report.at = minutes(before);
        report.checked = Some(minutes(before));
        report.boot = format!("{:08x}-boot-{}", self.key, self.boot).as_str().into();
        report.uptime = 20_200 * 60 - before * 60;
        self.reports.push((before, ForgeKey::new(self.key + 100).report(report.clone())));
        self
    }

    /// A rule keeps it from the newer release.
    fn waits(&mut self, rule: &str, sentence: &str, until: Option<u64>, before: u64) -> &mut Self {
        self.report.decision = Some(decided(NEW, "deferred", Some(rule), sentence, until));
        self.tell(before)
    }

    fn downloads(&mut self, before: u64) -> &mut Self {
        self.report.decision = Some(decided(NEW, "install", None, "every rule passed", None));
        self.report.standing = "interrupted".into();
        self.tell(before)
    }

    fn stages(&mut self, before: u64) -> &mut Self {
        self.report.standing = "awaiting_reboot".into();
        self.report.slots.b = slot("on_trial", NEW);
        self.report.slots.b.tries_left = Some(3);
        self.report.next = Some("b".into());
        self.tell(before)
    }

    fn tries(&mut self, before: u64) -> &mut Self {
        self.report.standing = "on_trial".into();
        self.report.booted = "b".into();
        self.report.slots.b.tries_left = Some(2);
        self.boot += 1;
        self.tell(before)
    }

    fn confirms(&mut self, before: u64) -> &mut Self {
        self.report.standing = "idle".into();
        self.report.slots.b = slot("confirmed", NEW);
        self.report.decision = Some(decided(NEW, "up_to_date", None, "1.4.2 is what runs", None));
        self.tell(before)
    }

    /// It ran the newer release, and is back.
    fn reverts(&mut self, code: &str, sentence: &str, before: u64) -> &mut Self {
        self.report.standing = "idle".into();
        self.report.booted = "a".into();
        self.report.next = Some("a".into());
        self.report.slots.b = slot("failed", NEW);
        self.boot += 1;
        self.report.failure = Some(Failed {
            version: NEW.into(),
            index: Some(Sha256::of(NEW.as_bytes())),
            code: code.into(),
            sentence: sentence.to_owned(),
            at: minutes(before),
        });
        let why = format!(
            "1.4.2 failed on this node: {sentence}; publish a newer release, or use --retry"
        );
        self.report.decision =
            Some(decided(NEW, "failed_before", Some("failed_before"), &why, None));
        self.tell(before)
    }

    fn errs(&mut self, code: &str, sentence: &str, before: u64) -> &mut Self {
        let (code, sentence) = (code.into(), sentence.to_owned());
        self.report.error = Some(Erred { code, sentence, at: minutes(before) });
        self.tell(before)
    }

    fn end(self) -> Story {
        let Teller { key, approved, reports, .. } = self;
        Story { key: ForgeKey::new(key + 100), approved, reports }
    }
}

fn slot(state: &str, version: &str) -> SlotReport {
    let written = !version.is_empty();
    SlotReport {
        state: state.into(),
        version: written.then(|| version.into()),
        index: written.then(|| Sha256::of(version.as_bytes())),
        security_version: written.then_some(3),
        tries_left: None,
    }
}

fn decided(
    version: &str,
    code: &str,
    rule: Option<&str>,
    sentence: &str,
    until: Option<u64>,
) -> Decided {
    Decided {
        version: version.into(),
        code: code.into(),
        rule: rule.map(Into::into),
        sentence: sentence.to_owned(),
        until,
    }
}

/// When the two open waves brought their nodes to run the newer release for good.
const CONFIRMED: [u64; 19] =
    [1610, 1605, 1580, 1560, 165, 160, 150, 140, 138, 131, 115, 110, 96, 84, 70, 62, 48, 31, 18];

/// The nodes: one after the other what pages have to show.
pub(crate) fn nodes() -> Vec<Story> {
    let mut told: Vec<Teller> = (0..48).map(Teller::new).collect();
    for (teller, confirmed) in told.iter_mut().zip(CONFIRMED) {
        // What a page says of one of them, in full.
        teller.downloads(confirmed + 14).stages(confirmed + 8).tries(confirmed + 4);
        teller.confirms(confirmed);
    }
    let wave = UnixTime::parse("2027-03-05T06:00:00Z").ok().map(|time| time.secs());
    let wave = wave.and_then(|secs| u64::try_from(secs).ok());
    for (key, teller) in told.iter_mut().enumerate().skip(CONFIRMED.len()) {
        match key {
            19 | 20 => {
                teller.downloads(22).stages(15).tries(4);
            }
            21 => {
                teller.downloads(22).stages(9);
            }
            22 => {
                teller.downloads(6);
            }
            23 => {
                let why =
                    "health check web failed: http://127.0.0.1:8080/ready answered 503 three times";
                teller.downloads(1590).stages(1584).tries(1580).reverts("unhealthy", why, 1570);
            }
            24 => {
                let why = "the new release did not start: three boots ended before its health checks began";
                teller.downloads(120).stages(112).tries(106).reverts("unhealthy", why, 90);
            }
            25 => {
                let why = "no maintenance window is open; the next opens 2027-03-04T22:00:00Z";
                teller.waits("window", why, Some(minutes(0) + 45_000), 30);
            }
            26 => {
                teller.waits("install", "every rule passed; its operator installs", None, 30);
            }
            27 => {
                let why = "connect to updates.example:5443: no route to host";
                teller.errs("unreachable", why, 25);
            }
            28 => {
                let why = "write slot b: No space left on device (os error 28)";
                teller.downloads(60).errs("slot_io", why, 20);
            }
            // Silent since: its wave had begun.
            29 | 30 => {
                teller.downloads(175);
            }
            31 => {
                teller.tell(4400);
            }
            32 => {
                teller.report.standing = "levitating".into();
                teller.tell(12);
            }
            33 => {
                // Two machines take turns.
                teller.boot = 7;
                teller.tell(50);
                teller.boot = 1;
                teller.tell(14);
            }
            46 | 47 => {
                teller.approved = false;
                teller.tell(7);
            }
            _ => {
                let name = teller.report.name.as_ref().map(ToString::to_string).unwrap_or_default();
                let why = format!(
                    "{name} is at {} %: its wave (100 %) begins 2027-03-05T06:00:00Z",
                    51 + key
                );
                teller.waits("wave", &why, wave, 1600);
            }
        }
    }
    for (key, teller) in told.iter_mut().enumerate().filter(|(key, _)| !(29..=31).contains(key)) {
        // The last heartbeat; nobody reports twice in a minute.
        let before = 1 + key as u64 % 3;
        if teller.reports.last().is_some_and(|(last, _)| *last > before) {
            teller.tell(before);
        }
    }
    told.into_iter().map(Teller::end).collect()
}
