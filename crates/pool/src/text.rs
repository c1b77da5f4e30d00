//! Texts from outside, bounded: a provider, a host or a runner may say a megabyte.

/// The longest text that is kept of an error, in characters.
pub(crate) const MAX_TEXT: usize = 1024;

/// A text as one line of at most [`MAX_TEXT`] characters; a cut is shown by an ellipsis.
pub(crate) fn one_line(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut chars = text.chars().map(clean);
    let mut line: String = chars.by_ref().take(MAX_TEXT - 1).collect();
    if let Some(last) = chars.next() {
        line.push(if chars.next().is_some() { '…' } else { last });
    }
    line
}

/// Makes a text one line, in place; cheap where it is one.
pub(crate) fn cut(text: &mut String) {
    if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        *text = one_line(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_bounded_line() {
        assert_eq!(one_line("a\nb\r\u{1b}[2Jc"), "a b  [2Jc");
        let exact = "é".repeat(MAX_TEXT);
        assert_eq!(one_line(&exact), exact);
        let mut long = "é".repeat(1 << 20);
        cut(&mut long);
        assert_eq!(long.chars().count(), MAX_TEXT);
        assert!(long.ends_with('…'));
        let mut short = "well".to_owned();
        cut(&mut short);
        assert_eq!(short, "well");
    }
}
