//! The tags of a repository: listed page by page, removed one by one (distribution-spec §"Listing
//! Tags", §"Deleting Tags").

use formats::digest::Digest;
use formats::oci::{MANIFEST_LIMIT, RepositoryName, Tag};
use reqwest::Method;
use serde::Deserialize;

use super::failure::Failure;
use super::referrers::next_page;
use super::{Listed, RegistryClient, RegistryError, Removal, answer};

/// Asked for in one page; a registry may give fewer.
const PAGE: usize = 1000;

/// Pages of any size that are read.
const PAGES: usize = 1000;

/// 100,000: three times what `index.json` of our own server has room for.
const TAGS: usize = 100_000;

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl RegistryClient {
    /// At most [`TAGS`] tags, or the first [`PAGES`] pages.
    pub(super) fn list_tags(
        &self,
        repository: &RepositoryName,
    ) -> Result<Vec<Listed>, RegistryError> {
        let mut found = Vec::new();
        let mut next = Some(format!("{repository}/tags/list?n={PAGE}"));
        for _ in 0..PAGES {
            let Some(rest) = next.take().filter(|_| found.len() < TAGS) else { break };
            let Some((page, link)) = self.page(repository, &rest)? else { break };
            let names = page.tags.unwrap_or_default();
            let tags = names.into_iter().filter_map(|name| name.parse::<Tag>().ok());
            found.extend(tags.map(|tag| Listed { tag, manifest: None }));
            next = link;
        }
        Ok(found)
    }

    /// One page, and where the next one is; `None` when there is no such repository.
    fn page(
        &self,
        repository: &RepositoryName,
        rest: &str,
    ) -> Result<Option<(Page, Option<String>)>, RegistryError> {
        let scope = format!("repository:{repository}:pull");
        self.run(&format!("list the tags of {repository}"), async {
            let url = self.http.url(rest)?;
            let answer = match self.http.send(&scope, Method::GET, url, &|request| request).await {
                Ok(answer) => answer,
                Err(failure) if failure.is_not_found() => return Ok(None),
                Err(failure) => return Err(failure),
            };
            let link = answer::text(answer.headers(), "link").and_then(next_page);
            let limit = usize::try_from(MANIFEST_LIMIT).unwrap_or(usize::MAX);
            let body = answer::read_limited(answer, limit).await?;
            let page =
                serde_json::from_slice(&body).map_err(|_| Failure::Answer("is no list of tags"))?;
            Ok(Some((page, link)))
        })
    }

    /// Removes tags until the registry says no.
    pub(super) fn remove_each(&self, repository: &RepositoryName, tags: &[Listed]) -> Removal {
        let mut removal = Removal::default();
        for listed in tags {
            match self.remove_tag(repository, listed) {
                Ok(there) => removal.removed += u64::from(there),
                Err(error) => {
                    removal.stopped = Some(error);
                    break;
                }
            }
        }
        removal
    }

    /// Whether it was there, and stood for what it should.
    fn remove_tag(
        &self,
        repository: &RepositoryName,
        Listed { tag, manifest }: &Listed,
    ) -> Result<bool, RegistryError> {
        if let Some(expected) = manifest {
            let there = self.pull(&format!("read {repository}:{tag}"), repository, tag.as_str())?;
            if there.map(|bytes| Digest::sha256_of(&bytes)).as_ref() != Some(expected) {
                return Ok(false);
            }
        }
        // By its name: by digest, every tag of the manifest would go.
        let removed = self.runtime.block_on(async {
            let url = self.http.url(&format!("{repository}/manifests/{tag}"))?;
            let scope = format!("repository:{repository}:pull,push,delete");
            self.http.send(&scope, Method::DELETE, url, &|request| request).await
        });
        match removed {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_gone() => Ok(false),
            Err(failure) if failure.is_refusal() => Err(RegistryError::KeepsTags {
                registry: self.authority.clone(),
                repository: repository.clone(),
                said: failure.to_string(),
            }),
            Err(failure) => Err(self.failed(&format!("remove {repository}:{tag}"), &failure)),
        }
    }
}
