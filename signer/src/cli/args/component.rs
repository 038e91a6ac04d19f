//! The components of a release.

use std::path::PathBuf;

use clap::Args;
use formats::release::{ComponentName, Mixture};
use formats::version::Version;

use crate::commands::ComponentInput;
use crate::error::SignerError;
use crate::image::RawReason;

#[derive(Debug, Args)]
pub(in crate::cli) struct ReleaseArgs {
    /// The product
    #[arg(long)]
    pub(in crate::cli) product: String,
    /// The version; docs/versions.md has the order
    #[arg(long)]
    pub(in crate::cli) version: Version,
    /// A component's image and the hardware ids it is for
    #[arg(long, value_name = "NAME=FILE[,hw=ID…]", required = true)]
    pub(in crate::cli) component: Vec<String>,
    /// Hardware id of every component that names none
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) hw: Vec<String>,
    /// Append a dm-verity tree to the image of this component and sign its root hash
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) verity: Vec<ComponentName>,
    /// Publish the image of this component whatever kind of file it is, and sign why; repeatable.
    /// Without, compressed files, archives, virtual and whole disks and HTML are refused
    #[arg(long, value_name = "NAME=REASON")]
    pub(in crate::cli) raw: Vec<String>,
    /// Releases that this component, which starts by itself, may run beside while a set over several
    /// devices is under way; repeatable
    #[arg(long, value_name = "NAME=VERSION[,VERSION…]")]
    pub(in crate::cli) mixed: Vec<String>,
    /// In which order components that start by themselves are switched when a set is activated; the
    /// reverse order when it is abandoned. Those not named come last, and after them the boot flags
    #[arg(long, value_name = "NAME[,NAME…]", value_delimiter = ',')]
    pub(in crate::cli) order: Vec<ComponentName>,
    /// Raise it when older releases must never run again; else that of what the channel offers
    #[arg(long, value_name = "N")]
    pub(in crate::cli) security_version: Option<u64>,
    /// An SBOM (SPDX or CycloneDX) to attach and to sign for; repeatable
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) sbom: Vec<PathBuf>,
    /// A provenance (in-toto statement or DSSE envelope, JSON) to attach and to sign for; repeatable
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) provenance: Vec<PathBuf>,
    /// Make SBOMs from the package databases in ext4 and squashfs images (dpkg's)
    #[arg(long)]
    pub(in crate::cli) sbom_from_image: bool,
    /// Make an SBOM from this copy of /var/lib/dpkg/status
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) dpkg_status: Option<PathBuf>,
    /// Also make a delta from this release, for nodes whose slot holds exactly that; repeatable
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cli) delta_from: Vec<Version>,
}

/// Mixtures as they are written on the command line.
pub(in crate::cli) fn mixtures(arguments: &[String]) -> Result<Vec<Mixture>, SignerError> {
    let mixture = |argument: &String| {
        let wrong = |why: String| SignerError::Usage(format!("--mixed {argument:?}: {why}"));
        let (name, versions) = argument
            .split_once('=')
            .ok_or_else(|| wrong("is not NAME=VERSION[,VERSION…]".to_owned()))?;
        let component = name.parse().map_err(|error| wrong(format!("{error}")))?;
        let with = versions
            .split(',')
            .map(|version| version.parse().map_err(|error| wrong(format!("{error}"))))
            .collect::<Result<_, _>>()?;
        Ok(Mixture { component, with })
    };
    arguments.iter().map(mixture).collect()
}

