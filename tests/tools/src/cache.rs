//! What every clone of the repository on a machine shares: images, tools of machines, other people's clients.
//!
//! ```text
//! $XDG_CACHE_HOME/racklet-update/      by default ~/.cache/racklet-update
//!   NAME/             one entry; its name holds the version, or the digest of the recipe
//!   NAME/complete     written last: without it the entry is made again
//!   locks/NAME        held shared by those who use or make the entry, exclusively by whoever removes it
//!   locks/NAME.make   held exclusively by whoever makes the entry
//! ```
//!
//! Two commands at a time are safe: the second waits for the first and finds what that made. An entry is in use
//! until the process that asked for it ends. A new entry removes what was not used for longest when all of them
//! together are larger than [`LIMIT`]; what is in use stays.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use crate::{paths, show};

/// Bytes of all entries: two generations of Debian images, machines and clients.
pub const LIMIT: u64 = 12 << 30;
/// What `cargo xtask clean` removes was not used for so long.
const UNUSED: Duration = Duration::from_secs(30 * 86_400);
/// Written last.
const COMPLETE: &str = "complete";

/// The locks of the entries that this process uses, by the entries' folders.
static HELD: Mutex<BTreeMap<PathBuf, File>> = Mutex::new(BTreeMap::new());

/// Options of `cargo xtask clean`.
#[derive(clap::Args)]
pub struct Options {
    /// Everything that no running command uses, not only what was not used for 30 days.
    #[arg(long)]
    all: bool,
}

/// `cargo xtask clean`
pub fn run(options: &Options) -> Result<()> {
    let cache = Cache::shared();
    let unused = if options.all { Duration::ZERO } else { UNUSED };
    for (name, size) in cache.clean(unused, 0)? {
        println!("removed {name}, {}", show::bytes(size));
    }
    let left: u64 = cache.entries()?.iter().map(|entry| entry.size).sum();
    println!("{}: {} left", cache.folder.display(), show::bytes(left));
    Ok(())
}

/// The folder of an entry, which `make` fills when it is not there yet. The folder exists and is empty then; it
/// has its final path, which some tools write into their files.
pub fn entry(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    Cache::shared().entry(name, make)
}

/// The folder of an entry that is there.
pub fn find(name: &str) -> Option<PathBuf> {
    Cache::shared().find(name)
}

/// Where an entry is, or will be.
pub fn path(name: &str) -> PathBuf {
    Cache::shared().folder.join(name)
}

/// Removes an entry, once nobody uses it.
pub fn forget(name: &str) -> Result<()> {
    Cache::shared().forget(name)
}

/// Waits until no other command of ours holds this name, and holds it until the file is dropped.
pub(crate) fn exclusive(name: &str) -> Result<File> {
    let lock = Cache::shared().lock(name)?;
    lock.lock().with_context(|| format!("lock {name}"))?;
    Ok(lock)
}

/// Part of a name: changes when anything that shapes the entry does.
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

struct Cache {
    folder: PathBuf,
}

/// What [`Cache::clean`] looks at.
struct Entry {
    name: String,
    size: u64,
    used: SystemTime,
}

impl Cache {
    fn shared() -> Self {
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let home = || absolute("HOME").map(|home| home.join(".cache"));
        let base = absolute("XDG_CACHE_HOME").or_else(home).unwrap_or_else(paths::target);
        Self { folder: base.join("racklet-update") }
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let lock = self.lock(name).ok()?;
        lock.lock_shared().ok()?;
        self.complete(name).inspect(|dir| hold(dir, lock))
    }

