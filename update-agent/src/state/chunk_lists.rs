//! The chunk lists of what the slots hold.

use formats::boot_record::BootRecord;
use formats::chunks::{ChunkList, LIST_LIMIT};
use formats::digest::Digest;
use storage::files::Files as _;

use super::{State, StateGuard};
use crate::error::AgentError;

impl State {
    /// The chunk list of that digest, if it was kept and is whole.
    pub fn chunk_list(&self, digest: &Digest) -> Option<ChunkList> {
        let chunks = self.dir.subdirectory("chunks").ok()?;
        let bytes = chunks.read(&digest.hex(), LIST_LIMIT).ok().flatten()?;
        if !digest.matches(&bytes) {
            return None;
        }
        ChunkList::parse(bytes).ok()
    }

    /// Keeps a chunk list.
    pub fn keep_chunk_list(&self, _: &StateGuard, list: &ChunkList) -> Result<(), AgentError> {
        let digest = Digest::sha256_of(list.as_bytes());
        let chunks = self.dir.subdirectory("chunks")?;
        Ok(chunks.write_atomic(&digest.hex(), list.as_bytes())?)
    }

    /// Removes chunk lists that no slot needs. While the boot record has something that this version
    /// does not read, all are kept: that may need one.
    pub fn forget_chunk_lists(&self, _: &StateGuard, needed: &[Digest]) -> Result<(), AgentError> {
        let record = self.payload("boot-record")?.unwrap_or_default();
        if !BootRecord::unread(&record).is_empty() {
            return Ok(());
        }
        let chunks = self.dir.subdirectory("chunks")?;
        for name in chunks.list()? {
            if !needed.iter().any(|digest| digest.hex() == name) {
                chunks.remove(&name)?;
            }
        }
        Ok(())
    }
}
