//! The running agent: one thread owns the capture of sockets and its engine, others those of packets; Python talks to
//! them by messages.

mod packets;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::bpf::{Bell, Capture, CaptureConfig, Hook, HookReport, OptionTracing, POLL_MAX};
use crate::engine::{Batch, Engine, EngineConfig, KnownSocket, Listener, Shared};
use crate::event::{Endpoint, EventSink, ProcessChange, Segment, SocketChange, Task};
use crate::packet::live::{Captured, LiveReport};
use crate::peers::{Process, comm_bytes, comm_text};
use packets::PacketThreads;

/// How often the rings of sockets are read where they do not fill: seldom, because each time a program of a busy machine
/// loses its processor, what it works with waits too, and the kernel may take milliseconds to spread them over the
/// processors again. One that fills wakes the reader.
pub const READ_INTERVAL: Duration = Duration::from_millis(250);
/// How long a record may remain unfinished before it is looked at again.
const UNFINISHED: Duration = Duration::from_millis(1);
/// How long a thread of packets waits for what sockets did.
const PATIENCE: Duration = Duration::from_secs(1);
/// Processes remembered between two calls of `active_processes`.
const MAX_ACTIVE: usize = 16_384;

/// A process that used a socket.
#[derive(Clone, Debug, Serialize)]
pub struct ActiveProcess {
    pub pid: u32,
    pub comm: String,
    /// Id of its cgroup in the v2 tree.
    pub cgroup: u64,
    /// First use since the last report, µs since the epoch.
    pub time_us: u64,
}

/// A listening socket as Python tells of it.
#[derive(Deserialize)]
struct ToldListener {
    netns: u32,
    ip: IpAddr,
    port: u16,
    pid: u32,
}

impl ToldListener {
    fn known(self) -> Listener {
        Listener { netns: self.netns, ip: self.ip, port: self.port, pid: self.pid }
    }
}

/// An established connection as Python tells of it.
#[derive(Deserialize)]
struct ToldSocket {
    netns: u32,
    local: IpAddr,
    local_port: u16,
    remote: IpAddr,
    remote_port: u16,
    pid: u32,
    comm: String,
}

impl ToldSocket {
    fn known(self) -> KnownSocket {
        KnownSocket {
            netns: self.netns,
            protocol: 6,
            local: Endpoint { ip: self.local, port: self.local_port },
            remote: Endpoint { ip: self.remote, port: self.remote_port },
            process: Process { pid: self.pid, comm: comm_bytes(&self.comm) },
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| format!("The table of sockets is not the JSON that is wanted: {error}."))
}

/// What the kernel side needs of the configuration.
fn capture_config(config: &EngineConfig) -> CaptureConfig {
    CaptureConfig {
        payload_truncation: config.payload_truncation,
        ring_bytes: u32::try_from(config.ring_bytes).unwrap_or(u32::MAX),
        ignored_pids: config.ignored_pids.clone(),
        only_pids: config.only_pids.clone(),
        netns: config.netns,
        ports_blacklist: config.ports_blacklist.clone(),
        ports_whitelist: config.ports_whitelist.clone(),
        hook: match config.hook.as_str() {
            "sock_length" => Hook::SockLength,
            "sys_enter" => Hook::SysEnter,
            _ => Hook::Auto,
        },
    }
}

type Reply<T> = SyncSender<T>;

enum Command {
    Drain { flush_all: bool, reply: Reply<Vec<Batch>> },
    Read { reply: Reply<()> },
    ProcessChanges { reply: Reply<Vec<ProcessChange>> },
    Active { reply: Reply<Vec<ActiveProcess>> },
    Listeners { table: Vec<Listener>, reply: Reply<()> },
    Sockets { table: Vec<KnownSocket>, reply: Reply<()> },
    AgentId { id: u16, reply: Reply<()> },
    Throttle { rows_per_second: u32, reply: Reply<()> },
    Counters { reply: Reply<BTreeMap<String, u64>> },
    Stop,
}

/// First use of a socket by a process.
#[derive(Clone, Copy)]
struct Use {
    task: Task,
    cgroup: u64,
    time_us: u64,
}

/// Passes events on and notes which processes caused them.
struct Watch<'a> {
    engine: &'a mut Engine,
    active: &'a mut FxHashMap<u32, Use>,
    last_pid: &'a mut u32,
}

impl EventSink for Watch<'_> {
    #[inline]
    fn segment(&mut self, segment: &Segment<'_>) {
        let pid = segment.task.pid;
        if pid != *self.last_pid {
            *self.last_pid = pid;
            if self.active.len() < MAX_ACTIVE {
                let Segment { task, cgroup, time_us, .. } = *segment;
                self.active.entry(pid).or_insert(Use { task, cgroup, time_us });
            }
        }
        self.engine.segment(segment);
    }

    fn socket(&mut self, change: &SocketChange) {
        self.engine.socket(change);
    }

    fn process(&mut self, change: ProcessChange) {
        self.engine.process(change);
    }
}

