//! Kernel capture against real sockets of this process; needs root and BTF, says so and skips otherwise.

use std::ffi::c_void;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::zeroed;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::ptr::null_mut;

use _core::bpf::{Capture, CaptureConfig, CaptureCounters, Hook, HookReport, probe};
use _core::event::{Direction, EventSink, ProcessChange, Segment, SocketChange};

const HOOKS: [Hook; 2] = [Hook::SockLength, Hook::SysEnter];

/// A segment that owns its payload.
#[derive(Clone, Debug)]
struct Piece {
    socket: u64,
    direction: Direction,
    protocol: u8,
    local: SocketAddr,
    remote: SocketAddr,
    netns: u32,
    pid: u32,
    tid: u32,
    comm: String,
    tcp_seq: u32,
    length: u32,
    payload: Vec<u8>,
    time_us: u64,
}

#[derive(Default)]
struct Seen {
    pieces: Vec<Piece>,
    changes: Vec<SocketChange>,
    processes: Vec<ProcessChange>,
}

impl EventSink for Seen {
    fn segment(&mut self, s: &Segment<'_>) {
        self.pieces.push(Piece {
            socket: s.socket,
            direction: s.direction,
            protocol: s.protocol,
            local: SocketAddr::new(s.local.ip, s.local.port),
            remote: SocketAddr::new(s.remote.ip, s.remote.port),
            netns: s.netns,
            pid: s.task.pid,
            tid: s.task.tid,
            comm: String::from_utf8_lossy(&s.task.comm).trim_end_matches('\0').to_owned(),
            tcp_seq: s.tcp_seq,
            length: s.length,
            payload: s.payload.to_vec(),
            time_us: s.time_us,
        });
    }
    fn socket(&mut self, change: &SocketChange) {
        self.changes.push(change.clone());
    }
    fn process(&mut self, change: ProcessChange) {
        self.processes.push(change);
    }
}

impl Seen {
    /// What was sent from, or received at, this local port.
    fn at(&self, direction: Direction, local: SocketAddr) -> Vec<&Piece> {
        self.pieces.iter().filter(|p| p.direction == direction && p.local.port() == local.port()).collect()
    }
}

/// Why kernel capture cannot be tested here.
fn missing() -> Option<String> {
    // SAFETY: no arguments, no memory.
    if unsafe { libc::geteuid() } != 0 {
        return Some("skipped: kernel capture needs root".to_owned());
    }
    if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("skipped: this kernel has no BTF".to_owned());
    }
    None
}

fn ours() -> CaptureConfig {
    CaptureConfig { only_pids: vec![std::process::id()], ..CaptureConfig::default() }
}

fn start(config: &CaptureConfig) -> (Capture, Vec<HookReport>) {
    Capture::start(config).unwrap_or_else(|error| panic!("{:?}: {error}", config.hook))
}

/// Runs `traffic` under a capture. The kernel writes a record before the call returns, so one look is enough.
fn observe<T>(config: &CaptureConfig, traffic: impl FnOnce(&mut Capture) -> T) -> (Seen, CaptureCounters, T) {
    let (mut capture, _) = start(config);
    let result = traffic(&mut capture);
    let mut seen = Seen::default();
    while capture.poll(&mut seen) > 0 {}
    (seen, capture.counters(), result)
}

/// For each hook, unless the machine cannot do it.
fn with_each_hook(test: impl Fn(CaptureConfig)) {
    if let Some(reason) = missing() {
        println!("{reason}");
        return;
    }
    for hook in HOOKS {
        test(CaptureConfig { hook, ..ours() });
    }
}

fn pair(ip: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

fn iovecs(parts: &mut [Vec<u8>]) -> Vec<libc::iovec> {
    parts.iter_mut().map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() }).collect()
}

fn message(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: zeros are a valid msghdr.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    message
}

fn send_message(fd: &impl AsRawFd, parts: &[&[u8]]) {
    let mut parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    let mut vectors = iovecs(&mut parts);
    // SAFETY: the message and its buffers live through the call.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &message(&mut vectors), 0) };
    assert_eq!(usize::try_from(sent).unwrap(), parts.iter().map(Vec::len).sum::<usize>());
}

