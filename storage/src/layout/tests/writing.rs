//! Writing tars, and other people's tools as judges of both forms.

use std::fs;

use super::*;

#[test]
fn equal_content_gives_equal_tars() {
    let (dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    let index = layout.index().unwrap();
    let mut blobs = layout.blobs().unwrap();
    let write = |name: &str, blobs: &[Digest]| {
        let path = dir.path().join(name);
        let mut seen = 0;
        let len = Archive::write(&path, &layout, &index, blobs, |bytes| seen += bytes).unwrap();
        assert_eq!(len, fs::metadata(&path).unwrap().len());
        // A bar whose total is that of the blobs ends there: nothing around them is counted.
        let lens = layout
            .blobs()
            .unwrap()
            .iter()
            .map(|it| layout.blob_len(it).unwrap().unwrap())
            .sum::<u64>();
        assert_eq!(seen, lens);
        path
    };
    let one = write("one.tar", &blobs);
    blobs.reverse();
    blobs.push(tagged.digest.clone());
    let two = write("two.tar", &blobs);
    let bytes = fs::read(&one).unwrap();
    assert!(bytes == fs::read(&two).unwrap());
    let archive = Archive::open(&one).unwrap();
    for digest in layout.blobs().unwrap() {
        assert_eq!(
            archive.read_blob(&digest, 9999).unwrap(),
            layout.read_blob(&digest, 9999).unwrap()
        );
    }
    assert_eq!(archive.refs().unwrap(), layout.refs().unwrap());
    // Metadata come first, the largest blob last.
    let largest = archive.open_blob(&Digest::sha256_of(&[7; 3000])).unwrap().unwrap();
    assert_eq!(largest.file().1 + 3072 + 1024, bytes.len() as u64);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "a temporary file stays");
}

#[test]
fn a_damaged_source_gives_no_tar() {
    let (dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    fs::write(path.join("blobs/sha256").join(tagged.digest.hex()), b"{}").unwrap();
    let out = dir.path().join("out.tar");
    let index = layout.index().unwrap();
    let blobs = layout.blobs().unwrap();
    let error = Archive::write(&out, &layout, &index, &blobs, |_| {}).unwrap_err();
    assert_eq!(error.reason(), Reason::HashMismatch);
    let copy = LayoutDir::create(&dir.path().join("copy")).unwrap();
    let error = copy.copy_blob(&layout, &tagged.digest).unwrap_err();
    assert_eq!(error.reason(), Reason::HashMismatch);
    assert!(copy.blobs().unwrap().is_empty());
    let missing = [Digest::sha256_of(b"missing")];
    assert!(Archive::write(&out, &layout, &index, &missing, |_| {}).is_err());
    assert!(!out.exists());
}

#[test]
fn a_layout_is_copied_between_forms() {
    let (dir, path) = scratch();
    let (layout, _) = sample(&path);
    let tar = dir.path().join("layout.tar");
    let blobs = layout.blobs().unwrap();
    Archive::write(&tar, &layout, &layout.index().unwrap(), &blobs, |_| {}).unwrap();
    let archive = open(&tar).unwrap();
    let copy = LayoutDir::create(&dir.path().join("copy")).unwrap();
    for digest in &blobs {
        copy.copy_blob(archive.as_ref(), digest).unwrap();
    }
    let refs = archive.refs().unwrap();
    copy.set_refs(&refs.into_iter().map(|(name, to)| (name, Some(to))).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(copy.index().unwrap(), layout.index().unwrap());
    assert_eq!(copy.blobs().unwrap(), blobs);
}

fn skopeo(args: &[&str]) -> bool {
    match Command::new("skopeo").args(args).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "skopeo {args:?}: {text}");
            true
        }
        Err(_) => {
            eprintln!("skipped: skopeo is not installed");
            false
        }
    }
}

#[test]
fn skopeo_reads_and_writes_the_same_layouts() {
    let (dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let copy = |from: &str, to: &str| {
        skopeo(&["copy", "--insecure-policy", "--preserve-digests", "--all", from, to])
    };
    let (theirs, ours) = (at("theirs.tar"), at("ours.tar"));
    if !copy(
        &format!("oci:{}:tuf:latest", at("layout")),
        &format!("oci-archive:{theirs}:tuf:latest"),
    ) {
        return;
    }
    let archive = Archive::open(Path::new(&theirs)).unwrap();
    let found = archive.resolve("tuf:latest").unwrap().unwrap();
    assert_eq!(found.digest, tagged.digest);
    for digest in layout.blobs().unwrap() {
        assert_eq!(
            archive.read_blob(&digest, 9999).unwrap(),
            layout.read_blob(&digest, 9999).unwrap()
        );
    }

    let index = layout.index().unwrap();
    Archive::write(Path::new(&ours), &layout, &index, &layout.blobs().unwrap(), |_| {}).unwrap();
    copy(&format!("oci-archive:{ours}:tuf:latest"), &format!("oci:{}:x:1", at("back")));
    let back = LayoutDir::open(Path::new(&at("back"))).unwrap();
    assert_eq!(back.resolve("x:1").unwrap().unwrap().digest, tagged.digest);
    // And into a layout of ours, beside what is there.
    copy(&format!("oci:{}:x:1", at("back")), &format!("oci:{}:demo:2", at("layout")));
    let names: Vec<String> = layout.refs().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["tuf:latest", "demo:2"]);
}

#[test]
fn tar_of_a_directory_is_read_in_posix_form() {
    let (dir, path) = scratch();
    let (_, tagged) = sample(&path);
    let out = dir.path().join("by-tar.tar");
    let run = |format: &str| {
        let mut tar = Command::new("tar");
        tar.arg(format!("--format={format}")).arg("-cf").arg(&out).arg("-C").arg(&path).arg(".");
        assert!(tar.status().unwrap().success());
    };
    run("ustar");
    let archive = Archive::open(&out).unwrap();
    assert_eq!(archive.resolve("tuf:latest").unwrap().unwrap().digest, tagged.digest);
    for format in ["gnu", "pax"] {
        run(format);
        let error = Archive::open(&out).unwrap_err();
        assert_eq!(error.reason(), Reason::BundleFormat, "{format}");
    }
}