struct Worker {
    /// None where no kernel program runs: the engine then only keeps what it is told.
    capture: Option<Capture>,
    options: Option<OptionTracing>,
    engine: Engine,
    active: FxHashMap<u32, Use>,
    commands: Receiver<Command>,
    /// Rung when there is a command.
    bell: Arc<Bell>,
    /// When the rings are to be read.
    due: Instant,
}

/// For threads that have to know what sockets did before.
#[derive(Clone)]
struct Sockets {
    commands: SyncSender<Command>,
    bell: Arc<Bell>,
}

impl Sockets {
    /// Everything that sockets did until now is known when this returns, unless their thread has ended or takes too long.
    fn read(&self) {
        let (reply, answer) = mpsc::sync_channel(1);
        if self.commands.try_send(Command::Read { reply }).is_ok() {
            self.bell.ring();
            let _ = answer.recv_timeout(PATIENCE);
        }
    }
}

/// Microseconds since the epoch.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

impl Worker {
    fn run(mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
                Ok(command) => self.answer(command),
                Err(TryRecvError::Empty) => {
                    if self.wait() || self.due <= Instant::now() {
                        self.read();
                    }
                }
            }
        }
    }

    /// Until there is a command, a ring fills or the time is over; whether a ring fills.
    fn wait(&mut self) -> bool {
        let timeout = self.due.saturating_duration_since(Instant::now());
        if let Some(capture) = &mut self.capture {
            return capture.wait(&self.bell, timeout);
        }
        self.bell.wait(timeout);
        false
    }

    /// Reads what is there, and says when to read again.
    fn read(&mut self) {
        let mut last_pid = 0;
        let mut watch = Watch { engine: &mut self.engine, active: &mut self.active, last_pid: &mut last_pid };
        let count = self.capture.as_mut().map_or(0, |capture| capture.poll(&mut watch));
        self.engine.tick(now_us());
        for socket in self.engine.take_quiet() {
            if let Some(capture) = &mut self.capture {
                capture.quiet(socket);
            }
        }
        let more = count >= POLL_MAX || self.capture.as_ref().is_some_and(Capture::filling);
        self.due = Instant::now()
            + match more {
                false => READ_INTERVAL,
                true if count > 0 => Duration::ZERO,
                true => UNFINISHED, // a program that is still writing a record holds back those of all others
            };
    }

    fn answer(&mut self, command: Command) {
        // A caller that went away is no reason to stop: its reply is dropped.
        match command {
            Command::Drain { flush_all, reply } => {
                self.read();
                let _ = reply.send(self.engine.drain(now_us(), flush_all));
            }
            Command::Read { reply } => {
                self.read();
                let _ = reply.send(());
            }
            Command::ProcessChanges { reply } => {
                let _ = reply.send(self.engine.take_process_changes());
            }
            Command::Active { reply } => {
                let active = self.active.drain().filter(|(pid, _)| *pid != 0);
                let _ = reply.send(
                    active
                        .map(|(pid, Use { task, cgroup, time_us })| ActiveProcess {
                            pid,
                            comm: comm_text(&task.comm).to_string(),
                            cgroup,
                            time_us,
                        })
                        .collect(),
                );
            }
            Command::Listeners { table, reply } => {
                self.engine.seed_listeners(&table);
                let _ = reply.send(());
            }
            Command::Sockets { table, reply } => {
                self.engine.seed_sockets(&table);
                let _ = reply.send(());
            }
            Command::AgentId { id, reply } => {
                self.engine.set_agent_id(id);
                let _ = reply.send(());
            }
            Command::Throttle { rows_per_second, reply } => {
                self.engine.set_l7_throttle(rows_per_second);
                let _ = reply.send(());
            }
            Command::Counters { reply } => {
                let _ = reply.send(self.counters());
            }
            Command::Stop => {}
        }
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let mut all: BTreeMap<String, u64> =
            self.engine.counters().into_iter().map(|(n, v)| (n.to_string(), v)).collect();
        let Some(kernel) = self.capture.as_ref().map(Capture::counters) else {
            return all;
        };
        let named = [
            ("records", kernel.records),
            ("bytes", kernel.bytes),
            ("dropped", kernel.dropped),
            ("filtered", kernel.filtered),
            ("quiet", kernel.quiet),
            ("unreadable", kernel.unreadable),
            ("malformed", kernel.malformed),
        ];
        if let Some(options) = self.options.as_ref().map(OptionTracing::counters) {
            all.insert("tcp_option_written".to_string(), options.written);
            all.insert("tcp_option_refused".to_string(), options.refused);
        }
        all.extend(named.map(|(name, value)| (format!("kernel_{name}"), value)));
        all
    }
}

/// What reads packets, and a line on it.
fn start_packets(
    config: &EngineConfig,
    shared: &Shared,
    seen: bool,
    sockets: &Sockets,
) -> (Option<PacketThreads>, HookReport) {
    let none = |lost: String| HookReport { what: "packets".into(), chosen: "none".into(), lost };
    if !config.packets.enabled() {
        return (None, none("no interface is asked for".into()));
    }
    let mut config = config.clone();
    // Where sockets are seen, both ends of what passes a loopback are seen already.
    config.packets.loopback.get_or_insert(!seen);
    match PacketThreads::start(&config, shared, sockets) {
        Ok((threads, LiveReport { chosen, lost })) => {
            (Some(threads), HookReport { what: "packets".into(), chosen, lost })
        }
        Err(problem) => (None, none(problem)),
    }
}

