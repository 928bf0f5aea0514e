//! The threads that read packets: each has its part of the rings and follows its flows with an engine of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Reply, Sockets, now_us};
use crate::batch::Batch;
use crate::engine::{EngineConfig, Shared};
use crate::packet::live::{Captured, Live, LiveCounters, LiveReport, Present};
use crate::packets::Packets;

/// How seldom the rings are read.
const POLL_MAX: Duration = Duration::from_millis(50);
/// How long after a packet passed it may still come out of a ring, µs: a block waits for its time, then for the reader.
const LATE_US: u64 = 150_000;

/// How often rings are read: seldom, as those of sockets ([`super::READ_INTERVAL`]); more often where one gets fuller
/// than half.
struct Pace {
    interval: Duration,
    most: Duration,
}

impl Pace {
    const LEAST: Duration = Duration::from_millis(1);
    const FULLER: f64 = 0.5;
    const EMPTIER: f64 = 0.3;

    fn new(most: Duration) -> Self {
        Self { interval: most, most }
    }

    /// How long to wait now that the fullest ring was `fill` full, 0 to 1.
    fn after(&mut self, fill: f64) -> Duration {
        if fill > Self::FULLER {
            self.interval = (self.interval / 2).max(Self::LEAST);
        } else if fill < Self::EMPTIER {
            self.interval = (self.interval * 5 / 4).min(self.most);
        }
        self.interval
    }
}

enum Command {
    Drain { flush_all: bool, reply: Reply<Vec<Batch>> },
    AgentId { id: u16, reply: Reply<()> },
    Throttle { rows_per_second: u32, reply: Reply<()> },
    Counters { reply: Reply<Vec<(&'static str, u64)>> },
    Stop,
}

struct Worker {
    live: Live,
    packets: Packets,
    commands: Receiver<Command>,
    sockets: Sockets,
    /// Of the last reading, since the epoch.
    second: u64,
}

impl Worker {
    fn run(mut self) {
        let (mut next, mut pace) = (Instant::now(), Pace::new(POLL_MAX));
        loop {
            match self.commands.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(command) => self.answer(command),
                Err(RecvTimeoutError::Timeout) => {
                    next = Instant::now() + pace.after(self.read());
                }
            }
        }
    }

    /// Takes what is in the rings; how full the fullest one was.
    fn read(&mut self) -> f64 {
        let second = now_us() / 1_000_000;
        if self.second != second {
            // The first packet of another second counts its flow's last one, with the processes that are known then.
            self.second = second;
            self.sockets.read();
        }
        let Self { live, packets, .. } = self;
        let fill = live.poll(&mut |frame, interfaces| packets.frame(frame, interfaces));
        packets.tick(now_us().saturating_sub(LATE_US));
        // A flow that says nothing more cannot be asked to be quiet.
        packets.engine.take_quiet();
        fill
    }

    fn answer(&mut self, command: Command) {
        // A caller that went away is no reason to stop: its reply is dropped.
        match command {
            Command::Drain { flush_all, reply } => {
                self.read();
                let batches = if flush_all {
                    self.packets.finish(now_us(), false)
                } else {
                    self.packets.drain(now_us().saturating_sub(LATE_US))
                };
                let _ = reply.send(batches);
            }
            Command::AgentId { id, reply } => {
                self.packets.set_agent_id(id);
                let _ = reply.send(());
            }
            Command::Throttle { rows_per_second, reply } => {
                self.packets.engine.set_l7_throttle(rows_per_second);
                let _ = reply.send(());
            }
            Command::Counters { reply } => {
                let _ = reply.send(self.counters());
            }
            Command::Stop => {}
        }
    }

    fn counters(&mut self) -> Vec<(&'static str, u64)> {
        let LiveCounters { dropped, throttled, malformed, strange, .. } = self.live.counters();
        let mut all = self.packets.counters();
        all.extend([
            ("packets_dropped", dropped),
            ("packets_throttled", throttled),
            ("packets_misplaced", malformed),
            ("packets_strange", strange),
        ]);
        all
    }
}

struct Handle {
    commands: SyncSender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// All threads that read packets.
pub(super) struct PacketThreads {
    threads: Vec<Handle>,
    present: Present,
}

/// Rows a second of one of several threads that share a bound; 0 stays without one.
fn share(rows_per_second: u32, threads: usize) -> u32 {
    let threads = u32::try_from(threads).unwrap_or(u32::MAX).max(1);
    if rows_per_second == 0 { 0 } else { (rows_per_second / threads).max(1) }
}

impl PacketThreads {
    /// Opens the rings and starts the threads.
    ///
    /// # Errors
    /// One sentence: what the kernel or the privileges refuse, or which key of the configuration is wrong.
    pub fn start(config: &EngineConfig, shared: &Shared, sockets: &Sockets) -> Result<(Self, LiveReport), String> {
        let (lives, report) = Live::start(&config.packets)?;
        let count = lives.len();
        let present = lives.first().map(Live::present).unwrap_or_default();
        let config = EngineConfig {
            l7_throttle: share(config.l7_throttle, count),
            l4_throttle: share(config.l4_throttle, count),
            ..config.clone()
        };
        let mut all = Self { threads: Vec::with_capacity(count), present };
        for (number, live) in (0u8..).zip(lives) {
            let (commands, receiver) = mpsc::sync_channel(64);
            let (config, shared, sockets) = (config.clone(), shared.clone(), sockets.clone());
            let work = move || {
                let packets = Packets::new(&config, &shared, number);
                Worker { live, packets, commands: receiver, sockets, second: 0 }.run();
            };
            let thread = std::thread::Builder::new()
                .name(format!("deepflow-net{number}"))
                .spawn(work)
                .map_err(|error| format!("a thread for packets could not be started: {error}"))?;
            all.threads.push(Handle { commands, thread: Some(thread) });
        }
        Ok((all, report))
    }

