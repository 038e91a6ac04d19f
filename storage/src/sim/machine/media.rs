//! What lies on all media of a machine: devices, and folders of files.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pages::Pages;

/// A device, file or folder of a machine.
pub(super) type ObjectId = usize;

/// Bytes that the media here write as one.
pub const SECTOR: usize = 512;

/// What a program asked a medium for, and what a power cut may leave undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Bytes of a device or file.
    Write {
        /// Which.
        object: usize,
        /// Where.
        offset: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// Everything asked of that device, file or folder before became durable.
    Sync {
        /// Which.
        object: usize,
    },
    /// A name in a folder begins to stand for a file or folder.
    Enter {
        /// Where.
        folder: usize,
        /// The name.
        name: String,
        /// What it stands for now.
        object: usize,
        /// Whether that is a folder.
        is_folder: bool,
    },
    /// A file takes another name in one step, in the same folder or another one.
    Rename {
        /// Where it was.
        folder: usize,
        /// The old name.
        from: String,
        /// Where it goes: the folder whose flush makes it durable.
        into: usize,
        /// The new name.
        to: String,
        /// The file.
        object: usize,
    },
    /// A file becomes as young as one just written.
    Touch {
        /// Which.
        object: usize,
    },
    /// A name is gone.
    Unlink {
        /// Where.
        folder: usize,
        /// The name.
        name: String,
    },
}

