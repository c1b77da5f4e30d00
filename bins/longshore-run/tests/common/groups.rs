//! Control groups that a failed test leaves; the end-to-end tests of the program use this, too.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// Removes the control groups of a failed test, which nobody else will.
pub(crate) fn remove_groups(below: &Path, is_ours: &dyn Fn(&str) -> bool) {
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        remove_groups(&entry.path(), is_ours);
        // What was killed just now may be in it for a moment.
        let mut tries = 0;
        while is_ours(&entry.file_name().to_string_lossy())
            && tries < 250
            && fs::remove_dir(entry.path()).is_err()
        {
            tries += 1;
            sleep(Duration::from_millis(20));
        }
    }
}
