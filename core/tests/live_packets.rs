//! Packets of real interfaces in namespaces of their own; needs root and iproute2, says so and skips otherwise.

#[path = "driver/skipped.rs"]
mod skipped;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use _core::event::Place;
use _core::packet::decode::decode;
use _core::packet::live::{Kind, Live, PacketConfig};
use _core::packet::tunnel::Decapsulation;
use skipped::skipped;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Namespaces that go when the test is over.
struct Netns(String);

impl Netns {
    fn new() -> Self {
        let name = format!("dfr-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self(name)
    }

    fn inode(&self) -> u32 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(format!("/run/netns/{}", self.0)).expect("a namespace").ino() as u32
    }

    /// Goes into the namespace with this thread.
    fn enter(&self) {
        use std::os::fd::AsRawFd;
        let handle = fs::File::open(format!("/run/netns/{}", self.0)).expect("a namespace");
        // SAFETY: no pointers; the descriptor is open.
        assert_eq!(unsafe { libc::setns(handle.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).stderr(Stdio::inherit()).status().expect("ip runs");
    assert!(done.success(), "ip {arguments:?}");
}

fn may() -> bool {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    let tool = Command::new("ip").arg("-V").output().is_ok();
    if !root || !tool {
        skipped("packets of interfaces need root and iproute2");
    }
    root && tool
}

/// Two namespaces joined by `eth0` with 10.77.0.1 and 10.77.0.2.
fn joined() -> [Netns; 2] {
    let two = [Netns::new(), Netns::new()];
    let [a, b] = [&two[0].0, &two[1].0];
    ip(&["-n", a, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b]);
    for (one, address) in [(a, "10.77.0.1/24"), (b, "10.77.0.2/24")] {
        ip(&["-n", one, "addr", "add", address, "dev", "eth0"]);
        ip(&["-n", one, "link", "set", "eth0", "up"]);
    }
    two
}

fn inner(expression: &str) -> PacketConfig {
    PacketConfig {
        inner_interface_capture_enabled: true,
        inner_interface_regex: expression.to_string(),
        ring_blocks: 8,
        ..PacketConfig::default()
    }
}

/// One packet as the test looks at it.
#[derive(Clone, Debug)]
struct Seen {
    netns: u32,
    interface: String,
    port: u16,
    length: u32,
    captured: usize,
    place: Place,
    outgoing: bool,
}

/// Reads until the condition holds, at most for some seconds.
fn until(lives: &mut [Live], seen: &mut Vec<Seen>, what: &str, mut enough: impl FnMut(&[Seen]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        for live in lives.iter_mut() {
            live.poll(&mut |frame, interfaces| {
                let one = interfaces.get(frame.nic).expect("a known interface");
                let packet = decode(frame.link_type, frame.data, Decapsulation::default()).expect("IP only");
                seen.push(Seen {
                    netns: one.netns,
                    interface: one.name.clone(),
                    port: packet.destination.port,
                    length: packet.length,
                    captured: frame.data.len(),
                    place: interfaces.place(frame.nic, packet.source.ip, packet.destination.ip),
                    outgoing: frame.outgoing,
                });
            });
        }
        if enough(seen) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {} packets seen: {:?}", seen.len(), seen.last());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends datagrams out of a namespace, in a thread that stays there.
fn send(from: &Netns, to: &str, count: usize, bytes: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            from.enter();
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            for _ in 0..count {
                socket.send_to(&vec![7; bytes], to).expect("sent");
            }
        });
    });
}

fn udp(seen: &[Seen], port: u16) -> impl Iterator<Item = &Seen> {
    seen.iter().filter(move |one| one.port == port)
}

#[test]
fn each_end_of_a_veth_sees_every_packet_once() {
    if !may() {
        return;
    }
    let [a, b] = joined();
    let (mut lives, report) = Live::start(&inner("^eth0$")).expect("capture");
    assert!(report.chosen.contains("eth0") && report.lost.is_empty(), "{report:?}");
    send(&a, "10.77.0.2:7777", 500, 400);
    let mut seen = Vec::new();
    until(&mut lives, &mut seen, "both ends", |seen| udp(seen, 7777).count() == 1000);
    for (netns, outgoing, point) in [(a.inode(), true, "c"), (b.inode(), false, "s")] {
        let here: Vec<&Seen> = udp(&seen, 7777).filter(|one| one.netns == netns).collect();
        assert_eq!(here.len(), 500);
        assert!(
            here.iter().all(|one| one.outgoing == outgoing && one.length == 400 && one.place.point.name() == point)
        );
    }
    let counters = lives[0].counters();
    assert_eq!((counters.dropped, counters.throttled, counters.malformed, counters.strange), (0, 0, 0, 0));
    let ends: Vec<_> = lives[0].interfaces().iter().filter(|one| one.name == "eth0" && one.captured).collect();
    for (one, other) in [(a.inode(), b.inode()), (b.inode(), a.inode())] {
        let end = ends.iter().find(|end| end.netns == one).expect("an end");
        assert_eq!((end.kind, end.peer.map(|peer| peer.netns)), (Kind::Veth, Some(other)));
    }
}

#[test]
fn interfaces_and_namespaces_that_come_later() {
    if !may() {
        return;
    }
    let (mut lives, _) = Live::start(&inner("^(eth0|late[0-9]+)$")).expect("capture");
    let [a, b] = joined();
    let follow = |lives: &mut [Live], one: &Netns, name: &str, seen: &mut Vec<Seen>| {
        until(lives, seen, "a new interface", |_| true);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !lives[0].interfaces().iter().any(|nic| nic.netns == one.inode() && nic.captured && nic.name == name) {
            assert!(Instant::now() < deadline, "{name} is not found");
            std::thread::sleep(Duration::from_millis(20));
            until(lives, seen, "a new interface", |_| true);
        }
    };
    let mut seen = Vec::new();
    follow(&mut lives, &a, "eth0", &mut seen);
    follow(&mut lives, &b, "eth0", &mut seen);
    send(&a, "10.77.0.2:7001", 10, 100);
    until(&mut lives, &mut seen, "a new namespace", |seen| udp(seen, 7001).count() == 20);
    // More than have a ring each: they then share one, and nothing is seen twice.
    for number in 0..6 {
        let name = format!("late{number}");
        ip(&["-n", &a.0, "link", "add", &name, "type", "veth", "peer", "name", &format!("far{number}"), "netns", &b.0]);
        ip(&["-n", &b.0, "link", "set", &format!("far{number}"), "up"]);
        ip(&["-n", &a.0, "addr", "add", &format!("10.78.{number}.1/24"), "dev", &name]);
        ip(&["-n", &a.0, "link", "set", &name, "up"]);
        ip(&["-n", &a.0, "neigh", "add", &format!("10.78.{number}.2"), "lladdr", "2:0:0:0:0:9", "dev", &name]);
    }
    follow(&mut lives, &a, "late5", &mut seen);
    for number in 0..6 {
        send(&a, &format!("10.78.{number}.2:7002"), 10, 100);
    }
    send(&a, "10.77.0.2:7002", 10, 100);
    until(&mut lives, &mut seen, "interfaces that share", |seen| udp(seen, 7002).count() == 80);
    let on = |name: &str| udp(&seen, 7002).filter(|one| one.interface == name).count();
    assert_eq!(["late0", "late5", "eth0"].map(on), [10, 10, 20]);
    ip(&["-n", &a.0, "link", "del", "late0"]);
    send(&a, "10.78.1.2:7003", 10, 100);
    until(&mut lives, &mut seen, "after one went", |seen| udp(seen, 7003).count() == 10);
    // The last packets of one that goes are read when it is gone already.
    send(&a, "10.78.2.2:7004", 10, 100);
    ip(&["-n", &a.0, "link", "del", "late2"]);
    std::thread::sleep(Duration::from_millis(400));
    until(&mut lives, &mut seen, "of one that is gone", |seen| udp(seen, 7004).count() == 10);
    assert!(udp(&seen, 7004).all(|one| one.interface == "late2"));
    assert_eq!(lives[0].counters().strange, 0);
}

#[test]
fn a_namespace_that_is_deleted_goes() {
    if !may() {
        return;
    }
    let (outer, inner_one) = (Netns::new(), Netns::new());
    ip(&["-n", &outer.0, "link", "add", "host0", "type", "veth", "peer", "name", "eth0", "netns", &inner_one.0]);
    ip(&["-n", &inner_one.0, "link", "set", "eth0", "up"]);
    ip(&["-n", &outer.0, "link", "set", "host0", "up"]);
    let (mut lives, _) = Live::start(&inner("^eth0$")).expect("capture");
    let inode = inner_one.inode();
    let mut seen = Vec::new();
    until(&mut lives, &mut seen, "the start", |_| true);
    assert!(lives[0].interfaces().iter().any(|one| one.netns == inode));
    drop(inner_one);
    // The kernel ends it only when no ring of ours is left in it: then the other end of the veth goes as well.
    let gone = || {
        let list = Command::new("ip").args(["-n", &outer.0, "link", "show", "host0"]).output().expect("ip runs");
        !list.status.success()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !gone() {
        assert!(Instant::now() < deadline, "the namespace is kept alive");
        std::thread::sleep(Duration::from_millis(20));
        until(&mut lives, &mut seen, "the end", |_| true);
    }
}

#[test]
fn workers_share_by_flow() {
    if !may() {
        return;
    }
    let [a, b] = joined();
    let config = PacketConfig { fanout_count: 3, ..inner("^eth0$") };
    let (mut lives, _) = Live::start(&config).expect("capture");
    assert_eq!(lives.len(), 3);
    for port in 0..40 {
        send(&a, &format!("10.77.0.2:{}", 7100 + port), 5, 50);
    }
    let mut of_worker: Vec<Vec<Seen>> = vec![Vec::new(); 3];
    let deadline = Instant::now() + Duration::from_secs(20);
    let sent = |all: &[Vec<Seen>]| all.iter().flatten().filter(|one| (7100..7140).contains(&one.port)).count();
    while sent(&of_worker) < 400 && Instant::now() < deadline {
        for (live, seen) in lives.iter_mut().zip(&mut of_worker) {
            until(std::slice::from_mut(live), seen, "one worker", |_| true);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(sent(&of_worker), 400);
    assert!(of_worker.iter().filter(|seen| !seen.is_empty()).count() > 1, "one worker has all");
    for netns in [a.inode(), b.inode()] {
        for port in 7100..7140 {
            let holders = of_worker.iter().filter(|seen| seen.iter().any(|one| one.port == port && one.netns == netns));
            assert_eq!(holders.count(), 1, "a flow is divided");
        }
    }
}

#[test]
fn the_filter_leaves_out_own_traffic_and_ports_and_cuts() {
    if !may() {
        return;
    }
    let [a, b] = joined();
    let config = PacketConfig {
        ports_blacklist: vec![7201],
        own: serde_json::from_str(r#"[{"ip": "10.77.0.2", "port": 7202}]"#).expect("an end"),
        max_packet_bytes: 128,
        ..inner("^eth0$")
    };
    let (mut lives, _) = Live::start(&config).expect("capture");
    // A connection to the server, of which nothing is to be seen.
    let listens = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            b.enter();
            let listener = TcpListener::bind("10.77.0.2:7202").expect("a listener");
            listens.wait();
            let (mut peer, _) = listener.accept().expect("a connection");
            peer.read_exact(&mut [0; 3]).expect("what was sent");
        });
        scope.spawn(|| {
            a.enter();
            listens.wait();
            TcpStream::connect("10.77.0.2:7202").expect("a connection").write_all(b"own").expect("sent");
        });
    });
    send(&a, "10.77.0.2:7201", 10, 100);
    // UDP to the same port is somebody else's.
    send(&a, "10.77.0.2:7202", 10, 100);
    send(&a, "10.77.0.2:7203", 10, 1000);
    let mut seen = Vec::new();
    until(&mut lives, &mut seen, "the last", |seen| udp(seen, 7203).count() == 20);
    assert_eq!(udp(&seen, 7201).count(), 0);
    assert_eq!(udp(&seen, 7202).filter(|one| one.length == 100).count(), 20);
    assert_eq!(udp(&seen, 7202).filter(|one| one.length != 100).count(), 0, "own traffic is seen");
    assert!(udp(&seen, 7203).all(|one| one.captured == 128 && one.length == 1000));
}

#[test]
fn a_loopback_gives_each_packet_once() {
    if !may() {
        return;
    }
    let one = Netns::new();
    let (mut lives, _) = Live::start(&PacketConfig { loopback: Some(true), ..inner("^lo$") }).expect("capture");
    send(&one, "127.0.0.1:7301", 50, 60);
    let mut seen = Vec::new();
    until(&mut lives, &mut seen, "all", |seen| udp(seen, 7301).count() >= 50);
    // Time for those that would come twice.
    std::thread::sleep(Duration::from_millis(200));
    until(&mut lives, &mut seen, "the rest", |_| true);
    assert_eq!(udp(&seen, 7301).count(), 50);
    assert!(udp(&seen, 7301).all(|packet| packet.place.point.name() == "local"));
}

#[test]
fn more_than_a_second_may_bring_is_counted() {
    if !may() {
        return;
    }
    let [a, _b] = joined();
    let (mut lives, _) = Live::start(&PacketConfig { max_pps: 10, ..inner("^eth0$") }).expect("capture");
    send(&a, "10.77.0.2:7401", 200, 60);
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        until(&mut lives, &mut seen, "some", |_| true);
        let counters = lives[0].counters();
        if counters.packets + counters.throttled >= 400 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let counters = lives[0].counters();
    assert!(counters.packets + counters.throttled >= 400 && counters.throttled >= 300, "{counters:?}");
    assert_eq!(counters.packets, seen.len() as u64);
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    let refused = |config: PacketConfig| Live::start(&config).err().expect("a sentence");
    let wrong = PacketConfig { interface_regex: "(".to_string(), ..PacketConfig::default() };
    assert!(refused(wrong).contains("interface_regex"));
    assert!(refused(PacketConfig { fanout_count: 0, ..PacketConfig::default() }).contains("fanout_count"));
    assert!(refused(PacketConfig { max_packet_bytes: 10, ..PacketConfig::default() }).contains("max_packet_bytes"));
}
