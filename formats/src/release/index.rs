//! The release index: which components, for which hardware.

use std::collections::BTreeSet;

use super::{COMPONENTS_LIMIT, ComponentName, ReleaseError, Summary, expect_type, is_word};
use crate::oci::{Descriptor, Index, annotation, media_type};

/// One component as the index lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedComponent {
    /// Its name.
    pub name: ComponentName,
    /// Hardware ids it is for; sorted, no duplicates.
    pub compatible: Vec<String>,
    /// Its manifest.
    pub manifest: Descriptor,
}

/// A parsed release index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseIndex {
    /// The components, in order.
    pub components: Vec<IndexedComponent>,
}

impl ReleaseIndex {
    /// Parses a release index.
    ///
    /// One name may stand several times, for different hardware; the same hardware id twice under
    /// one name is refused, because a node could not choose.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        let index = Index::parse(bytes)?;
        expect_type("release index", index.artifact_type.as_deref(), media_type::RELEASE)?;
        if index.manifests.is_empty() || index.manifests.len() > COMPONENTS_LIMIT {
            let text = format!("{} components", index.manifests.len());
            return Err(ReleaseError::Components(text));
        }
        let mut seen = BTreeSet::new();
        let mut components = Vec::new();
        for manifest in index.manifests {
            let name: ComponentName =
                manifest.annotation(annotation::COMPONENT).unwrap_or_default().parse()?;
            let compatible = parse_compatible(&manifest)?;
            for id in &compatible {
                if !seen.insert((name.clone(), id.clone())) {
                    let text = format!("component {name} is listed twice for hardware {id}");
                    return Err(ReleaseError::Components(text));
                }
            }
            components.push(IndexedComponent { name, compatible, manifest });
        }
        Ok(ReleaseIndex { components })
    }

    /// Deterministic bytes of the index.
    pub fn to_bytes(&self) -> Vec<u8> {
        let manifests = self.components.iter().map(|component| {
            component
                .manifest
                .clone()
                .annotated(annotation::COMPONENT, component.name.as_str())
                .annotated(annotation::COMPATIBLE, &component.compatible.join(","))
        });
        Index::new(Some(media_type::RELEASE), manifests.collect()).to_bytes()
    }

    /// Refuses an index that is not what the signed summary says.
    pub fn check_against(&self, summary: &Summary) -> Result<(), ReleaseError> {
        let same = self.components.len() == summary.components.len()
            && self.components.iter().zip(&summary.components).all(|(listed, signed)| {
                listed.name == signed.name
                    && listed.compatible == signed.compatible
                    && listed.manifest.digest == signed.manifest
            });
        if same {
            Ok(())
        } else {
            Err(ReleaseError::Contradiction { what: "the list of components".to_owned() })
        }
    }
}

fn parse_compatible(manifest: &Descriptor) -> Result<Vec<String>, ReleaseError> {
    let text = manifest.annotation(annotation::COMPATIBLE).unwrap_or_default();
    let ids: Vec<String> = text.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
    if ids.iter().any(|id| !is_word(id, 64)) || !ids.is_sorted_by(|a, b| a < b) {
        return Err(ReleaseError::Components(
            "hardware ids are not words in ascending order".to_owned(),
        ));
    }
    Ok(ids)
}