impl Operation {
    /// Whose sync makes it durable.
    pub(super) fn medium(&self) -> ObjectId {
        match self {
            Operation::Write { object, .. }
            | Operation::Touch { object }
            | Operation::Sync { object } => *object,
            Operation::Rename { into: folder, .. }
            | Operation::Enter { folder, .. }
            | Operation::Unlink { folder, .. } => *folder,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Object {
    Bytes(Pages),
    Folder { entries: BTreeMap<String, ObjectId>, fat: bool },
}

/// Everything that survives a power cut. Copies share what they have in common.
#[derive(Debug, Clone, Default)]
pub struct Media {
    pub(super) objects: Vec<Arc<Object>>,
    paths: Arc<BTreeMap<PathBuf, ObjectId>>,
    /// Names that files lost when they moved to another folder. A journal that has the move has what
    /// came before it: such a name does not come back.
    moved: Arc<BTreeSet<(ObjectId, String, ObjectId)>>,
    /// Unix seconds: what is written, is written now.
    pub(super) clock: u64,
}

impl Media {
    /// No medium at all.
    pub fn new() -> Self {
        Media::default()
    }

    /// The same at another time.
    pub(super) fn at(&self, now: u64) -> Media {
        let mut media = self.clone();
        media.clock = now;
        media
    }

    fn add(&mut self, path: &str, object: Object) {
        let id = self.objects.len();
        self.objects.push(Arc::new(object));
        Arc::make_mut(&mut self.paths).insert(path.into(), id);
    }

    /// Adds a device, or a file that is used in place, with these bytes.
    #[must_use]
    pub fn with_bytes(mut self, path: &str, bytes: &[u8]) -> Self {
        self.add(path, Object::Bytes(Pages::of(bytes)));
        self
    }

    /// Adds an empty folder of a file system that renames in one step.
    #[must_use]
    pub fn with_folder(mut self, path: &str) -> Self {
        self.add(path, Object::Folder { entries: BTreeMap::new(), fat: false });
        self
    }

    /// Adds an empty folder on FAT, where a rename is two steps.
    #[must_use]
    pub fn with_fat_folder(mut self, path: &str) -> Self {
        self.add(path, Object::Folder { entries: BTreeMap::new(), fat: true });
        self
    }

    /// The bytes of a device or of a file that was added by its path.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        self.pages(self.find(Path::new(path))?).map(Pages::to_vec)
    }

    /// Bytes of a device.
    pub fn read(&self, path: &str, offset: u64, buf: &mut [u8]) {
        if let Some(pages) = self.find(Path::new(path)).and_then(|id| self.pages(id)) {
            pages.read(offset, buf);
        }
    }

    /// Changes bytes of a device, for tests that damage it.
    pub fn put(&mut self, path: &str, offset: u64, bytes: &[u8]) {
        if let Some(object) = self.find(Path::new(path)) {
            self.apply(&Operation::Write { object, offset, bytes: bytes.into() });
        }
    }

    /// A hash of a part of a device; `offset` is a multiple of 4096.
    pub fn hash_of(&self, path: &str, offset: u64, len: u64) -> u64 {
        let pages = self.find(Path::new(path)).and_then(|id| self.pages(id));
        pages.map_or(0, |pages| pages.hash_of(offset, len))
    }

    /// A hash of everything; temporary files, which the next run removes, do not count.
    pub fn hash(&self) -> u64 {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        for (path, id) in self.paths.iter() {
            path.hash(&mut hasher);
            self.hash_object(*id, &mut hasher);
        }
        hasher.finish()
    }

    fn hash_object(&self, id: ObjectId, hasher: &mut impl std::hash::Hasher) {
        match self.objects.get(id).map(Arc::as_ref) {
            Some(Object::Bytes(pages)) => pages.hash().hash(hasher),
            Some(Object::Folder { entries, .. }) => {
                for (name, id) in entries.iter().filter(|(name, _)| !name.starts_with('.')) {
                    name.hash(hasher);
                    self.hash_object(*id, hasher);
                }
                0_u8.hash(hasher);
            }
            None => {}
        }
    }

    pub(super) fn find(&self, path: &Path) -> Option<ObjectId> {
        self.paths.get(path).copied()
    }

    pub(super) fn pages(&self, id: ObjectId) -> Option<&Pages> {
        match self.objects.get(id).map(Arc::as_ref) {
            Some(Object::Bytes(pages)) => Some(pages),
            _ => None,
        }
    }

    pub(super) fn entries(&self, id: ObjectId) -> Option<(&BTreeMap<String, ObjectId>, bool)> {
        match self.objects.get(id).map(Arc::as_ref) {
            Some(Object::Folder { entries, fat }) => Some((entries, *fat)),
            _ => None,
        }
    }

    /// One object becomes what it is elsewhere.
    pub(super) fn copy_object(&mut self, id: ObjectId, from: &Media) {
        self.make_room(id);
        let empty = || Arc::new(Object::Bytes(Pages::default()));
        self.objects[id] = from.objects.get(id).map_or_else(empty, Arc::clone);
    }

    /// What an object is called in a story.
    pub fn name_of(&self, id: usize) -> String {
        if let Some((path, _)) = self.paths.iter().find(|(_, found)| **found == id) {
            return path.display().to_string();
        }
        for (folder, object) in self.objects.iter().enumerate() {
            if let Object::Folder { entries, .. } = object.as_ref()
                && let Some((name, _)) = entries.iter().find(|(_, found)| **found == id)
            {
                return format!("{}/{name}", self.name_of(folder));
            }
        }
        format!("file #{id}")
    }

    /// Does one operation; a sync changes nothing here.
    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write { object, offset, bytes } => {
                self.make_room(*object);
                let clock = self.clock;
                if let Object::Bytes(pages) = Arc::make_mut(&mut self.objects[*object]) {
                    pages.write(*offset, bytes);
                    pages.modified = clock;
                }
            }
            Operation::Touch { object } => {
                self.make_room(*object);
                let clock = self.clock;
                if let Object::Bytes(pages) = Arc::make_mut(&mut self.objects[*object]) {
                    pages.modified = clock;
                }
            }
            Operation::Sync { .. } => {}
            Operation::Enter { folder, name, object, is_folder } => {
                self.make_room(*object);
                if *is_folder && self.entries(*object).is_none() {
                    let new = Object::Folder { entries: BTreeMap::new(), fat: false };
                    self.objects[*object] = Arc::new(new);
                }
                if !self.moved.is_empty() && self.moved.contains(&(*folder, name.clone(), *object))
                {
                    return;
                }
                self.with_entries(*folder, |entries| entries.insert(name.clone(), *object));
            }
            Operation::Rename { folder, from, into, to, object } => {
                self.make_room(*object);
                self.with_entries(*folder, |entries| {
                    if entries.get(from) == Some(object) {
                        entries.remove(from);
                    }
                });
                if folder != into {
                    Arc::make_mut(&mut self.moved).insert((*folder, from.clone(), *object));
                }
                self.with_entries(*into, |entries| entries.insert(to.clone(), *object));
            }
            Operation::Unlink { folder, name } => {
                self.with_entries(*folder, |entries| entries.remove(name));
            }
        }
    }

