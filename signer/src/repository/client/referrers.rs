//! What is attached to a manifest, as a registry lists it.

use std::collections::BTreeMap;

use formats::digest::Digest;
use formats::oci::{Descriptor, MANIFEST_LIMIT, RepositoryName};
use reqwest::Method;

use super::super::RegistryError;
use super::{RegistryClient, answer};

impl RegistryClient {
    /// The list page by page; `None` where the registry keeps none.
    pub(super) fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let scope = format!("repository:{repository}:pull");
        let action = format!("list referrers of {subject}");
        let mut found = BTreeMap::new();
        let mut next = Some(format!("{repository}/referrers/{subject}"));
        // A hundred pages of a registry's own size; one that never ends is cut off.
        for _ in 0..100 {
            let Some(rest) = next.take() else { break };
            let answered = self.run(&action, async {
                let url = self.http.url(&rest)?;
                match self.http.send(&scope, Method::GET, url, &|request| request).await {
                    Ok(answer) => {
                        let link = answer::text(answer.headers(), "link").and_then(next_page);
                        let limit = usize::try_from(MANIFEST_LIMIT).unwrap_or(usize::MAX);
                        let body = answer::read_limited(answer, limit).await?;
                        Ok(Some((body, link)))
                    }
                    // distribution-spec §"Unavailable Referrers API".
                    Err(failure) if failure.is_not_found() => Ok(None),
                    Err(failure) => Err(failure),
                }
            })?;
            let Some((body, link)) = answered else { return Ok(None) };
            let Ok(index) = formats::oci::Index::parse_layout(&body) else { return Ok(None) };
            found.extend(index.manifests.into_iter().map(|it| (it.digest.clone(), it)));
            next = link;
        }
        Ok(Some(found.into_values().collect()))
    }
}

/// `</v2/<rest>>; rel="next"`; other places are not followed.
pub(super) fn next_page(link: &str) -> Option<String> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("rel=\"next\"").then_some(())?;
    Some(target.strip_prefix("/v2/")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_at_the_registry() {
        let next = next_page("</v2/a/referrers/sha256:0?last=1>; rel=\"next\"");
        assert_eq!(next.as_deref(), Some("a/referrers/sha256:0?last=1"));
        assert_eq!(next_page("<https://evil.example/v2/x>; rel=\"next\""), None);
        assert_eq!(next_page("</v2/a>; rel=\"prev\""), None);
    }
}
