//! Media types of the specification and of this project (prefix `application/vnd.racklet.`).

/// An OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The two-byte config `{}` of artifacts without one.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// An SBOM in SPDX, as JSON.
pub const SPDX: &str = "application/spdx+json";
/// An SBOM in CycloneDX, as JSON.
pub const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
/// An SBOM in SPDX, as tags and values.
pub const SPDX_TEXT: &str = "text/spdx";
/// An SBOM in CycloneDX, as XML.
pub const CYCLONEDX_XML: &str = "application/vnd.cyclonedx+xml";
/// An in-toto statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// A signed envelope around one.
pub const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
/// One TUF metadata file, as docker/attest names it.
pub const TUF_METADATA: &str = "application/vnd.tuf.metadata+json";
/// `artifactType` of the manifest that holds one TUF state.
pub const TUF_STATE: &str = "application/vnd.racklet.tuf.v1";
/// `artifactType` of the manifest that holds an offline statement, and media type of its one
/// layer: [`crate::tuf::Offline`].
pub const OFFLINE: &str = "application/vnd.racklet.offline.v1+json";
/// `artifactType` of a release index.
pub const RELEASE: &str = "application/vnd.racklet.release.v1";
/// `artifactType` of a component manifest.
pub const IMAGE: &str = "application/vnd.racklet.image.v1";
/// Config of a component manifest: [`crate::release::ImageConfig`].
pub const IMAGE_CONFIG: &str = "application/vnd.racklet.image.config.v1+json";
/// The image: zstd frames and the seekable table.
pub const IMAGE_BLOB: &str = "application/vnd.racklet.image.raw+zstd";
/// The chunk list: [`crate::chunks::ChunkList`].
pub const CHUNKS: &str = "application/vnd.racklet.image.chunks.v1";
/// List of a delta from another image (`formats::chunks::delta`).
pub const DELTA: &str = "application/vnd.racklet.image.delta.v1";
/// Blob of a delta: the frames its list describes.
pub const DELTA_BLOB: &str = "application/vnd.racklet.image.delta.v1+zstd";
/// A channel document kept beside the TUF metadata: [`crate::channel::Channel`].
pub const CHANNEL: &str = "application/vnd.racklet.channel.v1+json";
