//! What may be left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long what ends may take to be gone, on a machine that has other work.
const GONE_PATIENCE: Duration = Duration::from_secs(30);

/// What is still there after a while, of what `look` finds.
pub(crate) fn left_behind(look: impl Fn() -> Vec<String>) -> Vec<String> {
    let since = Instant::now();
    loop {
        let left = look();
        if left.is_empty() || since.elapsed() >= GONE_PATIENCE {
            let told = left.into_iter().map(|what| format!("left behind: {what}"));
            return told.collect();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Unfinished transfers of output.
pub(crate) fn transfers(state: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for container in children(&state.join("controller/logs")) {
        left.extend(children(&container).into_iter().filter(|path| {
            path.file_name()
                .is_none_or(|name| name != "stdout" && name != "stderr")
        }));
    }
    left.iter().map(|path| path.display().to_string()).collect()
}

/// Control groups of containers.
pub(crate) fn cgroups(uuids: &BTreeSet<&str>) -> Vec<String> {
    let mut left = Vec::new();
    search(Path::new("/sys/fs/cgroup"), uuids, 0, &mut left);
    left
}

fn search(folder: &Path, uuids: &BTreeSet<&str>, depth: usize, left: &mut Vec<String>) {
    for path in children(folder) {
        if depth > 12 || path.is_symlink() || !path.is_dir() {
            continue;
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if uuids.iter().any(|uuid| name.contains(uuid)) {
            left.push(format!("control group {}", path.display()));
        }
        search(&path, uuids, depth + 1, left);
    }
}

/// What is in a directory; nothing if it cannot be read.
pub(crate) fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}
