//! Values that most things leave as they are at first.

use std::ops::{Deref, DerefMut};

/// What a thing has that nothing was done about.
pub(crate) trait Untouched: Sized + PartialEq + 'static {
    const UNTOUCHED: &'static Self;
    fn untouched() -> Self;
}

/// A value that takes no more room than a pointer while it is untouched.
///
/// Writing to it makes room, even if nothing differs afterwards: [`Seldom::tidy`] gives that back.
#[derive(Clone, Debug)]
pub(crate) struct Seldom<T>(Option<Box<T>>);

impl<T: Untouched> Seldom<T> {
    pub(crate) const fn untouched() -> Self {
        Self(None)
    }

    /// The value, if it may be another than the untouched one.
    pub(crate) fn touched_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    pub(crate) fn tidy(&mut self) {
        self.0.take_if(|value| **value == *T::UNTOUCHED);
    }
}

impl<T: Untouched> Deref for Seldom<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::UNTOUCHED)
    }
}

impl<T: Untouched> DerefMut for Seldom<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_with(|| Box::new(T::untouched()))
    }
}
