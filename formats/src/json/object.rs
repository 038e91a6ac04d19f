//! Named members, in order, at the least memory per member.

use std::fmt;

use super::Value;

/// Members of an object, sorted by the code points of their names, no name twice: the order of
/// the canonical form.
///
/// A sorted list and not a tree: a tree's smallest node takes some 600 bytes, so that an object
/// of one member would grow a hundredfold when it is read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Object(Vec<(String, Value)>);

impl Object {
    /// No members.
    pub fn new() -> Self {
        Object::default()
    }

    /// Members that are sorted and distinct already: what the reader of a canonical text has.
    pub(super) fn from_sorted(members: Vec<(String, Value)>) -> Self {
        Object(members)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a name stands, or would.
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_str().cmp(name))
    }

    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.find(name).ok().and_then(|at| self.0.get(at)).map(|(_, value)| value)
    }

    /// The member of that name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let at = self.find(name).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// Whether there is a member of that name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Sets a member; returns what it replaces.
    pub fn insert(&mut self, name: String, value: Value) -> Option<Value> {
        match self.find(&name) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                self.0.insert(at, (name, value));
                None
            }
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.find(name).ok().map(|at| self.0.remove(at).1)
    }

    /// Takes all members out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps the members that `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Value) -> bool) {
        self.0.retain(|(name, value)| keep(name, value));
    }

    /// Names and values, in order.
    pub fn iter(&self) -> Members<'_> {
        self.into_iter()
    }

    /// Names and values to be changed, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&String, &mut Value)> {
        self.0.iter_mut().map(|(name, value)| (&*name, value))
    }

    /// Names, in order.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.iter().map(|(name, _)| name)
    }

    /// Values, in the order of their names.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.iter().map(|(_, value)| value)
    }

    /// Values to be changed, in the order of their names.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.iter_mut().map(|(_, value)| value)
    }
}

/// Names and values of an [`Object`].
pub type Members<'a> = std::iter::Map<
    std::slice::Iter<'a, (String, Value)>,
    fn(&'a (String, Value)) -> (&'a String, &'a Value),
>;

impl<'a> IntoIterator for &'a Object {
    type Item = (&'a String, &'a Value);
    type IntoIter = Members<'a>;

    fn into_iter(self) -> Members<'a> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl IntoIterator for Object {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Extend<(String, Value)> for Object {
    /// A later member replaces an earlier one of its name.
    fn extend<T: IntoIterator<Item = (String, Value)>>(&mut self, members: T) {
        self.0.extend(members);
        self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        // Of equal names the last one stays: they stand in the order they came.
        self.0.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
    }
}

impl FromIterator<(String, Value)> for Object {
    fn from_iter<T: IntoIterator<Item = (String, Value)>>(members: T) -> Self {
        let mut out = Object::new();
        out.extend(members);
        out
    }
}

impl<const N: usize> From<[(String, Value); N]> for Object {
    fn from(members: [(String, Value); N]) -> Self {
        members.into_iter().collect()
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// It is a map: what `BTreeMap` does with the same calls, it does.
        #[test]
        fn it_is_a_sorted_map(
            first in prop::collection::vec(("[a-c\"\\\\é]{0,2}", any::<i64>()), 0..12),
            then in prop::collection::vec(("[a-c\"\\\\é]{0,2}", any::<i64>(), any::<bool>()), 0..12),
        ) {
            let of = |(name, value): (String, i64)| (name, Value::Int(value));
            let mut object: Object = first.iter().cloned().map(of).collect();
            let mut map: BTreeMap<String, Value> = first.into_iter().map(of).collect();
            for (name, value, insert) in then {
                if insert {
                    let value = Value::Int(value);
                    prop_assert_eq!(object.insert(name.clone(), value.clone()), map.insert(name, value));
                } else {
                    prop_assert_eq!(object.remove(&name), map.remove(&name));
                }
            }
            prop_assert!(object.iter().eq(map.iter()));
            prop_assert!(map.keys().all(|name| object.get(name) == map.get(name)));
        }
    }
}
