//! Identifiers.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A text that is not a container UUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a container UUID: expected 27 characters like zzzzz-dz642-0123456789abcde")]
pub struct ParseUuidError(String);

/// The UUID of a container: five characters of cluster, `dz642`, and fifteen characters, each of
/// `[a-z0-9]`, joined by dashes; 27 bytes, kept inline.
///
/// ```
/// use longshore_types::ContainerUuid;
/// let uuid: ContainerUuid = "zzzzz-dz642-0123456789abcde".parse().unwrap();
/// assert_eq!(uuid.to_string(), "zzzzz-dz642-0123456789abcde");
/// assert_eq!(uuid.as_bytes(), b"zzzzz-dz642-0123456789abcde");
/// assert!("zzzzz-dz642-../../etc/passwd".parse::<ContainerUuid>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerUuid([u8; Self::LEN]);

impl ContainerUuid {
    /// The length of the text form in bytes.
    pub const LEN: usize = 27;

    /// A UUID made of a cluster prefix and 15 characters chosen by `random`, of which each byte
    /// is reduced to `[a-z0-9]`.
    ///
    /// A prefix that is not five characters of `[a-z0-9]` is an error.
    pub fn generate(cluster: &str, random: [u8; 15]) -> Result<Self, ParseUuidError> {
        const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let tail: String = random
            .iter()
            .map(|&b| char::from(ALPHABET[usize::from(b) % 36]))
            .collect();
        format!("{cluster}-dz642-{tail}").parse()
    }

    /// The bytes of the text form, all of them ASCII.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        // The bytes were checked to be ASCII when the value was made.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Ord for ContainerUuid {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        // As the bytes are ordered, a good many at a time: the last ones, which seldom are the same,
        // only where the first ones are.
        let first = |uuid: &Self| uuid.0.first_chunk().copied().map(u128::from_be_bytes);
        let last = |uuid: &Self| uuid.0.last_chunk().copied().map(u128::from_be_bytes);
        first(self)
            .cmp(&first(other))
            .then_with(|| last(self).cmp(&last(other)))
    }
}

impl PartialOrd for ContainerUuid {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for ContainerUuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        let error = || ParseUuidError(text.chars().take(64).collect());
        let bytes: [u8; Self::LEN] = text.as_bytes().try_into().map_err(|_| error())?;
        let valid = bytes.iter().enumerate().all(|(i, &b)| match i {
            5 | 11 => b == b'-',
            6..=10 => b == b"dz642"[i - 6],
            _ => b.is_ascii_lowercase() || b.is_ascii_digit(),
        });
        if valid { Ok(Self(bytes)) } else { Err(error()) }
    }
}

impl TryFrom<String> for ContainerUuid {
    type Error = ParseUuidError;

    fn try_from(text: String) -> Result<Self, ParseUuidError> {
        text.parse()
    }
}

impl From<ContainerUuid> for String {
    fn from(uuid: ContainerUuid) -> Self {
        uuid.as_str().to_owned()
    }
}

impl fmt::Display for ContainerUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ContainerUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The number of one attempt to run a container; each lock makes a new, larger one.
///
/// A runner refuses an attempt that is not newer than the last one it has seen of a container,
/// so a start that arrives late, or twice, runs nothing twice.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many bytes of a text are kept beside it.
const HEAD: usize = 16;

/// The first bytes of a text: ordered as the texts are, where they differ.
fn head(text: &str) -> u128 {
    let mut head = [0; HEAD];
    for (to, from) in head.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    u128::from_be_bytes(head)
}

macro_rules! shared_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $name {
            /// The first bytes of the text, beside it because a comparison seldom needs more.
            head: u128,
            text: Arc<str>,
        }

        impl $name {
            /// Wraps a text; nothing is checked.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                let text = text.into();
                let head = head(&text);
                Self { head, text }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.text
            }

            /// The text, shared with this one.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.text)
            }
        }

        impl PartialEq for $name {
            #[inline]
            fn eq(&self, other: &Self) -> bool {
                let same = self.head == other.head && self.text.len() == other.text.len();
                same && (self.text.len() <= HEAD || self.text == other.text)
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            #[inline]
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            #[inline]
            fn cmp(&self, other: &Self) -> Ordering {
                let (one, two) = (self.text.len(), other.text.len());
                match self.head.cmp(&other.head) {
                    // Nothing is left of either: the shorter one is the beginning of the other.
                    Ordering::Equal if one.max(two) <= HEAD => one.cmp(&two),
                    Ordering::Equal => self.text.cmp(&other.text),
                    different => different,
                }
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.text.hash(state);
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

shared_text! {
    /// The provider's identifier of an instance; opaque, cheap to clone.
    InstanceId
}

shared_text! {
    /// The configured name of an instance type (not the provider's name); cheap to clone.
    TypeName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_uuids_parse() {
        assert!(
            "zzzzz-dz642-abcdefghij01234"
                .parse::<ContainerUuid>()
                .is_ok()
        );
        for bad in [
            "",
            "zzzzz-dz642-abcdefghij0123",
            "zzzzz-dz642-abcdefghij012345",
            "zzzzz-xvhdp-abcdefghij01234",
            "ZZZZZ-dz642-abcdefghij01234",
            "zzzzz-dz642-abcdefghij/1234",
            "zzzzz-dz642-abcdefghij0123\n",
            "zzzzz_dz642-abcdefghij01234",
        ] {
            assert!(bad.parse::<ContainerUuid>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn uuids_are_ordered_as_their_bytes_are() {
        let texts = [
            "aaaaa-dz642-000000000000000",
            "aaaaa-dz642-000000000000001",
            "aaaaa-dz642-000000100000000",
            "aaaaa-dz642-00001z000000000",
            "aaaaa-dz642-0000z0000000000",
            "aaaaa-dz642-z00000000000000",
            "aaaab-dz642-000000000000000",
            "zaaaa-dz642-000000000000000",
        ];
        let uuids = texts.map(|text| text.parse::<ContainerUuid>().unwrap());
        for a in &uuids {
            for b in &uuids {
                assert_eq!(a.cmp(b), a.as_bytes().cmp(b.as_bytes()), "{a} {b}");
            }
        }
    }

    #[test]
    fn names_are_ordered_as_their_texts_are() {
        let texts = [
            "",
            "\0",
            "i-1",
            "i-1\0",
            "i-1\0\0",
            "i-10",
            "i-2",
            "i-0123456789abcd",
            "i-0123456789abcd\0",
            "i-0123456789abcdef0",
            "i-0123456789abcdef1",
            "\u{e9}t\u{e9}",
        ];
        for a in texts {
            for b in texts {
                let (name, other) = (InstanceId::from(a), InstanceId::from(b));
                assert_eq!(name.cmp(&other), a.cmp(b), "{a:?} {b:?}");
                assert_eq!(name == other, a == b, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn generated_uuids_parse_back() {
        let uuid = ContainerUuid::generate("local", [255; 15]).unwrap();
        assert_eq!(uuid.as_str().parse::<ContainerUuid>().unwrap(), uuid);
        assert!(ContainerUuid::generate("lo-al", [0; 15]).is_err());
    }
}
