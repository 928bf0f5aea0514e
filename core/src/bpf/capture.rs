//! Socket and process capture: which programs are attached, and the events they send.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, CgroupAttachMode, CgroupSockAddr, ProgramError};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};

use super::cgroup::Tree;
use super::clock::{WallClock, boot_ns};
use super::filters::{Filters, entries, union};
use super::record::{self, KernelCounters};
use super::rings::{CHUNK, Rings};
use super::wake::{Bell, Wake};
use super::{object, probe};
use crate::event::EventSink;

/// Bounds of `bpf/include/call.h` and of the rings.
const PAYLOAD_MAX: u32 = 8192;
const RING_MAX: u32 = 1 << 30;
/// One `poll` ends after so many records even when more keep coming.
pub const POLL_MAX: usize = 1 << 18;

/// How socket calls are hooked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// The first that loads, in the order of this list.
    #[default]
    Auto,
    /// The socket-length tracepoints: only socket calls pay.
    SockLength,
    /// The end of system calls: every system call pays.
    SysEnter,
}

/// What is captured. Empty lists and zeros filter nothing.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// Payload bytes of one record, at most 8192.
    pub payload_truncation: u32,
    /// Size of all CPUs' rings together; each gets a power of two of chunks of 128 KiB, at least one.
    pub ring_bytes: u32,
    /// Processes (thread group ids) that are not captured.
    pub ignored_pids: Vec<u32>,
    pub only_pids: Vec<u32>,
    /// Inode of the only network namespace to capture.
    pub netns: u32,
    /// Sockets with one of these ports on either side are not captured.
    pub ports_blacklist: Vec<u16>,
    /// When not empty, only sockets with one of these ports on either side are captured.
    pub ports_whitelist: Vec<u16>,
    pub hook: Hook,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            payload_truncation: 1024,
            ring_bytes: 8 << 20,
            ignored_pids: Vec::new(),
            only_pids: Vec::new(),
            netns: 0,
            ports_blacklist: Vec::new(),
            ports_whitelist: Vec::new(),
            hook: Hook::Auto,
        }
    }
}

/// What was chosen for one purpose, and what that loses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookReport {
    pub what: String,
    pub chosen: String,
    pub lost: String,
}

/// One sentence for the user.
#[derive(Debug)]
pub struct CaptureError(String);

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for CaptureError {}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureCounters {
    /// Records that were read from the rings, of sockets and of processes, and their bytes.
    pub records: u64,
    pub bytes: u64,
    /// Records lost because a ring was full.
    pub dropped: u64,
    /// Calls left out by the filters.
    pub filtered: u64,
    /// Calls on sockets marked quiet.
    pub quiet: u64,
    /// Payloads that were not resident or not where the call says.
    pub unreadable: u64,
    /// Records of an unknown form.
    pub malformed: u64,
}

/// The causes of `error` in one line.
pub(super) fn reason(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}

pub(super) fn tracepoint(bpf: &mut Ebpf, program: &str, tracepoint: &str, btf: &Btf) -> Result<(), ProgramError> {
    let program: &mut BtfTracePoint =
        bpf.program_mut(program).ok_or_else(|| ProgramError::InvalidName { name: program.to_owned() })?.try_into()?;
    program.load(tracepoint, btf)?;
    program.attach()?;
    Ok(())
}

/// Loads `process.bpf.c` and attaches it.
pub(super) fn load_processes(btf: &Btf) -> Result<Ebpf, String> {
    let mut bpf = EbpfLoader::new().btf(Some(btf)).load(object::PROCESS).map_err(|error| reason(&error))?;
    for name in ["sched_process_exec", "sched_process_fork"] {
        tracepoint(&mut bpf, name, name, btf).map_err(|error| reason(&error))?;
    }
    if tracepoint(&mut bpf, "sched_process_exit", "sched_process_exit", btf).is_err() {
        tracepoint(&mut bpf, "sched_process_exit_live", "sched_process_exit", btf).map_err(|error| reason(&error))?;
    }
    Ok(bpf)
}

fn fill(bpf: &mut Ebpf, name: &str, list: &[(u32, u32)]) -> Result<(), EbpfError> {
    if let (false, Some(map)) = (list.is_empty(), bpf.map_mut(name)) {
        let mut map = HashMap::<_, u32, u32>::try_from(map)?;
        for (key, value) in list {
            map.insert(key, value, 0)?;
        }
    }
    Ok(())
}

