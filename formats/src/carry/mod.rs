//! What this version does not know of a record, carried through a rewrite.
//!
//! A record is JSON, and the next program that reads it may be older than the one that wrote it: an
//! update brings a new agent, and a revert brings the old one back. What the old one does not know is
//! kept as it was written, text for text, as long as the thing it describes is the same.
//!
//! ```text
//!  stored    the payload on the medium      {"slots":…,"update":{…,"quorum":3},"later":{}}
//!  before    what this version read of it   {"slots":…,"update":{…}}
//!  after     what this version writes       {"slots":…,"update":{… changed}}
//!  carried   after, with the unknown parts  {"slots":…,"update":{… changed,"quorum":3},"later":{}}
//! ```
//!
//! | part of `stored` | carried |
//! |---|---|
//! | a value that `before` and `after` have alike | as it is stored, with all that is in it |
//! | a member that `before` does not have | yes, unless `after` has one of that name |
//! | a member that `before` has and `after` has not | no: this version removed it |
//! | an object whose [identity](IDENTITY) changed | no: what was unknown belonged to the other thing |
//! | an element of a list that `before` does not have | yes, in its place |
//!
//! An unknown member of an object that is changed is carried, too: only the newer version knows whether
//! it still fits, and it has to judge it by the rest of the object.

mod tree;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use self::tree::Tree;

/// Members by which an object is the same one as before: a component by its name, an error by its time.
/// What has a `release` is about that release, which is the same one while its `index` is.
pub const IDENTITY: &[&str] =
    &["index", "version", "slot", "name", "digest", "etag", "at", "event"];

/// `after` with what `stored` has beyond `before`. Bytes that are no JSON have nothing to carry.
pub fn carry(stored: &[u8], before: &[u8], after: &[u8]) -> Vec<u8> {
    if stored == before {
        return after.to_vec();
    }
    match (Tree::parse(stored), Tree::parse(before), Tree::parse(after)) {
        (Some(stored), Some(before), Some(after)) => {
            merge(Some(&stored), Some(&before), &after).to_string().into_bytes()
        }
        _ => after.to_vec(),
    }
}

/// Where `stored` has something that `before` has not: paths such as `update.quorum` or `failures[1]`.
pub fn unread(stored: &[u8], before: &[u8]) -> Vec<String> {
    let mut paths = Vec::new();
    if let (Some(stored), Some(before)) = (Tree::parse(stored), Tree::parse(before)) {
        beyond(&stored, Some(&before), "", &mut paths);
    }
    paths
}

/// For `deserialize_with`: a value that this version cannot read is none. [`carry`] keeps it.
pub fn readable<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(serde_json::from_value(Value::deserialize(from)?).ok())
}

/// For `deserialize_with`: the elements of a list that this version can read. [`carry`] keeps the others.
pub fn readable_elements<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let elements = Vec::<Value>::deserialize(from)?;
    Ok(elements.into_iter().filter_map(|element| serde_json::from_value(element).ok()).collect())
}

fn merge<'a>(stored: Option<&Tree<'a>>, before: Option<&Tree<'a>>, after: &Tree<'a>) -> Tree<'a> {
    match (stored, before, after) {
        (Some(stored), Some(before), after) if before == after => stored.clone(),
        (Some(Tree::Object(stored)), Some(known @ Tree::Object(before)), Tree::Object(new))
            if same_thing(known, after) =>
        {
            merge_members(stored, before, new)
        }
        (Some(Tree::Array(stored)), Some(Tree::Array(before)), Tree::Array(after)) => {
            merge_elements(stored, before, after)
        }
        _ => after.clone(),
    }
}

type Members<'a> = [(&'a str, Tree<'a>)];

fn merge_members<'a>(stored: &Members<'a>, before: &Members<'a>, after: &Members<'a>) -> Tree<'a> {
    let mut members = Vec::new();
    for (name, value) in stored {
        let known = member(before, name);
        match member(after, name) {
            Some(new) => members.push((*name, merge(Some(value), known, new))),
            None if known.is_some() => {}
            None => members.push((*name, value.clone())),
        }
    }
    let added = after.iter().filter(|(name, _)| member(stored, name).is_none());
    members.extend(added.cloned());
    Tree::Object(members)
}