    fn entry(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let failed = || format!("lock {name} in {}", self.folder.display());
        // Shared from here on, also while it is made: nobody removes it, and nobody has to turn a shared lock
        // into an exclusive one, which would wait for users that keep theirs.
        let used = self.lock(name)?;
        used.lock_shared().with_context(failed)?;
        if self.complete(name).is_none() {
            let making = self.lock(&format!("{name}.make"))?;
            if making.try_lock().is_err() {
                eprintln!("waiting for another command that makes {name} …");
                making.lock().with_context(failed)?;
            }
            // Whoever was waited for may have made it.
            if self.complete(name).is_none() {
                self.fill(name, make)?;
            }
            making.unlock().with_context(failed)?;
        }
        let dir = self.complete(name).with_context(|| format!("{name} is not in the cache"))?;
        hold(&dir, used);
        Ok(dir)
    }

    fn fill(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let dir = self.folder.join(name);
        remove(&dir)?;
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        make(&dir)?;
        fs::write(dir.join(COMPLETE), "").with_context(|| format!("complete {}", dir.display()))?;
        for (name, size) in self.clean(Duration::ZERO, LIMIT)? {
            eprintln!("the cache was full: removed {name}, {}", show::bytes(size));
        }
        Ok(())
    }

    fn forget(&self, name: &str) -> Result<()> {
        let lock = self.lock(name)?;
        if lock.try_lock().is_err() {
            eprintln!("waiting for the commands that use {name} …");
            lock.lock().with_context(|| format!("lock {name}"))?;
        }
        remove(&self.folder.join(name))
    }

    fn complete(&self, name: &str) -> Option<PathBuf> {
        let dir = self.folder.join(name);
        dir.join(COMPLETE).is_file().then_some(dir)
    }

    /// The lock file of an entry, marked as used now. It is never removed: somebody may be waiting for it.
    fn lock(&self, name: &str) -> Result<File> {
        let file = self.folder.join("locks").join(name);
        let failed = || format!("open {}", file.display());
        fs::create_dir_all(self.folder.join("locks")).with_context(failed)?;
        let lock = File::options().create(true).append(true).open(&file).with_context(failed)?;
        lock.set_modified(SystemTime::now()).with_context(failed)?;
        Ok(lock)
    }

    /// Every entry, the longest unused first.
    fn entries(&self) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        let Ok(entries) = fs::read_dir(&self.folder) else { return Ok(found) };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "locks" {
                continue;
            }
            let lock = fs::metadata(self.folder.join("locks").join(&name));
            let used = lock.and_then(|lock| lock.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(Entry { name, size: size(&entry.path()), used });
        }
        found.sort_by_key(|entry| entry.used);
        Ok(found)
    }

    /// Removes what nobody uses and nobody used for so long, until no more than `limit` bytes are left; their
    /// names and sizes.
    fn clean(&self, unused: Duration, limit: u64) -> Result<Vec<(String, u64)>> {
        let entries = self.entries()?;
        let mut left: u64 = entries.iter().map(|entry| entry.size).sum();
        let mut removed = Vec::new();
        for Entry { name, size, used } in entries {
            let young = used.elapsed().unwrap_or_default() < unused;
            if left <= limit || young {
                continue;
            }
            fs::create_dir_all(self.folder.join("locks"))?;
            let file = self.folder.join("locks").join(&name);
            let lock = File::options().append(true).create(true).open(file)?;
            if lock.try_lock().is_err() {
                continue;
            }
            remove(&self.folder.join(&name))?;
            left -= size;
            removed.push((name, size));
        }
        Ok(removed)
    }
}

/// Until the process ends; one lock for each entry is enough.
fn hold(dir: &Path, lock: File) {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.entry(dir.to_owned()).or_insert(lock);
}

/// Without its mark first, so that what is left after a kill is not taken for whole.
fn remove(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    drop(fs::remove_file(dir.join(COMPLETE)));
    fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
}

