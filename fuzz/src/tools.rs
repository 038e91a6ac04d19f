//! What people and their programs write: requests, references, keys, staged changes, configurations.

use std::path::Path;

use formats::reference::Reference;
use formats::version::Version;
use repo_server::internal::route;
use signer::key::{KeyDocument, KeyLocation};
use signer::stage::Staged;
use update_agent::config::Config;

use crate::two_parts;

/// A request to `repo-server`: `METHOD`, a line end, `PATH`, and `?QUERY` perhaps.
pub fn route_of(data: &[u8]) -> bool {
    let Some((method, target)) = two_parts(data) else { return false };
    let (Ok(method), Ok(target)) = (method.parse(), str::from_utf8(target)) else { return false };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let Ok(route) = route(&method, path, query) else { return false };
    let _ = (route.word(), route.right());
    true
}

/// Where a repository is.
pub fn reference(data: &[u8]) -> bool {
    let Some(reference) = str::from_utf8(data).ok().and_then(|text| text.parse::<Reference>().ok())
    else {
        return false;
    };
    let text = reference.to_string();
    assert_eq!(text.parse::<Reference>().expect("what is written is read").to_string(), text);
    true
}

/// Two versions, one in a line: their order is one.
pub fn version(data: &[u8]) -> bool {
    let Some((one, other)) = two_parts(data) else { return false };
    let (Ok(one), Ok(other)) =
        (one.parse::<Version>(), str::from_utf8(other).unwrap_or_default().parse())
    else {
        return false;
    };
    let other: Version = other;
    assert_eq!(one.compare(&other), other.compare(&one).reverse());
    assert!(one.compare(&one).is_eq());
    assert_eq!(Version::of_tag(&one.tag()).as_ref(), Some(&one));
    true
}

/// A key file.
pub fn key_document(data: &[u8]) -> bool {
    KeyDocument::parse(data).is_ok()
}

/// Where a key is: a file, a token, a command.
pub fn key_location(data: &[u8]) -> bool {
    str::from_utf8(data).is_ok_and(|text| text.parse::<KeyLocation>().is_ok())
}

/// A change that waits for signatures.
pub fn staged_change(data: &[u8]) -> bool {
    let Ok(staged) = Staged::parse(data) else { return false };
    let written = staged.to_bytes();
    assert_eq!(Staged::parse(&written).expect("what is written is read").to_bytes(), written);
    true
}

/// The agent's configuration.
pub fn agent_config(data: &[u8]) -> bool {
    str::from_utf8(data).is_ok_and(|text| Config::parse(text, Path::new("/")).is_ok())
}
