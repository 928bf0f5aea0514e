//! All flows of one capture thread: by interface, tunnel and tuple; their seconds, minutes and ends.

use rustc_hash::FxHashMap;

use super::meter::NetworkMeter;
use super::perf::Perf;
use super::record::{Counts, Flow, Key, Told, Traffic};
use super::report::{ReportCounters, Reports};
use super::seen::{Places, Sighting, direction, side_of};
use super::settings::FlowSettings;
use super::state::{End, State};
use super::wheel::Wheel;
use crate::batch::Batch;
use crate::engine::{Counted, Engine};
use crate::event::{Direction, EventSink, Place, Segment, SocketChange, Source, Task};
use crate::meter::Tally;
use crate::packet::decode::{ACK, Packet, SYN, TCP, UDP};

/// How long after its end a flow takes packets that come late, s; then the application engine is told.
const LINGER_S: u64 = 1;
/// How long datagrams whose protocol is known are waited for, µs.
const UDP_US: u64 = 60_000_000;
/// Flows that are compared to find an old one, when there are too many.
const COMPARED: usize = 16;

const MICROS: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * MICROS;

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    pub flows: u64,
    pub evicted: u64,
    pub swapped: u64,
    /// Packets older than the second of their flow that was already reported.
    pub late: u64,
}

pub struct FlowTable {
    index: FxHashMap<Key, u32>,
    by_id: FxHashMap<u64, u32>,
    flows: Vec<Option<Box<Flow>>>,
    free: Vec<u32>,
    /// Flows with something in a second that is not reported yet.
    active: Vec<u32>,
    wheel: Wheel,
    settings: FlowSettings,
    hand: usize,
    thread: u8,
    serial: u32,
    now_us: u64,
    minute: u64,
    meter: NetworkMeter,
    reports: Reports,
    /// Kept between packets so that nothing is allocated for them.
    counted: Vec<Counted>,
    pub counters: FlowCounters,
}

impl FlowTable {
    /// `thread` distinguishes the flow numbers of several tables of one agent.
    pub fn new(settings: FlowSettings, thread: u8, reports: Reports) -> Self {
        Self {
            index: FxHashMap::default(),
            by_id: FxHashMap::default(),
            flows: Vec::new(),
            free: Vec::new(),
            active: Vec::new(),
            wheel: Wheel::default(),
            settings: FlowSettings { limit: settings.limit.max(COMPARED), ..settings },
            hand: 0,
            thread,
            serial: 0,
            now_us: 0,
            minute: 0,
            meter: NetworkMeter::default(),
            reports,
            counted: Vec::new(),
            counters: FlowCounters::default(),
        }
    }

