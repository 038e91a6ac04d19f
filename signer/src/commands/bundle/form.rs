//! Where a bundle goes: which of its forms, and what is never written over.

use std::io::IsTerminal as _;
use std::path::Path;

use storage::layout::{Archive, Layout as _, LayoutDir, reference_of};

use crate::error::SignerError;

/// The forms of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One tar file.
    Tar,
    /// A directory.
    Directory,
    /// A tar on standard output.
    Stdout,
}

impl Form {
    /// As references spell it.
    pub(super) fn transport(self) -> &'static str {
        match self {
            Form::Tar | Form::Stdout => "oci-archive",
            Form::Directory => "oci",
        }
    }
}

/// The form that `output` asks for, by its spelling and whether it is an existing directory.
///
/// | spelling | form |
/// |---|---|
/// | `-` | tar on standard output |
/// | anything, with a form given | that form |
/// | an existing directory, a name with `/` at its end, a name without an ending | directory |
/// | `NAME.tar` | tar |
/// | any other ending | refused: it promises what a bundle is not |
///
/// A dot before digits only is part of a version, no ending.
pub fn form_of(output: &str, is_directory: bool, given: Option<Form>) -> Result<Form, String> {
    if output == "-" {
        return Ok(Form::Stdout);
    }
    if let Some(form) = given {
        return Ok(form);
    }
    if is_directory || output.ends_with('/') {
        return Ok(Form::Directory);
    }
    let ending = Path::new(output).extension().and_then(|ending| ending.to_str());
    match ending {
        Some("tar") => Ok(Form::Tar),
        None => Ok(Form::Directory),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Form::Directory),
        Some(ending) => {
            let stem = output.strip_suffix(ending).unwrap_or(output).trim_end_matches('.');
            let stem = stem.strip_suffix(".tar").unwrap_or(stem);
            Err(format!(
                "a bundle is a tar or a directory, and .{ending} is neither: write -o {stem}.tar \
                 or -o {stem}/, or say with --form what {output} is to be (images are compressed \
                 already)"
            ))
        }
    }
}

/// Refuses a place where something else than a bundle would be lost.
pub(super) fn check_place(output: &Path, form: Form) -> Result<(), SignerError> {
    match form {
        Form::Stdout if std::io::stdout().is_terminal() => {
            let text = "standard output is a terminal: send the tar to a file or a program";
            Err(SignerError::Usage(text.to_owned()))
        }
        Form::Stdout => Ok(()),
        Form::Tar if output.symlink_metadata().is_err() => Ok(()),
        Form::Tar => match Archive::open(output) {
            Ok(_) => Ok(()),
            Err(_) => Err(exists(output, "is no bundle")),
        },
        Form::Directory => check_directory(output),
    }
}

fn check_directory(output: &Path) -> Result<(), SignerError> {
    let Ok(mut entries) = output.read_dir() else {
        return match output.symlink_metadata() {
            Ok(_) => Err(exists(output, "is no directory")),
            Err(_) => Ok(()),
        };
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let Ok(layout) = LayoutDir::open(output) else {
        return Err(exists(output, "holds other files"));
    };
    let index = layout.index().map_err(super::layout_error)?;
    let states = index.manifests.iter().filter_map(reference_of);
    // A repository keeps its older states; a bundle has none.
    if states.into_iter().any(|name| name.contains("tuf:ts-")) {
        return Err(exists(output, "is a repository"));
    }
    Ok(())
}

fn exists(output: &Path, what: &str) -> SignerError {
    let text = format!("{} exists and {what}: choose another name, or remove it", output.display());
    SignerError::Exists(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_says_the_form() {
        let tar = "usb.tar";
        for (output, is_directory, given, expected) in [
            (tar, false, None, Some(Form::Tar)),
            ("a.b/usb.tar", false, None, Some(Form::Tar)),
            ("usb", false, None, Some(Form::Directory)),
            ("usb/", false, None, Some(Form::Directory)),
            ("usb.d/", false, None, Some(Form::Directory)),
            ("usb.oci", true, None, Some(Form::Directory)),
            ("usb-1.1.0", false, None, Some(Form::Directory)),
            ("-", false, None, Some(Form::Stdout)),
            ("usb.tar.gz", false, None, None),
            ("usb.TAR", false, None, None),
            ("usb.oci", false, None, None),
            ("usb.zip", false, None, None),
            ("usb.TAR", false, Some(Form::Tar), Some(Form::Tar)),
            (tar, false, Some(Form::Directory), Some(Form::Directory)),
        ] {
            assert_eq!(form_of(output, is_directory, given).ok(), expected, "{output}");
        }
    }

    #[test]
    fn a_refused_ending_says_what_works() {
        let text = form_of("media/usb.tar.gz", false, None).unwrap_err();
        assert!(text.contains("-o media/usb.tar or -o media/usb/"), "{text}");
    }
}
