//! `tough-client ROOT METADATA_DIR TARGETS_DIR DATASTORE NAME OUT`: updates as Bottlerocket does,
//! and writes one target.

use std::path::Path;

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use tough::{FilesystemTransport, RepositoryLoader, TargetName};
use url::Url;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [root, metadata, targets, datastore, name, out] = args.as_slice() else {
        anyhow::bail!("ROOT METADATA_DIR TARGETS_DIR DATASTORE NAME OUT")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let root = tokio::fs::read(root).await?;
        let repository = RepositoryLoader::new(&root, directory(metadata)?, directory(targets)?)
            .transport(FilesystemTransport)
            .datastore(datastore)
            .load()
            .await?;
        println!(
            "root {} timestamp {} snapshot {} targets {}",
            repository.root().signed.version,
            repository.timestamp().signed.version,
            repository.snapshot().signed.version,
            repository.targets().signed.version,
        );
        let target = repository.read_target(&TargetName::new(name)?).await?;
        let pieces: Vec<_> = target.context("no such target")?.try_collect().await?;
        Ok(tokio::fs::write(out, pieces.concat()).await?)
    })
}

fn directory(path: &str) -> Result<Url> {
    Url::from_directory_path(Path::new(path)).ok().context("a directory is named by its full path")
}