    /// Flows that are followed.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub fn reports(&mut self) -> &mut Reports {
        &mut self.reports
    }

    pub fn meter(&self) -> &NetworkMeter {
        &self.meter
    }

    /// Takes one packet; its payload goes to the engine.
    pub fn packet(&mut self, seen: Sighting, packet: &Packet<'_>, places: &dyn Places, engine: &mut Engine) {
        self.now_us = self.now_us.max(seen.time_us);
        self.wheel.begin(self.now_us / MICROS);
        let key = Key::of(seen.nic, packet);
        let tcp = packet.protocol == TCP;
        let begins = tcp && packet.tcp.flags & (SYN | ACK) == SYN;
        let mut place = self.index.get(&key).copied();
        if let Some(at) = place
            && begins
            && self.flow(at).is_some_and(|flow| flow.state.is_replaced_by(side_of(flow, packet), &packet.tcp))
        {
            self.end(at, End::Replaced, engine);
            place = None;
        }
        let Some(at) = place.or_else(|| self.open(key, seen, packet, places, engine)) else {
            return;
        };
        self.count(at, seen, packet, places);
        self.tell(at, seen, packet, engine);
        self.take_counted(engine);
    }

    fn flow(&self, at: u32) -> Option<&Flow> {
        self.flows.get(at as usize)?.as_deref()
    }

    fn flow_mut(&mut self, at: u32) -> Option<&mut Flow> {
        self.flows.get_mut(at as usize)?.as_deref_mut()
    }

    fn open(
        &mut self,
        key: Key,
        seen: Sighting,
        packet: &Packet<'_>,
        places: &dyn Places,
        engine: &mut Engine,
    ) -> Option<u32> {
        if self.index.len() >= self.settings.limit {
            self.evict(engine);
        }
        let assumed = places.place(seen.nic, packet.source, packet.destination);
        let (source_is_client, direction_score) = direction(packet, engine, assumed.netns, &self.settings.server_ports);
        let (mut ends, mut macs) = ([packet.source, packet.destination], [packet.link.source, packet.link.destination]);
        if !source_is_client {
            ends.swap(0, 1);
            macs.swap(0, 1);
        }
        self.serial = (self.serial + 1) & 0x00ff_ffff;
        let second = (seen.time_us / MICROS) as u32;
        let id = u64::from(second) << 32 | u64::from(self.thread) << 24 | u64::from(self.serial);
        let flow = Box::new(Flow {
            id,
            key,
            ends,
            macs,
            place: Place { tunnel: key.tunnel_kind(), ..if source_is_client { assumed } else { assumed.mirrored() } },
            protocol: packet.protocol,
            ether_type: packet.link.ether_type,
            vlan: packet.link.vlan,
            outer: [None; 2],
            init_ip_id: packet.ip_id,
            direction_score,
            state: State::default(),
            perf: Perf::new(),
            start_us: seen.time_us,
            last_us: seen.time_us,
            second,
            second_traffic: Traffic::default(),
            second_l7: Tally::default(),
            period: Counts::default(),
            period_start_us: seen.time_us,
            flags: [0; 2],
            total_packets: [0; 2],
            total_bytes: [0; 2],
            unreported: true,
            unmetered: true,
            syn_seq: 0,
            syn_ack_seq: 0,
            real: [None; 2],
            traced_pid: [0; 2],
            first_seq: [None; 2],
            parse_failed: 0,
            told: Told::Nothing,
            turned: false,
            spoken: None,
            active: false,
            due_s: 0,
        });
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.flows.push(None);
                u32::try_from(self.flows.len() - 1).ok()?
            }
        };
        self.counters.flows += 1;
        self.flows[at as usize] = Some(flow);
        self.index.insert(key, at);
        self.by_id.insert(id, at);
        Some(at)
    }

    fn count(&mut self, at: u32, seen: Sighting, packet: &Packet<'_>, places: &dyn Places) {
        let second = (seen.time_us / MICROS) as u32;
        let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        if second > flow.second {
            if flow.active {
                self.meter.add(flow, self.reports.peers());
            }
            if u64::from(second) / 60 > u64::from(flow.second) / 60 {
                self.reports.forced(flow);
            }
            flow.second = second;
        } else if second < flow.second {
            self.counters.late += 1;
        }
        if !flow.active {
            flow.active = true;
            self.active.push(at);
        }
        let side = side_of(flow, packet);
        let traffic = &mut flow.second_traffic;
        traffic.packets[side] += 1;
        traffic.bytes[side] += u64::from(seen.wire);
        traffic.l3_bytes[side] += u64::from(packet.l3_length);
        flow.total_packets[side] += 1;
        flow.total_bytes[side] += u64::from(seen.wire);
        flow.last_us = flow.last_us.max(seen.time_us);
        if packet.tunnel.is_some() {
            flow.outer[side] = packet.tunnel;
        }
        let before_us = flow.state.timeout_us(&self.settings.timeouts);
        flow.second_traffic.l4_bytes[side] += u64::from(packet.length);
        // A later fragment in order has bytes of the stream and no header.
        if !packet.later_fragment || packet.length > 0 {
            if packet.protocol == TCP && !packet.later_fragment {
                let tcp = &packet.tcp;
                flow.flags[side] |= tcp.flags;
                if tcp.flags & SYN != 0 {
                    let number = if tcp.flags & ACK == 0 { &mut flow.syn_seq } else { &mut flow.syn_ack_seq };
                    *number = tcp.seq;
                    flow.first_seq[side] = Some(tcp.seq.wrapping_add(1));
                }
                flow.real[side] = tcp.options.toa.or(flow.real[side]);
                // A process of another host has a number that means another one here.
                if let Some(traced) = tcp.options.traced.filter(|traced| places.is_here(traced.ip.into())) {
                    flow.traced_pid[side] = traced.pid;
                }
                flow.state.packet(side, tcp, packet.length);
            }
            flow.perf.packet(seen.time_us, side, packet);
        }
        let timeout_us = flow.state.timeout_us(&self.settings.timeouts);
        if flow.due_s == 0 || timeout_us < before_us {
            let due_s = due(flow, timeout_us);
            if flow.due_s == 0 || due_s < flow.due_s {
                flow.due_s = self.wheel.enter((at, flow.id), due_s);
            }
        }
    }

    /// Hands the payload to the application engine; the handshake goes before the first byte.
    fn tell(&mut self, at: u32, seen: Sighting, packet: &Packet<'_>, engine: &mut Engine) {
        let readable = matches!(packet.protocol, TCP | UDP) || !packet.payload.is_empty();
        if packet.length == 0 || !readable {
            return;
        }
        let Some(flow) = self.flow_mut(at) else {
            return;
        };
        if flow.told == Told::End {
            return;
        }
        // The engine's local side is what was the client when it got the first bytes.
        let first = usize::from(flow.turned);
        let (local, remote) = (flow.ends[first], flow.ends[1 - first]);
        let source = Source::Packet(Place { nat_source: flow.nat_source(), ..flow.place });
        let segment = |direction, tcp_seq, length, payload| Segment {
            time_us: seen.time_us,
            source,
            socket: flow.id,
            direction,
            protocol: flow.protocol,
            local,
            remote,
            netns: flow.place.netns,
            task: Task::default(),
            cgroup: 0,
            tcp_seq,
            length,
            payload,
        };
        let side = side_of(flow, packet) ^ first;
        if flow.told == Told::Nothing {
            if flow.direction_score == u8::MAX {
                let (time_us, socket, netns, task) = (seen.time_us, flow.id, flow.place.netns, Task::default());
                engine.socket(&SocketChange::Connect { time_us, source, socket, netns, local, remote, task });
            }
            for (direction, number) in DIRECTIONS.into_iter().zip(flow.first_seq) {
                if let Some(number) = number {
                    engine.segment(&segment(direction, number, 0, &[]));
                }
            }
        }
        // Data of a SYN (TCP Fast Open) begins behind the number of the SYN itself.
        let syn = u32::from(packet.protocol == TCP && packet.tcp.flags & SYN != 0);
        let tcp_seq = packet.tcp.seq.wrapping_add(syn);
        engine.segment(&segment(DIRECTIONS[side], tcp_seq, packet.length, packet.payload));
        flow.told = Told::Bytes;
    }

    /// Adds what the application engine counted to the flows it was counted on.
    fn take_counted(&mut self, engine: &mut Engine) {
        engine.take_counted(&mut self.counted);
        for counted in self.counted.drain(..) {
            let Some(&at) = self.by_id.get(&counted.flow.id) else {
                continue;
            };
            let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::as_deref_mut) else {
                continue;
            };
            flow.second_l7.add(&counted.tally);
            flow.parse_failed = flow.parse_failed.saturating_add(counted.parse_failed);
            if flow.ends[0] != counted.flow.client && flow.ends[0] == counted.flow.server {
                flow.swap();
                self.counters.swapped += 1;
            }
            flow.direction_score = flow.direction_score.max(counted.flow.direction_score);
            flow.spoken = Some(counted.flow);
            if !flow.active {
                // What comes late is no part of a second that has been reported.
                flow.second = flow.second.max((self.now_us / MICROS) as u32);
                flow.active = true;
                self.active.push(at);
            }
        }
    }

    /// Time passes: seconds and minutes are reported, flows end. Call a few times a second.
    pub fn tick(&mut self, now_us: u64, engine: &mut Engine) {
        self.now_us = self.now_us.max(now_us);
        self.take_counted(engine);
        let now_s = self.now_us / MICROS;
        while let Some((second, entries)) = self.wheel.turn(now_s) {
            for (at, id) in entries {
                self.look_at(at, id, second, engine);
            }
        }
        self.report_seconds(now_s.saturating_sub(1));
        let minute = self.now_us / MINUTE_US;
        if minute > self.minute {
            self.minute = minute;
            self.report_minute(minute);
        }
    }

    /// Reports what was counted before a second.
    fn report_seconds(&mut self, before_s: u64) {
        let Self { active, flows, meter, reports, .. } = self;
        active.retain(|at| {
            let Some(flow) = flows.get_mut(*at as usize).and_then(Option::as_deref_mut) else {
                return false;
            };
            // The place may have been given to another flow, which is in the list for itself.
            if !flow.active {
                return false;
            }
            if u64::from(flow.second) >= before_s {
                return true;
            }
            meter.add(flow, reports.peers());
            flow.active = false;
            false
        });
    }

    /// A row for every flow with packets in a minute that is over.
    fn report_minute(&mut self, minute: u64) {
        self.report_seconds(minute * 60);
        let Self { flows, reports, .. } = self;
        for flow in flows.iter_mut().filter_map(Option::as_deref_mut) {
            if u64::from(flow.second) / 60 < minute {
                reports.forced(flow);
            }
        }
    }

    fn look_at(&mut self, at: u32, id: u64, second: u64, engine: &mut Engine) {
        let timeouts = self.settings.timeouts;
        let Some(flow) = self.flow_mut(at) else {
            return;
        };
        if flow.id != id || flow.due_s > second {
            return;
        }
        let timeout_us = flow.state.timeout_us(&timeouts);
        let idle_us = (second * MICROS).saturating_sub(flow.last_us);
        let bound_us = if flow.protocol == TCP { timeout_us } else { wait_us(flow, timeout_us) };
        if idle_us >= bound_us {
            self.end(at, End::TimedOut, engine);
            return;
        }
        if flow.told == Told::Bytes && flow.state.is_closed() && idle_us >= LINGER_S * MICROS {
            flow.told = Told::End;
            engine.socket(&SocketChange::Close { time_us: second * MICROS, socket: id });
        }
        let due_s = due(flow, bound_us);
        let due_s = self.wheel.enter((at, id), due_s);
        if let Some(flow) = self.flow_mut(at) {
            flow.due_s = due_s;
        }
    }

    fn end(&mut self, at: u32, why: End, engine: &mut Engine) {
        let Some((told, protocol, id)) = self.flow(at).map(|flow| (flow.told, flow.protocol, flow.id)) else {
            return;
        };
        // Datagrams have no end: the engine waits for its requests as long as it does.
        if told == Told::Bytes && protocol == TCP {
            engine.socket(&SocketChange::Close { time_us: self.now_us, socket: id });
            self.take_counted(engine);
        }
        let Some(mut flow) = self.flows.get_mut(at as usize).and_then(Option::take) else {
            return;
        };
        self.free.push(at);
        self.index.remove(&flow.key);
        self.by_id.remove(&flow.id);
        let close_type = flow.state.close_type(why);
        // An end that was seen happened with its last packet; one that was not, when the waiting was over.
        let waited_us = if flow.state.is_closed() { 0 } else { flow.state.timeout_us(&self.settings.timeouts) };
        let ended_us = flow.last_us.saturating_add(waited_us).min(self.now_us);
        self.meter.close(&mut flow, close_type, ended_us, self.reports.peers());
        self.reports.closed(flow, close_type);
    }

    /// Makes room: of a few flows the one that was idle longest goes.
    fn evict(&mut self, engine: &mut Engine) {
        let count = self.flows.len();
        let mut oldest: Option<(u64, u32)> = None;
        let (mut looked, mut steps) = (0, 0);
        while looked < COMPARED && steps < count {
            self.hand = (self.hand + 1) % count;
            steps += 1;
            if let Some(flow) = &self.flows[self.hand] {
                looked += 1;
                let candidate = (flow.last_us, self.hand as u32);
                oldest = Some(oldest.map_or(candidate, |before| before.min(candidate)));
            }
        }
        if let Some((_, at)) = oldest {
            self.counters.evicted += 1;
            self.end(at, End::Evicted, engine);
        }
    }

    /// The capture is over, as it is found at `now_us`.
    pub fn finish(&mut self, why: End, now_us: u64, engine: &mut Engine) {
        self.take_counted(engine);
        self.now_us = self.now_us.max(now_us);
        for at in 0..self.flows.len() as u32 {
            self.end(at, why, engine);
        }
        self.active.clear();
    }

    /// Rows since the last call; of seconds that are over, or of every second (`all`).
    pub fn drain(&mut self, now_us: u64, all: bool, engine: &mut Engine) -> Vec<Batch> {
        self.tick(now_us, engine);
        let bound_s = if all { u64::MAX } else { (self.now_us / MICROS).saturating_sub(2) };
        let closed = self.meter.take(bound_s);
        self.reports.seconds(&closed);
        self.reports.minutes(self.now_us, all);
        self.reports.take()
    }

    /// Rows that wait for `drain`, and seconds that are open.
    pub fn backlog(&self) -> (usize, usize) {
        (self.reports.open_rows(), self.meter.open_seconds())
    }

    pub fn report_counters(&self) -> ReportCounters {
        self.reports.counters
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

fn wait_us(flow: &Flow, timeout_us: u64) -> u64 {
    if flow.spoken.is_some() { timeout_us.max(UDP_US) } else { timeout_us }
}

/// Second at which a flow is to be looked at.
fn due(flow: &Flow, timeout_us: u64) -> u64 {
    let linger = flow.told == Told::Bytes && flow.state.is_closed();
    let end_s = (flow.last_us + timeout_us).div_ceil(MICROS);
    if linger { end_s.min(flow.last_us.div_ceil(MICROS) + LINGER_S) } else { end_s }
}
