//! Beginning and end of connections and processes.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use _core::bpf::{CaptureConfig, cgroup_tree};
use _core::event::{Direction, ProcessChange, SocketChange};

use crate::seen::{Piece, netns, observe, pair, with_each_hook};
use crate::skipped::skipped;

#[test]
fn connections_begin_in_the_connecting_task_and_end() {
    with_each_hook(|config| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = listener.local_addr().unwrap();
        let (seen, _, local) = observe(&config, |_| {
            let mut client = TcpStream::connect(remote).unwrap();
            let (server, _) = listener.accept().unwrap();
            client.write_all(b"x").unwrap();
            let local = client.local_addr().unwrap();
            drop(server); // with unread data: a reset
            drop(client);
            local
        });
        let data = seen.at(Direction::Egress, local)[0];
        let connects: Vec<_> = seen
            .changes
            .iter()
            .filter_map(|change| match change {
                SocketChange::Connect { socket, remote: to, task, time_us, netns, .. } if *socket == data.socket => {
                    Some((to.ip, to.port, task.pid, task.tid, *time_us <= data.time_us, *netns))
                }
                _ => None,
            })
            .collect();
        assert_eq!(connects, [(remote.ip(), remote.port(), data.pid, data.tid, true, netns())], "{:?}", config.hook);
        let closes =
            |change: &&SocketChange| matches!(change, SocketChange::Close { socket, .. } if *socket == data.socket);
        assert_eq!(seen.changes.iter().filter(closes).count(), 1, "{:?} {:?}", config.hook, seen.changes);
    });
}

#[test]
fn a_received_fin_does_not_shift_the_sequence() {
    with_each_hook(|config| {
        let (mut client, mut server) = pair("127.0.0.1");
        let (seen, ..) = observe(&config, |_| {
            client.write_all(b"last words").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut all = Vec::new();
            server.read_to_end(&mut all).unwrap();
            assert_eq!(all, b"last words");
        });
        let out = seen.at(Direction::Egress, client.local_addr().unwrap());
        let received = seen.at(Direction::Ingress, client.peer_addr().unwrap());
        assert_eq!(received.iter().map(|p| p.payload.clone()).collect::<Vec<_>>().concat(), b"last words");
        assert_eq!(out[0].tcp_seq, received[0].tcp_seq, "{:?}", config.hook);
    });
}

#[test]
fn data_read_after_the_reset_comes_before_the_end() {
    with_each_hook(|config| {
        let (mut client, mut server) = pair("127.0.0.1");
        let (seen, ..) = observe(&config, |_| {
            client.write_all(b"never read").unwrap();
            server.write_all(b"answer").unwrap();
            server.shutdown(Shutdown::Both).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut buffer = [0u8; 64];
            let got = client.read(&mut buffer).unwrap_or(0);
            assert_eq!(&buffer[..got], b"answer");
            drop(server);
            drop(client);
        });
        let answer = seen.pieces.iter().find(|p| p.direction == Direction::Ingress).unwrap();
        let end = seen.changes.iter().find_map(|change| match change {
            SocketChange::Close { socket, time_us } if *socket == answer.socket => Some(*time_us),
            _ => None,
        });
        assert!(end.is_none_or(|end| end >= answer.time_us), "{:?}: ended before its last data", config.hook);
    });
}

#[test]
fn a_spawned_program_forks_execs_and_exits() {
    with_each_hook(|config| {
        let (seen, _, child) = observe(&config, |_| {
            let mut child = Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
            child.wait().unwrap();
            child.id()
        });
        let of_child: Vec<_> = seen
            .processes
            .iter()
            .filter(|change| match change {
                ProcessChange::Exec { pid, .. } | ProcessChange::Fork { pid, .. } | ProcessChange::Exit { pid, .. } => {
                    *pid == child
                }
            })
            .collect();
        let [ProcessChange::Fork { ppid, .. }, exec, ProcessChange::Exit { exit_code, .. }] = of_child[..] else {
            panic!("fork, exec, exit expected: {of_child:?}");
        };
        let ProcessChange::Exec { ppid: exec_ppid, uid, comm, filename, netns: ns, cgroup, .. } = exec else {
            panic!("exec expected: {exec:?}");
        };
        assert_eq!((*ppid, *exec_ppid, *exit_code), (std::process::id(), std::process::id(), 7));
        assert_eq!((*uid, comm.as_str(), filename.as_str(), *ns), (0, "sh", "/bin/sh", netns()));
        assert_ne!(*cgroup, 0);
    });
}

/// A cgroup that goes at the end of its test.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last task may leave it a moment after its end was told.
        for _ in 0..1000 {
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
    }
}

#[test]
fn bytes_name_the_cgroup_of_their_task() {
    let tree = match cgroup_tree() {
        Ok(tree) => tree,
        Err(why) => return skipped(&why),
    };
    let folder = tree.join(format!("deepflow-test-{}", std::process::id()));
    let made = fs::create_dir(&folder).map(|()| Cgroup(folder.clone()));
    let writable = fs::OpenOptions::new().write(true).open(folder.join("cgroup.procs"));
    if let Err(error) = made.as_ref().map(|_| ()).and(writable.as_ref().map(|_| ())) {
        return skipped(&format!("no cgroup can be made: {error}"));
    }
    let inode = fs::metadata(&folder).unwrap().ino();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("this process is in the tree");
    let own = fs::metadata(tree.join(own)).unwrap().ino();
    assert_ne!(own, inode);
    with_each_hook(|config| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let config = CaptureConfig { only_pids: Vec::new(), ..config };
        let (seen, ..) = observe(&config, |_| {
            let script = format!(
                "echo $$ > $0/cgroup.procs; exec 3<>/dev/tcp/127.0.0.1/{} && printf hello >&3 && read -u 3 -N 2",
                local.port()
            );
            let mut child = Command::new("bash").args(["-c", &script]).arg(&folder).spawn().unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            let mut bytes = [0; 5];
            accepted.read_exact(&mut bytes).unwrap();
            accepted.write_all(b"ok").unwrap();
            assert!(child.wait().unwrap().success());
        });
        let far = |piece: &&Piece| piece.remote.port() == local.port();
        let far: Vec<_> = seen.pieces.iter().filter(far).map(|piece| (piece.direction, piece.cgroup)).collect();
        assert_eq!(far, [(Direction::Egress, inode), (Direction::Ingress, inode)], "{:?}", config.hook);
        for (direction, length) in [(Direction::Ingress, 5), (Direction::Egress, 2)] {
            let near: Vec<_> = seen.at(direction, local).iter().map(|piece| (piece.length, piece.cgroup)).collect();
            assert_eq!(near, [(length, own)], "{:?}", config.hook);
        }
    });
}

#[test]
fn a_thread_is_no_process() {
    with_each_hook(|config| {
        let (seen, _, tid) = observe(&config, |_| {
            // SAFETY: no arguments, no memory.
            std::thread::spawn(|| u32::try_from(unsafe { libc::gettid() }).unwrap()).join().unwrap()
        });
        let names_thread = |change: &ProcessChange| match change {
            ProcessChange::Exec { pid, .. } | ProcessChange::Fork { pid, .. } | ProcessChange::Exit { pid, .. } => {
                *pid == tid || (*pid == std::process::id() && matches!(change, ProcessChange::Exit { .. }))
            }
        };
        assert!(!seen.processes.iter().any(names_thread));
    });
}
