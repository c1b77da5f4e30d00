//! Values of keys: what is expected is read, what is not is told.
//!
//! Everything is looked at, so that all problems are found at once; what is wrong becomes
//! [`Field::Bad`], which later steps leave alone.

use longshore_types::ByteSize;

use super::problem::{Position, Problems};
use super::tree::{Entry, Node, Scalar, Value};
use crate::text::excerpt;

/// A value of a key that may be missing or wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Field<T> {
    #[default]
    Absent,
    /// There, but wrong; the problem is noted.
    Bad,
    Good {
        value: T,
        at: Position,
    },
}

impl<T> Field<T> {
    pub(crate) fn new(value: Option<T>, at: Position) -> Self {
        value.map_or(Self::Bad, |value| Self::Good { value, at })
    }

    /// This, or the default where this is absent.
    pub(crate) fn or(self, default: &Self) -> Self
    where
        T: Clone,
    {
        match self {
            Self::Absent => default.clone(),
            given => given,
        }
    }

    pub(crate) fn good(&self) -> Option<&T> {
        match self {
            Self::Good { value, .. } => Some(value),
            Self::Absent | Self::Bad => None,
        }
    }

    pub(crate) fn at(&self) -> Option<Position> {
        match self {
            Self::Good { at, .. } => Some(*at),
            Self::Absent | Self::Bad => None,
        }
    }
}

/// A text and where it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Text<'n> {
    pub(crate) text: &'n str,
    pub(crate) at: Position,
}

pub(crate) fn size(node: &Node<'_>, problems: &mut Problems) -> Field<ByteSize> {
    let Some(Text { text, at }) = text(node, "a size like 512MiB or 2G", problems) else {
        return Field::Bad;
    };
    let size = text.parse::<ByteSize>();
    let size = size
        .map_err(|error| problems.add(at, error.to_string()))
        .ok();
    Field::new(size, at)
}

pub(crate) fn number<T: TryFrom<u64>>(
    node: &Node<'_>,
    range: std::ops::RangeInclusive<u64>,
    problems: &mut Problems,
) -> Field<T> {
    let parsed = match node.value() {
        Value::Scalar(Scalar { text, plain: true }) => text.parse::<u64>().ok(),
        _ => None,
    };
    let value = parsed
        .filter(|n| range.contains(n))
        .and_then(|n| T::try_from(n).ok());
    if value.is_none() {
        let (low, high, found) = (range.start(), range.end(), node.describe());
        let message = format!("expected a whole number from {low} to {high}, found {found}");
        problems.add(node.at, message);
    }
    Field::new(value, node.at)
}

pub(crate) fn boolean(node: &Node<'_>, problems: &mut Problems) -> Field<bool> {
    let value = match node.value() {
        Value::Scalar(Scalar { text, plain: true }) => text.parse::<bool>().ok(),
        _ => None,
    };
    if value.is_none() {
        let found = node.describe();
        problems.add(node.at, format!("expected true or false, found {found}"));
    }
    Field::new(value, node.at)
}

pub(crate) fn text_field<'n>(node: &'n Node<'_>, problems: &mut Problems) -> Field<Text<'n>> {
    Field::new(text(node, "a text", problems), node.at)
}

pub(crate) fn texts<'n>(
    items: &'n [Node<'_>],
    expected: &str,
    problems: &mut Problems,
) -> Option<Vec<Text<'n>>> {
    // All are looked at before the first bad one decides.
    let all: Vec<_> = items
        .iter()
        .map(|item| text(item, expected, problems))
        .collect();
    all.into_iter().collect()
}

pub(crate) fn text<'n>(
    node: &'n Node<'_>,
    expected: &str,
    problems: &mut Problems,
) -> Option<Text<'n>> {
    match node.value() {
        Value::Scalar(scalar) if !scalar.is_null() => {
            if scalar.text.contains('\0') {
                let message = "has a NUL byte, which nothing here can hold; remove it";
                problems.add(node.at, message);
                return None;
            }
            let (text, at) = (&*scalar.text, node.at);
            Some(Text { text, at })
        }
        _ => {
            let found = node.describe();
            problems.add(node.at, format!("expected {expected}, found {found}"));
            None
        }
    }
}

pub(crate) fn list<'n, 'a>(
    node: &'n Node<'a>,
    expected: &str,
    problems: &mut Problems,
) -> Option<&'n [Node<'a>]> {
    if let Value::List(items) = node.value() {
        return Some(items);
    }
    let found = node.describe();
    problems.add(node.at, format!("expected {expected}, found {found}"));
    None
}

pub(crate) fn mapping<'n, 'a>(
    node: &'n Node<'a>,
    expected: &str,
    problems: &mut Problems,
) -> Option<&'n [Entry<'a>]> {
    if let Value::Map(entries) = node.value() {
        return Some(entries);
    }
    let found = node.describe();
    problems.add(node.at, format!("expected {expected}, found {found}"));
    None
}

/// The known key that is written most like this one, if any is.
pub(crate) fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let key = excerpt(key).to_lowercase();
    let likeness = |known: &str| strsim::jaro_winkler(&key, &known.to_lowercase());
    let nearest = known
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest.copied().filter(|known| likeness(known) >= 0.8)
}
