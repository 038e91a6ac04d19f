//! What describes a release and how it was made: SBOMs and provenance.
//!
//! ```text
//!  --sbom, --provenance ─► looked at ─┐
//!  dpkg's status of an image ─► SPDX ─┴─► manifest, subject = release index ─► custom.racklet.attachments
//! ```
//!
//! Documents are only looked at from outside: is it what it is said to be, and not too large. What
//! they say is between those who write them and those who read them; that it was said of this
//! release is what the signature adds. The same documents give the same digests.

mod packages;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use formats::digest::Sha256;
use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, RepositoryName, annotation, media_type};
use formats::reason::Reason;
use formats::release::{ATTACHMENT_LIMIT, ATTACHMENTS_LIMIT, Attachment};
use formats::version::Version;
use serde_json::Value;

use crate::repository::{Registry, RegistryError, attach_all};

/// Says of a provenance what kind it is; read by other people's tools.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// Why a document is not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachmentError {
    /// It cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is longer than [`ATTACHMENT_LIMIT`].
    #[error("{} has more than 16 MiB, the most one document may have", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// There are more than [`ATTACHMENTS_LIMIT`].
    #[error("{0} documents: one release may have {ATTACHMENTS_LIMIT}")]
    TooMany(usize),
    /// It is something else.
    #[error("{} is not {wanted}: {why}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
        /// What is missing.
        why: &'static str,
        /// What makes one.
        hint: &'static str,
    },
    /// A program that reads file systems is missing or fails.
    #[error("{program} cannot read {}: {why}; give --dpkg-status FILE instead", path.display())]
    Program {
        /// The program.
        program: &'static str,
        /// The image.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// No image has a package database.
    #[error(
        "no image is an ext4 or squashfs file system with dpkg's packages; give --sbom or --dpkg-status FILE"
    )]
    NoPackages,
}

impl AttachmentError {
    /// The stable code.
    pub fn reason(&self) -> Reason {
        match self {
            AttachmentError::TooLong { .. } | AttachmentError::TooMany(_) => Reason::MetaLimit,
            AttachmentError::Form { .. } => Reason::BundleFormat,
            AttachmentError::Read { .. }
            | AttachmentError::Program { .. }
            | AttachmentError::NoPackages => Reason::Config,
        }
    }

    /// What to do next; empty when the error says it all.
    pub fn hint(&self) -> &'static str {
        match self {
            AttachmentError::Form { hint, .. } => hint,
            AttachmentError::TooLong { .. } => {
                "leave out the files of packages, or give one document for each component"
            }
            AttachmentError::TooMany(_) => {
                "merge some: `cyclonedx merge`, or one for each component"
            }
            AttachmentError::Read { .. }
            | AttachmentError::Program { .. }
            | AttachmentError::NoPackages => "",
        }
    }
}

/// What is to be attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachmentRequest {
    /// Files in SPDX or CycloneDX.
    pub sbom: Vec<PathBuf>,
    /// in-toto statements, or DSSE envelopes around them.
    pub provenance: Vec<PathBuf>,
    /// Make an SBOM from the package database of each image that has one.
    pub from_images: bool,
    /// Make an SBOM from this copy of `/var/lib/dpkg/status`.
    pub dpkg_status: Option<PathBuf>,
}

/// A document, looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    artifact_type: &'static str,
    layer_type: &'static str,
    title: String,
    /// Of a provenance.
    predicate_type: Option<String>,
    /// SHA-256 digests of what a provenance is about, in lower-case hexadecimal.
    subjects: Vec<String>,
    bytes: Vec<u8>,
}

impl Document {
    /// What is said of a provenance that is about none of the images, which are the digests of all
    /// of them. It may be about what they were made of, so it is no error.
    pub fn of_something_else(&self, images: &[Sha256]) -> Option<String> {
        let about = |image: &Sha256| self.subjects.contains(&image.to_hex());
        if self.predicate_type.is_none() || images.iter().any(about) {
            return None;
        }
        let title = &self.title;
        Some(format!("{title} is about none of the images: no subject has the SHA-256 of one"))
    }
}

