//! The chunk lists of what the slots hold.

use formats::boot_record::BootRecord;
use formats::chunks::LIST_LIMIT;
use formats::digest::Digest;
use formats::oci::Descriptor;
use storage::files::{Files as _, PrivateDir};

use super::{State, StateGuard};
use crate::error::AgentError;
use crate::list::{self, HELD_MAX, List, ListFile};
use crate::source::Source;

impl State {
    /// The chunk list of that digest, if it was kept and is whole.
    pub fn chunk_list(&self, digest: &Digest) -> Option<List> {
        let chunks = self.dir.subdirectory("chunks").ok()?;
        let file = chunks.open_file(&digest.hex()).ok().flatten()?;
        let len = file.stamp().ok()?.len;
        let bytes = match len {
            0..=HELD_MAX => {
                let mut held = vec![0; usize::try_from(len).ok()?];
                file.read_exact_at(&mut held, 0).ok()?;
                ListFile::Held(held)
            }
            _ if len > LIST_LIMIT => return None,
            _ => ListFile::Kept(file, len),
        };
        List::open(bytes, digest.as_sha256()?).ok()
    }

    /// Fetches a chunk list. One that is not held is in a file here, which is gone unless it is
    /// [kept](State::keep_chunk_list).
    pub fn fetch_chunk_list(
        &self,
        product: &str,
        source: &dyn Source,
        blob: &Descriptor,
    ) -> Result<List, AgentError> {
        list::fetch(&self.dir, product, source, blob)
    }

    /// Where what is too long to be held may be put for a while.
    pub(crate) fn room(&self) -> &PrivateDir {
        &self.dir
    }

    /// Keeps a chunk list.
    pub fn keep_chunk_list(&self, _: &StateGuard, list: &List) -> Result<(), AgentError> {
        let name = Digest::Sha256(list.digest()).hex();
        let chunks = self.dir.subdirectory("chunks")?;
        match list.bytes() {
            ListFile::Held(bytes) => chunks.write_atomic(&name, bytes)?,
            ListFile::Temporary(temporary, _) => temporary.keep(&chunks, &name)?,
            // Whoever wrote it may have been cut off before it was durable.
            ListFile::Kept(file, _) => chunks.make_durable(file.as_ref())?,
        }
        Ok(())
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