fn receive_message(fd: &impl AsRawFd, sizes: &[usize]) {
    let mut parts: Vec<Vec<u8>> = sizes.iter().map(|&size| vec![0; size]).collect();
    let mut vectors = iovecs(&mut parts);
    // SAFETY: the message and its buffers live through the call.
    let received = unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message(&mut vectors), 0) };
    assert!(received > 0);
}

fn netns() -> u32 {
    let link = std::fs::read_link("/proc/self/ns/net").unwrap();
    link.to_string_lossy().trim_start_matches("net:[").trim_end_matches(']').parse().unwrap()
}

/// One message each way of calling, and what both sides must have recorded of it.
fn every_call(mut client: &TcpStream, mut server: &TcpStream) -> Vec<Vec<u8>> {
    client.write_all(b"by write").unwrap();
    let mut buffer = [0u8; 64];
    assert_eq!(server.read(&mut buffer).unwrap(), 8);

    let parts = [IoSlice::new(b"head; "), IoSlice::new(b""), IoSlice::new(b"by writev")];
    assert_eq!(client.write_vectored(&parts).unwrap(), 15);
    let (mut a, mut b) = ([0u8; 4], [0u8; 60]);
    assert_eq!(server.read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)]).unwrap(), 15);

    send_message(client, &[b"by ", b"sendmsg"]);
    receive_message(server, &[1, 2, 50]);

    let text = b"by send";
    // SAFETY: pointers and lengths belong to live buffers.
    unsafe {
        assert_eq!(libc::send(client.as_raw_fd(), text.as_ptr().cast(), text.len(), 0), 7);
        assert_eq!(libc::recv(server.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_PEEK), 7);
        assert_eq!(libc::recv(server.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0), 7);
    }
    let eight: Vec<IoSlice<'_>> = (0..10).map(|_| IoSlice::new(b"0123456789")).collect();
    assert_eq!(client.write_vectored(&eight).unwrap(), 100);
    let mut whole = [0u8; 100];
    server.read_exact(&mut whole).unwrap();
    ["by write", "head; by writev", "by sendmsg", "by send", &"0123456789".repeat(10)]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

