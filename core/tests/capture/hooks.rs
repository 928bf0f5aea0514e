//! Which programs are attached, and what is said when they are not.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use _core::bpf::{Capture, CaptureConfig, probe};
use _core::event::Direction;

use crate::seen::{FLOOD, Seen, drain, ours, possible, start, with_each_hook};

#[test]
fn the_best_hook_is_chosen_and_reported() {
    if !possible() {
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

#[test]
fn an_exchange_is_seen_whole_from_the_first_on() {
    with_each_hook(|config| {
        let (client, server) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (from, to) = (client.local_addr().unwrap(), server.local_addr().unwrap());
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let config = CaptureConfig { ports_whitelist: vec![from.port(), to.port()], ..config };
        let ended = AtomicBool::new(false);
        let _calm = FLOOD.read().unwrap_or_else(PoisonError::into_inner);
        let (mut capture, mut seen) = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut question = [0; 4];
                while let Ok((4, peer)) = server.recv_from(&mut question) {
                    server.send_to(&question, peer).unwrap();
                }
            });
            scope.spawn(|| {
                let mut answer = [0; 4];
                for number in 0..20_000_u32 {
                    client.send_to(&number.to_be_bytes(), to).unwrap();
                    client.recv_from(&mut answer).unwrap();
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    std::thread::sleep(Duration::from_micros(200)); // the ring must hold what comes while all starts
                }
                client.send_to(b"", to).unwrap();
            });
            std::thread::sleep(Duration::from_millis(20));
            let (mut capture, _) = start(&config);
            std::thread::sleep(Duration::from_millis(20));
            let mut seen = Seen::default();
            capture.poll(&mut seen);
            ended.store(true, Ordering::Relaxed);
            (capture, seen)
        });
        drain(&mut capture, &mut seen);
        assert_eq!(capture.counters().dropped, 0);
        let numbers = |direction, local, remote| -> BTreeSet<u32> {
            let pieces = seen.at(direction, local).into_iter().filter(|piece| piece.remote == remote);
            pieces.map(|piece| u32::from_be_bytes(piece.payload[..4].try_into().unwrap())).collect()
        };
        let calls = [
            numbers(Direction::Egress, from, to),
            numbers(Direction::Ingress, to, from),
            numbers(Direction::Egress, to, from),
            numbers(Direction::Ingress, from, to),
        ];
        let first = calls.iter().flatten().min().expect("something was seen");
        let last = calls.iter().flatten().max().expect("something was seen");
        assert!(last > first, "{:?}", config.hook);
        // The first was under way when the capture began.
        let missing = |number: &u32| calls.iter().any(|call| !call.contains(number));
        let cut: Vec<_> = (first + 1..=*last).filter(missing).collect();
        assert!(cut.is_empty(), "{:?}: of {first} to {last}: {} {:?}", config.hook, cut.len(), cut.first());
    });
}
