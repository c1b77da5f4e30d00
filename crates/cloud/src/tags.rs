//! Tags, shared.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

type Map = BTreeMap<String, String>;

/// Tags of an instance: names and values. Cheap to clone, since clones share them until one is
/// changed: a listing of thousands of instances is not a copy of all of their tags.
///
/// ```
/// use longshore_cloud::Tags;
/// let tags = Tags::from([("SetID".to_owned(), "mine".to_owned())]);
/// let mut more = tags.clone();
/// more.insert("Owner".into(), "me".into());
/// assert_eq!((tags.len(), more.len()), (1, 2));
/// assert_eq!(more.get("SetID").map(String::as_str), Some("mine"));
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Map", into = "Map")]
pub struct Tags(Arc<Map>);

impl Tags {
    /// No tags.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Deref for Tags {
    type Target = Map;

    fn deref(&self) -> &Map {
        &self.0
    }
}

impl DerefMut for Tags {
    fn deref_mut(&mut self) -> &mut Map {
        Arc::make_mut(&mut self.0)
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Map> for Tags {
    fn from(map: Map) -> Self {
        Self(Arc::new(map))
    }
}

impl From<Tags> for Map {
    fn from(tags: Tags) -> Self {
        Arc::unwrap_or_clone(tags.0)
    }
}

impl<const N: usize> From<[(String, String); N]> for Tags {
    fn from(pairs: [(String, String); N]) -> Self {
        Map::from(pairs).into()
    }
}

impl FromIterator<(String, String)> for Tags {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Map::from_iter(pairs).into()
    }
}

impl IntoIterator for Tags {
    type Item = (String, String);
    type IntoIter = btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        Map::from(self).into_iter()
    }
}

impl<'a> IntoIterator for &'a Tags {
    type Item = (&'a String, &'a String);
    type IntoIter = btree_map::Iter<'a, String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_until_one_is_changed() {
        let tags = Tags::from([("a".to_owned(), "1".to_owned())]);
        let mut other = tags.clone();
        assert!(Arc::ptr_eq(&tags.0, &other.0) && tags == other);
        other.insert("a".into(), "2".into());
        assert_eq!((tags["a"].as_str(), other["a"].as_str()), ("1", "2"));
    }

    #[test]
    fn they_are_written_as_a_map() {
        let tags = Tags::from([("a".to_owned(), "1".to_owned())]);
        let text = serde_json::to_string(&tags).unwrap();
        assert_eq!(text, r#"{"a":"1"}"#);
        assert_eq!(serde_json::from_str::<Tags>(&text).unwrap(), tags);
    }
}
