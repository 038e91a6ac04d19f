//! Real root file systems for the demo and the benchmarks, cached by recipe.
//!
//! ```text
//! v1 = debootstrap of the suite's `main` alone      (an installation that has aged)
//! v2 = v1 after `apt-get upgrade` with updates and security; only the newest kernel
//! v3 = v2 with a web server configuration that its health check refuses
//! ```
//! Each is an ext4 image of 1 GiB with a fixed UUID, hash seed and clock. Mirrors and proxies are
//! those of the machine's own apt and stand in no file of the image. Without root or network a
//! smaller tree of this machine's own programs takes the place; [`Images::origin`] says so.

mod base;
mod fallback;
pub mod foreign;
mod image;
mod minimal;
mod same_kernel;
pub(crate) mod sources;

pub use base::{Base, base};
pub use minimal::tree as minimal_tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cmd::{Cmd, which};
use crate::{cache, firmware, paths, show};

/// Older than the newest, so that it always has security updates.
const SUITE: &str = "bookworm";

/// What a small server carries; together about 600 MiB, half of it touched by security updates.
const PACKAGES: &[&str] = &[
    "systemd-sysv",
    "udev",
    "dbus",
    "iproute2",
    "nftables",
    "openssh-server",
    "ca-certificates",
    "curl",
    "vim",
    "git",
    "python3",
    "nginx-light",
    "containerd",
    "e2fsprogs",
    "gdisk",
    "openssl",
];

/// What is known of the images of an entry.
const FACTS: &str = "facts.json";

const TREE_SH: &str = include_str!("tree.sh");
const HEALTH_SH: &str = include_str!("health.sh");
const IMAGE_RS: &str = include_str!("image.rs");

/// Options of `cargo xtask images`.
#[derive(clap::Args)]
pub struct Options {
    /// Do not build Debian; use the smaller tree made of this machine's own files.
    #[arg(long)]
    pub fallback: bool,
    /// Build again although the cache has them.
    #[arg(long)]
    pub rebuild: bool,
}

/// Three successive OS images, all the same size.
#[derive(Debug, Serialize, Deserialize)]
pub struct Images {
    /// What they are made of, for people.
    pub origin: String,
    /// Whether they are Debian systems whose health check runs in a chroot.
    pub debian: bool,
    /// Size of each image in bytes.
    pub size: u64,
    /// Bytes in use in v1 and v2.
    pub used: [u64; 2],
    /// How many packages (or files, without Debian) differ between v1 and v2.
    pub upgraded: usize,
    /// Seconds the build took.
    pub built_in: u64,
    #[serde(skip)]
    dir: PathBuf,
}

impl Images {
    /// The image of `v1`, `v2` or `v3`.
    pub fn path(&self, version: &str) -> PathBuf {
        self.dir.join(format!("{version}.ext4"))
    }

    /// Their name, which changes with their recipe.
    pub fn name(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// v2's security updates with v1's kernel; built when first asked for. Debian only.
    pub fn same_kernel(&self) -> Result<PathBuf> {
        same_kernel::image(self)
    }

    /// What the images are, in one sentence.
    pub fn sentence(&self) -> String {
        format!(
            "{}: images of {}, {} and {} in use, {} {} differ, built in {}",
            self.origin,
            show::bytes(self.size),
            show::bytes(self.used[0]),
            show::bytes(self.used[1]),
            self.upgraded,
            if self.debian { "packages" } else { "files" },
            show::time(Duration::from_secs(self.built_in)),
        )
    }
}

/// `cargo xtask images`.
pub fn run(options: &Options) -> Result<()> {
    let images = images(options)?;
    println!("{}", images.sentence());
    for version in ["v1", "v2", "v3"] {
        println!("  {version}  {}", images.path(version).display());
    }
    for (number, blob) in firmware::blobs()?.iter().enumerate() {
        println!("  firmware v{}  {}", number + 1, blob.display());
    }
    Ok(())
}

/// Finds the images in the cache or builds them: Debian where that is possible.
pub fn images(options: &Options) -> Result<Images> {
    if options.fallback {
        return fallback_images(options.rebuild, "asked for with --fallback");
    }
    let missing: Vec<&str> =
        ["debootstrap", "mke2fs", "unshare"].into_iter().filter(|p| which(p).is_none()).collect();
    if !paths::is_root() {
        return fallback_images(options.rebuild, "debootstrap and chroot need root");
    }
    if !missing.is_empty() {
        bail!("{} not installed: run `cargo xtask setup`", missing.join(", "));
    }
    let arch = Cmd::new("dpkg").arg("--print-architecture").read()?;
    let key = cache::digest(&[&packages(&arch), TREE_SH, HEALTH_SH, IMAGE_RS]);
    let name = format!("debian-{SUITE}-{arch}-{key}");
    let built = cached(&name, options.rebuild, |work| {
        let sources = sources::of_host(SUITE)?;
        eprintln!("building Debian {SUITE} images (a few minutes, once) …");
        image::build(work, SUITE, &packages(&arch), &sources)
    });
    match built {
        Ok(images) => Ok(images),
        // The reason is kept: a broken recipe must not pass for a missing network.
        Err(error) => {
            eprintln!("cannot build Debian: {}", shortened(&format!("{error:#}")));
            eprintln!("all of it is in {}/*.log", cache::path(&name).display());
            fallback_images(options.rebuild, "Debian could not be built, see above")
        }
    }
}

fn fallback_images(rebuild: bool, why: &str) -> Result<Images> {
    eprintln!("NOTE: not a Debian system but a smaller tree of this machine's files ({why})");
    let name = format!("debian-files-{}", cache::digest(&[fallback::SOURCE]));
    cached(&name, rebuild, fallback::build)
}

/// Finds images in the cache, or makes them there.
fn cached(
    name: &str,
    rebuild: bool,
    build: impl FnOnce(&Path) -> Result<Images>,
) -> Result<Images> {
    if rebuild {
        cache::forget(name)?;
    }
    let dir = cache::entry(name, |work| {
        let started = Instant::now();
        let mut images = build(work)?;
        images.built_in = started.elapsed().as_secs();
        Ok(fs::write(work.join(FACTS), serde_json::to_string_pretty(&images)?)?)
    })?;
    let facts = dir.join(FACTS);
    let text = fs::read_to_string(&facts).with_context(|| format!("read {}", facts.display()))?;
    let images: Images = serde_json::from_str(&text)?;
    Ok(Images { dir, ..images })
}

/// The first line and the last ones: hundreds of packages may have been unpacked between them.
fn shortened(text: &str) -> String {
    const LAST: usize = 8;
    let lines: Vec<&str> = text.lines().collect();
    match lines.split_first() {
        Some((first, rest)) if rest.len() > LAST => {
            format!("{first}\n…\n{}", rest[rest.len() - LAST..].join("\n"))
        }
        _ => lines.join("\n"),
    }
}

fn packages(arch: &str) -> String {
    let kernel = format!("linux-image-cloud-{arch}");
    PACKAGES.iter().copied().chain([kernel.as_str()]).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn of_a_long_error_its_beginning_and_its_end_are_shown() {
        assert_eq!(super::shortened("one\ntwo\n"), "one\ntwo");
        let long: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        let shown = super::shortened(&long.join("\n"));
        assert_eq!(shown, "0\n…\n12\n13\n14\n15\n16\n17\n18\n19");
    }
}