/// A number that nobody outside can guess.
fn random_odd() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer has the length that is given.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    u64::from_ne_bytes(bytes) | 1
}

/// Loads one of the two socket objects and attaches what it cannot do without.
pub(super) fn load_sockets(hook: Hook, config: &CaptureConfig, btf: &Btf) -> Result<Ebpf, String> {
    let filters = Filters::new(config);
    let truncation = config.payload_truncation.min(PAYLOAD_MAX);
    let cpus = u32::try_from(cpus()?).unwrap_or(1);
    let chunk_bits = chunk_bits(config, cpus);
    let (pid_marks, port_marks, key) = (union(&filters.pids), union(&filters.ports), random_odd());
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(btf))
        .map_max_entries("cursors", cpus)
        .map_max_entries("chunks", cpus << chunk_bits)
        .override_global("chunk_bits", &chunk_bits, true)
        .map_max_entries("pids", entries(&filters.pids))
        .map_max_entries("ports", entries(&filters.ports))
        .override_global("payload_truncation", &truncation, true)
        .override_global("ignored_count", &filters.inline_count, true)
        .override_global("ignored_pids", &filters.inline_pids, true)
        .override_global("pid_map_marks", &pid_marks, true)
        .override_global("port_map_marks", &port_marks, true)
        .override_global("only_netns", &config.netns, true);
    let code = if hook == Hook::SysEnter {
        loader.override_global("identity_key", &key, true);
        object::SYSCALL
    } else {
        object::SOCKET
    };
    let mut bpf = loader.load(code).map_err(|error| reason(&error))?;
    fill(&mut bpf, "pids", &filters.pids).map_err(|error| reason(&error))?;
    fill(&mut bpf, "ports", &filters.ports).map_err(|error| reason(&error))?;
    let programs: &[&str] =
        if hook == Hook::SysEnter { &["sys_exit"] } else { &["sock_send_length", "sock_recv_length"] };
    for program in programs {
        tracepoint(&mut bpf, program, program, btf).map_err(|error| reason(&error))?;
    }
    Ok(bpf)
}

/// Attaches the programs that see who sent a datagram.
fn datagram_peers(bpf: &mut Ebpf) -> Result<Tree, String> {
    let tree = Tree::find()?;
    let cgroup = tree.open()?;
    for name in ["recvmsg4", "recvmsg6"] {
        let program: &mut CgroupSockAddr = bpf
            .program_mut(name)
            .ok_or("the program is missing")?
            .try_into()
            .map_err(|error: ProgramError| reason(&error))?;
        program.load().map_err(|error| reason(&error))?;
        // A link allows other programs beside it, and takes no flag that says so.
        program.attach(&cgroup, CgroupAttachMode::Single).map_err(|error| reason(&error))?;
    }
    Ok(tree)
}

fn take<T: TryFrom<Map, Error = aya::maps::MapError>>(bpf: &mut Ebpf, name: &str) -> Result<T, CaptureError> {
    let map = bpf.take_map(name).ok_or_else(|| CaptureError(format!("The kernel programs have no map {name}.")))?;
    T::try_from(map).map_err(|error| CaptureError(format!("The map {name} cannot be used: {}.", reason(&error))))
}

/// CPUs that the machine may have.
fn cpus() -> Result<usize, String> {
    aya::util::nr_cpus().map_err(|(what, error)| format!("{what}: {error}"))
}

/// log2 of the chunks of one CPU's ring.
fn chunk_bits(config: &CaptureConfig, cpus: u32) -> u32 {
    let each = config.ring_bytes.min(RING_MAX) / cpus.max(1) / CHUNK as u32;
    each.max(1).ilog2()
}

fn array(bpf: &mut Ebpf, name: &str) -> Result<MapData, CaptureError> {
    match bpf.take_map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(CaptureError(format!("The kernel programs have no map {name}."))),
    }
}

fn rings(bpf: &mut Ebpf, config: &CaptureConfig) -> Result<Rings, CaptureError> {
    let (cursors, chunks) = (array(bpf, "cursors")?, array(bpf, "chunks")?);
    let cpus = cpus().map_err(CaptureError)?;
    Rings::new(&cursors, &chunks, cpus, chunk_bits(config, u32::try_from(cpus).unwrap_or(1)))
        .map_err(|error| CaptureError(format!("The memory of the kernel's rings cannot be mapped: {error}.")))
}