/// Handle on the threads; dropping it stops the capture.
pub struct Running {
    commands: SyncSender<Command>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
    packets: Option<PacketThreads>,
    pub hooks: Vec<HookReport>,
}

impl Running {
    /// Loads the kernel programs, opens the rings of packets, and starts the threads.
    ///
    /// # Errors
    /// One sentence: what the kernel or the privileges refuse, or which configuration key is wrong. Where only one of
    /// sockets and packets can be had, the other is done without and the report says so.
    pub fn start(config: &EngineConfig) -> Result<Self, String> {
        let shared = Shared::default();
        let sockets = match config.ebpf_disabled {
            true => Err("inputs.ebpf.disabled is set".to_string()),
            false => Capture::start(&capture_config(config)).map_err(|error| error.to_string()),
        };
        let (commands, receiver) = mpsc::sync_channel(64);
        let bell = Arc::new(Bell::new().map_err(|error| format!("no eventfd for the capture thread: {error}"))?);
        let asked = Sockets { commands: commands.clone(), bell: Arc::clone(&bell) };
        let (packets, report) = start_packets(config, &shared, sockets.is_ok(), &asked);
        let (capture, mut hooks) = match sockets {
            Ok((capture, hooks)) => (Some(capture), hooks),
            Err(problem) if packets.is_none() && config.ebpf_disabled => {
                return Err(format!("{problem}, and packets cannot be read: {}", report.lost));
            }
            Err(problem) if packets.is_none() => return Err(problem),
            Err(problem) => (None, vec![HookReport { what: "sockets".into(), chosen: "none".into(), lost: problem }]),
        };
        let options = (config.tcp_option_trace && !config.ebpf_disabled)
            .then(|| OptionTracing::start(config.tcp_option_sampling_window));
        let (options, traced) = options.unzip();
        hooks.extend(traced);
        hooks.push(report);
        let (config, rung) = (config.clone(), Arc::clone(&bell));
        let work = move || {
            let worker = Worker {
                capture,
                options: options.flatten(),
                engine: Engine::beside(&config, &shared),
                active: FxHashMap::default(),
                commands: receiver,
                bell: rung,
                due: Instant::now(),
            };
            worker.run();
        };
        let thread = std::thread::Builder::new()
            .name("deepflow-core".into())
            .spawn(work)
            .map_err(|e| format!("the capture thread could not be started: {e}"))?;
        Ok(Self { commands, bell, thread: Some(thread), packets, hooks })
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, String> {
        let gone = || "the capture thread has stopped; restart the agent".to_string();
        let (reply, answer) = mpsc::sync_channel(1);
        self.commands.send(command(reply)).map_err(|_| gone())?;
        self.bell.ring();
        answer.recv().map_err(|_| gone())
    }

    pub fn drain(&self, flush_all: bool) -> Result<Vec<Batch>, String> {
        let mut batches = self.ask(|reply| Command::Drain { flush_all, reply })?;
        if let Some(packets) = &self.packets {
            batches.extend(packets.drain(flush_all)?);
        }
        Ok(batches)
    }

    pub fn process_changes(&self) -> Result<Vec<ProcessChange>, String> {
        self.ask(|reply| Command::ProcessChanges { reply })
    }

    pub fn active_processes(&self) -> Result<Vec<ActiveProcess>, String> {
        self.ask(|reply| Command::Active { reply })
    }

    pub fn listeners(&self, json: &str) -> Result<(), String> {
        let told: Vec<ToldListener> = parse(json)?;
        let table = told.into_iter().map(ToldListener::known).collect();
        self.ask(|reply| Command::Listeners { table, reply })
    }

    pub fn sockets(&self, json: &str) -> Result<(), String> {
        let told: Vec<ToldSocket> = parse(json)?;
        let table = told.into_iter().map(ToldSocket::known).collect();
        self.ask(|reply| Command::Sockets { table, reply })
    }

    pub fn set_agent_id(&self, id: u16) -> Result<(), String> {
        self.packets.as_ref().map_or(Ok(()), |packets| packets.set_agent_id(id))?;
        self.ask(|reply| Command::AgentId { id, reply })
    }

    pub fn set_throttle(&self, rows_per_second: u32) -> Result<(), String> {
        self.packets.as_ref().map_or(Ok(()), |packets| packets.set_throttle(rows_per_second))?;
        self.ask(|reply| Command::Throttle { rows_per_second, reply })
    }

    /// The interfaces whose packets are read.
    pub fn interfaces(&self) -> Arc<Vec<Captured>> {
        self.packets.as_ref().map(PacketThreads::interfaces).unwrap_or_default()
    }

    pub fn counters(&self) -> Result<BTreeMap<String, u64>, String> {
        let mut all = self.ask(|reply| Command::Counters { reply })?;
        if let Some(packets) = &self.packets {
            all.extend(packets.counters()?);
        }
        Ok(all)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
