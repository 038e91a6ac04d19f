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

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

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
    /// It is longer than [`ATTACHMENT_LIMIT`], or there are too many.
    #[error("{}: more than {ATTACHMENT_LIMIT} bytes, or more than {ATTACHMENTS_LIMIT} documents", path.display())]
    TooMuch {
        /// The file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{} is not {wanted}: {why}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
        /// What is missing.
        why: &'static str,
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
            AttachmentError::TooMuch { .. } => Reason::MetaLimit,
            AttachmentError::Form { .. } => Reason::BundleFormat,
            AttachmentError::Read { .. }
            | AttachmentError::Program { .. }
            | AttachmentError::NoPackages => Reason::Config,
        }
    }
}

/// What is to be attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
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
    bytes: Vec<u8>,
}

/// Reads and makes everything that is wanted. `images` are names and files of components.
pub fn gather(
    wanted: &Wanted,
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
            bytes: packages::spdx(product, version.as_str(), name, &found),
        });
    }
    if documents.len() > ATTACHMENTS_LIMIT {
        return Err(AttachmentError::TooMuch { path: PathBuf::from("attachments") });
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
        let Document { artifact_type, layer_type, title, predicate_type, bytes } = document;
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

fn read(path: &Path) -> Result<Vec<u8>, AttachmentError> {
    let failed = |source| AttachmentError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(ATTACHMENT_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > ATTACHMENT_LIMIT {
        return Err(AttachmentError::TooMuch { path: path.to_owned() });
    }
    Ok(bytes)
}

fn title(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn sbom(path: &Path, bytes: Vec<u8>) -> Result<Document, AttachmentError> {
    let wrong = |why| {
        let wanted = "an SBOM in SPDX or CycloneDX, as JSON";
        AttachmentError::Form { path: path.to_owned(), wanted, why }
    };
    let json: Value = serde_json::from_slice(&bytes).map_err(|_| wrong("it is no JSON"))?;
    let spdx2 = text(&json, "spdxVersion").starts_with("SPDX-2.");
    let spdx3 = text(&json, "@context").starts_with("https://spdx.org/rdf/3.");
    let artifact_type = if spdx2 {
        if !json.get("packages").is_some_and(Value::is_array) {
            return Err(wrong("it lists no packages"));
        }
        media_type::SPDX
    } else if spdx3 {
        media_type::SPDX
    } else if text(&json, "bomFormat") == "CycloneDX" {
        if text(&json, "specVersion").is_empty() {
            return Err(wrong("it has no specVersion"));
        }
        media_type::CYCLONEDX
    } else {
        return Err(wrong("it has neither spdxVersion nor bomFormat"));
    };
    let (layer_type, title, predicate_type) = (artifact_type, title(path), None);
    Ok(Document { artifact_type, layer_type, title, predicate_type, bytes })
}

fn provenance(path: &Path, bytes: Vec<u8>) -> Result<Document, AttachmentError> {
    use base64::Engine as _;
    let wrong = |why| {
        let wanted = "an in-toto statement, or a DSSE envelope around one, as JSON";
        AttachmentError::Form { path: path.to_owned(), wanted, why }
    };
    let json: Value = serde_json::from_slice(&bytes).map_err(|_| wrong("it is no JSON"))?;
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
    let predicate = text(&statement, "predicateType");
    if predicate.is_empty()
        || predicate.len() > 256
        || !predicate.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(wrong("it has no predicateType"));
    }
    let predicate_type = Some(predicate.to_owned());
    let (artifact_type, title) = (media_type::IN_TOTO, title(path));
    Ok(Document { artifact_type, layer_type, title, predicate_type, bytes })
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
            ("{}".to_owned(), None),
        ] {
            let found = provenance(Path::new("x"), text.clone().into_bytes());
            assert_eq!(found.as_ref().ok().map(|it| it.layer_type), wanted, "{text}");
            if let Ok(found) = found {
                assert_eq!(found.predicate_type.as_deref(), Some("https://slsa.dev/provenance/v1"));
            }
        }
    }
}
