//! What a source reports, and what the engine does with it.

use super::ledger::Unanswered;
use super::{Engine, MAX_CONNECTIONS, MAX_PROCESS_CHANGES, MAX_QUIET, canonical};
use crate::connection::{Connection, Key, Recognition, State, Verdict};
use crate::event::{EventSink, Origin, ProcessChange, Segment, SocketChange, Source};
use crate::peers::{Process, comm_bytes, locked};
use crate::stream::{Piece, Report};

impl Engine {
    #[inline]
    fn verdict(&mut self, verdict: Verdict, segment: &Segment<'_>) {
        if verdict != Verdict::Goes {
            self.changed(verdict, segment);
        }
    }

    #[cold]
    fn changed(&mut self, verdict: Verdict, segment: &Segment<'_>) {
        match verdict {
            Verdict::Goes => {}
            Verdict::Decided => {
                self.ledger.counters.connections_decided += 1;
                if segment.protocol == 17 {
                    self.understood.insert(segment.socket);
                }
            }
            Verdict::GaveUp => {
                self.ledger.counters.connections_given_up += 1;
                let shared = segment.protocol == 17 && self.understood.contains(&segment.socket);
                if !shared {
                    self.silence(segment);
                }
            }
            // A UDP socket may talk to others too.
            Verdict::Done if segment.protocol == 6 => self.silence(segment),
            Verdict::Done => {}
        }
    }

    fn silence(&mut self, segment: &Segment<'_>) {
        if segment.source == Source::Socket && self.quiet.len() < MAX_QUIET {
            self.quiet.push(segment.socket);
        }
    }
}

impl EventSink for Engine {
    fn segment(&mut self, segment: &Segment<'_>) {
        let Self { connections, endpoints, settings, peers, ledger, seen, .. } = self;
        ledger.counters.segments += 1;
        ledger.counters.bytes += u64::from(segment.length);
        ledger.counters.captured_bytes += segment.payload.len() as u64;
        ledger.now_us = ledger.now_us.max(segment.time_us);
        let key = Key::of(segment);
        let connection = connections.entry(key).or_insert_with(|| {
            ledger.counters.connections += 1;
            let (local, remote) = (canonical(segment.local), canonical(segment.remote));
            Box::new(Connection::new(key, segment.source, segment.protocol, local, remote, segment.netns))
        });
        connection.last_us = connection.last_us.max(segment.time_us);
        let task = &segment.task;
        if connection.local.port == 0 && connection.flow.is_none() {
            // The kernel chooses the local port after the connection has begun.
            connection.local = canonical(segment.local);
            connection.remote = canonical(segment.remote);
            connection.owner = 0;
        }
        if connection.owner != task.pid {
            connection.owner = task.pid;
            let (local, remote) = (connection.local, connection.remote);
            let mut peers = locked(peers);
            peers.own(connection.protocol, connection.netns, local, remote, Process::from(task), segment.time_us);
            if task.pid == task.tid {
                peers.name(task.pid, task.comm);
            }
        }
        let origin = Origin { time_us: segment.time_us, seq: if segment.protocol == 6 { segment.tcp_seq } else { 0 } };
        let payload = &segment.payload[..segment.payload.len().min(segment.length as usize)];
        let piece = Piece { origin, length: u64::from(segment.length), payload };
        let mut report = Report::default();
        let mut verdict = Verdict::Goes;
        if !matches!(connection.state, State::GivenUp) {
            let undecided = matches!(connection.state, State::Undecided { .. });
            let listens =
                undecided && !connection.connected && locked(peers).listens(connection.netns, connection.local);
            let mut recognition = Recognition { endpoints, settings, listens };
            verdict = connection.take(segment.direction, &piece, &mut recognition, seen, &mut report);
            ledger.counters.add(&report);
        }
        if connection.flow.is_some() {
            ledger.settle(connection, segment.direction, task, seen, &report);
        } else if segment.length > 0 {
            ledger.unknown(connection, segment.direction, task);
        }
        if segment.source.is_packet() && connection.waits_since().is_some() {
            self.delayed.insert(key);
        }
        if let Some(switched) = report.switched {
            self.verdict(verdict, segment);
            verdict = self.switch(key, switched, task);
        }
        self.verdict(verdict, segment);
        if self.ledger.order.full() {
            self.shrink_waiting();
        }
        if self.connections.len() > MAX_CONNECTIONS {
            self.make_room();
        }
    }

    fn socket(&mut self, change: &SocketChange) {
        match *change {
            SocketChange::Connect { time_us, source, socket, netns, local, remote, task } => {
                let (local, remote) = (canonical(local), canonical(remote));
                let key = Key { socket, remote: None };
                let ledger = &mut self.ledger;
                let connection = self.connections.entry(key).or_insert_with(|| {
                    ledger.counters.connections += 1;
                    Box::new(Connection::new(key, source, 6, local, remote, netns))
                });
                connection.connected = true;
                connection.last_us = connection.last_us.max(time_us);
                connection.owner = task.pid;
                ledger.causality.connect(&task, &mut connection.memory);
                if local.port != 0 {
                    locked(&self.peers).own(6, netns, local, remote, Process::from(&task), time_us);
                }
            }
            SocketChange::Close { time_us, socket } => {
                self.ledger.now_us = self.ledger.now_us.max(time_us);
                self.ledger.counters.connections_closed += 1;
                self.close(Key { socket, remote: None }, time_us, Unanswered::Closed);
            }
        }
    }

    fn process(&mut self, change: ProcessChange) {
        self.ledger.counters.process_changes += 1;
        match &change {
            ProcessChange::Exec { pid, comm, .. } | ProcessChange::Fork { pid, comm, .. } => {
                locked(&self.peers).name(*pid, comm_bytes(comm));
                self.ledger.causality.forget(*pid);
            }
            ProcessChange::Exit { pid, .. } => {
                locked(&self.peers).forget(*pid);
                self.ledger.causality.forget(*pid);
            }
        }
        if self.process_changes.len() < MAX_PROCESS_CHANGES {
            self.process_changes.push(change);
        } else {
            self.ledger.counters.process_changes_dropped += 1;
        }
    }
}
