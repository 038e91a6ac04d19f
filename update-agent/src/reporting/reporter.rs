//! The thread that sends reports, beside the rounds of the daemon.

use std::sync::mpsc::{self, Receiver, SyncSender};

use formats::digest::Sha256;
use formats::report::{Report, node_of};
use update_core::reporting::{self, Facts, When};

use super::describe::describe;
use super::key::{FileKey, NodeKey as _};
use super::ledger::{Acknowledged, Failed, Ledger, SentTo};
use super::send::{Answered, Server, unbelievable};
use crate::agent::Agent;
use crate::error::AgentError;
use crate::exhausted::no_thread;
use crate::source::SourceConfig;

/// Numbers that one write reserves: a process that reports every hour writes twice a day for them.
const RESERVED: u64 = 16;

/// Tells the thread that something may have changed. The thread ends with the process.
#[derive(Debug)]
pub(crate) struct Reporter(Option<SyncSender<()>>);

impl Reporter {
    /// Starts it, if a source wants reports. Trouble is logged and changes nothing else.
    pub(crate) fn start(agent: &Agent) -> Self {
        if !is_wanted(agent) {
            return Reporter(None);
        }
        let (tell, told) = mpsc::sync_channel(1);
        let started = agent.observer().map_err(|error| error.chain()).and_then(|agent| {
            std::thread::Builder::new()
                .name("reports".to_owned())
                .spawn(move || Sending::of(agent).run(&told))
                .map_err(|error| no_thread(&error).chain())
        });
        match started {
            Ok(_) => Reporter(Some(tell)),
            Err(error) => {
                tracing::warn!("no reports are sent: {error}");
                Reporter(None)
            }
        }
    }

    /// Something may have changed. Never waits: one word that is not heard yet is enough.
    pub(crate) fn tell(&self) {
        if let Some(tell) = &self.0 {
            let _ = tell.try_send(());
        }
    }

    /// Sends what is due and waits for it: for a process that is about to end.
    pub(crate) fn once(agent: &Agent) {
        if !is_wanted(agent) {
            return;
        }
        match agent.observer() {
            Ok(agent) => Sending::of(agent).turn(),
            Err(error) => tracing::warn!("no report is sent: {}", error.chain()),
        }
    }
}

/// Whether a source has asked for reports.
fn is_wanted(agent: &Agent) -> bool {
    agent.config.sources.iter().any(|source| source.reports)
}

/// What this process knows of one source.
struct Source {
    config: SourceConfig,
    /// Opened at the first use: files of the configuration may come later.
    server: Option<Server>,
    /// Seconds since the boot.
    attempted: Option<u64>,
    failures: u32,
}

struct Sending {
    agent: Agent,
    sources: Vec<Source>,
    key: Option<FileKey>,
    /// Numbers that are reserved, as the first and the one after the last.
    numbers: (u64, u64),
    told: Option<String>,
}

impl Sending {
    fn of(agent: Agent) -> Self {
        let wanted = agent.config.sources.iter().filter(|source| source.reports);
        let source = |config: &SourceConfig| Source {
            config: config.clone(),
            server: None,
            attempted: None,
            failures: 0,
        };
        let sources = wanted.map(source).collect();
        Sending { agent, sources, key: None, numbers: (0, 0), told: None }
    }

    fn run(mut self, told: &Receiver<()>) {
        while told.recv().is_ok() {
            self.turn();
        }
    }

    /// Sends what is due to each source.
    fn turn(&mut self) {
        let outcome = Ledger::of(&self.agent).and_then(|ledger| {
            // The number counts for nothing in what a report says.
            let report = describe(&self.agent, 1);
            for at in 0..self.sources.len() {
                self.serve(&ledger, at, &report)?;
            }
            Ok(())
        });
        if let Err(error) = outcome {
            self.log(&error);
        }
    }

    /// The same trouble is told once.
    fn log(&mut self, error: &AgentError) {
        let said = error.chain();
        if self.told.as_ref() == Some(&said) {
            tracing::debug!("again: {said}");
        } else {
            tracing::warn!(code = error.reason().code(), "no report is sent: {said}");
            self.told = Some(said);
        }
    }

