//! Keys of every kind through the real binary: passphrases, imports, tokens, programs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod program;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use program::{Program, SoftHsm, write_private};

fn openssl(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").current_dir(dir).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn script(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn case_193_a_key_behind_a_passphrase_signs_only_with_it() {
    let mut signer = Program::new();
    write_private(&signer.path("pass"), "open sesame\n");
    signer.set("SIGNER_PASSPHRASE_FILE", "pass");
    signer.json(&["init", "--repo", "oci:repo", "--keys", "keys"], 0);
    let kinds = signer.json(&["key", "list", "--keys", "keys"], 0);
    let kind_of = |name: &str| {
        let keys = kinds["keys"].as_array().unwrap().clone();
        let key = keys.into_iter().find(|key| key["file"].as_str().unwrap().ends_with(name));
        key.unwrap()["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(kind_of("root.key"), "file with passphrase");
    assert_eq!(kind_of("targets.key"), "file with passphrase");
    assert_eq!(kind_of("timestamp.key"), "file", "a machine signs with it");

    std::fs::write(signer.path("os.img"), b"x").unwrap();
    let publish = |version: &'static str| {
        let head = ["publish", "--repo", "oci:repo", "--keys", "keys", "--product", "demo"];
        [&head[..], &["--version", version, "--component", "os=os.img,hw=cu-v1"]].concat()
    };
    signer.json(&publish("1.0.0"), 0);
    write_private(&signer.path("wrong"), "open barley\n");
    signer.set("SIGNER_PASSPHRASE_FILE", "wrong");
    let refused = signer.json(&publish("1.1.0"), 10);
    assert_eq!(refused["code"], "key_invalid");
    assert!(refused["message"].as_str().unwrap().contains("passphrase is wrong"), "{refused}");
    signer.json(&["refresh", "--repo", "oci:repo", "--keys", "keys"], 0);

    // No file and no terminal: said at once, not waited for.
    signer.unset("SIGNER_PASSPHRASE_FILE");
    let refused = signer.without_terminal(&publish("1.1.0"), 23);
    assert!(refused["message"].as_str().unwrap().contains("SIGNER_PASSPHRASE_FILE"), "{refused}");

    signer.set("SIGNER_PASSPHRASE_FILE", "pass");
    signer.set("SIGNER_NEW_PASSPHRASE_FILE", "wrong");
    signer.json(&["key", "passphrase", "keys/targets.key"], 0);
    signer.json(&publish("1.1.0"), 10);
    signer.set("SIGNER_PASSPHRASE_FILE", "wrong");
    signer.json(&publish("1.1.0"), 0);
    let mode = std::fs::metadata(signer.path("keys/targets.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(signer.path("keys/targets.key")).unwrap();
    std::fs::write(signer.path("keys/targets.key"), &text[..text.len() / 2]).unwrap();
    let refused = signer.json(&publish("1.2.0"), 10);
    assert!(refused["message"].as_str().unwrap().contains("not a key file"), "{refused}");
}

#[test]
fn case_182_no_core_dump_and_no_secret_in_arguments() {
    let signer = Program::new();
    let help = signer.text(&["key", "new", "--help"]);
    assert!(!help.contains("--passphrase <"), "a passphrase is never an argument: {help}");
    signer::cli::harden();
    let behaviour = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(behaviour, rustix::process::DumpableBehavior::NotDumpable);
}

#[test]
fn case_192_odd_keys_are_refused_when_they_are_imported() {
    let signer = Program::new();
    let dir = signer.dir();
    openssl(dir, &["genpkey", "-algorithm", "ed25519", "-out", "ed.pem"]);
    openssl(dir, &["pkey", "-in", "ed.pem", "-pubout", "-out", "ed.pub.pem"]);
    openssl(
        dir,
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "p256.pem"],
    );
    openssl(dir, &["pkey", "-in", "p256.pem", "-pubout", "-out", "p256.pub.pem"]);
    openssl(
        dir,
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "p384.pem"],
    );
    openssl(dir, &["pkey", "-in", "p384.pem", "-pubout", "-out", "p384.pub.pem"]);
    for bits in ["1024", "2048"] {
        let (key, public) = (format!("rsa{bits}.pem"), format!("rsa{bits}.pub.pem"));
        let size = format!("rsa_keygen_bits:{bits}");
        openssl(dir, &["genpkey", "-algorithm", "RSA", "-pkeyopt", &size, "-out", &key]);
        openssl(dir, &["pkey", "-in", &key, "-pubout", "-out", &public]);
    }
    openssl(dir, &["pkcs8", "-topk8", "-in", "ed.pem", "-passout", "pass:x", "-out", "sealed.pem"]);
    let odd = |name: &str, keytype: &str, scheme: &str, public: &str| {
        let text = format!(
            r#"{{"keytype":"{keytype}","scheme":"{scheme}","keyval":{{"public":"{public}"}}}}"#
        );
        std::fs::write(signer.path(name), text).unwrap();
    };
    let point = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    odd("scheme.json", "ed25519", "ed25519ph", point);
    odd("weak.json", "ed25519", "ed25519", &"0".repeat(64));
    odd("label.json", "ecdsa", "ecdsa-sha2-nistp256", point);
    std::fs::write(signer.path("ssh"), "ssh-ed25519 AAAA me").unwrap();

    for (from, code, said) in [
        ("ed.pem", "", ""),
        ("p256.pub.pem", "", ""),
        ("rsa2048.pub.pem", "", ""),
        ("ed.pub.pem", "key_duplicate", "is the same key as"),
        ("rsa1024.pub.pem", "key_invalid", "less than 2048 bits"),
        (
            "rsa2048.pem",
            "key_invalid",
            "an RSA secret key; those that are not ed25519 sign through",
        ),
        ("p384.pub.pem", "key_invalid", "is a P-384 key; nodes verify"),
        ("sealed.pem", "key_invalid", "is encrypted"),
        ("scheme.json", "key_invalid", "ed25519ph"),
        ("weak.json", "key_invalid", "small order"),
        ("label.json", "key_invalid", "not a key of that type"),
        ("ssh", "key_invalid", "neither PEM, DER nor a TUF key"),
    ] {
        let out = format!("keys/{}", from.replace('.', "-"));
        let ended = signer.json(
            &["key", "import", "--from", from, "--out", &out],
            if code.is_empty() { 0 } else { 10 },
        );
        if !code.is_empty() {
            assert_eq!(ended["code"], code, "{from}: {ended}");
            assert!(ended["message"].as_str().unwrap().contains(said), "{from}: {ended}");
        }
    }
    let keys = signer.json(&["key", "list", "--keys", "keys"], 0);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1, "one of them can sign here");
    let init = ["init", "--repo", "oci:repo", "--keys", "mine", "--root-keys", "keys/ed-pem.pub"];
    signer.json(&init, 0);
}