/// Reads `NAME=FILE[,hw=ID…]`; a component without ids gets `all`.
pub(in crate::cli) fn components(
    arguments: Vec<String>,
    all: &[String],
    trees: &[ComponentName],
    raw: &[String],
) -> Result<Vec<ComponentInput>, SignerError> {
    let raw = raw_reasons(raw)?;
    let mut components = Vec::new();
    for argument in arguments {
        let wrong = |why: String| SignerError::Usage(format!("--component {argument:?}: {why}"));
        let (name, rest) = argument
            .split_once('=')
            .filter(|(name, _)| !name.ends_with(",hw"))
            .ok_or_else(|| wrong(format!("name the component, say os={argument}")))?;
        let name = name.parse().map_err(|error| wrong(format!("{error}")))?;
        let mut parts = rest.split(",hw=");
        let path = PathBuf::from(parts.next().unwrap_or_default());
        if path.as_os_str() == "-" {
            let why = "images are not read from standard input: write it to a file first";
            return Err(wrong(why.to_owned()));
        }
        let mut compatible: Vec<String> = parts.map(str::to_owned).collect();
        if compatible.is_empty() {
            compatible = all.to_vec();
        }
        let verity = trees.contains(&name);
        let raw = raw.iter().find(|(of, _)| *of == name).map(|(_, reason)| reason.clone());
        components.push(ComponentInput { name, path, compatible, verity, raw });
    }
    if let Some(none) = trees.iter().find(|tree| components.iter().all(|one| one.name != **tree)) {
        return Err(SignerError::Usage(format!("--verity {none}: there is no such --component")));
    }
    let absent = |of: &ComponentName| components.iter().all(|one| one.name != *of);
    if let Some((none, _)) = raw.iter().find(|(of, _)| absent(of)) {
        return Err(SignerError::Usage(format!("--raw {none}: there is no such --component")));
    }
    Ok(components)
}

/// Reads each `NAME=REASON`; one of a name.
fn raw_reasons(arguments: &[String]) -> Result<Vec<(ComponentName, RawReason)>, SignerError> {
    let mut reasons: Vec<(ComponentName, RawReason)> = Vec::new();
    for argument in arguments {
        let wrong = |why: String| SignerError::Usage(format!("--raw {argument:?}: {why}"));
        let (name, reason) = argument
            .split_once('=')
            .ok_or_else(|| wrong("is not NAME=REASON: say why it is right as it is".to_owned()))?;
        let name: ComponentName = name.parse().map_err(|error| wrong(format!("{error}")))?;
        let reason = reason.parse().map_err(|error| wrong(format!("{error}")))?;
        if reasons.iter().any(|(of, _)| *of == name) {
            return Err(wrong(format!("{name} has a reason already")));
        }
        reasons.push((name, reason));
    }
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_read() {
        let read = |text: &str| components(vec![text.to_owned()], &["all".to_owned()], &[], &[]);
        let own = &read("os=/a,b/x.img,hw=cu-v1,hw=cu-v2").unwrap()[0];
        assert_eq!(own.path, PathBuf::from("/a,b/x.img"));
        assert_eq!(own.compatible, ["cu-v1", "cu-v2"]);
        assert_eq!(read("os=x").unwrap()[0].compatible, ["all"]);
        for wrong in ["", "os", "OS=x", "=x", "os=-", "os=-,hw=cu-v1"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        for nameless in ["os.img,hw=cu-v1", "./os.img", "/srv/os.img,hw=cu-v1,hw=cu-v2"] {
            let error = read(nameless).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.ends_with(&format!("name the component, say os={nameless}")), "{error}");
        }
    }

    #[test]
    fn a_reason_belongs_to_a_component() {
        let read = |raw: &[&str]| {
            let raw: Vec<String> = raw.iter().map(|text| (*text).to_owned()).collect();
            let two = vec!["os=x,hw=a".to_owned(), "kernel=y,hw=a".to_owned()];
            components(two, &[], &[], &raw)
        };
        let read_back = read(&["kernel=booti unpacks it = fine"]).unwrap();
        assert_eq!(read_back[0].raw, None);
        let reason = read_back[1].raw.as_ref().map(RawReason::to_string);
        assert_eq!(reason.as_deref(), Some("booti unpacks it = fine"));
        for wrong in [&["kernel"][..], &["kernel="], &["web=why"], &["os=a", "os=b"], &["os=a\nb"]]
        {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