    fn serve(&mut self, ledger: &Ledger, at: usize, report: &Report) -> Result<(), AgentError> {
        let url = self.sources[at].config.url.clone();
        let known = ledger.sources().into_iter().find(|known| known.source == url);
        let known = known.unwrap_or(SentTo { source: url, acknowledged: None, failed: None });
        let key = match self.key.take() {
            Some(key) => key,
            None => ledger.key()?,
        };
        let node = node_of(&key.public());
        let content = Report { node, ..report.clone() }.content();
        if let When::WaitUntil(_) = reporting::when(&self.facts(at, content, report, &known, node))
        {
            self.key = Some(key);
            return Ok(());
        }
        let sent = self.attempt(ledger, at, report, &key);
        self.key = Some(key);
        let (uptime, now) = (self.agent.uptime(), self.agent.state.now());
        let source = &mut self.sources[at];
        source.attempted = Some(uptime);
        match sent {
            Ok(()) => {
                source.failures = 0;
                let boot = report.boot.as_str().to_owned();
                let acknowledged = Some(Acknowledged { content, boot, uptime, at: now });
                if self.told.take().is_some() {
                    tracing::info!("reports are sent again");
                }
                ledger.keep(SentTo { acknowledged, failed: None, ..known })
            }
            Err(error) => {
                source.failures = source.failures.saturating_add(1);
                let (code, message) = (error.reason().code().to_owned(), error.chain());
                let same = known.failed.as_ref().filter(|last| last.code == code).cloned();
                let failed = Some(same.unwrap_or(Failed { code, message, at: now }));
                self.log(&error);
                ledger.keep(SentTo { failed, ..known })
            }
        }
    }

    fn facts(
        &self,
        at: usize,
        content: Sha256,
        report: &Report,
        known: &SentTo,
        node: Sha256,
    ) -> Facts {
        let Source { attempted, failures, .. } = &self.sources[at];
        let acknowledged = known.acknowledged.as_ref().map(|last| reporting::Acknowledged {
            content: last.content,
            this_boot: report.boot == *last.boot.as_str(),
            uptime: last.uptime,
        });
        let [a, b, c, d, e, f, g, h, ..] = node.0;
        Facts {
            content,
            uptime: report.uptime,
            acknowledged,
            attempted: *attempted,
            failures: *failures,
            interval: self.agent.config.reports.interval.as_secs(),
            seed: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        }
    }

    /// Sends it; once more, if the server has reports that this node forgot it made.
    fn attempt(
        &mut self,
        ledger: &Ledger,
        at: usize,
        report: &Report,
        key: &FileKey,
    ) -> Result<(), AgentError> {
        let server = match self.sources[at].server.take() {
            Some(server) => server,
            None => Server::of(&self.sources[at].config)?,
        };
        let mut sent = self.send(ledger, &server, report, key);
        if let Ok(Answered::Behind(known)) = sent {
            sent = match ledger.advance(known) {
                Ok(true) => {
                    self.numbers = (0, 0);
                    self.send(ledger, &server, report, key)
                }
                Ok(false) => Err(unbelievable(server.name())),
                Err(error) => Err(error),
            };
        }
        let acknowledged = match sent {
            Ok(Answered::Acknowledged) => Ok(()),
            Ok(Answered::Behind(_)) => Err(unbelievable(server.name())),
            Err(error) => Err(error),
        };
        self.sources[at].server = Some(server);
        acknowledged
    }

    fn send(
        &mut self,
        ledger: &Ledger,
        server: &Server,
        report: &Report,
        key: &FileKey,
    ) -> Result<Answered, AgentError> {
        if self.numbers.0 >= self.numbers.1 {
            let reserved = ledger.reserve(RESERVED)?;
            self.numbers = (*reserved.start(), reserved.end().saturating_add(1));
        }
        let sequence = self.numbers.0;
        self.numbers.0 += 1;
        let report = Report { sequence, ..report.clone() };
        server.put(node_of(&key.public()), key.document(report))
    }
}
