//! GRUB's environment block: a text of fixed length that GRUB overwrites in place.
//!
//! ```text
//! # GRUB Environment Block\n            24 + 1 bytes, always first
//! # other comments\n
//! name=value\n                          a backslash stands before a backslash or a new line in a value
//! ################################      padding to the end of the file
//! ```
//!
//! `grub-editenv` makes it 1024 bytes long. There is one copy and no checksum: a write that is cut
//! leaves anything. Parsing refuses what GRUB would refuse, and whatever has no padding or new line
//! where one must be, which is how most torn blocks look.

use std::fmt;

/// How a block begins.
const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";
/// 1024 bytes, as GRUB makes it, to 64 KiB.
pub const SIZE_RANGE: std::ops::RangeInclusive<u64> = 512..=1 << 16;

/// Why bytes are no environment block, or variables do not fit one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrubEnvError {
    /// Not of a length a block can have.
    #[error("{0} bytes are no environment block; make one with grub-editenv FILE create")]
    Size(u64),
    /// It does not begin as one.
    #[error("it does not begin as an environment block; make one with grub-editenv FILE create")]
    Signature,
    /// A line that GRUB would not write.
    #[error("line {0} is neither a comment nor name=value")]
    Line(usize),
    /// A name or value that cannot be stored.
    #[error("{0:?} cannot be a variable of GRUB")]
    Variable(String),
    /// The variables need more room.
    #[error("the variables need {needed} bytes of {room}; remove some with grub-editenv")]
    Full {
        /// Bytes they need.
        needed: usize,
        /// Bytes there are.
        room: usize,
    },
}

/// A block; what we do not know is kept byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct GrubEnv {
    /// Lines after the first, without their new line: comments and `name=value`, still escaped.
    lines: Vec<Vec<u8>>,
    size: usize,
}

impl fmt::Debug for GrubEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.lines.iter().map(|line| String::from_utf8_lossy(line));
        f.debug_list().entries(shown).finish()
    }
}

impl GrubEnv {
    /// An empty block of that many bytes.
    pub fn new(size: usize) -> Result<Self, GrubEnvError> {
        if SIZE_RANGE.contains(&(size as u64)) {
            Ok(GrubEnv { lines: Vec::new(), size })
        } else {
            Err(GrubEnvError::Size(size as u64))
        }
    }

    /// Parses a whole block.
    pub fn parse(bytes: &[u8]) -> Result<Self, GrubEnvError> {
        let mut block = GrubEnv::new(bytes.len())?;
        let mut rest = bytes.strip_prefix(SIGNATURE).ok_or(GrubEnvError::Signature)?;
        // Line 1 is the signature.
        let mut number = 1;
        while !rest.iter().all(|byte| *byte == b'#') {
            number += 1;
            let end = line_end(rest).ok_or(GrubEnvError::Line(number))?;
            let (line, after) = rest.split_at(end);
            let comment = line.first() == Some(&b'#');
            let variable = line.iter().position(|byte| *byte == b'=').is_some_and(|at| at > 0);
            if !comment && !variable || line.contains(&0) {
                return Err(GrubEnvError::Line(number));
            }
            block.lines.push(line.to_vec());
            rest = after.get(1..).expect("a line ends with a line feed");
        }
        Ok(block)
    }

    /// The value of a variable, if it is text.
    pub fn get(&self, name: &str) -> Option<&str> {
        // Ours need no escapes; values of others that do are none of ours.
        let value = self.lines.iter().find_map(|line| value_of(line, name))?;
        std::str::from_utf8(value).ok().filter(|value| !value.contains('\\'))
    }

    /// Sets a variable of plain characters; where there is none of that name it comes last.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), GrubEnvError> {
        let plain = |text: &str, but| text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != but);
        if name.is_empty() || name.starts_with('#') || !plain(name, b'=') || !plain(value, b'\\') {
            return Err(GrubEnvError::Variable(
                format!("{name}={value}").chars().take(80).collect(),
            ));
        }
        let line = format!("{name}={value}").into_bytes();
        let there = self.lines.iter().position(|line| value_of(line, name).is_some());
        match there.and_then(|index| self.lines.get_mut(index)) {
            Some(old) => *old = line,
            None => self.lines.push(line),
        }
        Ok(())
    }

    /// The block, exactly as long as it was.
    pub fn encode(&self) -> Result<Vec<u8>, GrubEnvError> {
        let mut bytes = SIGNATURE.to_vec();
        for line in &self.lines {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        if bytes.len() > self.size {
            return Err(GrubEnvError::Full { needed: bytes.len(), room: self.size });
        }
        bytes.resize(self.size, b'#');
        Ok(bytes)
    }
}

fn value_of<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    line.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Where the line ends: at the first new line without a backslash before it.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if !escaped => return Some(index),
            b'\\' if !escaped => escaped = true,
            _ => escaped = false,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(1024, b'#');
        bytes
    }

    #[test]
    fn setting_keeps_everything_else() {
        let before =
            "# GRUB Environment Block\n# WARNING: by hand\nsaved_entry=0\nodd=a\\\nb\\\\\n";
        let mut env = GrubEnv::parse(&block(before)).unwrap();
        assert_eq!(env.get("saved_entry"), Some("0"));
        assert_eq!(env.get("odd"), None);
        env.set("BOOT_ORDER", "A").unwrap();
        env.set("saved_entry", "1").unwrap();
        let after = before.replace("entry=0", "entry=1") + "BOOT_ORDER=A\n";
        assert_eq!(env.encode().unwrap(), block(&after));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        assert_eq!(GrubEnv::parse(&[b'#'; 1024]), Err(GrubEnvError::Signature));
        assert_eq!(GrubEnv::parse(b""), Err(GrubEnvError::Size(0)));
        for (name, text) in [
            ("no equals sign", "# GRUB Environment Block\nabc\n"),
            ("no name", "# GRUB Environment Block\n=abc\n"),
            ("cut in a line", "# GRUB Environment Block\nBOOT_ORD"),
            ("zeros", "# GRUB Environment Block\n\0\0\0\0\n"),
        ] {
            assert_eq!(GrubEnv::parse(&block(text)), Err(GrubEnvError::Line(2)), "{name}");
        }
        let mut env = GrubEnv::new(512).unwrap();
        assert!(env.set("a", "x\ny").is_err());
        env.set("a", &"x".repeat(500)).unwrap();
        assert!(matches!(env.encode(), Err(GrubEnvError::Full { .. })));
    }

    proptest! {
        #[test]
        fn strangers_never_panic(text in proptest::collection::vec(any::<u8>(), 0..800)) {
            let mut bytes = [SIGNATURE, &text].concat();
            bytes.resize(1024, b'#');
            if let Ok(env) = GrubEnv::parse(&bytes) {
                prop_assert_eq!(env.encode().unwrap(), bytes);
            }
        }
    }
}