/// One loaded object and its ring.
struct Source<R> {
    ring: R,
    counters: PerCpuArray<MapData, KernelCounters>,
    /// Dropping it detaches its programs.
    _bpf: Ebpf,
}

impl<R> Source<R> {
    fn new(ring: R, mut bpf: Ebpf) -> Result<Self, CaptureError> {
        Ok(Self { ring, counters: take(&mut bpf, "counters")?, _bpf: bpf })
    }

    fn add_to(&self, total: &mut CaptureCounters) {
        let Ok(per_cpu) = self.counters.get(&0, 0) else {
            return;
        };
        for cpu in per_cpu.iter() {
            total.dropped += cpu.dropped;
            total.filtered += cpu.filtered;
            total.quiet += cpu.quiet;
            total.unreadable += cpu.unreadable;
        }
    }
}

/// CLOCK_BOOTTIME of the record that `next()` will return.
fn next_time(ring: &mut RingBuf<MapData>) -> Option<u64> {
    let item = ring.next()?;
    let time_ns = record::time_ns(&item).unwrap_or(0);
    // An item gives its place back to the kernel when it is dropped: this one stays where it is.
    std::mem::forget(item);
    Some(time_ns)
}

/// Attached kernel programs; dropping it detaches them all.
pub struct Capture {
    sockets: Source<Rings>,
    processes: Option<Source<RingBuf<MapData>>>,
    quiet: HashMap<MapData, u64, u32>,
    quiet_epoch: Array<MapData, u32>,
    wake: Wake,
    epoch: u32,
    clock: WallClock,
    records: u64,
    bytes: u64,
    malformed: u64,
}