    /// Writes to a file whose creation was lost have no effect: no name leads to it.
    fn make_room(&mut self, id: ObjectId) {
        while self.objects.len() <= id {
            let mut pages = Pages::default();
            pages.modified = self.clock;
            self.objects.push(Arc::new(Object::Bytes(pages)));
        }
    }

    fn with_entries<T>(
        &mut self,
        folder: ObjectId,
        change: impl FnOnce(&mut BTreeMap<String, ObjectId>) -> T,
    ) {
        self.make_room(folder);
        // A folder whose own making was lost: what was in it is lost as well.
        if let Object::Folder { entries, .. } = Arc::make_mut(&mut self.objects[folder]) {
            change(entries);
        }
    }

    /// Every file and device with its bytes, for a report: `path` or `folder/name`.
    pub fn dump(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        for (path, id) in self.paths.iter() {
            self.dump_object(&path.display().to_string(), *id, &mut all);
        }
        all
    }

    fn dump_object(&self, path: &str, id: ObjectId, all: &mut Vec<(String, Vec<u8>)>) {
        match self.objects.get(id).map(Arc::as_ref) {
            Some(Object::Bytes(pages)) => all.push((path.to_owned(), pages.to_vec())),
            Some(Object::Folder { entries, .. }) => {
                all.push((format!("{path}/"), Vec::new()));
                for (name, id) in entries {
                    self.dump_object(&format!("{path}/{name}"), *id, all);
                }
            }
            None => {}
        }
    }

    /// The same media with the content of a dump: what is not in it is gone. Files that are as they
    /// were keep their age, others are written now.
    #[must_use]
    pub fn restored(&self, dump: &[(String, Vec<u8>)]) -> Media {
        let mut media = self.clone();

        for (path, id) in self.paths.iter() {
            let path = path.display().to_string();
            let object = match self.entries(*id) {
                None => {
                    let found = dump.iter().find(|(name, _)| *name == path);
                    Object::Bytes(Pages::of(found.map_or(&[], |(_, bytes)| bytes)))
                }
                Some((_, fat)) => {
                    let entries = media.restored_entries(&format!("{path}/"), dump);
                    Object::Folder { entries, fat }
                }
            };
            media.objects[*id] = Arc::new(object);
        }
        let before: BTreeMap<String, Arc<Object>> = self.by_path();
        for (path, object) in media.by_path() {
            let same = before.get(&path).and_then(|old| match (old.as_ref(), object.as_ref()) {
                (Object::Bytes(old), Object::Bytes(new)) if old.hash() == new.hash() => Some(old),
                _ => None,
            });
            let modified = same.map_or(self.clock, |old| old.modified);
            let found = media.objects.iter().position(|it| Arc::ptr_eq(it, &object));
            drop(object);
            if let Some(found) = found
                && let Object::Bytes(pages) = Arc::make_mut(&mut media.objects[found])
            {
                pages.modified = modified;
            }
        }
        media.clock = self.clock;
        media
    }

    fn by_path(&self) -> BTreeMap<String, Arc<Object>> {
        let mut all = BTreeMap::new();
        let mut open: Vec<(String, ObjectId)> =
            self.paths.iter().map(|(path, id)| (path.display().to_string(), *id)).collect();
        while let Some((path, id)) = open.pop() {
            let Some(object) = self.objects.get(id) else { continue };
            if let Object::Folder { entries, .. } = object.as_ref() {
                open.extend(entries.iter().map(|(name, id)| (format!("{path}/{name}"), *id)));
            }
            all.insert(path, Arc::clone(object));
        }
        all
    }

    fn restored_entries(
        &mut self,
        prefix: &str,
        dump: &[(String, Vec<u8>)],
    ) -> BTreeMap<String, ObjectId> {
        let mut entries = BTreeMap::new();
        for (path, bytes) in dump {
            let Some(name) = path.strip_prefix(prefix) else { continue };
            let object = match name.strip_suffix('/') {
                _ if name.is_empty() => continue,
                Some(folder) if !folder.contains('/') => {
                    let entries = self.restored_entries(path, dump);
                    entries_object(entries)
                }
                None if !name.contains('/') => Object::Bytes(Pages::of(bytes)),
                _ => continue,
            };
            let id = self.objects.len();
            self.objects.push(Arc::new(object));
            entries.insert(name.trim_end_matches('/').to_owned(), id);
        }
        entries
    }
}

fn entries_object(entries: BTreeMap<String, ObjectId>) -> Object {
    Object::Folder { entries, fat: false }
}
