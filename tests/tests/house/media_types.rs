//! `docs/reference/formats.md` has every media type of the source.

use std::collections::BTreeSet;

use racklet_tests::sources::{cells, quoted, text_of};

#[test]
fn every_media_type_stands_in_the_page_of_formats() {
    let source = text_of("formats/src/oci/media_type.rs");
    let types =
        source.lines().filter_map(|line| line.split_once(": &str = \"")?.1.split('"').next());
    let types: BTreeSet<&str> = types.collect();
    assert!(types.len() > 15, "{types:?}");
    let page = text_of("docs/reference/formats.md");
    let first = page.lines().filter_map(cells).map(|row| row[0]);
    let listed: BTreeSet<&str> = first.flat_map(quoted).filter(|word| word.contains('/')).collect();
    let missing: Vec<_> = types.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/reference/formats.md lacks {missing:?}");
    // Names of targets have a slash, too, and stand in no table's first column.
    let surplus: Vec<_> = listed.difference(&types).collect();
    assert!(surplus.is_empty(), "no media types of ours: {surplus:?}");
}