#[test]
fn keys_in_two_tokens_and_behind_a_program_sign_like_others() {
    let mut signer = Program::new();
    let hsm = SoftHsm::new(&mut signer, &["first", "second"]);
    let ed = signer.json(
        &["key", "pkcs11", &hsm.uri("first", "root"), "--out", "keys/alice", "--generate"],
        0,
    );
    assert_eq!(ed["kind"], "pkcs11");
    signer.json(
        &["key", "pkcs11", &hsm.uri("second", "root"), "--out", "keys/bob", "--generate", "p256"],
        0,
    );
    // The same key again, from the token.
    let again = signer.json(&["key", "pkcs11", &hsm.uri("first", "root"), "--out", "keys/x"], 10);
    assert_eq!(again["code"], "key_duplicate");
    let again = ["key", "pkcs11", &hsm.uri("first", "root"), "--out", "keys/x", "--generate"];
    assert!(signer.json(&again, 23)["message"].as_str().unwrap().contains("such a key already"));

    openssl(signer.dir(), &["genpkey", "-algorithm", "ed25519", "-out", "kms.pem"]);
    openssl(signer.dir(), &["pkey", "-in", "kms.pem", "-pubout", "-out", "kms.pub.pem"]);
    script(
        &signer.path("kms"),
        "#!/bin/sh\nset -e\ncat >message.$$\n\
         openssl pkeyutl -sign -rawin -inkey \"$1\" -in message.$$ | od -An -v -tx1 | tr -d ' \\n'\n\
         rm message.$$\n",
    );
    let kms = ["key", "import", "--from", "kms.pub.pem", "--out", "keys/carol"];
    signer.json(&[&kms[..], &["--uri", "cmd:./kms?arg=kms.pem"]].concat(), 0);

    let roots = "keys/alice.pub,keys/bob.pub,keys/carol.pub";
    let init = ["init", "--repo", "oci:repo", "--keys", "keys", "--root-keys", roots];
    signer.json(&[&init[..], &["--root-threshold", "3"]].concat(), 0);
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);

    for (name, uri, said) in [
        ("wrong pin", hsm.uri_with("first", "root", "bad-pin"), "PIN"),
        ("no token", hsm.uri("third", "root"), "is not there"),
        ("no key", hsm.uri("second", "other"), "no such key"),
        ("no library", "pkcs11:token=a?module-path=/nowhere.so".to_owned(), "load its library"),
    ] {
        let refused = signer.json(&["key", "pkcs11", &uri, "--out", "keys/x"], 23);
        let message = refused["message"].as_str().unwrap().to_lowercase();
        assert!(message.contains(&said.to_lowercase()), "{name}: {refused}");
    }
}

