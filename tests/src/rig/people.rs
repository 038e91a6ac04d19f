//! People with keys, and the changes of keys that every client has to follow.

use std::fs;

use super::must;
use super::programs::program;
use super::run::Done;
use super::world::World;

/// The folder with the secret keys of people, in the world's folder.
const PEOPLE: &str = "people";

impl World {
    /// `signer key new` for somebody; gives the path of the public half.
    #[track_caller]
    pub fn person(&self, name: &str) -> String {
        must(fs::create_dir_all(self.path(PEOPLE)), "make the folder of the people's keys");
        let out = self.path(PEOPLE).join(name);
        let _done = program("signer").args(["key", "new", "--out"]).arg(&out).ok();
        format!("{}.pub", out.display())
    }

    /// `signer COMMAND` with all keys at hand, of which the metadata choose.
    #[track_caller]
    pub fn with_people<S: AsRef<str>>(&self, command: &[S]) -> Done {
        let command: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
        let mut run = self.signer(&command);
        let people = must(fs::read_dir(self.path(PEOPLE)), "list the people's keys");
        let mut files: Vec<_> = people
            .map(|entry| must(entry, "list the people's keys").path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "key"))
            .collect();
        files.sort();
        for file in files {
            run = run.arg("--key").arg(file);
        }
        run.ok()
    }

    /// What happens to keys in the life of a repository, as commands with their names: each makes
    /// one new root, from the first one of [`World::init`] on.
    #[track_caller]
    pub fn rotations(&self) -> Vec<(&'static str, Vec<String>)> {
        let [a, b, c, d, t, s] = ["a", "b", "c", "d", "t", "s"].map(|name| self.person(name));
        let first = self.path(PEOPLE).join("first.pub");
        must(fs::copy(self.path("keys/root.pub"), &first), "keep the first root key");
        let first = first.display().to_string();
        let targets = self.path("keys/targets.pub").display().to_string();
        let snapshot = self.path("keys/snapshot.pub").display().to_string();
        let timestamp = self.path("keys/timestamp.pub").display().to_string();
        let rotate = |role: &str, options: &[&str]| {
            let all = [&["rotate", "--role", role][..], options].concat();
            all.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let other = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect();
        vec![
            ("keys come", rotate("root", &["--add", &a, "--add", &b])),
            ("threshold up", rotate("root", &["--threshold", "3"])),
            ("one for another", rotate("root", &["--remove", &first, "--add", &c])),
            ("threshold down", rotate("root", &["--threshold", "1"])),
            ("all but one go", rotate("root", &["--remove", &a, "--remove", &b])),
            ("all others", rotate("root", &["--remove", &c, "--add", &d, "--add", &a])),
            ("targets keys", rotate("targets", &["--remove", &targets, "--add", &t])),
            ("targets 2 of 2", rotate("targets", &["--add", &targets, "--threshold", "2"])),
            ("snapshot key", other(&["revoke", &snapshot, "--replace", &s])),
            ("timestamp key", other(&["revoke", &timestamp, "--replace", &s])),
            ("nothing but time", other(&["renew", "root", "targets"])),
        ]
    }
}
