//! Kinds of calls as indices.

use longshore_cloud::Operation;

/// How many kinds of calls are told apart.
pub(crate) const KINDS: usize = 6;

/// One of the kinds for each index.
pub(crate) const ALL: [Operation; KINDS] = [
    Operation::Destroy,
    Operation::Create,
    Operation::List,
    Operation::SetTags,
    Operation::VerifyHostKey,
    Operation::Other,
];

/// The index of a kind; what is not known counts as [`Operation::Other`].
pub(crate) fn index(operation: Operation) -> usize {
    ALL.iter()
        .position(|known| *known == operation)
        .unwrap_or(KINDS - 1)
}

/// One value for each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerKind<T>([T; KINDS]);

impl<T> PerKind<T> {
    pub(crate) fn from_fn(make: impl FnMut(usize) -> T) -> Self {
        Self(std::array::from_fn(make))
    }

    pub(crate) fn of(&self, operation: Operation) -> &T {
        &self.0[index(operation)]
    }

    pub(crate) fn of_mut(&mut self, operation: Operation) -> &mut T {
        &mut self.0[index(operation)]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Operation, &T)> {
        ALL.into_iter().zip(self.0.iter())
    }
}
