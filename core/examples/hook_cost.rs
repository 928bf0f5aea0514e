//! What the kernel programs add to a call, in nanoseconds: `cargo run --release --example hook_cost`.
//!
//! Rounds of no hook, SockLength and SysEnter are interleaved in one run on one pinned thread; a figure is the minimum
//! of short stretches. Prints JSON. Only the socket programs of this process are active for its sockets.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Instant;

use _core::bpf::{Capture, CaptureConfig, Hook};
use _core::event::{EventSink, ProcessChange, Segment, SocketChange};

const ROUNDS: usize = 9;
const CALLS: u32 = 20_000;
const STRETCHES: u32 = 100;
const MESSAGE: usize = 256;

#[derive(Default)]
struct Count(u64);

impl EventSink for Count {
    fn segment(&mut self, segment: &Segment<'_>) {
        self.0 += u64::from(black_box(segment).length);
    }
    fn socket(&mut self, _: &SocketChange) {}
    fn process(&mut self, _: ProcessChange) {}
}

/// The best of many short stretches: a stretch of about a millisecond is often left alone by the scheduler, even on a
/// busy machine.
fn per_call(calls: u32, mut call: impl FnMut()) -> f64 {
    let stretch = calls / STRETCHES;
    let mut best = f64::INFINITY;
    for _ in 0..STRETCHES {
        let begin = Instant::now();
        for _ in 0..stretch {
            call();
        }
        best = best.min(begin.elapsed().as_nanos() as f64 / f64::from(stretch));
    }
    best
}

fn main() {
    // SAFETY: a zeroed set with one CPU in it, given with its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().max(0).unsigned_abs() as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let mut client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (mut server, _) = listener.accept().expect("a connection");
    client.set_nodelay(true).expect("TCP_NODELAY");
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
    let (message, mut buffer) = ([b'x'; MESSAGE], [0u8; MESSAGE]);
    let modes = [None, Some(Hook::SockLength), Some(Hook::SysEnter)];
    let mut best = [[f64::INFINITY; 3]; 3];
    let mut poll_ns = f64::INFINITY;
    for _ in 0..ROUNDS {
        for (mode, hook) in modes.into_iter().enumerate() {
            let mut capture = hook.map(|hook| {
                let config =
                    CaptureConfig { hook, ring_bytes: 256 << 20, ignored_pids: vec![1], ..CaptureConfig::default() };
                Capture::start(&config).unwrap_or_else(|error| panic!("{error}")).0
            });
            // A message each way, so that every call carries its payload.
            let tcp = per_call(CALLS, || {
                client.write_all(&message).expect("a write");
                server.read_exact(&mut buffer).expect("a read");
                server.write_all(&message).expect("a write");
                client.read_exact(&mut buffer).expect("a read");
            }) / 4.0;
            // SAFETY: no memory is involved.
            let getppid = per_call(CALLS * 10, || unsafe {
                libc::syscall(libc::SYS_getppid);
            });
            // SAFETY: the byte lives through the call.
            let write = per_call(CALLS * 10, || unsafe {
                libc::write(null.as_raw_fd(), message.as_ptr().cast(), 1);
            });
            for (slot, value) in best[mode].iter_mut().zip([tcp, getppid, write]) {
                *slot = slot.min(value);
            }
            if let Some(capture) = &mut capture {
                let mut sink = Count::default();
                let begin = Instant::now();
                let mut records = 0;
                loop {
                    let read = capture.poll(&mut sink);
                    if read == 0 {
                        break;
                    }
                    records += read;
                }
                let counters = capture.counters();
                assert!(counters.dropped == 0 && records > 0, "{counters:?}");
                poll_ns = poll_ns.min(begin.elapsed().as_nanos() as f64 / records as f64);
            }
        }
    }
    let [off, sock, sys] = best;
    let object = |index: usize| {
        serde_json::json!({
            "off_ns": off[index],
            "sock_length_ns": sock[index], "sock_length_added_ns": sock[index] - off[index],
            "sock_length_ratio": sock[index] / off[index],
            "sys_exit_ns": sys[index], "sys_exit_added_ns": sys[index] - off[index],
            "sys_exit_ratio": sys[index] / off[index],
        })
    };
    let report = serde_json::json!({
        "what": "ns a call, minimum of short stretches of interleaved rounds, one run, one pinned thread",
        "rounds": ROUNDS, "message_bytes": MESSAGE,
        "tcp_loopback_call": object(0), "getppid": object(1), "write_dev_null": object(2),
        "poll_ns_per_record": poll_ns,
    });
    println!("{report:#}");
}
