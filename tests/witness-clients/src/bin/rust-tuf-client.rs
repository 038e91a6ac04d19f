//! `rust-tuf-client ROOT REPOSITORY_DIR LOCAL_DIR NAME OUT`: updates as Fuchsia does, and writes
//! one target. `REPOSITORY_DIR` has `metadata/` and `targets/`, and so has `LOCAL_DIR` afterwards.

use anyhow::Result;
use futures::AsyncReadExt as _;
use tuf::client::{Client, Config};
use tuf::metadata::{Metadata as _, RawSignedMetadata, TargetPath};
use tuf::pouf::Pouf1;
use tuf::repository::FileSystemRepository;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [root, remote, local, name, out] = args.as_slice() else {
        anyhow::bail!("ROOT REPOSITORY_DIR LOCAL_DIR NAME OUT")
    };
    futures::executor::block_on(async {
        let root = RawSignedMetadata::<Pouf1, _>::new(std::fs::read(root)?);
        let repository = |dir: &str| FileSystemRepository::<Pouf1>::new(dir);
        let (local, remote) = (repository(local), repository(remote));
        let mut client = Client::with_trusted_root(Config::default(), &root, local, remote).await?;
        client.update().await?;
        let database = client.database();
        println!(
            "root {} timestamp {} snapshot {} targets {}",
            database.trusted_root().version(),
            database.trusted_timestamp().map_or(0, |timestamp| timestamp.version()),
            database.trusted_snapshot().map_or(0, |snapshot| snapshot.version()),
            database.trusted_targets().map_or(0, |targets| targets.version()),
        );
        let mut bytes = Vec::new();
        client.fetch_target(&TargetPath::new(name)?).await?.read_to_end(&mut bytes).await?;
        Ok(std::fs::write(out, bytes)?)
    })
}
