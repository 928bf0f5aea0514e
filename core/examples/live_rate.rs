//! Packets a second and CPU a million packets of live capture, over a veth pair of its own. Prints JSON.
//!
//! One thread sends datagrams of 100 bytes as fast as it can; what the kernel does for the capture happens in its time.
//! `off`: nothing reads. `capture`: every packet is read and counted, at both ends of the veth. `flows`: it also goes
//! through headers, flows and application protocols. Rounds are interleaved. Needs root and iproute2.
//!
//! `cargo run --release --no-default-features --example live_rate [rounds]`

use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use _core::engine::{EngineConfig, Shared};
use _core::packet::live::{Live, PacketConfig};
use _core::packets::Packets;

const SENT: u64 = 1_000_000;
const WAYS: [&str; 3] = ["off", "capture", "flows"];

type Problem = Box<dyn std::error::Error>;

fn ip(words: &str) -> Result<(), Problem> {
    let done = Command::new("ip").args(words.split(' ')).status()?;
    if done.success() { Ok(()) } else { Err(format!("ip {words}: {done}").into()) }
}

/// Two namespaces joined by `eth0`; they go with it.
struct Pair([String; 2]);

impl Pair {
    fn new() -> Result<Self, Problem> {
        let names = ["c", "s"].map(|side| format!("df-rate-{}-{side}", std::process::id()));
        let pair = Self(names);
        let [client, server] = &pair.0;
        for name in &pair.0 {
            ip(&format!("netns add {name}"))?;
        }
        ip(&format!("link add eth0 netns {client} type veth peer name eth0 netns {server}"))?;
        for (number, name) in pair.0.iter().enumerate() {
            ip(&format!("-n {name} address add 10.91.9.{}/24 dev eth0", number + 1))?;
            ip(&format!("-n {name} link set eth0 up"))?;
        }
        Ok(pair)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// Seconds of CPU that this thread used.
fn cpu_s() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Takes this thread into a namespace, until it ends.
fn enter(namespace: &str) -> Result<(), Problem> {
    let handle = std::fs::File::open(format!("/run/netns/{namespace}"))?;
    // SAFETY: no pointers; the descriptor is open.
    if unsafe { libc::setns(handle.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}

/// Sends datagrams to a few ports of the other namespace, where they are taken but not read; seconds of CPU it took.
fn send(pair: &Pair) -> Result<f64, Problem> {
    enter(&pair.0[1])?;
    let ports = 9000..9064u16;
    let takers: Result<Vec<_>, _> = ports.clone().map(|port| std::net::UdpSocket::bind(("10.91.9.2", port))).collect();
    let _takers = takers?;
    enter(&pair.0[0])?;
    let socket = std::net::UdpSocket::bind("10.91.9.1:0")?;
    let targets: Vec<_> =
        (0..64u16).map(|number| std::net::SocketAddr::from(([10, 91, 9, 2], 9000 + number))).collect();
    let began = cpu_s();
    for number in 0..SENT {
        socket.send_to(&[0; 58], targets[number as usize % targets.len()])?;
    }
    Ok(cpu_s() - began)
}

#[derive(Clone, Copy, Default)]
struct Round {
    sending_s: f64,
    wall_s: f64,
    reading_s: f64,
    read: u64,
    dropped: u64,
}

fn round(way: &str, pair: &Pair) -> Result<Round, Problem> {
    let config = PacketConfig {
        inner_interface_capture_enabled: true,
        inner_interface_regex: "^eth0$".to_string(),
        max_packet_bytes: 1280,
        max_pps: 0,
        ring_blocks: 64,
        ..PacketConfig::default()
    };
    let over = AtomicBool::new(false);
    let read = AtomicU64::new(0);
    let mut lives = if way == "off" { Vec::new() } else { Live::start(&config)?.0 };
    let mut done = Round::default();
    std::thread::scope(|scope| -> Result<(), Problem> {
        let (over, read) = (&over, &read);
        let reader = lives.pop().map(|mut live| {
            let flows = way == "flows";
            scope.spawn(move || {
                let mut packets = Packets::new(&EngineConfig::default(), &Shared::default(), 0);
                let (began, mut interval) = (cpu_s(), Duration::from_millis(50));
                loop {
                    let last = over.load(Ordering::Relaxed);
                    let mut count = 0;
                    let fill = live.poll(&mut |frame, interfaces| {
                        count += 1;
                        if flows {
                            packets.frame(frame, interfaces);
                        }
                    });
                    packets.tick(_core::agent::now_us());
                    read.fetch_add(count, Ordering::Relaxed);
                    if last {
                        return (cpu_s() - began, live.counters().dropped);
                    }
                    interval = if fill > 0.5 { interval / 2 } else { interval * 2 };
                    interval = interval.clamp(Duration::from_millis(1), Duration::from_millis(50));
                    std::thread::sleep(interval);
                }
            })
        });
        let began = Instant::now();
        let sender = scope.spawn(|| send(pair).map_err(|error| error.to_string()));
        done.sending_s = sender.join().map_err(|_| "the sender failed")??;
        done.wall_s = began.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
        if let Some(reader) = reader {
            (done.reading_s, done.dropped) = reader.join().map_err(|_| "the reader failed")?;
        }
        Ok(())
    })?;
    done.read = read.load(Ordering::Relaxed);
    Ok(done)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Problem> {
    let rounds = std::env::args().nth(1).map_or(Ok(5), |text| text.parse::<usize>())?.max(1);
    let pair = Pair::new()?;
    let mut all: [Vec<Round>; 3] = Default::default();
    for _ in 0..rounds {
        for (way, list) in WAYS.iter().zip(&mut all) {
            list.push(round(way, &pair)?);
        }
    }
    let of = |list: &[Round], what: &dyn Fn(&Round) -> f64| median(list.iter().map(what).collect());
    let sending_ns = |one: &Round| one.sending_s * 1e9 / SENT as f64;
    let bare = of(&all[0], &sending_ns);
    let mut result = serde_json::Map::new();
    for (way, list) in WAYS.iter().zip(&all) {
        let mut figures = serde_json::json!({
            "sent_per_s": (of(list, &|one| SENT as f64 / one.wall_s)) as u64,
            "sender_cpu_ns_a_packet": of(list, &sending_ns) as u64,
        });
        if *way != "off" {
            figures["read"] = of(list, &|one| one.read as f64).into();
            figures["dropped_percent"] =
                of(list, &|one| one.dropped as f64 * 100.0 / (one.read + one.dropped).max(1) as f64).into();
            figures["reader_cpu_s_a_million"] = of(list, &|one| one.reading_s * 1e6 / one.read.max(1) as f64).into();
            // Each datagram passes two captured ends.
            figures["kernel_cpu_ns_a_packet"] = ((of(list, &sending_ns) - bare) / 2.0).into();
        }
        result.insert((*way).to_string(), figures);
    }
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}
