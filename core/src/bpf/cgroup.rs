//! The cgroup v2 tree that programs are attached to.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Display, PathBuf};

use crate::mounts::mounts;

pub(super) struct Tree {
    path: PathBuf,
    /// Whether all processes of the machine are below it: in a container the mount may begin further down.
    whole: bool,
}

impl Tree {
    pub(super) fn find() -> Result<Self, String> {
        let path = cgroup_tree()?;
        // Every cgroup but the root has this file.
        let whole = !fs::exists(path.join("cgroup.events")).unwrap_or(false);
        Ok(Self { path, whole })
    }

    pub(super) fn path(&self) -> Display<'_> {
        self.path.display()
    }

    pub(super) fn open(&self) -> Result<File, String> {
        File::open(&self.path).map_err(|error| format!("{}: {error}", self.path()))
    }

    /// What an attachment here does not see.
    pub(super) fn lost(&self) -> Option<&'static str> {
        (!self.whole).then_some("processes outside this container's cgroup")
    }
}

/// Where the cgroup v2 tree is mounted and nothing hides it; the error is half a sentence.
pub fn cgroup_tree() -> Result<PathBuf, String> {
    let mountinfo = fs::read("/proc/self/mountinfo").map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    visible(&mountinfo).ok_or_else(|| "no cgroup v2 tree is mounted".to_owned())
}

fn visible(mountinfo: &[u8]) -> Option<PathBuf> {
    mounts(mountinfo)
        .filter(|mount| mount.kind == b"cgroup2")
        .find(|mount| fs::metadata(&mount.path).is_ok_and(|found| found.dev() == mount.device))
        .map(|mount| mount.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tree_that_nothing_hides() {
        let device = fs::metadata("/proc/self").expect("/proc").dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let text = format!(
            "22 1 {major}:{minor} / /proc rw - proc proc rw\n\
             23 1 0:4000 / /proc rw - cgroup2 cgroup2 rw\n\
             24 1 {major}:{minor} / /proc/none rw - cgroup2 cgroup2 rw\n\
             25 1 {major}:{minor} / /proc/\\163elf rw - cgroup2 cgroup2 rw\n\
             26 1 {major}:{minor} / /proc rw - cgroup2 cgroup2 rw\n"
        );
        assert_eq!(visible(text.as_bytes()), Some("/proc/self".into()));
        assert_eq!(visible(b"22 1 0:4000 / /proc/self rw - cgroup2 cgroup2 rw\n"), None);
    }
}