#[test]
fn case_194_a_token_or_program_that_signs_wrongly_publishes_nothing() {
    let mut signer = Program::new();
    let hsm = SoftHsm::new(&mut signer, &["first"]);
    signer.json(&["key", "pkcs11", &hsm.uri("first", "a"), "--out", "keys/a", "--generate"], 0);
    signer.json(&["key", "pkcs11", &hsm.uri("first", "b"), "--out", "keys/b", "--generate"], 0);
    // The references are exchanged: each token key signs under the other's public half.
    std::fs::copy(signer.path("keys/b.uri"), signer.path("keys/a.uri")).unwrap();
    let init = ["init", "--repo", "oci:repo", "--keys", "keys", "--root-keys", "keys/a.pub"];
    let refused = signer.json(&init, 10);
    assert_eq!(refused["code"], "key_invalid", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("does not verify"), "{refused}");
    assert!(!signer.path("keys/root.json").exists());
    for (name, text, code) in [
        ("another key's", "#!/bin/sh\ncat >/dev/null\nprintf %0128d 0\n", "key_invalid"),
        ("silent", "#!/bin/sh\ncat >/dev/null\n", "config"),
        ("failing", "#!/bin/sh\nexit 3\n", "config"),
        ("endless", "#!/bin/sh\ncat >/dev/null\nhead -c 100000 /dev/zero\n", "config"),
    ] {
        script(&signer.path("kms"), text);
        write_private(&signer.path("keys/a.uri"), "cmd:./kms\n");
        let ended = signer.run(&init);
        let value: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(value["code"], code, "{name}: {value}");
        assert!(!signer.path("keys/root.json").exists(), "{name}");
    }
    write_private(&signer.path("keys/a.uri"), "cmd:./absent\n");
    signer.json(&init, 23);
}