/// Lists lose elements at their beginning or in the middle, and get new ones at their end.
fn merge_elements<'a>(stored: &[Tree<'a>], before: &[Tree<'a>], after: &[Tree<'a>]) -> Tree<'a> {
    let known = align(stored, before);
    let mut elements = Vec::new();
    let (mut at, mut next) = (0, 0);
    for new in after {
        let same = |known: &Tree<'a>| known == new || same_thing(known, new);
        let Some(found) = before[next..].iter().position(same).map(|found| next + found) else {
            // A new one: what is left of the stored ones stands before it.
            push_unread(&mut elements, &stored[at..], &known[at..]);
            (at, next) = (stored.len(), before.len());
            elements.push(new.clone());
            continue;
        };
        let place = known.iter().position(|index| *index == Some(found)).unwrap_or(at);
        push_unread(&mut elements, &stored[at..place], &known[at..place]);
        elements.push(merge(stored.get(place), before.get(found), new));
        (at, next) = (place + 1, found + 1);
    }
    let at = at.min(stored.len());
    push_unread(&mut elements, &stored[at..], &known[at..]);
    Tree::Array(elements)
}

fn push_unread<'a>(to: &mut Vec<Tree<'a>>, stored: &[Tree<'a>], known: &[Option<usize>]) {
    let unread = stored.iter().zip(known).filter(|(_, index)| index.is_none());
    to.extend(unread.map(|(element, _)| element.clone()));
}

/// For each stored element, which of the known ones was read from it. Order is kept by reading.
fn align(stored: &[Tree<'_>], before: &[Tree<'_>]) -> Vec<Option<usize>> {
    let mut next = 0;
    let index = |element: &Tree<'_>| {
        let read = before.get(next).is_some_and(|known| covers(element, known));
        next += usize::from(read);
        read.then(|| next - 1)
    };
    stored.iter().map(index).collect()
}

/// Whether `known` is what this version reads of `stored`: a default stands for what is not there, and
/// nothing for what cannot be read.
fn covers(stored: &Tree<'_>, known: &Tree<'_>) -> bool {
    match (stored, known) {
        (Tree::Object(stored), Tree::Object(known)) => known
            .iter()
            .all(|(name, known)| member(stored, name).is_none_or(|stored| covers(stored, known))),
        (Tree::Array(stored), Tree::Array(known)) => {
            align(stored, known).iter().flatten().count() == known.len()
        }
        (stored, known) => *known == Tree::NULL || same_value(stored, known),
    }
}

fn same_value(one: &Tree<'_>, other: &Tree<'_>) -> bool {
    let value = |tree: &Tree<'_>| serde_json::from_str::<Value>(&tree.to_string()).ok();
    one == other || value(one) == value(other)
}

fn same_thing(before: &Tree<'_>, after: &Tree<'_>) -> bool {
    let (Tree::Object(before), Tree::Object(after)) = (before, after) else { return false };
    let of_release = |object: &Members<'_>| match member(object, "\"release\"") {
        Some(Tree::Object(release)) => member(release, "\"index\"").map(ToString::to_string),
        _ => None,
    };
    let same = |name: &&str| {
        let scalar = |object: &Members<'_>| match member(object, &format!("\"{name}\"")) {
            Some(Tree::Scalar(text)) => Some((*text).to_owned()),
            _ => None,
        };
        scalar(before) == scalar(after)
    };
    of_release(before) == of_release(after) && IDENTITY.iter().all(same)
}

fn member<'t, 'a>(members: &'t Members<'a>, name: &str) -> Option<&'t Tree<'a>> {
    members.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
}

fn beyond(stored: &Tree<'_>, before: Option<&Tree<'_>>, path: &str, paths: &mut Vec<String>) {
    match (stored, before) {
        (Tree::Object(stored), Some(Tree::Object(before))) => {
            for (name, value) in stored {
                let plain = name.trim_matches('"');
                let path = match path {
                    "" => plain.to_owned(),
                    path => format!("{path}.{plain}"),
                };
                beyond(value, member(before, name), &path, paths);
            }
        }
        (Tree::Array(stored), Some(Tree::Array(before))) => {
            for (nth, (value, index)) in stored.iter().zip(align(stored, before)).enumerate() {
                let known = index.and_then(|index| before.get(index));
                beyond(value, known, &format!("{path}[{nth}]"), paths);
            }
        }
        (stored, None) if stored.is_empty() => {}
        (stored, Some(known)) if same_value(stored, known) => {}
        _ => paths.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests;
