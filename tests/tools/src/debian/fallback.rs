//! Without root or network: images of this machine's own programs and libraries.
//!
//! Real bytes with real redundancy, but no system that could boot: its health check only says
//! which release it belongs to, and v3's says no.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::Images;
use super::image::{release_files, replace};
use crate::cmd::Cmd;

/// This file, as part of the recipe that names the cache folder.
pub(super) const SOURCE: &str = include_str!("fallback.rs");

/// A file and its length in bytes.
type Sized = (PathBuf, u64);

/// Bytes of an image.
const SIZE: u64 = 256 << 20;
/// Bytes of files in it; the rest stays free, as in a real root file system.
const CONTENT: u64 = 150 << 20;
/// Bytes of files that v2 has in the place of v1's first ones.
const CHANGED: u64 = 20 << 20;
/// Identity of the file system, the same for all versions.
const UUID: &str = "7261636b-6c65-4074-9000-66696c65732d";
/// 2025-01-01T00:00:00Z, Unix seconds.
const EPOCH: &str = "1735689600";

const HEALTHY: &str = "#!/bin/sh\necho 'healthy: files only'\n";
const BROKEN: &str = "#!/bin/sh\necho 'unhealthy: this release is broken' >&2\nexit 1\n";

/// Builds `v1.ext4`, `v2.ext4` and `v3.ext4` in `work`.
pub(super) fn build(work: &Path) -> Result<Images> {
    let mut files = Vec::new();
    for dir in ["/usr/bin", "/usr/sbin", "/usr/lib"] {
        collect(Path::new(dir), &mut files);
    }
    files.sort();
    let (kept, rest) = split(&files, CONTENT);
    let (changed, _) = split(rest, CHANGED);
    ensure!(!changed.is_empty(), "too few readable files under /usr to make two versions");

    let tree = work.join("tree");
    let used_v1 = pack(work, "v1", "1.0.0", kept)?;
    // The first files go, as many bytes of others come: that is an update.
    let (removed, stay) = split(kept, CHANGED);
    let used_v2 = pack(work, "v2", "1.1.0", &[stay, changed].concat())?;
    fs::remove_dir_all(tree)?;
    let release = "RACKLET_PRODUCT=demo\nRACKLET_VERSION=1.2.0\n";
    replace(
        work,
        &[("usr/lib/racklet/health", BROKEN, 0o755), ("etc/racklet-release", release, 0o644)],
    )?;
    Ok(Images {
        origin: "this machine's own files (no Debian system)".to_string(),
        debian: false,
        size: SIZE,
        used: [used_v1, used_v2],
        upgraded: removed.len().max(changed.len()),
        built_in: 0,
        dir: work.to_path_buf(),
    })
}

/// Readable regular files below `dir` that are worth copying; unreadable folders are passed over.
fn collect(dir: &Path, files: &mut Vec<Sized>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let (path, Ok(meta)) = (entry.path(), entry.path().symlink_metadata()) else { continue };
        if meta.is_dir() {
            collect(&path, files);
        } else if meta.is_file()
            && (4096..16 << 20).contains(&meta.len())
            && fs::File::open(&path).is_ok()
        {
            files.push((path, meta.len()));
        }
    }
}

/// The longest prefix of at most `limit` bytes, and what follows it.
fn split(files: &[Sized], limit: u64) -> (&[Sized], &[Sized]) {
    let mut sum = 0;
    let fits = |file: &&Sized| {
        sum += file.1;
        sum <= limit
    };
    files.split_at(files.iter().take_while(fits).count())
}

fn pack(work: &Path, name: &str, version: &str, files: &[Sized]) -> Result<u64> {
    let tree = work.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for (path, _) in files {
        let inside = tree.join(path.strip_prefix("/").unwrap_or(path));
        fs::create_dir_all(inside.parent().unwrap_or(&tree))?;
        fs::copy(path, inside)?;
    }
    release_files(&tree, HEALTHY, version)?;
    let at = format!("@{EPOCH}");
    Cmd::new("find").arg(&tree).args(["-exec", "touch", "-h", "-d", &at, "{}", "+"]).run()?;
    let file = work.join(format!("{name}.ext4"));
    Cmd::new("mke2fs")
        .args(["-q", "-t", "ext4", "-L", "racklet-os", "-U", UUID, "-m", "0"])
        .args(["-E", &format!("hash_seed={UUID},lazy_itable_init=0,root_owner=0:0"), "-d"])
        .args([tree.as_os_str(), file.as_os_str()])
        .arg(format!("{}k", SIZE >> 10))
        .env("E2FSPROGS_FAKE_TIME", EPOCH)
        .run()?;
    Ok(fs::metadata(&file)?.blocks() * 512)
}
