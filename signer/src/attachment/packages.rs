//! Debian's packages: from an image's database to an SPDX document.

use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use formats::digest::Sha256;
use formats::release::ATTACHMENT_LIMIT;
use serde_json::json;

use super::AttachmentError;

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    name: String,
    version: String,
    architecture: String,
    /// The source package, when it has another name or version: `NAME` or `NAME VERSION`.
    source: Option<String>,
}

/// The installed packages of a `status` file (deb822), sorted.
pub(super) fn parse(status: &str) -> Vec<Package> {
    let mut found: Vec<Package> = status.split("\n\n").filter_map(paragraph).collect();
    found.sort();
    found.dedup();
    found
}

fn paragraph(text: &str) -> Option<Package> {
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    // "install ok installed"; what was removed leaves its configuration behind.
    if !field("Status")?.ends_with(" installed") {
        return None;
    }
    Some(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        architecture: field("Architecture").unwrap_or_default().to_owned(),
        source: field("Source").map(|it| it.replace(['(', ')'], "")),
    })
}

/// An SPDX 2.3 document, the same for the same packages.
pub(super) fn spdx(product: &str, version: &str, component: &str, packages: &[Package]) -> Vec<u8> {
    let mut listed = Vec::new();
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")];
    listed.push(json!({
        "SPDXID": "SPDXRef-Image",
        "name": format!("{product}/{component}"),
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    }));
    let mut all = String::new();
    for (nth, package) in packages.iter().enumerate() {
        let Package { name, version, architecture, source } = package;
        let id = format!("SPDXRef-Package-{nth}");
        let mut purl = format!("pkg:deb/debian/{}@{}", escaped(name), escaped(version));
        if !architecture.is_empty() {
            purl.push_str(&format!("?arch={}", escaped(architecture)));
        }
        all.push_str(&purl);
        all.push('\n');
        let mut entry = json!({
            "SPDXID": id,
            "name": name,
            "versionInfo": version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl,
            }],
        });
        if let (Some(source), Some(entry)) = (source, entry.as_object_mut()) {
            entry.insert("sourceInfo".to_owned(), format!("built from {source}").into());
        }
        relations.push(relation("SPDXRef-Image", "CONTAINS", &id));
        listed.push(entry);
    }
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{product}/{component} {version}"),
        "documentNamespace": format!(
            "urn:racklet:sbom:{product}:{component}:{version}:{}",
            Sha256::of(all.as_bytes()).to_hex()
        ),
        // Not when it was made: the same packages give the same document on every machine.
        "creationInfo": {
            "created": "1970-01-01T00:00:00Z",
            "creators": [concat!("Tool: racklet-signer-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": listed,
        "relationships": relations,
    });
    serde_json::to_vec(&document).expect("string keys and no floats always serialise")
}

fn relation(from: &str, kind: &str, to: &str) -> serde_json::Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// As package URLs escape (purl-spec §"Character encoding").
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Why one of the two cannot be started. Debian has debugfs in a folder that only root looks in.
fn not_started(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "it is not in PATH: install e2fsprogs (debugfs, in /usr/sbin, \
             which PATH must have) or squashfs-tools (unsquashfs)"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// dpkg's database in an image; `None` when it is another file system, or has none.
pub(super) fn of_image(path: &Path) -> Result<Option<Vec<u8>>, AttachmentError> {
    let read = |source| AttachmentError::Read { path: path.to_owned(), source };
    let file = storage::open_input(path).map_err(|error| read(error.into()))?;
    let has = |at: u64, magic: &[u8]| {
        let mut found = vec![0; magic.len()];
        file.read_exact_at(&mut found, at).is_ok() && found == magic
    };
    // An absolute path is never taken for an option.
    let image = path.canonicalize().map_err(read)?;
    let (program, mut command) = if has(1080, &[0x53, 0xef]) {
        let mut command = Command::new("debugfs");
        command.args(["-R", "cat /var/lib/dpkg/status"]).arg(image);
        ("debugfs", command)
    } else if has(0, b"hsqs") {
        let mut command = Command::new("unsquashfs");
        command.arg("-cat").arg(image).arg("var/lib/dpkg/status");
        ("unsquashfs", command)
    } else {
        return Ok(None);
    };
    let failed = |why: String| AttachmentError::Program { program, path: path.to_owned(), why };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(not_started(&error)))?;
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let limit = ATTACHMENT_LIMIT + 1;
        stdout.take(limit).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    }
    if bytes.len() as u64 > ATTACHMENT_LIMIT {
        // It has more to say than is taken.
        let _ = child.kill();
        let _ = child.wait();
        return Err(AttachmentError::TooLong { path: path.to_owned() });
    }
    child.wait().map_err(|error| failed(error.to_string()))?;
    // Both say on stderr, and not always by their exit code, that there is no such file.
    Ok((!bytes.is_empty()).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: libc6\nStatus: install ok installed\nSource: glibc (2.36-9)\n\
        Version: 2.36-9+deb12u4\nArchitecture: amd64\nDescription: GNU C Library\n shared\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
        Package: adduser\nStatus: install ok installed\nVersion: 1:3.134~x\nArchitecture: all\n";

    #[test]
    fn installed_packages() {
        let found = parse(STATUS);
        let names: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["adduser", "libc6"]);
        assert_eq!(found[1].source.as_deref(), Some("glibc 2.36-9"));
        assert!(parse("").is_empty() && parse("\n\n\nnonsense\n\n").is_empty());
    }

    #[test]
    fn the_document() {
        let one = spdx("demo", "1.0", "os", &parse(STATUS));
        assert_eq!(one, spdx("demo", "1.0", "os", &parse(STATUS)), "the same bytes");
        let json: serde_json::Value = serde_json::from_slice(&one).unwrap();
        let purl = &json["packages"][1]["externalRefs"][0]["referenceLocator"];
        assert_eq!(purl, "pkg:deb/debian/adduser@1%3A3.134~x?arch=all");
        assert_eq!(json["packages"][2]["versionInfo"], "2.36-9+deb12u4");
        assert_eq!(json["relationships"].as_array().unwrap().len(), 3);
    }
}
