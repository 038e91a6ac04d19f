//! Somebody else's registry.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// Debian's docker-registry, with one user if wanted.
pub struct DockerRegistry {
    child: Child,
    pub address: SocketAddr,
}

impl DockerRegistry {
    pub fn start(temp: &tempfile::TempDir, user: bool) -> Self {
        let path = |name: &str| temp.path().join(name);
        // "the-password", as `htpasswd -B` writes it.
        let line = "alice:$2y$05$abcdefghijklmnopqrstuu.znb4r.2SiHQeF.pCKpDSFBaTOrRZqq\n";
        std::fs::write(path("htpasswd"), line).unwrap();
        let auth = match user {
            true => format!("auth: {{htpasswd: {{realm: x, path: {:?}}}}}\n", path("htpasswd")),
            false => String::new(),
        };
        let config = format!(
            "version: 0.1\nlog: {{level: info, formatter: text}}\n{auth}\
             storage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
             http: {{addr: '127.0.0.1:0', secret: test}}\n",
            path("registry")
        );
        std::fs::write(path("registry.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(path("registry.yml")).stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("install docker-registry (`cargo xtask setup`)");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| {
            let (_, after) = line.split_once("listening on ")?;
            let end = after.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
            after[..end.unwrap_or(after.len())].parse().ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        DockerRegistry { child, address: address.expect("docker-registry listens") }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
