//! What is mounted where (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// Device number, as in `st_dev`.
    pub device: u64,
    /// What of the filesystem is mounted, escapes as they are.
    pub root: &'a [u8],
    pub path: PathBuf,
    pub kind: &'a [u8],
}

/// The mounts of a mountinfo, in its order; lines that are none are left out.
pub fn mounts(mountinfo: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(mount)
}

fn mount(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let (device, root, path) = (fields.next()?, fields.next()?, fields.next()?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    let device = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
    Some(Mount { device, root, path: OsString::from_vec(unescaped(path)).into(), kind })
}

/// Undoes octal escapes: blank, tab, line end and backslash are written as `\040` and so on.
fn unescaped(mut rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|three| std::str::from_utf8(three).ok());
        match digits.filter(|_| *first == b'\\').and_then(|three| u8::from_str_radix(three, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_line() {
        let text = b"22 1 0:21 / /proc rw - proc proc rw\n\
                     no mount\n\
                     30 25 x:1 / /x rw - tmpfs tmpfs rw\n\
                     40 25 8:1 / /cut rw\n\
                     99 25 0:4 net:[4026532300] /run/a\\040b\\134\\0 rw shared:1 master:2 - nsfs nsfs rw\n";
        let expected = [
            Mount { device: 21, root: b"/", path: "/proc".into(), kind: b"proc" },
            Mount { device: 4, root: b"net:[4026532300]", path: "/run/a b\\\\0".into(), kind: b"nsfs" },
        ];
        assert_eq!(mounts(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_path_need_not_be_utf8() {
        let text = b"22 1 259:3 / /mnt/\xff rw - ext4 /dev/x rw";
        let mount = mounts(text).next().expect("a mount");
        assert_eq!((mount.device, mount.path.as_os_str().len()), (libc::makedev(259, 3), 6));
    }
}
