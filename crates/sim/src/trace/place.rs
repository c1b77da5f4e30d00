//! Where in a text a value stands.

/// The lines of a text, gone through once.
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Where the current line begins, in bytes.
    byte: usize,
    line: u32,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            byte: 0,
            line: 1,
        }
    }

    /// Goes on to the record that is read from this byte on: empty lines and comments before it
    /// are not it.
    pub(super) fn go_to(&mut self, byte: usize) {
        while self.byte < byte && self.next() {}
        while is_skipped(self.current()) && self.next() {}
    }

    /// To the next line; false if there is none.
    fn next(&mut self) -> bool {
        let rest = self.text.get(self.byte..).unwrap_or_default();
        let Some(length) = rest.find('\n') else {
            return false;
        };
        self.byte += length + 1;
        self.line = self.line.saturating_add(1);
        true
    }

    fn current(&self) -> &'t str {
        let rest = self.text.get(self.byte..).unwrap_or_default();
        rest.split('\n').next().unwrap_or_default()
    }

    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// Where the value at this place of the current line begins, in characters from 1.
    pub(super) fn column_of(&self, place: usize) -> u32 {
        let mut left = place;
        let mut quoted = false;
        let mut begins = 0;
        for (n, c) in self.current().chars().enumerate() {
            if left == 0 && !c.is_whitespace() {
                begins = n;
                break;
            }
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => left = left.saturating_sub(1),
                _ => {}
            }
            begins = n + 1;
        }
        u32::try_from(begins + 1).unwrap_or(u32::MAX)
    }
}

fn is_skipped(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}