fn check_tcp(config: &CaptureConfig, ip: &str) {
    let (client, server) = pair(ip);
    let (seen, counters, sent) = observe(config, |_| every_call(&client, &server));
    let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    let (out, received) = (seen.at(Direction::Egress, local), seen.at(Direction::Ingress, remote));
    let context = format!("{:?} {ip} {counters:?}", config.hook);
    assert_eq!(out.iter().map(|p| p.payload.clone()).collect::<Vec<_>>(), sent, "{context}");
    assert_eq!(received.iter().map(|p| p.payload.clone()).collect::<Vec<_>>(), sent, "{context}");
    let numbers = |pieces: &[&Piece]| pieces.iter().map(|p| p.tcp_seq).collect::<Vec<_>>();
    assert_eq!(numbers(&out), numbers(&received), "{context}");
    for (piece, next) in out.iter().zip(&out[1..]) {
        assert_eq!(piece.tcp_seq.wrapping_add(piece.length), next.tcp_seq, "{context}");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    // SAFETY: no arguments, no memory.
    let tid = u32::try_from(unsafe { libc::gettid() }).unwrap();
    let comm = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
    for piece in out.iter().chain(&received) {
        assert_eq!(usize::try_from(piece.length).unwrap(), piece.payload.len(), "{context}");
        assert_eq!((piece.protocol, piece.pid, piece.tid, piece.netns), (6, std::process::id(), tid, netns()));
        assert_eq!(piece.comm, comm.trim_end());
        let age = now.as_micros().abs_diff(u128::from(piece.time_us));
        assert!(age < 60_000_000, "{context}: the record's time is {age} µs off the wall clock");
    }
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    assert!(out.iter().all(|p| p.local == canonical(local) && p.remote == canonical(remote)), "{context} {out:?}");
    assert!(received.iter().all(|p| p.local == canonical(remote) && p.remote == canonical(local)), "{context}");
    assert_ne!(out[0].socket, received[0].socket);
    assert!(out.iter().all(|p| p.socket == out[0].socket) && received.iter().all(|p| p.socket == received[0].socket));
}

#[test]
fn tcp_by_every_call_over_ipv4() {
    with_each_hook(|config| check_tcp(&config, "127.0.0.1"));
}

#[test]
fn tcp_by_every_call_over_ipv6() {
    with_each_hook(|config| check_tcp(&config, "::1"));
}

#[test]
fn ipv4_on_a_dual_stack_socket_is_reported_as_ipv4() {
    with_each_hook(|config| check_tcp(&config, "::ffff:127.0.0.1"));
}

#[test]
fn sendfile_has_length_and_sequence_but_no_payload() {
    with_each_hook(|config| {
        let (client, mut server) = pair("127.0.0.1");
        let path = std::env::temp_dir().join(format!("deepflow-sendfile-{}", std::process::id()));
        std::fs::write(&path, [b'x'; 3000]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let (seen, ..) = observe(&config, |_| {
            (&client).write_all(b"head").unwrap();
            // SAFETY: both descriptors are open; no offset is given.
            let sent = unsafe { libc::sendfile(client.as_raw_fd(), file.as_raw_fd(), null_mut(), 3000) };
            assert_eq!(sent, 3000);
            server.read_exact(&mut [0; 3004]).unwrap();
        });
        std::fs::remove_file(path).unwrap();
        let out = seen.at(Direction::Egress, client.local_addr().unwrap());
        assert_eq!(out[0].payload, b"head");
        assert!(out[1..].iter().all(|p| p.payload.is_empty()));
        assert_eq!(out[1..].iter().map(|p| p.length).sum::<u32>(), 3000, "{out:?}");
        assert_eq!(out[1].tcp_seq, out[0].tcp_seq.wrapping_add(4));
    });
}

#[test]
fn udp_connected_and_not() {
    with_each_hook(|config| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(server.local_addr().unwrap()).unwrap();
        let dual = UdpSocket::bind("[::]:0").unwrap();
        let to_dual = SocketAddr::new("127.0.0.1".parse().unwrap(), dual.local_addr().unwrap().port());
        let (seen, ..) = observe(&config, |_| {
            let mut buffer = [0u8; 100];
            client.send_to(b"question", server.local_addr().unwrap()).unwrap();
            let (_, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(b"answer", from).unwrap();
            client.recv_from(&mut buffer).unwrap();
            connected.send(b"connected question").unwrap();
            server.recv_from(&mut buffer).unwrap();
            client.send_to(b"to dual stack", to_dual).unwrap();
            dual.recv_from(&mut buffer).unwrap();
        });
        let (s, c, k) = (server.local_addr().unwrap(), client.local_addr().unwrap(), connected.local_addr().unwrap());
        let any = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), to_dual.port());
        let expected: [(Direction, SocketAddr, SocketAddr, &[u8]); 8] = [
            (Direction::Egress, c, s, b"question"),
            (Direction::Ingress, s, c, b"question"),
            (Direction::Egress, s, c, b"answer"),
            (Direction::Ingress, c, s, b"answer"),
            (Direction::Egress, k, s, b"connected question"),
            (Direction::Ingress, s, k, b"connected question"),
            (Direction::Egress, c, to_dual, b"to dual stack"),
            (Direction::Ingress, any, c, b"to dual stack"),
        ];
        let ports = [s, c, k, to_dual].map(|address| address.port());
        let got: Vec<_> = seen.pieces.iter().filter(|p| ports.contains(&p.local.port())).collect();
        assert_eq!(got.len(), expected.len(), "{:?} {got:?}", config.hook);
        for (piece, (direction, local, remote, payload)) in got.iter().zip(expected) {
            assert_eq!((piece.direction, piece.local, piece.remote), (direction, local, remote), "{:?}", config.hook);
            assert_eq!((&piece.payload[..], piece.protocol, piece.tcp_seq), (payload, 17, 0));
        }
    });
}

