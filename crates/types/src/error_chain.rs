//! Errors as one line.

use std::error::Error;

/// An error and its causes as one line, for logs and for people.
///
/// ```
/// use longshore_types::{ByteSize, error_chain};
/// let error = "12 parsecs".parse::<ByteSize>().unwrap_err();
/// assert!(error_chain(&error).starts_with(&error.to_string()));
/// ```
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
