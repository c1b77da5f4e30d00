//! Where groups can be made.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The group at the root of the unified hierarchy under which those of jobs are made, where the
/// group of the runner itself cannot have any that limit something: it has processes in it.
pub(super) const BASE: &str = "longshore-run";
/// What limits RAM, processors and processes.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// The hierarchies of version 1 that are used.
const HIERARCHIES: [&str; 4] = ["memory", "cpu", "pids", NET];
/// A net for what a job leaves behind, where there is no other.
const NET: &str = "freezer";

/// Below which groups those of a job are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Home {
    /// Below the runner's own, so that whatever holds for that holds for the job, where possible.
    Own,
    /// At the same place of every hierarchy, so that a container engine can be told where it is.
    Root,
}

/// A hierarchy that this process can see.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    mount_point: PathBuf,
    own: PathBuf,
}

impl Hierarchy {
    fn home(&self, home: Home) -> &Path {
        match home {
            Home::Own => &self.own,
            Home::Root => &self.mount_point,
        }
    }
}

/// What [`places`] has said.
static KNOWN: Mutex<BTreeMap<Wanted, Vec<PathBuf>>> = Mutex::new(BTreeMap::new());

/// What a place was asked for.
type Wanted = (Home, Vec<&'static str>);

/// Looks where groups can be made, so that it is known to all that this process forks: reading the
/// list of mounts takes longer than making a group.
pub(crate) fn know() {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    for memory in [None, Some("memory")] {
        for processors in [None, Some("cpu")] {
            let wanted = memory.into_iter().chain(processors).chain(["pids"]);
            let wanted: Vec<&'static str> = wanted.collect();
            let places = places(Home::Own, &wanted);
            known.insert((Home::Own, wanted), places);
        }
    }
}

/// What [`places`] says, or said when it was last asked by [`know`].
pub(super) fn known_places(home: Home, controllers: &[&'static str]) -> Vec<PathBuf> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let places = known.get(&(home, controllers.to_vec())).cloned();
    places.unwrap_or_else(|| self::places(home, controllers))
}

/// The directories in which a job's groups may be made, best first, one for each hierarchy. Of the
/// hierarchies of version 1 only those of `controllers`: every further one costs each start.
pub(super) fn places(home: Home, controllers: &[&'static str]) -> Vec<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unified = unified(&groups);
    if let Some(place) = unified.as_ref().and_then(|unified| limiting(unified, home)) {
        return vec![place];
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut places: Vec<PathBuf> = unified
        .iter()
        .map(|unified| unified.home(home).to_owned())
        .collect();
    let wanted = HIERARCHIES
        .into_iter()
        .filter(|name| *name == NET || controllers.contains(name));
    for controller in wanted {
        if controller == NET && !places.is_empty() {
            break;
        }
        if let Some(hierarchy) = hierarchy(&mounts, &groups, controller) {
            let place = hierarchy.home(home).to_owned();
            // Two controllers may share a hierarchy.
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

/// Where all hierarchies of version 1 are mounted.
pub(super) fn mount_points() -> Vec<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let controllers = groups
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty());
    controllers
        .filter_map(|controller| hierarchy(&mounts, &groups, controller))
        .map(|hierarchy| hierarchy.mount_point)
        .collect()
}

/// The place for groups that limit RAM, if the unified hierarchy can have any.
fn limiting(unified: &Hierarchy, home: Home) -> Option<PathBuf> {
    let has = |path: &Path, file: &str, word: &str| {
        let text = std::fs::read_to_string(path.join(file)).unwrap_or_default();
        text.split_whitespace().any(|found| found == word)
    };
    if !has(&unified.mount_point, "cgroup.controllers", "memory") {
        return None;
    }
    if home == Home::Own && has(&unified.own, "cgroup.subtree_control", "memory") {
        return Some(unified.own.clone());
    }
    let base = unified.mount_point.join(BASE);
    for parent in [&unified.mount_point, &base] {
        let _ = std::fs::create_dir(&base);
        for controller in CONTROLLERS {
            if !has(parent, "cgroup.subtree_control", controller) {
                let word = format!("+{controller}");
                let _ = std::fs::write(parent.join("cgroup.subtree_control"), word);
            }
        }
    }
    has(&base, "cgroup.subtree_control", "memory").then_some(base)
}

fn unified(groups: &str) -> Option<Hierarchy> {
    // The list of mounts is long; nearly everywhere the unified hierarchy is at one of two places.
    let usual = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .find(|path| Path::new(path).join("cgroup.procs").exists());
    if let Some(usual) = usual {
        let line = format!("0 0 0:0 / {usual} rw - cgroup2 cgroup2 rw");
        let found = hierarchy(&line, groups, "").filter(|found| found.own.is_dir());
        if found.is_some() {
            return found;
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    hierarchy(&mounts, groups, "")
}

/// The hierarchy of a controller; the unified one has no name.
fn hierarchy(mounts: &str, groups: &str, controller: &str) -> Option<Hierarchy> {
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let names = fields.next()?;
        names
            .split(',')
            .any(|name| name == controller)
            .then(|| fields.next())?
    })?;
    let (root, mount_point) = mounts.lines().find_map(|line| mounted(line, controller))?;
    let inside = Path::new(group).strip_prefix(root).ok()?;
    if inside.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let mount_point = PathBuf::from(mount_point);
    let own = match inside.as_os_str().is_empty() {
        true => mount_point.clone(),
        false => mount_point.join(inside),
    };
    Some(Hierarchy { mount_point, own })
}

/// Root and mount point of a line of mountinfo, if it mounts this controller's hierarchy.
fn mounted<'a>(line: &'a str, controller: &str) -> Option<(&'a str, &'a str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let kind = after.next()?;
    let fits = match controller {
        "" => kind == "cgroup2",
        _ => kind == "cgroup" && after.nth(1)?.split(',').any(|name| name == controller),
    };
    let mut before = before.split(' ').skip(3);
    fits.then(|| Some((before.next()?, before.next()?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_are_found() {
        let hybrid = "\
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let groups = "8:pids:/a/b\n5:devices:/\n1:name=systemd:/\n0::/c\n";
        let own = |mounts, groups, controller| {
            hierarchy(mounts, groups, controller).map(|found| found.own)
        };
        assert_eq!(
            own(hybrid, groups, ""),
            Some("/sys/fs/cgroup/unified/c".into())
        );
        assert_eq!(
            hierarchy(hybrid, groups, "pids"),
            Some(Hierarchy {
                mount_point: "/sys/fs/cgroup/pids".into(),
                own: "/sys/fs/cgroup/pids/a/b".into()
            })
        );
        assert_eq!(own(hybrid, groups, "memory"), None);
        let unified = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw";
        assert_eq!(
            own(unified, "0::/user.slice/x.scope\n", ""),
            Some("/sys/fs/cgroup/user.slice/x.scope".into())
        );
        assert_eq!(own(unified, "0::/../elsewhere\n", ""), None);
        assert_eq!(own("", "", ""), None);
    }

    /// The unified hierarchy as plain files; no kernel is behind them, so a write replaces.
    #[test]
    fn the_unified_hierarchy_is_asked_for_its_controllers() {
        let mount = tempfile::tempdir().unwrap();
        let own = mount.path().join("session.scope");
        std::fs::create_dir(&own).unwrap();
        let unified = Hierarchy {
            mount_point: mount.path().to_owned(),
            own: own.clone(),
        };
        let set = |path: &Path, file: &str, text: &str| {
            std::fs::write(path.join(file), text).unwrap();
        };
        set(mount.path(), "cgroup.controllers", "cpu io pids\n");
        assert_eq!(limiting(&unified, Home::Own), None);

        let base = mount.path().join(BASE);
        set(mount.path(), "cgroup.controllers", "cpu memory pids\n");
        std::fs::create_dir(&base).unwrap();
        set(&base, "cgroup.subtree_control", "cpu memory pids\n");
        assert_eq!(limiting(&unified, Home::Own), Some(base.clone()));
        let asked = std::fs::read_to_string(mount.path().join("cgroup.subtree_control"));
        assert_eq!(asked.unwrap(), "+pids", "the last of three writes");

        set(&own, "cgroup.subtree_control", "memory pids\n");
        assert_eq!(limiting(&unified, Home::Own), Some(own));
        assert_eq!(limiting(&unified, Home::Root), Some(base));
    }
}
