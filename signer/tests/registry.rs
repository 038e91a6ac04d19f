//! The same commands against a real registry: `repo-server` on a loopback port.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;

use common::{Fixture, NOW};
use formats::reason::Reason;
use formats::reference::Reference;
use repo_server::{Config, Running, TlsFiles};
use signer::commands::{BundleRequest, Selection, bundle, verify};
use signer::progress::Show;
use signer::repository::{Access, ClientOptions, Registry, open};

const TOKEN: &str = "a-token-that-is-long-enough";

fn private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
}

fn serve(fixture: &Fixture, tls: bool) -> Running {
    private(&fixture.path("tokens"), TOKEN);
    let mut config = Config::new(fixture.path("served"));
    config.push_tokens = Some(fixture.path("tokens"));
    if tls {
        let names = vec!["127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(fixture.path("cert.pem"), made.cert.pem()).unwrap();
        private(&fixture.path("key.pem"), &made.signing_key.serialize_pem());
        config.tls = Some(TlsFiles {
            certificate: fixture.path("cert.pem"),
            key: fixture.path("key.pem"),
            client_ca: None,
        });
    }
    repo_server::start(config).unwrap()
}

fn at(server: &Running) -> Reference {
    format!("docker://{}/racklet", server.local_addr()).parse().unwrap()
}

fn connect(server: &Running, options: &ClientOptions) -> Box<dyn Registry> {
    open(&at(server), Access::Write, options).unwrap()
}

/// Init, publish, verify, bundle, verify the bundle.
fn round_trip(fixture: &Fixture, registry: &dyn Registry) {
    fixture.init_to(registry, NOW).unwrap();
    let root = fixture.root();
    let published = fixture.publish_to(registry, &fixture.request("1.0.0", "os.img"), NOW).unwrap();
    let verified = verify(registry, Some(&root), NOW, Show::Nothing).unwrap();
    assert_eq!(verified.state, published.state);

    // The bytes do not depend on where they are published.
    let local = fixture.publish(&fixture.request("1.0.0", "os.img")).unwrap();
    assert_eq!((local.index, local.state), (published.index, published.state));

    let output = fixture.path("bundle.tar");
    let request = BundleRequest {
        product: "demo".to_owned(),
        selection: Selection::Channel("stable".to_owned()),
        output: output.clone(),
        form: None,
        valid_for: None,
    };
    bundle(registry, &mut fixture.signing(), &request, NOW, Show::Nothing).unwrap();
    let reference = format!("oci-archive:{}", output.display()).parse().unwrap();
    let tar = open(&reference, Access::Read, &ClientOptions::default()).unwrap();
    verify(tar.as_ref(), Some(&root), NOW, Show::Nothing).unwrap();
}

#[test]
fn a_registry_on_loopback() {
    let fixture = Fixture::new();
    let server = serve(&fixture, false);
    let token_file = Some(fixture.path("tokens"));
    let options = ClientOptions { token_file, plain_http: true, ..ClientOptions::default() };
    round_trip(&fixture, connect(&server, &options).as_ref());

    // Without the token everything can be read and nothing written.
    let reader = connect(&server, &ClientOptions { token_file: None, ..options });
    verify(reader.as_ref(), Some(&fixture.root()), NOW, Show::Nothing).unwrap();
    let error =
        fixture.publish_to(reader.as_ref(), &fixture.request("1.1.0", "os2.img"), NOW).unwrap_err();
    assert_eq!(error.reason(), Reason::HttpStatus, "{error}");
    server.stop();
}

#[test]
fn a_registry_over_tls() {
    let fixture = Fixture::new();
    let server = serve(&fixture, true);
    let options = ClientOptions {
        ca: Some(fixture.path("cert.pem")),
        token_file: Some(fixture.path("tokens")),
        plain_http: false,
        ..ClientOptions::default()
    };
    round_trip(&fixture, connect(&server, &options).as_ref());

    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(fixture.path("other.pem"), other.cert.pem()).unwrap();
    let options = ClientOptions { ca: Some(fixture.path("other.pem")), ..options };
    let stranger = connect(&server, &options);
    let error = verify(stranger.as_ref(), None, NOW, Show::Nothing).unwrap_err();
    assert_eq!(error.reason(), Reason::Tls, "{error}");
    server.stop();
}

#[test]
fn nobody_answers() {
    let fixture = Fixture::new();
    let server = serve(&fixture, false);
    let options = ClientOptions { plain_http: true, ..ClientOptions::default() };
    let registry = connect(&server, &options);
    server.stop();
    let error = verify(registry.as_ref(), None, NOW, Show::Nothing).unwrap_err();
    assert_eq!(error.reason(), Reason::Unreachable, "{error}");
}