    /// Asks every thread at once and waits for all answers.
    fn ask<T>(&self, command: impl Fn(Reply<T>) -> Command) -> Result<Vec<T>, String> {
        let gone = || "a thread that reads packets has stopped; restart the agent".to_string();
        let mut answers = Vec::with_capacity(self.threads.len());
        for handle in &self.threads {
            let (reply, answer) = mpsc::sync_channel(1);
            handle.commands.send(command(reply)).map_err(|_| gone())?;
            answers.push(answer);
        }
        answers.into_iter().map(|answer| answer.recv().map_err(|_| gone())).collect()
    }

    pub fn drain(&self, flush_all: bool) -> Result<Vec<Batch>, String> {
        Ok(self.ask(|reply| Command::Drain { flush_all, reply })?.into_iter().flatten().collect())
    }

    pub fn set_agent_id(&self, id: u16) -> Result<(), String> {
        self.ask(|reply| Command::AgentId { id, reply }).map(drop)
    }

    pub fn set_throttle(&self, rows_per_second: u32) -> Result<(), String> {
        let rows_per_second = share(rows_per_second, self.threads.len());
        self.ask(|reply| Command::Throttle { rows_per_second, reply }).map(drop)
    }

    /// The interfaces whose packets are read.
    pub fn interfaces(&self) -> Arc<Vec<Captured>> {
        self.present.captured()
    }

    /// Totals of all threads.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>, String> {
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        for (name, value) in self.ask(|reply| Command::Counters { reply })?.into_iter().flatten() {
            *all.entry(format!("packet_{name}")).or_default() += value;
        }
        all.extend(self.present.sizes().map(|(name, value)| (format!("packet_{name}"), value)));
        Ok(all)
    }
}

impl Drop for PacketThreads {
    fn drop(&mut self) {
        for handle in &self.threads {
            let _ = handle.commands.send(Command::Stop);
        }
        for handle in &mut self.threads {
            if let Some(thread) = handle.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_read_seldom_until_one_fills() {
        let mut pace = Pace::new(POLL_MAX);
        assert_eq!(pace.after(0.0), POLL_MAX);
        assert_eq!(pace.after(0.6), POLL_MAX / 2);
        assert_eq!(pace.after(0.4), POLL_MAX / 2, "neither fuller nor emptier: it stays");
        for _ in 0..10 {
            pace.after(1.0);
        }
        assert_eq!(pace.after(1.0), Pace::LEAST, "and no oftener");
        assert!(pace.after(0.1) > Pace::LEAST);
        for _ in 0..100 {
            pace.after(0.1);
        }
        assert_eq!(pace.after(0.1), POLL_MAX);
    }
}