/// Bytes on disk below a path.
fn size(path: &Path) -> u64 {
    let Ok(meta) = path.symlink_metadata() else { return 0 };
    let below = if meta.is_dir() { fs::read_dir(path).ok() } else { None };
    let below = below.into_iter().flatten().flatten().map(|entry| size(&entry.path()));
    meta.blocks() * 512 + below.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = dir.path().join("racklet-update");
        (dir, Cache { folder })
    }

    /// What a process does that ends. Unlocked, not only closed: a program that another test is starting
    /// has the open files of this one for a moment.
    fn release(cache: &Cache) {
        HELD.lock().expect("no panic").retain(|dir, lock| {
            let own = dir.starts_with(&cache.folder);
            if own {
                lock.unlock().expect("unlocked");
            }
            !own
        });
    }

    #[test]
    fn an_entry_is_made_once_also_when_many_ask_at_a_time() {
        let (_dir, cache) = cache();
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let dir = cache.entry("one", |dir| {
                        made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        Ok(fs::write(dir.join("file"), "whole")?)
                    });
                    let text = fs::read_to_string(dir.expect("it is made").join("file"));
                    assert_eq!(text.expect("it is there"), "whole");
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
        assert!(cache.find("one").is_some());
        assert!(cache.find("two").is_none());
    }

    /// Another command asks for an entry while it is made, by a command that uses it to its end.
    #[test]
    fn who_comes_while_an_entry_is_made_waits_for_that_only() {
        let (_dir, cache) = cache();
        let lock = |name: &str| {
            let lock = File::options().create(true).append(true).open(cache.folder.join(name));
            lock.expect("a lock")
        };
        fs::create_dir_all(cache.folder.join("locks")).expect("a folder");
        for _ in 0..20 {
            let (maker, user) = (lock("locks/one.make"), lock("locks/one"));
            maker.lock().expect("nobody else makes it");
            std::thread::scope(|scope| {
                let second = scope.spawn(|| cache.entry("one", |_| panic!("it is made already")));
                // As it is while a maker fills it, and when that has taken its lock for the rest of its life.
                user.lock_shared().expect("nobody removes it");
                let dir = cache.folder.join("one");
                fs::create_dir_all(&dir).expect("made");
                fs::write(dir.join(COMPLETE), "").expect("completed");
                maker.unlock().expect("unlocked");
                assert_eq!(second.join().expect("no panic").expect("it is there"), dir);
            });
            release(&cache);
            user.unlock().expect("unlocked");
            cache.forget("one").expect("nobody uses it");
        }
    }

    #[test]
    fn what_was_not_completed_is_made_again() {
        let (_dir, cache) = cache();
        let failed = cache.entry("one", |dir| {
            fs::write(dir.join("half"), "")?;
            anyhow::bail!("the power failed")
        });
        assert!(failed.is_err());
        assert!(cache.find("one").is_none());
        let dir = cache.entry("one", |_| Ok(())).expect("it is made");
        assert!(!dir.join("half").exists());
    }

    #[test]
    fn what_is_used_stays_and_the_longest_unused_goes_first() {
        let (_dir, cache) = cache();
        for name in ["old", "new"] {
            let fill = |dir: &Path| Ok(fs::write(dir.join("file"), vec![1; 100_000])?);
            cache.entry(name, fill).expect("it is made");
        }
        let old = File::options().append(true).open(cache.folder.join("locks/old"));
        let long_ago = SystemTime::now() - 2 * UNUSED;
        old.expect("its lock").set_modified(long_ago).expect("its time");
        let names = |removed: Vec<(String, u64)>| -> Vec<String> {
            removed.into_iter().map(|(name, _)| name).collect()
        };
        assert!(names(cache.clean(Duration::ZERO, 0).expect("cleaned")).is_empty(), "in use");
        release(&cache);
        assert!(names(cache.clean(Duration::ZERO, 1 << 20).expect("cleaned")).is_empty());
        assert_eq!(names(cache.clean(Duration::ZERO, 150_000).expect("cleaned")), ["old"]);
        assert!(names(cache.clean(UNUSED, 0).expect("cleaned")).is_empty(), "used lately");
        assert_eq!(names(cache.clean(Duration::ZERO, 0).expect("cleaned")), ["new"]);
    }

    #[test]
    fn a_digest_depends_on_where_its_parts_end() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    }
}
