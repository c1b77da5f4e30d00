//! Text from outside, made safe to print.

use std::fmt;
use std::io;

use unicode_width::UnicodeWidthChar;

/// How many characters of a foreign text a message quotes.
const EXCERPT: usize = 60;
/// The widest error in a line, in columns.
const MAX_ERROR: usize = 160;

/// Writes a line to standard error, in place of `eprintln!`, which panics where nobody reads it any
/// more: what was to be ended then would go on.
#[macro_export]
macro_rules! tell {
    ($($argument:tt)*) => { $crate::text::tell(format_args!($($argument)*)) };
}

/// What [`tell!`](crate::tell) does.
pub fn tell(line: fmt::Arguments<'_>) {
    tell_to(&mut io::stderr().lock(), line);
}

fn tell_to(out: &mut impl io::Write, line: fmt::Arguments<'_>) {
    // In one piece, so that lines of several processes do not mix. Who has gone misses nothing.
    let _ = out.write_all(format!("{line}\n").as_bytes());
}

/// `text` without anything that moves a cursor, changes colours, rings a bell or reverses the
/// direction of writing; such characters are shown as escapes.
///
/// ```
/// assert_eq!(longshore::text::clean("a\x1b[31mb\n"), "a\\u{1b}[31mb\\n");
/// ```
pub fn clean(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// The beginning of a foreign text, for quoting in a message.
pub fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(EXCERPT).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The number of terminal columns that a clean text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// A clean text cut in the middle to at most `columns` terminal columns, since names often differ
/// at both ends.
///
/// ```
/// assert_eq!(longshore::text::fit("abcdefghij", 7), "abc…hij");
/// ```
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(1);
    let head = take(text.chars(), room - room / 2);
    let mut tail: Vec<char> = take(text.chars().rev(), room / 2);
    tail.reverse();
    let ellipsis = (columns > 0).then_some('…');
    head.into_iter().chain(ellipsis).chain(tail).collect()
}

/// What went wrong, in one clean line that can be read at a glance: of a longer one its middle is
/// left out, since the cause is often at its end.
pub fn brief(error: &str) -> String {
    fit(&clean(error), MAX_ERROR)
}

/// The first characters that together take at most `columns`.
fn take(chars: impl Iterator<Item = char>, columns: usize) -> Vec<char> {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_in_a_name_reaches_the_terminal_as_a_command() {
        assert_eq!(clean("plain ü 漢"), "plain ü 漢");
        assert_eq!(clean("\x1b]0;t\x07"), "\\u{1b}]0;t\\u{7}");
        assert_eq!(clean("\u{9b}2J"), "\\u{9b}2J");
        assert_eq!(clean("a\r\tb"), "a\\r\\tb");
        assert_eq!(clean("x\u{202e}y"), "x\\u{202e}y");
    }

    #[test]
    fn a_long_error_keeps_its_beginning_and_its_end() {
        assert_eq!(brief("short"), "short");
        let long = format!("cannot pull: {}: connection refused", "x".repeat(500));
        let text = brief(&long);
        assert_eq!(width(&text), MAX_ERROR);
        assert!(text.starts_with("cannot pull: ") && text.ends_with(": connection refused"));
    }

    proptest! {
        #[test]
        fn what_fits_is_never_wider(text in "\\PC{0,40}", columns in 0usize..30) {
            let text = clean(&text);
            let short = fit(&text, columns);
            prop_assert!(width(&short) <= columns);
            prop_assert!(width(&text) > columns || short == text);
        }

        #[test]
        fn clean_text_is_clean(text in any::<String>()) {
            prop_assert!(!clean(&text).chars().any(is_unsafe));
        }
    }
}
