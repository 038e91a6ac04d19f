//! What `--version` of the three programs says below their number: which sources, for which machine, with which
//! features. The same sources give the same text: it holds the date of the commit, never that of the build.
//!
//! ```text
//! update-agent 0.1.0
//! commit    0123456789ab of 2026-11-29
//! target    x86_64-unknown-linux-gnu
//! features  none
//! ```
//!
//! ```
//! let text = build_info::version("0.1.0", &[("pkcs11", true), ("fail", false)]);
//! assert!(text.starts_with("0.1.0\ncommit    "));
//! assert!(text.ends_with("features  pkcs11"));
//! ```

/// `HASH DATE` of the commit, as the build script found or got it.
const COMMIT: &str = env!("BUILD_COMMIT");
/// The target triple.
const TARGET: &str = env!("BUILD_TARGET");

/// Four lines without the last line end: the number, the commit, the target, the features that are enabled.
///
/// The commit is `unknown` in builds that are not release builds, and outside a work tree of git unless
/// `RACKLET_COMMIT` was set (`HASH DATE`).
pub fn version(number: &str, features: &[(&str, bool)]) -> String {
    text(number, COMMIT, features)
}

fn text(number: &str, commit: &str, features: &[(&str, bool)]) -> String {
    let commit = commit.replacen(' ', " of ", 1);
    let enabled: Vec<&str> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let features = if enabled.is_empty() { "none".to_owned() } else { enabled.join(" ") };
    format!("{number}\ncommit    {commit}\ntarget    {TARGET}\nfeatures  {features}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_date_and_features_are_told() {
        let lines = |commit: &str, features: &[(&str, bool)]| -> Vec<String> {
            text("1.2.3", commit, features).lines().map(str::to_owned).collect()
        };
        let told =
            lines("0123456789ab-dirty 2026-11-29", &[("a", true), ("b", false), ("c", true)]);
        assert_eq!(told[0], "1.2.3");
        assert_eq!(told[1], "commit    0123456789ab-dirty of 2026-11-29");
        assert_eq!(told[2], format!("target    {TARGET}"));
        assert_eq!(told[3], "features  a c");
        assert_eq!(
            lines("unknown", &[])[1..].join("|"),
            format!("commit    unknown|target    {TARGET}|features  none")
        );
    }
}
