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
use _core::engine::EngineConfig;
use _core::event::{EventSink, ProcessChange, Segment, SocketChange};

const ROUNDS: usize = 9;
const CALLS: u32 = 20_000;
const STRETCHES: u32 = 100;
const MESSAGE: usize = 256;
/// Of 800 calls each: about 40 ms, the agent's longest interval.
const STRETCHES_A_POLL: u32 = 20;

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
/// busy machine. `rest` is called after so many stretches as the agent reads the rings in.
fn per_call(calls: u32, mut call: impl FnMut(), mut rest: impl FnMut()) -> f64 {
    let stretch = calls / STRETCHES;
    let mut best = f64::INFINITY;
    for number in 1..=STRETCHES {
        let begin = Instant::now();
        for _ in 0..stretch {
            call();
        }
        best = best.min(begin.elapsed().as_nanos() as f64 / f64::from(stretch));
        if number % STRETCHES_A_POLL == 0 {
            rest();
        }
    }
    best
}

/// Reads the rings until they are empty; the time that a record took, ns.
fn read(capture: &mut Capture) -> f64 {
    let (begin, mut sink, mut records) = (Instant::now(), Count::default(), 0);
    loop {
        match capture.poll(&mut sink) {
            0 => return begin.elapsed().as_nanos() as f64 / records.max(1) as f64,
            more => records += more,
        }
    }
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
    let ring_bytes = u32::try_from(EngineConfig::default().ring_bytes).expect("the agent's rings");
    let modes = [None, Some(Hook::SockLength), Some(Hook::SysEnter)];
    let mut best = [[f64::INFINITY; 3]; 3];
    let mut poll_ns = f64::INFINITY;
    for _ in 0..ROUNDS {
        for (mode, hook) in modes.into_iter().enumerate() {
            let mut capture = hook.map(|hook| {
                let config = CaptureConfig { hook, ring_bytes, ignored_pids: vec![1], ..CaptureConfig::default() };
                Capture::start(&config).unwrap_or_else(|error| panic!("{error}")).0
            });
            let mut rest = || {
                if let Some(capture) = &mut capture {
                    poll_ns = poll_ns.min(read(capture));
                }
            };
            // A message each way, so that every call carries its payload.
            let exchange = || {
                client.write_all(&message).expect("a write");
                server.read_exact(&mut buffer).expect("a read");
                server.write_all(&message).expect("a write");
                client.read_exact(&mut buffer).expect("a read");
            };
            let tcp = per_call(CALLS, exchange, &mut rest) / 4.0;
            // SAFETY: no memory is involved.
            let parent = || _ = unsafe { libc::syscall(libc::SYS_getppid) };
            let getppid = per_call(CALLS * 10, parent, || {});
            // SAFETY: the byte lives through the call.
            let byte = || _ = unsafe { libc::write(null.as_raw_fd(), message.as_ptr().cast(), 1) };
            let write = per_call(CALLS * 10, byte, || {});
            for (slot, value) in best[mode].iter_mut().zip([tcp, getppid, write]) {
                *slot = slot.min(value);
            }
            if let Some(capture) = capture {
                let counters = capture.counters();
                assert!(counters.dropped == 0 && counters.records > 0, "{counters:?}");
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
