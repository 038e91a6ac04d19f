//! The real program, and what it uses up as the kernel counts it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub struct Program {
    pub child: Child,
    pub address: SocketAddr,
}

impl Program {
    pub fn start(temp: &Path, place: &[String], more: &[&str]) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_repo-server")), temp, place, more)
    }

    /// The same with a command that becomes the server.
    pub fn start_as(mut command: Command, temp: &Path, place: &[String], more: &[&str]) -> Self {
        let tokens = temp.join("tokens");
        super::write_private(&tokens, super::TOKEN);
        command.arg("serve").args(place).args(["--listen", "127.0.0.1:0", "--log", "off"]);
        command.arg("--push-token-file").arg(&tokens).args(more);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let (_, address) = line.trim().rsplit_once("://").unwrap_or_else(|| panic!("{line}"));
        let address = address.parse().unwrap();
        Program { child, address }
    }

    /// A field of `/proc/PID/status`, in KiB.
    fn status(&self, field: &str) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn resident(&self) -> usize {
        self.status("VmRSS") / 1024
    }

    pub fn peak(&self) -> usize {
        self.status("VmHWM") / 1024
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn in_directory(temp: &Path) -> Vec<String> {
    vec!["--dir".to_owned(), temp.join("repository").to_str().unwrap().to_owned()]
}