/// Reads and makes everything that is wanted. `images` are names and files of components.
pub fn gather(
    wanted: &AttachmentRequest,
    product: &str,
    version: &Version,
    images: &[(&str, &Path)],
) -> Result<Vec<Document>, AttachmentError> {
    let mut documents = Vec::new();
    for path in &wanted.sbom {
        documents.push(sbom(path, read(path)?)?);
    }
    for path in &wanted.provenance {
        documents.push(provenance(path, read(path)?)?);
    }
    let mut made = Vec::new();
    if let Some(path) = &wanted.dpkg_status {
        made.push(("packages", read(path)?));
    }
    if wanted.from_images {
        for (name, path) in images {
            if let Some(status) = packages::of_image(path)? {
                made.push((name, status));
            }
        }
        if made.is_empty() {
            return Err(AttachmentError::NoPackages);
        }
    }
    for (name, status) in made {
        let found = packages::parse(&String::from_utf8_lossy(&status));
        if found.is_empty() {
            return Err(AttachmentError::NoPackages);
        }
        documents.push(Document {
            artifact_type: media_type::SPDX,
            layer_type: media_type::SPDX,
            title: format!("{name}.spdx.json"),
            predicate_type: None,
            subjects: Vec::new(),
            bytes: packages::spdx(product, version.as_str(), name, &found),
        });
    }
    if documents.len() > ATTACHMENTS_LIMIT {
        return Err(AttachmentError::TooMany(documents.len()));
    }
    Ok(documents)
}

/// Stores documents and attaches them to a release index; gives what is to be signed of them.
pub fn store(
    registry: &dyn Registry,
    repository: &RepositoryName,
    index: &Descriptor,
    documents: &[Document],
) -> Result<Vec<Attachment>, RegistryError> {
    let (mut manifests, mut types) = (Vec::new(), Vec::new());
    for document in documents {
        let Document { artifact_type, layer_type, title, predicate_type, bytes, .. } = document;
        let layer = Descriptor::of(layer_type, bytes).annotated(annotation::TITLE, title);
        registry.put_blob(repository, &layer, bytes)?;
        registry.put_blob(repository, &Descriptor::empty(), EMPTY_CONFIG)?;
        let mut manifest = Manifest::artifact(artifact_type, Descriptor::empty(), vec![layer]);
        manifest.subject =
            Some(Descriptor::new(&index.media_type, index.digest.clone(), index.size));
        if let Some(predicate) = predicate_type {
            manifest.annotations.insert(PREDICATE_TYPE.to_owned(), predicate.clone());
        }
        manifests.push(manifest);
        types.push((*artifact_type).to_owned());
    }
    let stored = attach_all(registry, repository, &manifests)?;
    let both = stored.into_iter().zip(types);
    let mut attachments: Vec<_> =
        both.map(|(manifest, artifact_type)| Attachment { manifest, artifact_type }).collect();
    attachments.sort();
    attachments.dedup();
    Ok(attachments)
}

