//! The cgroup v2 tree that programs are attached to.

use std::fs::{self, File};

pub(super) struct Tree {
    pub(super) path: String,
    /// Whether all processes of the machine are below it: in a container the mount may begin further down.
    whole: bool,
}

impl Tree {
    /// Where it is mounted; the error is half a sentence.
    pub(super) fn find() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| format!("/proc/self/mounts: {error}"))?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| path.to_owned())
        });
        let path = mount.ok_or("no cgroup v2 tree is mounted")?;
        // Every cgroup but the root has this file.
        let whole = !fs::exists(format!("{path}/cgroup.events")).unwrap_or(false);
        Ok(Self { path, whole })
    }

    pub(super) fn open(&self) -> Result<File, String> {
        File::open(&self.path).map_err(|error| format!("{}: {error}", self.path))
    }

    /// What an attachment here does not see.
    pub(super) fn lost(&self) -> Option<&'static str> {
        (!self.whole).then_some("processes outside this container's cgroup")
    }
}
