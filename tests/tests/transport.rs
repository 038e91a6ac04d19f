//! A registry that only knows clients with a certificate: published to and updated from.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use racklet_tests::rig::{Credentials, Node, RepoServer, World, program};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

/// A file that only its owner reads.
fn private(path: &Path, text: &str) {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.expect("create a file").write_all(text.as_bytes()).expect("write a file");
}

/// `client.pem` and `client.key` of the world, signed by a CA that is `clients.pem`.
fn client(world: &World) {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "clients");
    let key = KeyPair::generate().expect("a key");
    let ca = rcgen::CertifiedIssuer::self_signed(params, key).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["client".to_owned()]).expect("a name");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &ca).expect("a certificate");
    private(&world.path("clients.pem"), &ca.pem());
    private(&world.path("client.pem"), &certificate.pem());
    private(&world.path("client.key"), &key.serialize_pem());
}

#[test]
fn clients_without_the_right_certificate_get_nothing_and_with_it_everything() {
    let mut world = World::empty();
    client(&world);
    let clients = world.path("clients.pem").display().to_string();
    let server = RepoServer::started(&world, &["--client-ca", &clients]);
    let text = |name: &str| world.path(name).display().to_string();
    let Credentials { ca, token, .. } = Credentials::of(&world);
    let (ca, token) = (ca.display().to_string(), token.display().to_string());
    let (certificate, key) = (text("client.pem"), text("client.key"));
    let reference = server.reference();

    let status = program("signer").args(["status", &reference, "--ca", &ca]).finish();
    assert_ne!(status.code, 0, "{}", status.output());
    let half = program("signer").args(["status", &reference, "--client-cert", &certificate]);
    assert_eq!(half.finish().code, 2);

    let identity = ["--client-cert", &certificate, "--client-key", &key];
    world.publish_to(&reference, &[&["--ca", &ca, "--token-file", &token][..], &identity].concat());
    world.init();
    let first = world.publish_stable("1.0.0", 1);
    let second = world.publish_stable("1.1.0", 2);

    let node = Node::from_factory(&world, "node", &first, &reference);
    let refused = node.agent(&["check"]).finish();
    assert_ne!(refused.code, 0, "{}", refused.output());
    let lines = format!("client_cert = {certificate:?}\nclient_key = {key:?}\nca = ");
    node.reconfigure("ca = ", &lines);
    node.update(&[], "b");
    node.expect_slot("b", &second);
    let _log = server.stop();
}