#[test]
fn each_message_of_sendmmsg_and_recvmmsg_is_its_own() {
    with_each_hook(|config| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        let texts: [&[u8]; 3] = [b"type A?", b"type AAAA?", b"third"];
        let (seen, ..) = observe(&config, |_| {
            for _ in 0..2 {
                let mut parts: Vec<Vec<u8>> = texts.iter().map(|text| text.to_vec()).collect();
                let mut vectors = iovecs(&mut parts);
                let mut batch: Vec<libc::mmsghdr> =
                    vectors.chunks_mut(1).map(|one| libc::mmsghdr { msg_hdr: message(one), msg_len: 0 }).collect();
                // SAFETY: the vector and all it points to live through the call.
                let sent = unsafe { libc::sendmmsg(client.as_raw_fd(), batch.as_mut_ptr(), 3, 0) };
                assert_eq!(sent, 3);
                let mut rooms = vec![vec![0u8; 32]; 5];
                let mut vectors = iovecs(&mut rooms);
                let mut batch: Vec<libc::mmsghdr> =
                    vectors.chunks_mut(1).map(|one| libc::mmsghdr { msg_hdr: message(one), msg_len: 0 }).collect();
                // SAFETY: the vector and all it points to live through the call.
                let received = unsafe {
                    libc::recvmmsg(server.as_raw_fd(), batch.as_mut_ptr(), 5, libc::MSG_DONTWAIT, null_mut())
                };
                assert_eq!(received, 3);
            }
        });
        for pieces in [
            seen.at(Direction::Egress, client.local_addr().unwrap()),
            seen.at(Direction::Ingress, server.local_addr().unwrap()),
        ] {
            let got: Vec<&[u8]> = pieces.iter().map(|p| &p.payload[..]).collect();
            assert_eq!(got, [texts, texts].concat(), "{:?}", config.hook);
        }
    });
}

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

#[test]
fn a_quiet_socket_sends_nothing_more_and_others_do() {
    with_each_hook(|config| {
        let (mut client, _server) = pair("127.0.0.1");
        let (mut other, _other_server) = pair("127.0.0.1");
        let (seen, counters, before) = observe(&config, |capture| {
            client.write_all(b"first").unwrap();
            other.write_all(b"first").unwrap();
            let mut before = Seen::default();
            while capture.poll(&mut before) > 0 {}
            let piece = before.at(Direction::Egress, client.local_addr().unwrap())[0].clone();
            capture.quiet(piece.socket);
            client.write_all(b"second").unwrap();
            client.write_all(b"third").unwrap();
            other.write_all(b"second").unwrap();
            piece
        });
        assert_eq!(before.payload, b"first");
        assert!(seen.at(Direction::Egress, client.local_addr().unwrap()).is_empty(), "{:?}", config.hook);
        assert_eq!(seen.at(Direction::Egress, other.local_addr().unwrap()).len(), 1);
        assert_eq!(counters.quiet, 2, "{:?} {counters:?}", config.hook);
    });
}

#[test]
fn a_run_sends_a_bounded_payload_and_every_length() {
    with_each_hook(|config| {
        let config = CaptureConfig { payload_truncation: 1000, ..config };
        let (mut client, mut server) = pair("127.0.0.1");
        let block: Vec<u8> = (0..2000u16).map(|i| i.to_le_bytes()[0]).collect();
        let (seen, ..) = observe(&config, |_| {
            for _ in 0..40 {
                client.write_all(&block).unwrap();
            }
            server.read_exact(&mut vec![0; 80_000]).unwrap();
            server.write_all(b"answer").unwrap();
            client.read_exact(&mut [0; 6]).unwrap();
            client.write_all(&block).unwrap();
        });
        let out = seen.at(Direction::Egress, client.local_addr().unwrap());
        assert_eq!(out.len(), 41);
        assert!(out.iter().all(|p| p.length == 2000));
        // 16 KiB in records of 1000 bytes: the 17th starts within the budget.
        assert!(out[..17].iter().all(|p| p.payload == block[..1000]), "{:?}", config.hook);
        assert!(out[17..40].iter().all(|p| p.payload.is_empty()), "{:?}", config.hook);
        assert_eq!(out[40].payload, &block[..1000], "a change of direction starts a new run");
        for (piece, next) in out.iter().zip(&out[1..]) {
            assert_eq!(piece.tcp_seq.wrapping_add(piece.length), next.tcp_seq);
        }
    });
}

#[test]
fn what_does_not_fit_is_counted() {
    with_each_hook(|config| {
        let config = CaptureConfig { ring_bytes: 4096, ..config };
        let (client, mut server) = pair("127.0.0.1");
        let (seen, counters, ()) = observe(&config, |_| {
            for _ in 0..2000 {
                (&client).write_all(&[1; 100]).unwrap();
            }
            server.read_exact(&mut vec![0; 200_000]).unwrap();
        });
        let ours = seen.pieces.len() + seen.changes.len();
        assert!(ours > 0 && counters.dropped > 0, "{counters:?}");
        assert!(
            counters.records >= u64::try_from(ours).unwrap() && counters.bytes >= 64 * counters.records,
            "{counters:?}"
        );
        assert!(u64::try_from(ours).unwrap() + counters.dropped >= 2001, "{counters:?}");
        assert_eq!(counters.malformed, 0);
    });
}

