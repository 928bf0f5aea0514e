//! What each way of sending and receiving is recorded as.

use std::ffi::c_void;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;

use _core::bpf::{CaptureConfig, Hook};
use _core::event::Direction;

use crate::seen::{Piece, netns, observe, pair, with_each_hook};
use crate::skipped::skipped;

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
            skipped(&format!("this kernel takes no 32-bit system calls ({result})"));
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
