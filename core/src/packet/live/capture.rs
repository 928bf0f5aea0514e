//! The packets of this host for its workers.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::PacketConfig;
use super::interfaces::{Captured, Interfaces};
use super::namespaces;
use super::ring::{Ring, RingCounters, Wanted};
use super::scan::{Change, RingKey, Scanner, Status};
use crate::packet::Frame;

/// How long a ring that takes nothing more is still read: the kernel hands over its last block after a while.
const CLOSING: Duration = Duration::from_millis(200);
const MICROS: u64 = 1_000_000;

/// How the capture began, for the agent's log and `deepflow doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveReport {
    pub chosen: String,
    /// What is missing; empty when nothing is.
    pub lost: String,
}

impl LiveReport {
    fn new(status: &Status) -> Self {
        const SHOWN: usize = 12;
        let names = match status.names.get(SHOWN..) {
            Some([_, ..]) => format!("{} and {} more", status.names[..SHOWN].join(", "), status.names.len() - SHOWN),
            _ => status.names.join(", "),
        };
        let chosen = match (status.names.len(), status.rings) {
            (0, _) => "AF_PACKET, no interface yet".to_string(),
            (_, 0) => "none".to_string(),
            _ => format!("AF_PACKET (TPACKET_V3): {names}"),
        };
        let mut lost = status.problems.clone();
        lost.dedup();
        if status.left_out > 0 {
            lost.push(format!("{} interfaces or namespaces beyond the bounds are left out", status.left_out));
        }
        Self { chosen, lost: lost.join("; ") }
    }
}

/// Totals of one worker, and present sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveCounters {
    /// Packets handed over, and their bytes on the wire.
    pub packets: u64,
    pub bytes: u64,
    /// Packets for which no ring had room.
    pub dropped: u64,
    /// Packets beyond `max_pps`.
    pub throttled: u64,
    /// Packets at an impossible place of a block.
    pub malformed: u64,
    /// Packets of an interface that nobody chose.
    pub strange: u64,
}

