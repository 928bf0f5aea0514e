//! Which programs are attached, and what is said when they are not.

use std::collections::HashSet;
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
fn what_is_seen_to_be_sent_is_seen_to_be_received_from_the_first_record_on() {
    with_each_hook(|config| {
        let (client, server) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (from, to) = (client.local_addr().unwrap(), server.local_addr().unwrap());
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
                for number in 0_u32.. {
                    client.send_to(&number.to_le_bytes(), to).unwrap();
                    client.recv_from(&mut answer).unwrap();
                    std::thread::sleep(Duration::from_micros(200)); // the ring must hold what comes while all starts
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                }
                client.send_to(b"", to).unwrap();
            });
            std::thread::sleep(Duration::from_millis(20));
            let (mut capture, _) = start(&config);
            let mut seen = Seen::default();
            capture.poll(&mut seen);
            ended.store(true, Ordering::Relaxed);
            (capture, seen)
        });
        drain(&mut capture, &mut seen);
        assert_eq!(capture.counters().dropped, 0);
        let received: HashSet<&[u8]> =
            seen.at(Direction::Ingress, to).iter().filter(|piece| piece.remote == from).map(|p| &*p.payload).collect();
        let sent = seen.at(Direction::Egress, from);
        assert!(sent.len() > 1, "{:?}: nothing was sent", config.hook);
        // The first was perhaps received before its sender came out of the call.
        let missing: Vec<_> = sent[1..].iter().filter(|piece| !received.contains(&*piece.payload)).collect();
        assert!(missing.is_empty(), "{:?}: {} of {}", config.hook, missing.len(), sent.len());
    });
}
