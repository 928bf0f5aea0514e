//! Traffic under a capture, and what it hands out.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use _core::bpf::{Capture, CaptureConfig, CaptureCounters, Hook, HookReport};
use _core::event::{Direction, EventSink, ProcessChange, Segment, SocketChange};

use crate::skipped::skipped;

const HOOKS: [Hook; 2] = [Hook::SockLength, Hook::SysEnter];

/// A segment that owns its payload.
#[derive(Clone, Debug)]
pub struct Piece {
    pub socket: u64,
    pub direction: Direction,
    pub protocol: u8,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub netns: u32,
    pub pid: u32,
    pub tid: u32,
    pub comm: String,
    pub cgroup: u64,
    pub tcp_seq: u32,
    pub length: u32,
    pub payload: Vec<u8>,
    pub time_us: u64,
}

#[derive(Default)]
pub struct Seen {
    pub pieces: Vec<Piece>,
    pub changes: Vec<SocketChange>,
    pub processes: Vec<ProcessChange>,
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
            cgroup: s.cgroup,
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
    pub fn at(&self, direction: Direction, local: SocketAddr) -> Vec<&Piece> {
        self.pieces.iter().filter(|p| p.direction == direction && p.local.port() == local.port()).collect()
    }
}

/// Whether kernel capture can be tested here; says why not.
pub fn possible() -> bool {
    // SAFETY: no arguments, no memory.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        skipped("kernel capture needs root");
        return false;
    }
    let types = std::path::Path::new("/sys/kernel/btf/vmlinux").exists();
    if !types {
        skipped("this kernel has no BTF");
    }
    types
}

pub fn ours() -> CaptureConfig {
    CaptureConfig { only_pids: vec![std::process::id()], ..CaptureConfig::default() }
}

pub fn start(config: &CaptureConfig) -> (Capture, Vec<HookReport>) {
    Capture::start(config).unwrap_or_else(|error| panic!("{:?}: {error}", config.hook))
}

/// After so long without a record there is none, unless a thread loses its processor for longer in the midst of one.
const SILENCE_MS: u64 = 400;

/// Everything that is there. A record is whole before its call returns, but one of another thread that is being written
/// holds back what is later, and that thread may have lost its CPU.
pub fn drain(capture: &mut Capture, seen: &mut Seen) {
    let (mut last, mut silent) = (Instant::now(), 0);
    while silent < 20 || last.elapsed() < Duration::from_millis(SILENCE_MS) {
        if capture.poll(seen) > 0 {
            (last, silent) = (Instant::now(), 0);
        } else {
            silent += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Held for writing by tests whose traffic would fill the rings of all others: all are one process.
pub static FLOOD: RwLock<()> = RwLock::new(());

/// Runs `traffic` under a capture.
pub fn observe<T>(config: &CaptureConfig, traffic: impl FnOnce(&mut Capture) -> T) -> (Seen, CaptureCounters, T) {
    let _calm = FLOOD.read().unwrap_or_else(PoisonError::into_inner);
    let (mut capture, _) = start(config);
    let result = traffic(&mut capture);
    let mut seen = Seen::default();
    drain(&mut capture, &mut seen);
    (seen, capture.counters(), result)
}

/// For each hook, unless the machine cannot do it.
pub fn with_each_hook(test: impl Fn(CaptureConfig)) {
    if !possible() {
        return;
    }
    for hook in HOOKS {
        test(CaptureConfig { hook, ..ours() });
    }
}

pub fn pair(ip: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

pub fn netns() -> u32 {
    let link = std::fs::read_link("/proc/self/ns/net").unwrap();
    link.to_string_lossy().trim_start_matches("net:[").trim_end_matches(']').parse().unwrap()
}