/// Ends the scanner when the last worker is gone.
struct ScannerThread {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for ScannerThread {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A ring that only shows whether there can be one.
const SMALLEST: Wanted = Wanted { ifindex: 0, incoming_only: true, promiscuous: false, blocks: 1, fanout: None };

/// Whether packets can be read here: which way, or why not.
pub fn probe() -> Result<String, String> {
    Ring::open(&SMALLEST).map_err(|error| format!("no AF_PACKET socket with a TPACKET_V3 ring: {error}"))?;
    let own = namespaces::own().map_err(|error| format!("/proc/self/ns/net: {error}"))?;
    let (others, _) = namespaces::others(Path::new("/proc"), own.inode, 1);
    // A thread of its own: it ends where it is.
    let entered = std::thread::spawn(move || others.first().map(namespaces::enter)).join();
    Ok(match entered {
        Ok(Some(Ok(()))) => "AF_PACKET with TPACKET_V3, also in other network namespaces".to_string(),
        Ok(Some(Err(error))) => {
            format!("AF_PACKET with TPACKET_V3; other network namespaces cannot be entered: {error}")
        }
        _ => "AF_PACKET with TPACKET_V3".to_string(),
    })
}

struct Reading {
    key: RingKey,
    ring: Box<Ring>,
    /// Takes nothing more since then.
    closed: Option<Instant>,
}

/// The rings of one worker.
pub struct Live {
    changes: Receiver<Change>,
    rings: Vec<Reading>,
    interfaces: Arc<Interfaces>,
    counters: LiveCounters,
    /// Of rings that are closed.
    gone: RingCounters,
    /// Packets a second for this worker, and those of the present second.
    max_pps: u64,
    second: u64,
    in_second: u64,
    status: Arc<Mutex<Status>>,
    _scanner: Arc<ScannerThread>,
}

impl Live {
    /// Opens the rings, each divided among so many workers as the settings say, and goes on to follow what changes.
    ///
    /// # Errors
    /// One sentence on a setting or on what the kernel refuses. Interfaces that cannot be read are in the report.
    pub fn start(config: &PacketConfig) -> Result<(Vec<Self>, LiveReport), String> {
        config.check()?;
        // Without the right to it there will never be a ring, whatever interfaces come.
        if Ring::open(&SMALLEST).is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)) {
            return Err("packet sockets need CAP_NET_RAW (or root)".into());
        }
        let status = Arc::new(Mutex::new(Status::default()));
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..config.fanout_count).map(|_| mpsc::channel()).unzip();
        let (stop, stopped) = UnixStream::pair().map_err(|error| format!("no socket pair: {error}"))?;
        let (ready, begun) = mpsc::sync_channel(1);
        let (shared, settings) = (Arc::clone(&status), config.clone());
        let thread = std::thread::Builder::new()
            .name("deepflow-nics".into())
            .spawn(move || match Scanner::new(&settings, senders, shared) {
                Ok(mut scanner) => {
                    scanner.scan();
                    let _ = ready.send(Ok(()));
                    scanner.run(&OwnedFd::from(stopped));
                }
                Err(problem) => {
                    let _ = ready.send(Err(problem));
                }
            })
            .map_err(|error| format!("the thread that follows interfaces could not be started: {error}"))?;
        let scanner = Arc::new(ScannerThread { stop: Some(stop), thread: Some(thread) });
        begun.recv().map_err(|_| "the thread that follows interfaces has stopped".to_string())??;
        let report = status.lock().map(|status| LiveReport::new(&status)).unwrap_or_default();
        let workers = receivers.into_iter().map(|changes| Self {
            changes,
            rings: Vec::new(),
            interfaces: Arc::default(),
            counters: LiveCounters::default(),
            gone: RingCounters::default(),
            max_pps: u64::from(config.max_pps).div_ceil(config.fanout_count as u64),
            second: 0,
            in_second: 0,
            status: Arc::clone(&status),
            _scanner: Arc::clone(&scanner),
        });
        Ok((workers.collect(), report))
    }

    /// The interfaces as they were at the last look.
    pub fn interfaces(&self) -> &Arc<Interfaces> {
        &self.interfaces
    }

    /// Takes up what the scanner told.
    fn follow(&mut self) {
        while let Ok(change) = self.changes.try_recv() {
            match change {
                Change::Interfaces(all) => self.interfaces = all,
                Change::Open(key, ring) => self.rings.push(Reading { key, ring, closed: None }),
                Change::Number(key, nics) => {
                    if let Some(one) = self.rings.iter_mut().find(|one| one.key == key && one.closed.is_none()) {
                        one.ring.number(nics);
                    }
                }
                Change::Close(key) => {
                    for one in self.rings.iter_mut().filter(|one| one.key == key && one.closed.is_none()) {
                        one.closed = Some(Instant::now());
                    }
                }
            }
        }
        let gone = &mut self.gone;
        self.rings.retain_mut(|one| {
            let over = one.closed.is_some_and(|since| since.elapsed() >= CLOSING);
            if over {
                gone.add(one.ring.counters());
            }
            !over
        });
    }

    /// Hands over what is in the rings, of each ring in the order of arrival; how full the fullest was, 0 to 1.
    pub fn poll(&mut self, each: &mut impl FnMut(&Frame<'_>, &Interfaces)) -> f64 {
        self.follow();
        let Self { rings, interfaces, counters, max_pps, second, in_second, .. } = self;
        let mut fullest = 0.0;
        for one in rings {
            let fill = one.ring.read(&mut |frame| {
                if frame.nic == 0 {
                    counters.strange += 1;
                    return;
                }
                if frame.time_us / MICROS != *second {
                    (*second, *in_second) = (frame.time_us / MICROS, 0);
                }
                *in_second += 1;
                if *max_pps > 0 && *in_second > *max_pps {
                    counters.throttled += 1;
                    return;
                }
                counters.packets += 1;
                counters.bytes += u64::from(frame.wire);
                each(frame, interfaces);
            });
            fullest = f64::max(fullest, fill);
        }
        fullest
    }

    /// Totals since the start.
    pub fn counters(&mut self) -> LiveCounters {
        let mut rings = self.gone;
        for one in &mut self.rings {
            rings.add(one.ring.counters());
        }
        LiveCounters { dropped: rings.dropped, malformed: rings.malformed, ..self.counters }
    }

    /// What all workers have together.
    pub fn present(&self) -> Present {
        Present(Arc::clone(&self.status))
    }
}

/// What is captured at present.
#[derive(Clone, Debug, Default)]
pub struct Present(Arc<Mutex<Status>>);

impl Present {
    /// The interfaces whose packets are read.
    pub fn captured(&self) -> Arc<Vec<Captured>> {
        self.0.lock().map(|status| Arc::clone(&status.captured)).unwrap_or_default()
    }

    pub fn sizes(&self) -> [(&'static str, u64); 5] {
        let status = self.0.lock().map(|status| status.clone()).unwrap_or_default();
        [
            ("interfaces_now", status.interfaces),
            ("namespaces_now", status.namespaces),
            ("rings_now", status.rings),
            ("ring_bytes_now", status.ring_bytes),
            ("left_out_now", status.left_out),
        ]
        .map(|(name, value)| (name, value as u64))
    }
}