/// The bytes of a document.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, AttachmentError> {
    let failed = |source| AttachmentError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = storage::open_input(path).map_err(|error| failed(error.into()))?;
    file.take(ATTACHMENT_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > ATTACHMENT_LIMIT {
        return Err(AttachmentError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

/// How a document is called: the name of its file.
pub(crate) fn title(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

const SBOM_HINT: &str = "of other forms, `syft convert FILE -o spdx-json` makes one that is taken";
const PROVENANCE_HINT: &str = "slsa-github-generator and actions/attest-build-provenance make one";

/// A byte order mark, which editors and generators of some systems write.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn sbom(path: &Path, bytes: Vec<u8>) -> Result<Document, AttachmentError> {
    let wrong = |why| {
        let wanted = "an SBOM in SPDX or CycloneDX";
        AttachmentError::Form { path: path.to_owned(), wanted, why, hint: SBOM_HINT }
    };
    let artifact_type = kind_of_sbom(without_mark(&bytes)).map_err(wrong)?;
    let (layer_type, title, predicate_type) = (artifact_type, title(path), None);
    Ok(Document { artifact_type, layer_type, title, predicate_type, subjects: Vec::new(), bytes })
}

/// Its media type: SPDX as JSON or in tags and values, CycloneDX as JSON or XML.
fn kind_of_sbom(bytes: &[u8]) -> Result<&'static str, &'static str> {
    let start = String::from_utf8_lossy(bytes.get(..4096).unwrap_or(bytes));
    let start = start.trim_start();
    if start.starts_with('<') {
        let bom = start.contains("<bom") && start.contains("http://cyclonedx.org/schema/bom/");
        return bom.then_some(media_type::CYCLONEDX_XML).ok_or("it is XML, but not of CycloneDX");
    }
    if start.lines().any(|line| line.starts_with("SPDXVersion: SPDX-2.")) {
        return Ok(media_type::SPDX_TEXT);
    }
    let json: Value =
        serde_json::from_slice(bytes).map_err(|_| "it is neither JSON, XML nor SPDX tags")?;
    let lists = |member| json.get(member).is_some_and(Value::is_array);
    if text(&json, "spdxVersion").starts_with("SPDX-2.") {
        // Either may be left out (SPDX 2.3 §7, §8).
        return match lists("packages") || lists("files") {
            true => Ok(media_type::SPDX),
            false => Err("it lists neither packages nor files"),
        };
    }
    if text(&json, "@context").starts_with("https://spdx.org/rdf/3.") {
        return Ok(media_type::SPDX);
    }
    match (text(&json, "bomFormat"), text(&json, "specVersion")) {
        ("CycloneDX", "") => Err("it has no specVersion"),
        ("CycloneDX", _) => Ok(media_type::CYCLONEDX),
        _ => Err("it has neither spdxVersion nor bomFormat"),
    }
}

fn provenance(path: &Path, bytes: Vec<u8>) -> Result<Document, AttachmentError> {
    use base64::Engine as _;
    let wrong = |why| {
        let wanted = "an in-toto statement, or a DSSE envelope around one, as JSON";
        AttachmentError::Form { path: path.to_owned(), wanted, why, hint: PROVENANCE_HINT }
    };
    let json = serde_json::from_slice(without_mark(&bytes));
    let json: Value = json.map_err(|_| wrong("it is no JSON"))?;
    let (layer_type, statement) = match text(&json, "payloadType") {
        "" => (media_type::IN_TOTO, json),
        media_type::IN_TOTO => {
            let payload = base64::engine::general_purpose::STANDARD.decode(text(&json, "payload"));
            let payload = payload.map_err(|_| wrong("its payload is not base64"))?;
            let inner = serde_json::from_slice(&payload);
            (media_type::DSSE, inner.map_err(|_| wrong("its payload is no JSON"))?)
        }
        _ => return Err(wrong("its payload is something else")),
    };
    if !text(&statement, "_type").starts_with("https://in-toto.io/Statement/") {
        return Err(wrong("it has no _type of in-toto"));
    }
    let subjects = statement.get("subject").and_then(Value::as_array);
    let named = |it: &Value| it.get("digest").is_some_and(Value::is_object);
    if !subjects.is_some_and(|all| !all.is_empty() && all.iter().all(named)) {
        return Err(wrong("it has no subject with a digest"));
    }
    let sha256 = |it: &Value| it.get("digest").map(|digest| text(digest, "sha256").to_lowercase());
    let digests = subjects.map(|all| all.iter().filter_map(sha256).collect());
    let predicate = text(&statement, "predicateType");
    if predicate.is_empty()
        || predicate.len() > 256
        || !predicate.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(wrong("it has no predicateType"));
    }
    let predicate_type = Some(predicate.to_owned());
    let (artifact_type, title) = (media_type::IN_TOTO, title(path));
    let subjects = digests.unwrap_or_default();
    Ok(Document { artifact_type, layer_type, title, predicate_type, subjects, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_sbom() {
        let path = Path::new("dir/os.json");
        for (text, wanted) in [
            (r#"{"spdxVersion":"SPDX-2.3","packages":[]}"#, Some(media_type::SPDX)),
            (
                r#"{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld"}"#,
                Some(media_type::SPDX),
            ),
            (r#"{"bomFormat":"CycloneDX","specVersion":"1.6"}"#, Some(media_type::CYCLONEDX)),
            (r#"{"spdxVersion":"SPDX-2.3","files":[]}"#, Some(media_type::SPDX)),
            ("\u{feff}{\"spdxVersion\":\"SPDX-2.3\",\"files\":[]}", Some(media_type::SPDX)),
            (
                r#"<?xml version="1.0"?><bom xmlns="http://cyclonedx.org/schema/bom/1.5" version="1"/>"#,
                Some(media_type::CYCLONEDX_XML),
            ),
            ("SPDXVersion: SPDX-2.3\nDataLicense: CC0-1.0\n", Some(media_type::SPDX_TEXT)),
            ("# made by hand\nSPDXVersion: SPDX-2.2\n", Some(media_type::SPDX_TEXT)),
            (r#"<rdf:RDF xmlns:spdx="http://spdx.org/rdf/terms#"/>"#, None),
            ("see SPDXVersion: SPDX-2.3", None),
            (r#"{"spdxVersion":"SPDX-2.3"}"#, None),
            (r#"{"bomFormat":"CycloneDX"}"#, None),
            (r#"{"bomFormat":7}"#, None),
            ("[]", None),
            ("<xml/>", None),
            ("", None),
        ] {
            let found = sbom(path, text.as_bytes().to_vec());
            assert_eq!(found.as_ref().ok().map(|it| it.artifact_type), wanted, "{text}");
            if let Ok(found) = found {
                assert_eq!(
                    (found.title.as_str(), found.bytes),
                    ("os.json", text.as_bytes().to_vec())
                );
            }
        }
    }

    #[test]
    fn what_is_a_provenance() {
        use base64::Engine as _;
        let good = r#"{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://slsa.dev/provenance/v1","subject":[{"name":"os","digest":{"sha256":"00"}}]}"#;
        let payload = base64::engine::general_purpose::STANDARD.encode(good);
        let dsse = |kind: &str, payload: &str| {
            format!(r#"{{"payloadType":"{kind}","payload":"{payload}","signatures":[]}}"#)
        };
        for (text, wanted) in [
            (good.to_owned(), Some(media_type::IN_TOTO)),
            (dsse(media_type::IN_TOTO, &payload), Some(media_type::DSSE)),
            (dsse("text/plain", &payload), None),
            (dsse(media_type::IN_TOTO, "!"), None),
            (good.replace("in-toto.io", "example.com"), None),
            (good.replace(r#"[{"name":"os","digest":{"sha256":"00"}}]"#, "[]"), None),
            (good.replace("predicateType", "predicate"), None),
            (format!("\u{feff}{good}"), Some(media_type::IN_TOTO)),
            ("{}".to_owned(), None),
        ] {
            let found = provenance(Path::new("x"), text.clone().into_bytes());
            assert_eq!(found.as_ref().ok().map(|it| it.layer_type), wanted, "{text}");
            if let Ok(found) = found {
                assert_eq!(found.predicate_type.as_deref(), Some("https://slsa.dev/provenance/v1"));
            }
        }
    }

    #[test]
    fn a_provenance_of_something_else_is_said() {
        let image = Sha256::of(b"os");
        let of = |digest: &str| {
            let text = format!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","predicateType":"x:y","subject":[
                {{"name":"kernel","digest":{{"sha256":"00"}}}},{{"name":"os","digest":{{{digest}}}}}]}}"#
            );
            provenance(Path::new("dir/p.json"), text.into_bytes()).unwrap()
        };
        for (digest, said) in [
            (format!(r#""sha256":"{}""#, image.to_hex()), false),
            (format!(r#""sha256":"{}""#, image.to_hex().to_uppercase()), false),
            (format!(r#""sha256":"{}""#, Sha256::of(b"other").to_hex()), true),
            (r#""sha512":"00""#.to_owned(), true),
        ] {
            let found = of(&digest).of_something_else(&[Sha256::of(b"firmware"), image]);
            assert_eq!(found.is_some(), said, "{digest}");
        }
        let sbom = sbom(Path::new("x"), br#"{"spdxVersion":"SPDX-2.3","files":[]}"#.to_vec());
        assert_eq!(sbom.unwrap().of_something_else(&[image]), None);
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big.json");
        std::fs::File::create(&path).unwrap().set_len(ATTACHMENT_LIMIT + 1).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.to_string().contains("16 MiB") && error.hint().contains("leave out"));
        let error = sbom(&path, b"text".to_vec()).unwrap_err();
        assert!(error.hint().contains("syft convert"), "{}", error.hint());
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status();
        assert!(made.unwrap().success());
        assert!(matches!(read(&dir.path().join("pipe")), Err(AttachmentError::Read { .. })));
    }
}
