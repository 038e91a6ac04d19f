//! What registries, mirrors and removable media hold.

use std::io::Write as _;
use std::path::Path;

use formats::channel::Channel;
use formats::json::Value;
use formats::oci::{Index, Manifest};
use formats::release::{ComponentManifest, ReleaseIndex, Summary};
use formats::report::{REPORT_LIMIT, Report, SignedReport, shown};
use formats::ustar::{BLOCK, Header, SIZE_LIMIT};
use storage::layout::Archive;
use update_agent::http::Url;

use crate::two_parts;

/// An image manifest, an image index, or an artifact of ours.
pub fn manifest(data: &[u8]) -> bool {
    let manifest = Manifest::parse(data).ok();
    let index = Index::parse(data).ok();
    if let Some(manifest) = &manifest {
        assert_eq!(Manifest::parse(&manifest.to_bytes()).as_ref().ok(), Some(manifest));
    }
    if let Some(index) = &index {
        assert_eq!(Index::parse(&index.to_bytes()).as_ref().ok(), Some(index));
    }
    manifest.is_some() || index.is_some()
}

/// `index.json` of a layout: on a stick it is the first thing that is read.
pub fn layout_index(data: &[u8]) -> bool {
    let Ok(index) = Index::parse_layout(data) else { return false };
    for entry in &index.manifests {
        let _ = storage::layout::reference_of(entry);
    }
    true
}

/// A tar archive: each header alone, and the whole file as a layout.
pub fn archive(data: &[u8]) -> bool {
    let mut headers = 0;
    for block in data.chunks_exact(BLOCK) {
        let Some(block) = block.first_chunk::<BLOCK>() else { continue };
        if let Ok(Some(header)) = Header::parse(block) {
            headers += 1;
            assert!(header.size <= SIZE_LIMIT);
            if let Ok(again) = header.to_block() {
                assert_eq!(Header::parse(&again).expect("what is written is read"), Some(header));
            }
        }
    }
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(data).expect("a temporary file takes bytes");
    Archive::from_file(file, Path::new("fuzzed.tar")).is_ok() || headers > 1
}

/// `WWW-Authenticate` of a registry: a chosen challenge is one of those that were read.
pub fn challenge(data: &[u8]) -> bool {
    let Ok(header) = str::from_utf8(data) else { return false };
    let all = registry_auth::challenge::parse(header);
    let chosen = registry_auth::challenge::choose([header]);
    assert!(chosen.is_none_or(|chosen| all.contains(&chosen)));
    !all.is_empty()
}

/// Docker's and podman's file of credentials.
pub fn auth_file(data: &[u8]) -> bool {
    let Ok(file) = registry_auth::auths::AuthFile::parse(data) else { return false };
    let found = file.places("registry.example", "demo/tuf");
    file.holds_secrets() || !found.is_empty()
}

/// An address, and where an answer redirects to: the first line is the address.
pub fn url(data: &[u8]) -> bool {
    let Some((base, location)) = two_parts(data) else { return false };
    let Ok(base) = Url::parse(base) else { return false };
    let Ok(location) = str::from_utf8(location) else { return false };
    let Ok(joined) = base.join(location) else { return false };
    let again = Url::parse(&joined.to_string()).expect("what is written is read");
    assert_eq!(again.to_string(), joined.to_string());
    assert!(!joined.to_string().contains(['\r', '\n', ' ']), "{joined}");
    true
}

/// `Range` of a request to a file of 1000 bytes.
pub fn byte_range(data: &[u8]) -> bool {
    let Ok(value) = str::from_utf8(data) else { return false };
    match repo_server::internal::part(value, 1000) {
        repo_server::internal::Part::Slice(range) => {
            assert!(range.start < range.end && range.end <= 1000, "{range:?}");
            true
        }
        _ => false,
    }
}

/// The index of a release.
pub fn release_index(data: &[u8]) -> bool {
    let Ok(index) = ReleaseIndex::parse(data) else { return false };
    // An annotation that says nothing is not written again.
    let again = ReleaseIndex::parse(&index.to_bytes()).expect("what is written is read");
    assert_eq!(again.to_bytes(), index.to_bytes());
    true
}

/// The manifest of one component.
pub fn component_manifest(data: &[u8]) -> bool {
    ComponentManifest::parse(data).is_ok()
}

/// What targets metadata says of a release.
pub fn release_summary(data: &[u8]) -> bool {
    let Ok(summary) = Summary::parse_custom(data) else { return false };
    assert_eq!(
        Summary::parse_custom(&summary.to_custom()).expect("what is written is read"),
        summary
    );
    true
}

/// A channel document: waves, holds, windows.
pub fn channel(data: &[u8]) -> bool {
    let Ok(channel) = Channel::parse(data, "demo", "stable") else { return false };
    channel.check().expect("what was parsed is checked");
    let again = Channel::parse(&channel.to_bytes(), "demo", "stable");
    assert_eq!(again.expect("what is written is read"), channel);
    for now in [0, 1_800_000_000, u64::MAX] {
        assert!(channel.share(now) <= 100);
        let _ = channel.opens(now);
    }
    true
}

/// A report of a node: as a signed document, or the object alone, so that inputs get past the signature.
pub fn report(data: &[u8]) -> bool {
    let signed = SignedReport::verify(data).ok();
    if let Some(signed) = &signed {
        assert!(data.len() <= REPORT_LIMIT);
        assert_eq!(signed.document(), data);
        let _ = signed.unread();
    }
    let value = Value::parse(data).ok();
    let payload = value.as_ref().and_then(|value| value.get("report")).or(value.as_ref());
    let Some(report) = payload.and_then(|payload| Report::parse(payload).ok()) else {
        return false;
    };
    assert_eq!(Report::parse(&report.value()).expect("what is written is read"), report);
    let _ = report.content();
    let sentence = report.decision.as_ref().map_or("", |it| &it.sentence);
    assert!(!shown(sentence, 80).chars().any(char::is_control));
    // What a node would send of it always fits.
    let prepared = report.prepare(&[7; 32]);
    assert!(prepared.document(&[0; 64]).len() <= REPORT_LIMIT);
    true
}
