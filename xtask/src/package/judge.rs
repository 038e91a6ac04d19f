//! What packages are judged by, in `cargo xtask night`: Debian's policy (lintian), two builds, what is left after a
//! purge (piuparts), and a life in a Debian system: installed, configured, upgraded, removed, purged.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::programs::Place;
use racklet_tools::{debian, paths, setup, show};

use super::changelog::Commit;
use super::stage::Stage;
use super::{Inputs, MAINTAINER, PACKAGES, same_again};
use crate::release::{PRODUCT, Release};

/// The life of packages, run as root in namespaces of its own.
const LIFE_SH: &str = include_str!("life.sh");

/// The document whose commands are run there.
const PAGE: &str = "docs/install.md";

/// Judges the packages of this work tree for this processor or another one; how many judgements there are, and what
/// each found.
pub(crate) fn judge(place: Place) -> Result<(u64, Vec<String>)> {
    ensure!(paths::is_root(), "packages are installed in a chroot: run it as root");
    setup::packaging()?;
    setup::judges()?;
    let processor = place.compilers.as_ref().map(|there| there.processor);
    let (inputs, commit) = (Inputs::build(place)?, Commit::of_head()?);
    let stage = Stage { inputs: &inputs, commit: &commit, maintainer: MAINTAINER };
    let temp = tempfile::tempdir()?;
    let built = |name: &str, version: &str| stage.build(&temp.path().join(name), version);
    let old = built("old", &commit.version())?;
    built("new", &format!("{}+next", commit.version()))?;
    let base = debian::base(processor)?;

    let (mut all, mut faults) = (0, Vec::new());
    let mut judged = |name: &str, done: Result<()>| {
        all += 1;
        match done {
            Ok(()) => println!("   {name}: nothing found"),
            Err(error) => faults.push(format!("{name}: {error:#}")),
        }
    };
    judged("two builds", same_again(&stage, &old));
    judged("lintian", lintian(&old));
    judged("piuparts", piuparts(&base, &old, temp.path()));
    judged("install, upgrade, remove, purge", life(&base, temp.path()));
    if processor.is_none() {
        judged("published and verified by ourselves", released(temp.path()));
    }
    Ok((all - faults.len() as u64, faults))
}

/// Publishes this commit as a release of our own, and gets each file of it back with the trust root alone.
fn released(temp: &Path) -> Result<()> {
    let release = Release::build(vec![Place::here()], &temp.join("release-files"))?;
    let (repository, keys) = (format!("oci:{}", temp.join("own").display()), temp.join("own-keys"));
    let keys = keys.display().to_string();
    release.signer().args(["init", "--repo", &repository, "--keys", &keys]).run()?;
    let options = ["--repo", &repository, "--keys", &keys, "--channel", "stable"];
    release.publish(&options.map(Into::into))?.run()?;
    let root = temp.join("root.json");
    fs::copy(Path::new(&keys).join("root.json"), &root).context("copy the trust root")?;
    for (number, file) in release.files.iter().enumerate() {
        let got = temp.join(format!("got-{number}"));
        let from = ["download", "--repo", &repository, "--product", PRODUCT, "--component"];
        let download =
            release.signer().args(from).arg(file.component).args(["--hw", file.hardware]);
        download.arg("--root").arg(&root).arg("-o").arg(&got).run()?;
        let same = fs::read(&got)? == fs::read(&file.path)?;
        ensure!(same, "{} is not {}", got.display(), file.path.display());
    }
    Ok(())
}

/// No error and no warning but those that an override names.
fn lintian(packages: &[PathBuf]) -> Result<()> {
    let lintian = Cmd::new("lintian").args(["--allow-root", "--profile", "debian"]);
    let lintian = lintian.args(["--fail-on", "error,warning", "--tag-display-limit", "0"]);
    lintian.args(packages).env("LC_ALL", "C.UTF-8").run().map(drop)
}

/// What Debian 13's own packages leave: links to files that others would write, and a folder of debconf's.
const OF_DEBIAN: [&str; 3] =
    ["/etc/default/locale", "/etc/vconsole.conf", "/var/cache/debconf/tmp.ci/"];

/// Installs and purges all of them in a copy of the system, and compares it with what it was before.
fn piuparts(base: &debian::Base, packages: &[PathBuf], temp: &Path) -> Result<()> {
    let mut piuparts = Cmd::new("piuparts")
        .args(["--existing-chroot".as_ref(), base.tree.as_os_str()])
        .args(["--distribution", base.suite, "--mirror", &format!("{} main", base.archive)])
        .args(["--no-eatmydata", "--no-upgrade-test", "--fail-on-broken-symlinks"])
        .args(OF_DEBIAN.map(|path| format!("--ignore={path}")))
        .args(["--tmpdir".as_ref(), temp.as_os_str()]);
    if let Some(proxy) = &base.proxy {
        piuparts = piuparts.args(["--proxy", proxy]);
    }
    let done = piuparts.args(packages).finish()?;
    let log = paths::target().join("piuparts.log");
    fs::write(&log, done.output()).context("write piuparts' log")?;
    let told = |line: &&str| line.contains("ERROR") || line.contains("FAIL");
    let lines: Vec<&str> = done.stdout.lines().filter(told).collect();
    ensure!(done.code == 0, "{}; all of it is in {}", lines.join("; "), log.display());
    Ok(())
}

/// Runs [`LIFE_SH`] in a copy of the system.
fn life(base: &debian::Base, temp: &Path) -> Result<()> {
    let tree = temp.join("tree");
    base.copy(&tree)?;
    let done = Cmd::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-s", "--"])
        .arg(&tree)
        .args([temp.join("old"), temp.join("new"), paths::root().join(PAGE)])
        .args(PACKAGES)
        .input(LIFE_SH)
        .finish()?;
    let done = done.expect(0)?;
    print!("{}", done.stdout);
    println!("   in {}", show::time(done.took));
    Ok(())
}
