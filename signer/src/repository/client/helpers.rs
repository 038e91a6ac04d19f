//! Running docker's credential helpers. What they say: [`registry_auth::helper`].

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use registry_auth::Credential;
use registry_auth::helper::{self, ANSWER_LIMIT, HelperError};
use zeroize::Zeroizing;

/// Asks a helper for a server. What it has to say to people goes to our standard error; one that
/// answers nothing within `limit` is ended.
pub(super) fn ask(
    program: &Path,
    server: &str,
    limit: Duration,
) -> Result<Option<Credential>, String> {
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let pid = rustix::process::Pid::from_child(&child);
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let server = server.to_owned();
    let (done, answer) = mpsc::channel();
    let talk = move || {
        if let Some(mut stdin) = stdin {
            // A helper that does not read is its own affair; its answer counts.
            let _ = writeln!(stdin, "{server}");
        }
        let mut bytes = Zeroizing::new(Vec::new());
        let read = stdout.map_or(Ok(0), |it| it.take(ANSWER_LIMIT).read_to_end(&mut bytes));
        let ended = read.and_then(|_| child.wait());
        // Nobody listens any more once the limit is over.
        let _ = done.send(ended.map(|status| (status, bytes)));
    };
    let started = std::thread::Builder::new().spawn(talk);
    started.map_err(|error| format!("cannot be talked to: {error}"))?;
    match answer.recv_timeout(limit) {
        Ok(Ok((status, bytes))) => said(status, &bytes),
        Ok(Err(error)) => Err(error.to_string()),
        Err(RecvTimeoutError::Timeout) => {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let waited = limit.as_secs();
            Err(format!("gave no answer within {waited} s; does it wait for a locked keychain?"))
        }
        Err(RecvTimeoutError::Disconnected) => Err("ended without an answer".to_owned()),
    }
}

fn said(status: ExitStatus, stdout: &[u8]) -> Result<Option<Credential>, String> {
    helper::parse(status.success(), stdout).map_err(|error| match error {
        HelperError::Failed(why) if why.is_empty() => format!("failed ({status})"),
        HelperError::Failed(why) => format!("{why} ({status})"),
        HelperError::Form => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn run(script: &str, limit: Duration) -> Result<Option<Credential>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        ask(&path, "r.example", limit)
    }

    #[test]
    fn helpers_answer_say_why_not_or_are_ended() {
        let minute = Duration::from_secs(60);
        let user = "read server; echo '{\"Username\":\"u\",\"Secret\":\"'$server'\"}'";
        let wanted = Credential::parse_line("u:r.example").unwrap();
        assert_eq!(run(user, minute), Ok(Some(wanted)));
        let said = run("echo gpg: No secret key; exit 1", minute).unwrap_err();
        assert!(said.contains("gpg: No secret key (exit status: 1)"), "{said}");
        let said = run("exit 3", minute).unwrap_err();
        assert!(said.contains("failed (exit status: 3)"), "{said}");
        let said = run("exec sleep 600", Duration::from_millis(200)).unwrap_err();
        assert!(said.contains("no answer within 0 s"), "{said}");
    }
}
