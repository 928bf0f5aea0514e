//! The network namespaces of this host: those of processes, and those kept by a mount (`ip netns`, container engines).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;

use crate::mounts::mounts;

/// Most processes that are asked for their namespace.
const MAX_PROCESSES: usize = 65_536;

/// A namespace held open; as long as this lives, it does.
#[derive(Debug)]
pub struct Namespace {
    /// Inode on nsfs, by which rows name it.
    pub inode: u32,
    pub handle: File,
}

/// The inode in `net:[4026531840]`.
fn inode(text: &str) -> Option<u32> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// (inode, path) of the namespaces that a mountinfo names.
fn named(mountinfo: &[u8]) -> impl Iterator<Item = (u32, PathBuf)> {
    mounts(mountinfo).filter(|mount| mount.kind == b"nsfs").filter_map(|mount| {
        let inode = std::str::from_utf8(mount.root).ok().and_then(inode)?;
        Some((inode, mount.path))
    })
}

/// The namespace of this process.
pub fn own() -> io::Result<Namespace> {
    let path = "/proc/self/ns/net";
    let handle = File::open(path)?;
    let inode = fs::read_link(path)?.to_str().and_then(inode).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Namespace { inode, handle })
}

/// All namespaces besides `own`, at most `most` of them, and how many there are more.
pub fn others(proc_dir: &Path, own: u32, most: usize) -> (Vec<Namespace>, usize) {
    let mut known: FxHashSet<u32> = FxHashSet::from_iter([own]);
    let mut found = Vec::new();
    let mut left_out = 0;
    let mut take = |inode: u32, path: &dyn Fn() -> PathBuf| {
        if !known.insert(inode) {
            return;
        }
        if found.len() >= most {
            left_out += 1;
            return;
        }
        match File::open(path()) {
            Ok(handle) => found.push(Namespace { inode, handle }),
            // This path is gone or not for us; the namespace may have another one.
            Err(_) => {
                known.remove(&inode);
            }
        }
    };
    for process in fs::read_dir(proc_dir).into_iter().flatten().flatten().take(MAX_PROCESSES) {
        if !process.file_name().to_str().is_some_and(|name| name.starts_with(|c: char| c.is_ascii_digit())) {
            continue;
        }
        let path = process.path().join("ns/net");
        if let Some(inode) = fs::read_link(&path).ok().and_then(|link| link.to_str().and_then(inode)) {
            take(inode, &|| path.clone());
        }
    }
    // A mount may be visible only to the first process of the host.
    for (mountinfo, root) in [("self/mountinfo", "/"), ("1/mountinfo", "1/root")] {
        let root = proc_dir.join(root);
        let text = fs::read(proc_dir.join(mountinfo)).unwrap_or_default();
        for (inode, path) in named(&text) {
            take(inode, &|| root.join(path.strip_prefix("/").unwrap_or(&path)));
        }
    }
    (found, left_out)
}

/// Tells when a namespace gets or loses its name.
pub struct Watch {
    inotify: Option<OwnedFd>,
}

impl Watch {
    pub fn new() -> Self {
        // SAFETY: no pointers.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        // SAFETY: `fd` is open and nobody else has it. Without it, the look every few seconds remains.
        Self { inotify: (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) }) }
    }

    /// Watches folders that came since the last call, too.
    pub fn renew(&self) {
        for folder in [c"/run/netns", c"/run/docker/netns"] {
            // SAFETY: the text ends with a zero; a folder that is not there or watched already is no harm.
            unsafe { libc::inotify_add_watch(self.fd(), folder.as_ptr(), libc::IN_CREATE | libc::IN_DELETE) };
        }
    }

    /// -1, which `poll` passes over, when there is none.
    pub fn fd(&self) -> RawFd {
        self.inotify.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Something changed since the last call.
    pub fn changed(&self) -> bool {
        let mut buffer = [0u8; 4096];
        // SAFETY: the kernel writes at most the buffer's length.
        let mut read = || unsafe { libc::read(self.fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        (0..64).take_while(|_| read() > 0).count() > 0
    }
}

/// Moves this thread, and no other one, into a namespace.
pub fn enter(namespace: &Namespace) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is open.
    let result = unsafe { libc::setns(namespace.handle.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_namespaces() {
        let text = b"22 1 0:21 / /proc rw - proc proc rw\n\
                     99 25 0:4 net:[4026532300] /run/netns/a\\040b rw shared:1 - nsfs nsfs rw\n\
                     98 25 0:4 mnt:[4026532301] /run/snapd/ns/x rw - nsfs nsfs rw\n\
                     97 25 0:4 net:[x] /run/netns/c rw - nsfs nsfs rw\n\
                     96 25 0:30 net:[4026532303] /run/netns/d rw - tmpfs tmpfs rw\n";
        assert_eq!(named(text).collect::<Vec<_>>(), [(4_026_532_300, "/run/netns/a b".into())]);
    }

    #[test]
    fn a_mount_that_only_the_first_process_sees() {
        let proc_dir = std::env::temp_dir().join(format!("deepflow-test-proc-{}", std::process::id()));
        fs::create_dir_all(proc_dir.join("1/root/run")).expect("a folder");
        fs::write(proc_dir.join("1/root/run/n"), "").expect("a file");
        fs::write(proc_dir.join("1/mountinfo"), "9 2 0:4 net:[7] /run/n rw - nsfs nsfs rw\n").expect("a file");
        let (others, left_out) = others(&proc_dir, 1, 512);
        fs::remove_dir_all(&proc_dir).expect("no folder");
        assert_eq!((others.iter().map(|one| one.inode).collect::<Vec<_>>(), left_out), (vec![7], 0));
    }

    #[test]
    fn own_namespace_is_none_of_the_others() {
        let own = own().expect("a namespace");
        let (others, _) = others(Path::new("/proc"), own.inode, 512);
        assert!(others.iter().all(|one| one.inode != own.inode));
    }
}
