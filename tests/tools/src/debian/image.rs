//! From packages to three ext4 images, as root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::sources::Sources;
use super::{HEALTH_SH, Images, TREE_SH};
use crate::cmd::Cmd;

/// Size of every image in bytes: `1G` in `tree.sh`.
const SIZE: u64 = 1 << 30;

/// 2025-01-01T00:00:00Z, Unix seconds: no file in an image is newer, so that rebuilding an
/// unchanged tree changes no byte of it.
const EPOCH: &str = "1735689600";

/// Identity of the file system, the same for all versions: an update must not change it.
const UUID: &str = "7261636b-6c65-4074-9000-6f732d736c6f";

/// v3's mistake: the kind that a configuration push makes, and no build notices.
const BROKEN_SITE: &str = "server {\n    listen 80\n    root /srv/www;\n}\n";

/// Builds `v1.ext4`, `v2.ext4` and `v3.ext4` in `work`.
pub(super) fn build(work: &Path, suite: &str, packages: &str, sources: &Sources) -> Result<Images> {
    let tree = work.join("tree");
    fs::write(work.join("tree.sh"), TREE_SH)?;

    progress(&format!("v1: debootstrap {suite}"));
    script(work, sources, "new", |cmd| cmd.args([suite, &sources.archive, packages]))?;
    let before = installed(&tree)?;
    let used_v1 = finish(work, sources, "v1", "1.0.0")?;

    progress("v2: security updates");
    let list = sources.list(suite);
    script(work, sources, "upgrade", |cmd| cmd.input(list))?;
    let after = installed(&tree)?;
    let used_v2 = finish(work, sources, "v2", "1.1.0")?;

    progress("v3: v2 with a broken web server configuration");
    spoil(work)?;
    let origin = format!(
        "Debian {} ({} packages)",
        fs::read_to_string(tree.join("etc/debian_version"))?.trim(),
        after.len()
    );
    fs::remove_dir_all(&tree).with_context(|| format!("remove {}", tree.display()))?;
    fs::remove_file(work.join("tree.sh"))?;
    Ok(Images {
        origin,
        debian: true,
        size: SIZE,
        used: [used_v1, used_v2],
        upgraded: after.iter().filter(|line| !before.contains(line)).count(),
        built_in: 0,
        dir: work.to_path_buf(),
    })
}

fn progress(what: &str) {
    eprintln!("  {what} …");
}

/// Runs `tree.sh` in namespaces of its own; its whole output goes to `work/ACTION.log`.
pub(super) fn script(
    work: &Path,
    sources: &Sources,
    action: &str,
    more: impl FnOnce(Cmd) -> Cmd,
) -> Result<()> {
    let mut cmd = Cmd::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh"])
        .arg(work.join("tree.sh"))
        .arg(action)
        .arg(work.join("tree"))
        .env("APT_OPTIONS", &sources.options);
    if let Some(proxy) = sources.http_proxy() {
        cmd = cmd.env("http_proxy", proxy);
    }
    let done = more(cmd).finish()?;
    fs::write(work.join(format!("{action}.log")), done.output())?;
    done.expect(0).map(drop)
}

/// Adds what makes the tree a release and packs it; returns the bytes in use.
fn finish(work: &Path, sources: &Sources, name: &str, version: &str) -> Result<u64> {
    release_files(&work.join("tree"), HEALTH_SH, version)?;
    let file = work.join(format!("{name}.ext4"));
    let seed = format!("hash_seed={UUID},lazy_itable_init=0,lazy_journal_init=0");
    script(work, sources, "image", |cmd| {
        cmd.arg(EPOCH).arg(&file).args(["-L", "racklet-os", "-U", UUID, "-m", "0", "-E", &seed])
    })?;
    Ok(fs::metadata(&file)?.blocks() * 512)
}

/// `/etc/racklet-release` and the health check, the same in every kind of tree.
pub(super) fn release_files(tree: &Path, health: &str, version: &str) -> Result<()> {
    let text = format!("RACKLET_PRODUCT=demo\nRACKLET_VERSION={version}\n");
    fs::create_dir_all(tree.join("etc"))?;
    fs::write(tree.join("etc/racklet-release"), text)?;
    fs::create_dir_all(tree.join("usr/lib/racklet"))?;
    let file = tree.join("usr/lib/racklet/health");
    fs::write(&file, health)?;
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}

/// `name version` of every installed package.
fn installed(tree: &Path) -> Result<Vec<String>> {
    let text = Cmd::new("dpkg-query")
        .arg(format!("--admindir={}", tree.join("var/lib/dpkg").display()))
        .args(["-Wf", "${Package} ${Version}\n"])
        .read()?;
    Ok(text.lines().map(str::to_string).collect())
}

/// Makes v3 from v2's image in place, so that the two differ in a few blocks only.
fn spoil(work: &Path) -> Result<()> {
    let release = "RACKLET_PRODUCT=demo\nRACKLET_VERSION=1.2.0\n";
    replace(
        work,
        &[
            ("etc/nginx/conf.d/site.conf", BROKEN_SITE, 0o644),
            ("etc/racklet-release", release, 0o644),
        ],
    )
}

/// Copies `v2.ext4` to `v3.ext4` and replaces files (path, text, mode) in it, without mounting.
pub(super) fn replace(work: &Path, files: &[(&str, &str, u32)]) -> Result<()> {
    let image = work.join("v3.ext4");
    Cmd::new("cp").arg("--sparse=always").arg(work.join("v2.ext4")).arg(&image).run()?;
    let mut commands = String::new();
    for (number, (path, text, mode)) in files.iter().enumerate() {
        let source = work.join(format!("new-{number}"));
        fs::write(&source, text)?;
        // `rm` of a file that is not there prints a message and changes nothing.
        commands.push_str(&format!("rm /{path}\nwrite {} /{path}\n", source.display()));
        commands.push_str(&format!("set_inode_field /{path} mode 0100{mode:o}\n"));
    }
    Cmd::new("debugfs")
        .args(["-w", "-f", "-"])
        .arg(&image)
        .env("E2FSPROGS_FAKE_TIME", EPOCH)
        .input(commands)
        .run()?;
    for number in 0..files.len() {
        fs::remove_file(work.join(format!("new-{number}")))?;
    }
    // debugfs reports failures of single commands only in its text: look at the result instead.
    for (path, text, _) in files {
        let found = Cmd::new("debugfs").args(["-R", &format!("cat /{path}")]).arg(&image).run()?;
        anyhow::ensure!(found.stdout == *text, "debugfs did not replace /{path} in v3");
    }
    Cmd::new("e2fsck").args(["-f", "-n"]).arg(&image).run().map(drop)
}