impl Capture {
    /// Loads and attaches the programs. The report has a line for each purpose.
    pub fn start(config: &CaptureConfig) -> Result<(Self, Vec<HookReport>), CaptureError> {
        let btf = probe::kernel_btf().map_err(CaptureError)?;
        let mut reports = Vec::new();
        let candidates: &[Hook] = match config.hook {
            Hook::Auto => &[Hook::SockLength, Hook::SysEnter],
            Hook::SockLength => &[Hook::SockLength],
            Hook::SysEnter => &[Hook::SysEnter],
        };
        let mut refusals = Vec::new();
        let mut chosen = None;
        for &hook in candidates {
            match load_sockets(hook, config, &btf) {
                Ok(bpf) => {
                    chosen = Some((hook, bpf));
                    break;
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
        let Some((hook, mut bpf)) = chosen else {
            return Err(CaptureError(probe::why_not(&refusals.join("; "))));
        };
        let report = |what: &str, chosen: &str, lost: String| HookReport {
            what: what.to_owned(),
            chosen: chosen.to_owned(),
            lost,
        };
        reports.push(if hook == Hook::SockLength {
            let lost = "bytes that splice() takes out of a socket; payload of sendfile, splice and io_uring";
            report("socket calls", "tp_btf/sock_send_length, tp_btf/sock_recv_length", lost.to_owned())
        } else {
            let lost = "every system call of the machine pays; io_uring is not seen; payload of sendfile and splice";
            let why = refusals.first().map(|refusal| format!(" (sock_length: {refusal})")).unwrap_or_default();
            report("socket calls", "tp_btf/sys_exit", format!("{lost}{why}"))
        });
        reports.push(match tracepoint(&mut bpf, "inet_sock_set_state", "inet_sock_set_state", &btf) {
            Ok(()) => report("beginning and end of connections", "tp_btf/inet_sock_set_state", String::new()),
            Err(error) => report(
                "beginning and end of connections",
                "none",
                format!("the cause of a connection's first request, and prompt clean-up ({})", reason(&error)),
            ),
        });
        if hook == Hook::SockLength {
            reports.push(match datagram_peers(&mut bpf) {
                Ok(tree) => {
                    let chosen = format!("cgroup/recvmsg4, cgroup/recvmsg6 on {}", tree.path());
                    let lost = tree.lost().unwrap_or_default().to_owned();
                    report("peer of datagrams on unconnected sockets", &chosen, lost)
                }
                Err(why) => report(
                    "peer of datagrams on unconnected sockets",
                    "none",
                    format!("the sender's address of received datagrams ({why})"),
                ),
            });
        }
        let processes = match load_processes(&btf) {
            Ok(mut bpf) => {
                let chosen = "tp_btf/sched_process_exec, sched_process_fork, sched_process_exit";
                reports.push(report("processes", chosen, String::new()));
                Some(Source::new(take(&mut bpf, "processes")?, bpf)?)
            }
            Err(why) => {
                let lost = format!("processes that live shorter than a scan of /proc ({why})");
                reports.push(report("processes", "none", lost));
                None
            }
        };
        let quiet = take(&mut bpf, "quiet")?;
        let quiet_epoch = take(&mut bpf, "quiet_epoch")?;
        let wake = Wake::new(take(&mut bpf, "wake")?);
        let mut sockets = Source::new(rings(&mut bpf, config)?, bpf)?;
        // What came while one program was there and another was not yet: requests without their responses, datagrams
        // without their senders. The first response that is seen would be taken for that of an older request.
        sockets.ring.forget();
        let clock = WallClock::new();
        let (records, bytes, malformed) = (0, 0, 0);
        let capture = Self { sockets, processes, quiet, quiet_epoch, wake, epoch: 0, clock, records, bytes, malformed };
        Ok((capture, reports))
    }

    /// Hands what is in the rings to `sink`, in the order of time, and returns how many records it was: at most 262144,
    /// then there may be more. What happens while this runs is left for the next time.
    pub fn poll(&mut self, sink: &mut impl EventSink) -> usize {
        let offset_ns = self.clock.offset_ns();
        // Records that are not seen claimed after this moment are stamped later.
        let now_ns = boot_ns();
        let rings = &mut self.sockets.ring;
        rings.look();
        let mut processes = self.processes.as_mut().map(|source| &mut source.ring);
        let mut next_process = processes.as_mut().and_then(|ring| next_time(ring));
        let (mut count, mut bytes, mut malformed) = (0, 0, 0);
        let mut deliver = |item: &[u8]| {
            malformed += u64::from(!record::deliver(item, offset_ns, sink));
            bytes += item.len() as u64;
            count += 1;
            count < POLL_MAX
        };
        let (mut go_on, mut senseless) = (true, 0);
        while go_on {
            let socket = rings.next().filter(|(_, time_ns, _)| *time_ns <= now_ns);
            // A process's beginning comes before what it sends.
            let before_ns = socket.map_or(now_ns, |(_, time_ns, _)| time_ns);
            while let Some(ring) = processes.as_mut().filter(|_| next_process.is_some_and(|time| time <= before_ns)) {
                if let Some(item) = ring.next() {
                    deliver(&item);
                }
                next_process = next_time(ring);
            }
            let Some((cpu, _, others_ns)) = socket else { break };
            let until_ns = others_ns.min(now_ns).min(next_process.unwrap_or(u64::MAX));
            let mut more = true;
            while go_on && more {
                senseless += u64::from(!rings.take(cpu, |item| go_on = deliver(item)));
                more = rings.time_ns(cpu).is_some_and(|time_ns| time_ns <= until_ns);
            }
        }
        rings.free_all();
        self.records += count as u64;
        self.bytes += bytes;
        self.malformed += malformed + senseless;
        count
    }

    /// Waits until the bell rings, a ring is three quarters full or the time is over. `true`: `poll` is due at once.
    pub fn wait(&mut self, bell: &Bell, timeout: Duration) -> bool {
        self.wake.wait(bell, timeout)
    }

    /// Whether a ring is more than half full, so that `poll` is due again.
    pub fn filling(&self) -> bool {
        self.sockets.ring.filling()
    }

    /// No data of this socket is wanted any more: the kernel sends none from its next call on, only its end.
    pub fn quiet(&mut self, socket: u64) {
        // A mark that could not be set costs records that the caller ignores; it may set it again.
        if self.quiet.insert(socket, 1, 0).is_ok() {
            self.epoch = self.epoch.wrapping_add(1);
            let _ = self.quiet_epoch.set(0, self.epoch, 0);
        }
    }

    pub fn counters(&self) -> CaptureCounters {
        let (records, bytes, malformed) = (self.records, self.bytes, self.malformed);
        let mut total = CaptureCounters { records, bytes, malformed, ..CaptureCounters::default() };
        self.sockets.add_to(&mut total);
        if let Some(processes) = &self.processes {
            processes.add_to(&mut total);
        }
        total
    }
}