#[test]
fn a_ring_that_goes_round_gives_every_record_once() {
    with_each_hook(|config| {
        // A chunk of 128 KiB a CPU, gone round several times with records of every length.
        let (client, mut server) = pair("127.0.0.1");
        let ports_whitelist = vec![server.local_addr().unwrap().port()]; // other tests of this process fill the ring too
        let config = CaptureConfig { ring_bytes: 4096, payload_truncation: 8192, ports_whitelist, ..config };
        let (mut capture, _) = start(&config);
        let mut seen = Seen::default();
        let mut sent = Vec::new();
        for round in 0..300 {
            for length in [1, 7, 8, 100, 1023, 4000, 8192 - round] {
                let message = vec![(round % 251) as u8; length];
                (&client).write_all(&message).unwrap();
                sent.push(message);
                server.read_exact(&mut vec![0; length]).unwrap();
                server.write_all(b"!").unwrap();
                (&client).read_exact(&mut [0; 1]).unwrap();
            }
            while capture.poll(&mut seen) > 0 {}
        }
        let out = seen.at(Direction::Egress, client.local_addr().unwrap());
        assert_eq!(out.len(), sent.len(), "{:?}", capture.counters());
        assert!(out.iter().zip(&sent).all(|(piece, message)| &piece.payload == message), "{:?}", config.hook);
        let counters = capture.counters();
        assert_eq!((counters.dropped, counters.malformed), (0, 0), "{counters:?}");
    });
}

#[test]
fn filters_hold_in_the_kernel() {
    with_each_hook(|config| {
        let me = std::process::id();
        let (client, mut server) = pair("127.0.0.1");
        let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let mut pieces = |config: CaptureConfig| {
            let (seen, counters, ()) = observe(&config, |_| {
                (&client).write_all(b"x").unwrap();
                server.read_exact(&mut [0; 1]).unwrap();
            });
            let ports = [local.port(), remote.port()];
            let seen = seen.pieces.iter().filter(|p| p.pid == me && ports.contains(&p.local.port())).count();
            (seen, counters.filtered > 0)
        };
        let none = CaptureConfig { only_pids: vec![], hook: config.hook, ..CaptureConfig::default() };
        assert_eq!(pieces(CaptureConfig { ignored_pids: vec![me], ..none.clone() }), (0, true));
        assert_eq!(pieces(CaptureConfig { ignored_pids: vec![1, 2, 3, 4, 5, 6, me], ..none.clone() }), (0, true));
        assert_eq!(pieces(CaptureConfig { ignored_pids: vec![1, 2, 3], ..config.clone() }).0, 2);
        assert_eq!(pieces(CaptureConfig { only_pids: vec![1], ..none.clone() }), (0, true));
        assert_eq!(pieces(CaptureConfig { netns: netns(), ..config.clone() }).0, 2);
        assert_eq!(pieces(CaptureConfig { netns: 1, ..config.clone() }), (0, true));
        assert_eq!(pieces(CaptureConfig { ports_blacklist: vec![9, remote.port()], ..config.clone() }), (0, true));
        assert_eq!(pieces(CaptureConfig { ports_blacklist: vec![9], ..config.clone() }).0, 2);
        assert_eq!(pieces(CaptureConfig { ports_whitelist: vec![remote.port()], ..config.clone() }).0, 2);
        assert_eq!(pieces(CaptureConfig { ports_whitelist: vec![9], ..config.clone() }), (0, true));
    });
}

#[test]
fn unix_sockets_and_files_are_left_alone() {
    with_each_hook(|config| {
        let (seen, counters, ()) = observe(&config, |_| {
            let (mut a, mut b) = UnixStream::pair().unwrap();
            a.write_all(b"private to this machine").unwrap();
            b.read_exact(&mut [0; 23]).unwrap();
            std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap().write_all(b"nothing").unwrap();
        });
        let private = seen.pieces.iter().any(|p| p.payload.starts_with(b"private") || p.payload == b"nothing");
        assert!(!private && counters.malformed == 0);
    });
}

