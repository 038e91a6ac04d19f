//! Hardware ids that the machine names itself: by its device tree.

use std::path::Path;

use formats::device_tree::{COMPATIBLE_LIMIT, hardware_ids};
use storage::StoreError;

use super::Config;
use crate::error::AgentError;

/// The key that says where they are.
pub(super) const HARDWARE_FROM: &str = "node.hardware_from";

impl Config {
    /// With the machine's own hardware ids behind the configured ones.
    pub(super) fn with_own_hardware(mut self) -> Result<Self, AgentError> {
        if let Some(ids) = self.own_hardware()? {
            self.node.hardware = ids;
        }
        Ok(self)
    }

    /// The configured hardware ids and the machine's own, none twice; `None`: the machine is not asked.
    pub(super) fn own_hardware(&self) -> Result<Option<Vec<String>>, AgentError> {
        let Some(path) = &self.node.hardware_from else { return Ok(None) };
        let mut ids = self.node.hardware.clone();
        for id in named_by(path)? {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(Some(ids))
    }
}

fn named_by(path: &Path) -> Result<Vec<String>, AgentError> {
    let failed = |error: AgentError| {
        error.context(HARDWARE_FROM).hint(
            "on a machine without a device tree, list its ids in node.hardware and leave \
             node.hardware_from out",
        )
    };
    let bytes = storage::private::read_trusted(path, COMPATIBLE_LIMIT as u64).map_err(|error| {
        failed(match error {
            StoreError::TooLarge { .. } => AgentError::config(error.to_string()),
            other => AgentError::from(other).or_config(),
        })
    })?;
    hardware_ids(&bytes)
        .map_err(|error| failed(AgentError::config(format!("{} {error}", path.display()))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use formats::reason::Reason;

    use super::*;
    use crate::config::{Effective, Origin};

    const EXAMPLE: &str = include_str!("../../update-agent.example.toml");

    /// A board: its device tree as Linux shows it, and a configuration with these lines for `hardware`.
    fn board(compatible: Option<&[u8]>, lines: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        if let Some(bytes) = compatible {
            let tree = dir.path().join("sys/firmware/devicetree/base");
            fs::create_dir_all(&tree).unwrap();
            fs::create_dir(dir.path().join("proc")).unwrap();
            std::os::unix::fs::symlink(&tree, dir.path().join("proc/device-tree")).unwrap();
            fs::write(tree.join("compatible"), bytes).unwrap();
        }
        let text = EXAMPLE.replace("hardware = [\"racklet-cu-v1\"]", lines);
        fs::write(dir.path().join("agent.toml"), text).unwrap();
        dir
    }

    const PI: &[u8] = b"raspberrypi,4-model-b\0brcm,bcm2711\0";
    const FROM: &str = "hardware_from = \"proc/device-tree/compatible\"";

    #[test]
    fn a_board_answers_to_the_names_of_its_device_tree() {
        let rows = [
            (FROM.to_owned(), vec!["raspberrypi.4-model-b", "brcm.bcm2711"]),
            (
                format!("hardware = [\"rack-1\", \"brcm.bcm2711\"]\n{FROM}"),
                vec!["rack-1", "brcm.bcm2711", "raspberrypi.4-model-b"],
            ),
        ];
        for (lines, expected) in rows {
            let dir = board(Some(PI), &lines);
            let file = dir.path().join("agent.toml");
            assert_eq!(Config::load(&file).unwrap().node.hardware, expected, "{lines}");
            let shown = Effective::of(&file, |_| None, None).unwrap();
            assert!(shown.problems.is_empty(), "{:?}", shown.problems);
            let row = shown.settings.iter().find(|row| row.place == "node.hardware").unwrap();
            assert_eq!(row.from, Origin::Outside(HARDWARE_FROM));
            assert_eq!(row.value, toml::Value::from(expected));
        }
    }

    #[test]
    fn a_device_tree_that_names_no_board_is_one_clear_error() {
        let rows: [(Option<&[u8]>, &str); 3] = [
            (None, "No such file or directory"),
            (Some(b"acme,board"), "does not end with a NUL byte, as a list of strings does"),
            (Some(&[b'a'; COMPATIBLE_LIMIT + 1]), "has more than 4096 bytes"),
        ];
        for (compatible, text) in rows {
            let dir = board(compatible, FROM);
            let file = dir.path().join("agent.toml");
            let error = Config::load(&file).unwrap_err();
            assert_eq!(error.reason(), Reason::Config, "{text}");
            let chain = error.chain();
            assert!(chain.contains(text) && chain.contains(HARDWARE_FROM), "{chain}");
            assert!(error.advice().unwrap().contains("node.hardware"), "{chain}");
            let shown = Effective::of(&file, |_| None, None).unwrap();
            assert!(shown.problems[0].contains(text), "{:?}", shown.problems);
        }
    }
}
