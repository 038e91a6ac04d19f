//! A file that appears under its name when it is whole and durable.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A file that is being written beside the place where it will appear.
///
/// Dropped before it gets its name, it is removed. A crash may leave it, under a name that begins with a dot.
#[derive(Debug)]
pub(crate) struct NewFile {
    place: PathBuf,
    file: tempfile::NamedTempFile,
}

impl NewFile {
    /// An empty file for this place.
    pub(crate) fn of(place: &Path, mode: u32) -> io::Result<Self> {
        let file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(directory_of(place))?;
        Ok(NewFile { place: place.to_owned(), file })
    }

    /// What is written to.
    pub(crate) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Where it is until it has its name.
    #[cfg(feature = "factory")]
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives it its name, which no other file may have.
    pub(crate) fn appear(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist_noclobber(&self.place).map_err(|error| error.error)?;
        sync_directory(&self.place)
    }

    /// Gives it its name, in the place of another file.
    pub(crate) fn replace(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.place).map_err(|error| error.error)?;
        sync_directory(&self.place)
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path)).and_then(|directory| directory.sync_all())
}

/// The directory of a file that may be named alone.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
