//! QEMU's own control line (QMP): one JSON document a line, over a socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Arguments that give a machine a control line in this folder.
pub(super) fn arguments(socket: &Path) -> [String; 2] {
    ["-qmp".to_owned(), format!("unix:{},server=on,wait=off", socket.display())]
}

/// The control line of a machine that runs.
pub(super) struct Qmp {
    input: BufReader<UnixStream>,
    output: UnixStream,
    socket: PathBuf,
}

impl Qmp {
    /// Connects, at the latest after `limit`.
    pub(super) fn connect(socket: &Path, limit: Duration) -> Result<Self> {
        let until = Instant::now() + limit;
        let output = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => {
                    return Err(error).with_context(|| format!("connect {}", socket.display()));
                }
            }
        };
        output.set_read_timeout(Some(limit))?;
        let input = BufReader::new(output.try_clone()?);
        let mut line = Qmp { input, output, socket: socket.to_owned() };
        line.answer("QMP")?;
        line.execute("qmp_capabilities", &json!({}))?;
        Ok(line)
    }

    /// Does a command and gives what it returned.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.output, "{request}").with_context(|| format!("ask QEMU for {command}"))?;
        self.answer("return").with_context(|| format!("QEMU, {command}"))
    }

    /// A command of the monitor for people, which has to say nothing.
    pub(super) fn monitor(&mut self, command: &str) -> Result<()> {
        let said = self.execute("human-monitor-command", &json!({ "command-line": command }))?;
        match said.as_str().map(str::trim) {
            Some("") => Ok(()),
            _ => bail!("QEMU says to {command:?}: {said}"),
        }
    }

    /// The next document with this member; events are passed over.
    fn answer(&mut self, member: &str) -> Result<Value> {
        loop {
            let mut line = String::new();
            let count = self.input.read_line(&mut line);
            if count.with_context(|| format!("read {}", self.socket.display()))? == 0 {
                bail!("QEMU ended");
            }
            let mut document: Value = serde_json::from_str(&line)?;
            if let Some(error) = document.get("error") {
                bail!("{error}");
            }
            if let Some(found) = document.get_mut(member) {
                return Ok(found.take());
            }
        }
    }
}