/// Makes a key as `pkcs11-tool --always-auth` does, in a process that has the token's environment:
/// this program again, with the test below alone.
fn make_always_authenticate(signer: &Program, label: &str, ed25519: bool) {
    let this = std::env::current_exe().unwrap();
    let arguments = ["--exact", "--ignored", "makes_a_key_that_wants_a_login"];
    let output = signer
        .command(this.to_str().unwrap(), &arguments)
        .env("MAKE_LABEL", label)
        .env("MAKE_ED25519", if ed25519 { "1" } else { "" })
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "started by the tests that need such a key"]
fn makes_a_key_that_wants_a_login() {
    use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
    use cryptoki::mechanism::Mechanism;
    use cryptoki::object::Attribute;
    use cryptoki::session::UserType;
    let Ok(label) = std::env::var("MAKE_LABEL") else { return };
    let module = Pkcs11::new("/usr/lib/softhsm/libsofthsm2.so").unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    let session = module.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&cryptoki::types::AuthPin::new("1234".into()))).unwrap();
    let p256 = vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let (mechanism, curve) = match std::env::var("MAKE_ED25519").unwrap().is_empty() {
        true => (Mechanism::EccKeyPairGen, p256),
        false => (Mechanism::EccEdwardsKeyPairGen, b"\x13\x0cedwards25519".to_vec()),
    };
    let name = Attribute::Label(label.into_bytes());
    let public = [Attribute::Token(true), Attribute::EcParams(curve), name.clone()];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sign(true),
        Attribute::AlwaysAuthenticate(true),
        name,
    ];
    session.generate_key_pair(&mechanism, &public, &private).unwrap();
}

/// PIV's slot 9c, eID cards: a login of its own for each signature (CKA_ALWAYS_AUTHENTICATE).
#[test]
fn a_token_key_that_wants_a_login_for_each_signature() {
    let mut signer = Program::new();
    let hsm = SoftHsm::new(&mut signer, &["first"]);
    for (label, ed25519) in [("p256", false), ("ed25519", true)] {
        make_always_authenticate(&signer, label, ed25519);
        let uri = hsm.uri("first", label);
        signer.json(&["key", "pkcs11", &uri, "--out", &format!("keys/{label}")], 0);
    }
    let init = ["init", "--repo", "oci:repo", "--keys", "keys", "--root-keys"];
    let roots = "keys/p256.pub,keys/ed25519.pub";
    signer.json(&[&init[..], &[roots, "--root-threshold", "2"]].concat(), 0);
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);
}

#[test]
fn secrets_come_from_links_and_pipes_and_nothing_waits_for_a_pipe() {
    let mut signer = Program::new();
    write_private(&signer.path("pass"), "open sesame\n");
    signer.set("SIGNER_PASSPHRASE_FILE", "pass");
    signer.json(&["init", "--repo", "oci:repo", "--keys", "keys"], 0);
    // As Kubernetes projects a secret.
    let data = signer.path("keys/..2026_11_28");
    std::fs::create_dir(&data).unwrap();
    for name in ["timestamp.key", "snapshot.key"] {
        std::fs::rename(signer.path("keys").join(name), data.join(name)).unwrap();
        let link = signer.path("keys").join(name);
        std::os::unix::fs::symlink(Path::new("..data").join(name), link).unwrap();
    }
    std::os::unix::fs::symlink("..2026_11_28", signer.path("keys/..data")).unwrap();
    signer.json(&["refresh", "--repo", "oci:repo", "--keys", "keys"], 0);
    std::fs::write(signer.path("os.img"), b"x").unwrap();
    let publish = format!(
        "{} publish --repo oci:repo --keys keys --product demo --component os=os.img,hw=cu-v1 --version",
        env!("CARGO_BIN_EXE_signer")
    );
    for script in [
        format!("printf 'open sesame\\n' | SIGNER_PASSPHRASE_FILE=/dev/stdin {publish} 1"),
        format!("SIGNER_PASSPHRASE_FILE=/dev/fd/9 {publish} 2 9<pass"),
    ] {
        let mut shell = Command::new("sh");
        let output = shell.current_dir(signer.dir()).args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let made = Command::new("mkfifo").arg(signer.path("pipe")).status().unwrap();
    assert!(made.success());
    signer.set("SIGNER_PASSPHRASE_FILE", "pipe");
    let publish: Vec<&str> = publish.split(' ').skip(1).chain(["3"]).collect();
    let refused = signer.json(&publish, 23);
    let said = refused["message"].as_str().unwrap();
    assert!(said.contains("passphrase") && said.contains("not a regular file"), "{refused}");
}
