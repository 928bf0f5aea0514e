//! What is left out: by filters, by marks, and because there is no room.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use _core::bpf::{Bell, CaptureConfig};
use _core::event::Direction;

use crate::seen::{FLOOD, Seen, drain, netns, observe, pair, start, with_each_hook};

#[test]
fn a_quiet_socket_sends_nothing_more_and_others_do() {
    with_each_hook(|config| {
        let (mut client, _server) = pair("127.0.0.1");
        let (mut other, _other_server) = pair("127.0.0.1");
        let (seen, counters, before) = observe(&config, |capture| {
            client.write_all(b"first").unwrap();
            other.write_all(b"first").unwrap();
            let mut before = Seen::default();
            drain(capture, &mut before);
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
    let _alone = FLOOD.write().unwrap_or_else(PoisonError::into_inner);
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
fn a_ring_that_is_read_while_it_is_written_gives_every_record_once() {
    const MESSAGES: u32 = 40_000;
    let _alone = FLOOD.write().unwrap_or_else(PoisonError::into_inner);
    with_each_hook(|config| {
        let (mut client, mut server) = pair("127.0.0.1");
        let from = client.local_addr().unwrap();
        let ports_whitelist = vec![server.local_addr().unwrap().port()];
        let config = CaptureConfig { ring_bytes: 2 << 20, ports_whitelist, ..config };
        let (mut capture, _) = start(&config);
        let writer = std::thread::spawn(move || {
            for number in 0..MESSAGES {
                // Answered, so that each is a run of its own.
                let length = 4 + number as usize % 600;
                let mut message = vec![0; length];
                message[..4].copy_from_slice(&number.to_le_bytes());
                client.write_all(&message).unwrap();
                server.read_exact(&mut message).unwrap();
                server.write_all(b"!").unwrap();
                client.read_exact(&mut [0; 1]).unwrap();
            }
        });
        let mut seen = Seen::default();
        let mut last = false;
        loop {
            while capture.poll(&mut seen) > 0 {}
            if last {
                break;
            }
            std::thread::sleep(std::time::Duration::from_micros(300));
            last = writer.is_finished();
        }
        writer.join().unwrap();
        let counters = capture.counters();
        let numbers: Vec<u32> = seen
            .at(Direction::Egress, from)
            .iter()
            .map(|piece| u32::from_le_bytes(piece.payload[..4].try_into().unwrap()))
            .collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{:?}", config.hook);
        let lost = u64::from(MESSAGES) - numbers.len() as u64;
        assert!(lost <= counters.dropped && counters.malformed == 0, "{lost} {counters:?}");
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

/// So many bytes there, and an answer.
fn exchange(client: &mut TcpStream, server: &mut TcpStream, bytes: usize) {
    client.write_all(&vec![1; bytes]).unwrap();
    server.read_exact(&mut vec![0; bytes]).unwrap();
    server.write_all(&[2]).unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn a_ring_that_fills_wakes_the_reader() {
    let _alone = FLOOD.write().unwrap_or_else(PoisonError::into_inner);
    with_each_hook(|config| {
        // A ring of one chunk, and one of several.
        for ring_bytes in [4096, 4 << 20] {
            let (mut client, mut server) = pair("127.0.0.1");
            let ports_whitelist = vec![server.local_addr().unwrap().port()];
            let config = CaptureConfig { ring_bytes, payload_truncation: 8192, ports_whitelist, ..config.clone() };
            let context = format!("{:?}, {ring_bytes} bytes", config.hook);
            let (mut capture, _) = start(&config);
            let bell = Arc::new(Bell::new().unwrap());
            let forever = Duration::from_secs(3600);
            let mut seen = Seen::default();
            // What was read already does not count, and the ring goes on from the middle of a chunk.
            for _ in 0..5 {
                for _ in 0..3 {
                    exchange(&mut client, &mut server, 8000);
                }
                while capture.poll(&mut seen) > 0 {}
            }
            bell.ring();
            assert!(!capture.wait(&bell, forever), "{context}: nothing fills yet");
            let full = Arc::clone(&bell);
            let traffic = std::thread::spawn(move || {
                for _ in 0..600 {
                    exchange(&mut client, &mut server, 8000);
                }
                full.ring(); // more than all rings hold
            });
            assert!(capture.wait(&bell, forever), "{context}: it was not woken");
            traffic.join().unwrap();
            assert!(capture.filling(), "{context}");
            while capture.poll(&mut seen) > 0 {}
            assert!(!seen.pieces.is_empty() && !capture.filling(), "{context}");
        }
    });
}
