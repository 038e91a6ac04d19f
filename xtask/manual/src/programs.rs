//! What a program's page says besides what its command line defines.

use clap::{Command, CommandFactory};

/// A program, and what people look for in its page.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// 1: for everybody; 8: for administrators.
    pub(crate) section: &'static str,
    pub(crate) command: fn() -> Command,
    /// What one wants, and the command line for it.
    pub(crate) examples: &'static [(&'static str, &'static str)],
    pub(crate) environment: &'static [(&'static str, &'static str)],
    pub(crate) files: &'static [(&'static str, &'static str)],
    pub(crate) see_also: &'static str,
}

const PROXIES: (&str, &str) = (
    "https_proxy, all_proxy, no_proxy",
    "The proxy for registries, and the hosts that are reached without it. Loopback addresses are never proxied.",
);

/// All of them.
pub(crate) const PROGRAMS: [Program; 3] = [AGENT, SIGNER, SERVER];

const AGENT: Program = Program {
    name: "update-agent",
    section: "8",
    command: update_agent::commands::Cli::command,
    examples: &[
        (
            "Find out whether this node can update itself, and what to do if not:",
            "update-agent doctor",
        ),
        ("See what the channel offers, and which rule decides about it:", "update-agent check"),
        (
            "Write the offered release to the inactive slot and restart into it:",
            "update-agent apply --reboot",
        ),
        (
            "Install from a USB stick, without a network:",
            "update-agent apply /media/usb/bundle.tar",
        ),
        ("Give up a release on trial, and go back:", "update-agent revert --reboot"),
        ("Follow the channel from now on:", "systemctl enable --now update-agent.service"),
    ],
    environment: &[PROXIES],
    files: &[
        (
            "/etc/update-agent/update-agent.toml",
            "The configuration. The units do nothing without it.",
        ),
        (
            "/var/lib/update-agent",
            "Durable state: boot record, trusted metadata, floor, history. It must survive \
          updates, so it belongs on a partition of its own.",
        ),
        ("/run/update-agent", "The socket of metrics.listen, while the daemon runs."),
        (
            "/usr/share/doc/racklet-update-agent/examples",
            "The configuration with every key explained; a drop-in for \
          another state directory.",
        ),
        (
            "/usr/share/racklet-update-agent",
            "Scripts and entries for boot loaders and initramfs; hooks.",
        ),
    ],
    see_also: "/usr/share/doc/racklet-update/docs (package racklet-update-doc), signer(1), repo-server(8), \
        journalctl(1): `journalctl -x -u update-agent` explains events",
};

const SIGNER: Program = Program {
    name: "signer",
    section: "1",
    command: signer::cli::Arguments::command,
    examples: &[
        ("Create keys and a repository in a directory:", "signer init --repo oci:repo --keys keys"),
        (
            "Publish a release and offer it to a channel:",
            "signer publish --repo oci:repo --keys keys --product demo --version 1.1.0 \
             --component os=os.img,hw=my-board --channel stable",
        ),
        (
            "Renew what expires soon, with the online keys:",
            "signer refresh --repo oci:repo --keys keys",
        ),
        ("See what expires when:", "signer status oci:repo"),
        (
            "Write a release to a file for nodes without a network:",
            "signer bundle --repo oci:repo --keys keys --product demo --version 1.1.0 -o usb.tar",
        ),
    ],
    environment: &[
        PROXIES,
        ("SIGNER_REPO", "The repository of commands that name none."),
        ("SIGNER_CONFIG", "signer.toml of commands without --config."),
        ("SIGNER_PASSPHRASE_FILE", "A private file, or a pipe, with the passphrase of key files."),
        ("SIGNER_NEW_PASSPHRASE_FILE", "The same for a passphrase that replaces it."),
        ("PKCS11_MODULE_PATH", "The PKCS#11 library of keys in tokens whose URI names none."),
        (
            "REGISTRY_AUTH_FILE, DOCKER_CONFIG, XDG_RUNTIME_DIR, XDG_CONFIG_HOME",
            "Where the credentials are that docker login and podman login wrote.",
        ),
        (
            "XDG_STATE_HOME",
            "Where the log of what was signed is kept if all keys are in tokens; default: \
          ~/.local/state.",
        ),
        (
            "RUST_LOG",
            "What is logged on standard error, in the syntax of tracing-subscriber; default: off.",
        ),
    ],
    files: &[
        (
            "/etc/signer/refresh.env",
            "The repository of the timers: REPO=docker://registry.example/racklet",
        ),
        ("/etc/signer/push-token", "The push token of the timers, readable by root alone."),
        (
            "/var/lib/signer/online",
            "Online keys and root.json of the timers, owned by the user signer.",
        ),
        (
            "signer.toml, signer.log",
            "Beside the keys: the repository and its credentials, who signs what; what was signed with them.",
        ),
    ],
    see_also: "/usr/share/doc/racklet-update/docs (package racklet-update-doc), update-agent(8), repo-server(8)",
};

const SERVER: Program = Program {
    name: "repo-server",
    section: "8",
    command: repo_server::cli::command,
    examples: &[
        (
            "Serve a directory on this machine:",
            "repo-server serve --dir repo --listen 127.0.0.1:5000",
        ),
        (
            "Serve it on a network, to everybody, with push tokens:",
            "repo-server serve --dir repo --listen 0.0.0.0:443 --tls-cert server.pem --tls-key server.key \
             --push-token-file push-tokens",
        ),
        ("List what a garbage collection would delete:", "repo-server gc --dir repo --dry-run"),
        ("Compare every blob with its digest:", "repo-server scrub --dir repo"),
    ],
    environment: &[
        (
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, AWS_REGION",
            "Credentials and region of a bucket (--s3).",
        ),
        ("SIGNER_PASSPHRASE_FILE", "A private file with the passphrase of --refresh-key."),
    ],
    files: &[
        (
            "/etc/repo-server/server.pem, server.key",
            "Certificate chain and key of the unit, readable by root alone.",
        ),
        ("/etc/repo-server/push-tokens", "Push tokens of the unit, readable by root alone."),
        (
            "/var/lib/repo-server/repository",
            "The repository of the unit, an OCI image layout; owned by the user \
          repo-server.",
        ),
    ],
    see_also: "/usr/share/doc/racklet-update/docs (package racklet-update-doc), signer(1), update-agent(8)",
};

#[cfg(test)]
mod tests {
    use super::PROGRAMS;

    /// An example that the program would refuse helps nobody.
    #[test]
    fn every_example_is_a_command_line() {
        for program in &PROGRAMS {
            let mut parsed = 0;
            for (_, example) in program.examples {
                let words: Vec<&str> = example.split_whitespace().collect();
                if words.first() == Some(&program.name) {
                    let done = (program.command)().try_get_matches_from(words);
                    assert!(
                        done.is_ok(),
                        "{example}: {}",
                        done.err().map_or_else(String::new, |e| e.to_string())
                    );
                    parsed += 1;
                }
            }
            assert!(parsed > 2, "{} has no examples", program.name);
        }
    }
}
