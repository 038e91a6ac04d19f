//! `download`: the image of one component as a file, verified from the trust root down.

use std::io::Write as _;
use std::path::PathBuf;

use formats::release::{ComponentName, ComponentSummary};
use formats::tuf::UnixTime;
use formats::version::Version;
use serde::Serialize;

use super::files::failed;
use super::select::{Wanted, select};
use super::{Report, bytes, has_example_key};
use crate::error::SignerError;
use crate::new_file::NewFile;
use crate::progress::Show;
use crate::published::{self, PublishedError};
use crate::repository::Registry;
use crate::state::State;
use crate::verify::{chunk_list, read_release, unpack, verify_offline};

/// What is wanted of which release.
#[derive(Debug, Clone)]
pub struct DownloadRequest {
    /// The trust root to begin with.
    pub root: Vec<u8>,
    /// The product.
    pub product: String,
    /// The release; `None`: what the channel offers.
    pub version: Option<Version>,
    /// The channel.
    pub channel: String,
    /// The component.
    pub component: ComponentName,
    /// A hardware id it is for, where the release has several of that name.
    pub hardware: Option<String>,
    /// The file to be made, which must not exist.
    pub output: PathBuf,
}

/// The file that was made.
#[derive(Debug, Serialize)]
pub struct DownloadReport {
    output: PathBuf,
    target: String,
    component: String,
    /// The hardware ids it is for.
    hardware: Vec<String>,
    /// Bytes of the file.
    size: u64,
    /// SHA-256 of the file, hexadecimal: as signed, and as written.
    sha256: String,
    example_keys: bool,
}

impl Report for DownloadReport {
    fn text(&self) -> String {
        format!(
            "{} is {} of {}, {}, verified\n{}",
            self.output.display(),
            self.component,
            self.target,
            bytes(self.size),
            self.sha256
        )
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

/// Verifies the metadata as nodes do, and writes the image of one component.
///
/// Chunks are written as they are verified, to a temporary file beside the output. The file gets its name when the
/// digest of the whole is known to be the signed one and its bytes are durable; a crash before leaves no file of that
/// name.
///
/// # Errors
///
/// The metadata is not valid `now`, there is no such release or component, or the file exists.
pub fn download(
    registry: &dyn Registry,
    request: &DownloadRequest,
    now: UnixTime,
    show: Show,
) -> Result<DownloadReport, SignerError> {
    let output = &request.output;
    if output.exists() {
        return Err(SignerError::Exists(format!("{} exists already", output.display())));
    }
    let nothing = || PublishedError::Nothing(registry.reference().to_string());
    let found = published::fetch(registry)?.ok_or_else(nothing)?;
    let statement = published::offline_statement(registry)?;
    verify_offline(&found.files, &request.root, statement.as_deref(), now)?;
    let state = State::verify(&found.files, Some(&request.root)).map_err(PublishedError::from)?;
    let wanted = Wanted {
        product: &request.product,
        channel: &request.channel,
        version: request.version.as_ref(),
    };
    let listed = select(&state, &wanted)?;
    let release = read_release(registry, &state, &listed)?;
    let summary =
        chosen(&listed.summary.components, &request.component, request.hardware.as_deref())
            .map_err(|why| SignerError::Usage(format!("{}: {why}", listed.target)))?;
    let component = release.component(summary)?;

    let mut file = NewFile::of(output, 0o644).map_err(failed(output))?;
    let list = chunk_list(registry, &release, component)?;
    let label = format!("downloading {}", summary.name);
    let progress = |len| show.begin(&label, len);
    let mut sink = |bytes: &[u8]| file.file().write_all(bytes);
    unpack(registry, &release, component, &list, &progress, &mut sink)?;
    file.appear().map_err(failed(output))?;
    Ok(DownloadReport {
        output: output.clone(),
        target: listed.target.clone(),
        component: summary.name.to_string(),
        hardware: summary.compatible.clone(),
        size: summary.raw_size,
        sha256: component.config.raw_sha256.to_string(),
        example_keys: has_example_key(&state.root),
    })
}

/// The only component of that name that is for this hardware.
fn chosen<'a>(
    components: &'a [ComponentSummary],
    name: &ComponentName,
    hardware: Option<&str>,
) -> Result<&'a ComponentSummary, String> {
    let named: Vec<_> = components.iter().filter(|one| one.name == *name).collect();
    if named.is_empty() {
        let mut names: Vec<_> = components.iter().map(|one| one.name.as_str()).collect();
        names.dedup();
        return Err(format!("it has no component {name}, but {}", names.join(", ")));
    }
    let fits = |one: &&&ComponentSummary| {
        hardware.is_none_or(|id| one.compatible.iter().any(|own| own == id))
    };
    let fitting: Vec<_> = named.iter().filter(fits).collect();
    match fitting[..] {
        [one] => Ok(one),
        _ => {
            let ids: Vec<_> = named.iter().flat_map(|one| one.compatible.iter().cloned()).collect();
            Err(format!("{name} is there for {}: choose one with --hw", ids.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use formats::digest::Algorithm;

    use super::*;

    fn component(name: &str, compatible: &[&str]) -> ComponentSummary {
        ComponentSummary {
            name: name.parse().unwrap(),
            compatible: compatible.iter().map(|id| (*id).to_owned()).collect(),
            manifest: Algorithm::Sha256.hasher().finish(),
            raw_size: 1,
            verity: None,
            raw: None,
        }
    }

    #[test]
    fn one_component_is_chosen_or_none() {
        let all = [
            component("agent", &["amd64"]),
            component("agent", &["arm64", "armhf"]),
            component("doc", &["all"]),
        ];
        let ask = |name: &str, hardware| {
            let found = chosen(&all, &name.parse().unwrap(), hardware);
            found.map(|one| one.compatible.join("+")).map_err(|why| why.replace("it has ", ""))
        };
        let several = "agent is there for amd64, arm64, armhf: choose one with --hw";
        let table = [
            ("doc", None, Ok("all")),
            ("agent", Some("armhf"), Ok("arm64+armhf")),
            ("agent", None, Err(several)),
            ("agent", Some("riscv64"), Err(several)),
            ("doc", Some("amd64"), Err("doc is there for all: choose one with --hw")),
            ("kernel", None, Err("no component kernel, but agent, doc")),
        ];
        for (name, hardware, expected) in table {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(ask(name, hardware), expected, "{name} {hardware:?}");
        }
    }
}