/// In a 32-bit system call the registers mean other things.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_compat_call_gives_no_payload() {
    with_each_hook(|config| {
        let (client, mut server) = pair("127.0.0.1");
        let secret = b"a buffer that the 32-bit call names";
        let (seen, _, result) = observe(&config, |_| {
            // SAFETY: the page is mapped below 4 GiB, as the 32-bit call needs, and freed after it; int 0x80 with 4 is
            // write(2), which only reads it.
            unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
                let page = libc::mmap(null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
                assert_ne!(page, libc::MAP_FAILED);
                std::ptr::copy_nonoverlapping(secret.as_ptr(), page.cast::<u8>(), secret.len());
                let mut result: i64 = 4;
                std::arch::asm!(
                    "push rbx", "mov rbx, {fd}", "int 0x80", "pop rbx",
                    fd = in(reg) i64::from(client.as_raw_fd()),
                    inout("rax") result, in("rcx") page as u64, in("rdx") secret.len(),
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                );
                libc::munmap(page, 4096);
                result as i32
            }
        });
        if result < 0 {
            println!("skipped: this kernel takes no 32-bit system calls ({result})");
            return;
        }
        server.read_exact(&mut vec![0; secret.len()]).unwrap();
        let out = seen.at(Direction::Egress, client.local_addr().unwrap());
        assert!(out.iter().all(|p| p.payload.is_empty()), "{:?}", config.hook);
        // The system call hook does not know 32-bit numbers; the socket hook knows the length.
        assert_eq!(out.len(), usize::from(config.hook == Hook::SockLength));
    });
}

#[test]
fn a_buffer_in_a_wild_place_costs_only_its_payload() {
    with_each_hook(|config| {
        let (mut client, mut server) = pair("127.0.0.1");
        let (seen, counters, ()) = observe(&config, |_| {
            client.write_all(b"before").unwrap();
            let mut wild = [libc::iovec { iov_base: 8 as *mut c_void, iov_len: 100 }];
            // SAFETY: the kernel refuses the address with EFAULT.
            let sent = unsafe { libc::sendmsg(client.as_raw_fd(), &message(&mut wild), 0) };
            assert_eq!(sent, -1);
            client.write_all(b"after").unwrap();
            server.read_exact(&mut [0; 11]).unwrap();
        });
        let out: Vec<&[u8]> =
            seen.at(Direction::Egress, client.local_addr().unwrap()).iter().map(|p| &p.payload[..]).collect();
        assert_eq!(out, [b"before".as_slice(), b"after".as_slice()], "{:?} {counters:?}", config.hook);
    });
}

#[test]
fn the_best_hook_is_chosen_and_reported() {
    if let Some(reason) = missing() {
        println!("{reason}");
        return;
    }
    let (_capture, reports) = start(&ours());
    let what: Vec<&str> = reports.iter().map(|report| report.what.as_str()).collect();
    assert!(what.starts_with(&["socket calls", "beginning and end of connections"]) && what.contains(&"processes"));
    let sockets = probe().into_iter().find(|line| line.what.contains("socket-length")).unwrap();
    assert_eq!(reports[0].chosen.contains("sock_send_length"), sockets.works, "{reports:?}");
}

#[test]
fn without_privileges_there_are_sentences() {
    // In a thread of its own: capabilities are given up for good.
    std::thread::spawn(|| {
        // SAFETY: zeroed data clears all capabilities of the calling thread (version 3, two words each).
        let dropped = unsafe {
            let header: [u32; 2] = [0x2008_0522, 0];
            let data = [0u32; 6];
            libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr())
        };
        assert_eq!(dropped, 0);
        let error = Capture::start(&CaptureConfig::default()).err().expect("started without privileges").to_string();
        if std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
            assert!(error.contains("CAP_BPF") && error.ends_with('.') && !error.contains('\n'), "{error}");
        }
        let lines = probe();
        let works = |what: &str| lines.iter().any(|line| line.what.starts_with(what) && line.works);
        assert!(!works("CAP_BPF") && !works("sockets by") && !works("ring buffer"), "{lines:#?}");
        assert!(lines.iter().all(|line| line.works == line.lost.is_empty() && !line.detail.is_empty()), "{lines:#?}");
    })
    .join()
    .unwrap();
}
