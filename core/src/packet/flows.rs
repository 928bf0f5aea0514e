//! Packets to flows: who is the local side, when a flow ends, when its tuple begins a new one.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::decode::{ACK, FIN, Packet, RST, SYN, TCP};
use crate::event::{Direction, Endpoint, EventSink, Place, Segment, SocketChange, Source, Task};

/// Most flows at one time.
const MAX_FLOWS: usize = 1 << 20;
/// How long after its end a flow takes packets that come late, µs of capture time.
const LINGER_US: u64 = 1_000_000;

type Tuple = (u8, Endpoint, Endpoint);

#[derive(Clone, Copy, Debug)]
struct Flow {
    socket: u64,
    local: Endpoint,
    remote: Endpoint,
    /// First sequence number of each SYN, local and remote.
    syn: [Option<u32>; 2],
    fin: [bool; 2],
    ending: bool,
}

/// All flows of a capture.
#[derive(Debug, Default)]
pub struct Flows {
    flows: FxHashMap<Tuple, Flow>,
    ending: VecDeque<(u64, Tuple, u64)>,
    last_socket: u64,
    pub evicted: u64,
}

/// The same tuple for both directions.
fn tuple(packet: &Packet<'_>) -> Tuple {
    let (a, b) = (packet.source, packet.destination);
    if (a.ip, a.port) <= (b.ip, b.port) { (packet.protocol, a, b) } else { (packet.protocol, b, a) }
}

impl Flows {
    /// Flows seen so far.
    pub fn seen(&self) -> u64 {
        self.last_socket
    }

    /// Hands one packet to the engine.
    pub fn packet(&mut self, time_us: u64, packet: &Packet<'_>, sink: &mut impl EventSink) {
        self.finish(time_us, sink);
        let tuple = tuple(packet);
        let tcp = packet.protocol == TCP;
        let syn = tcp && packet.tcp.flags & SYN != 0;
        if let Some(flow) = self.flows.get(&tuple) {
            // A SYN with another number, or any first SYN on a flow that is over, begins a new connection.
            let side = usize::from(packet.source != flow.local);
            let again = syn && packet.tcp.flags & ACK == 0 && flow.syn[side] != Some(packet.tcp.seq);
            if again && (flow.ending || flow.syn != [None, None]) {
                sink.socket(&SocketChange::Close { time_us, socket: flow.socket });
                self.flows.remove(&tuple);
            }
        }
        let flow = match self.flows.get_mut(&tuple) {
            Some(flow) => flow,
            None => {
                if self.flows.len() >= MAX_FLOWS {
                    self.evicted += self.flows.len() as u64;
                    for (_, flow) in self.flows.drain() {
                        sink.socket(&SocketChange::Close { time_us, socket: flow.socket });
                    }
                    self.ending.clear();
                }
                self.last_socket += 1;
                let answers = syn && packet.tcp.flags & ACK != 0;
                let (local, remote) =
                    if answers { (packet.destination, packet.source) } else { (packet.source, packet.destination) };
                let flow =
                    Flow { socket: self.last_socket, local, remote, syn: [None; 2], fin: [false; 2], ending: false };
                self.flows.entry(tuple).or_insert(flow)
            }
        };
        let direction = if packet.source == flow.local { Direction::Egress } else { Direction::Ingress };
        let side = usize::from(direction == Direction::Ingress);
        if syn {
            let client_side = usize::from((packet.tcp.flags & ACK == 0) == (side == 1));
            if client_side == 0 {
                let Flow { socket, local, remote, .. } = *flow;
                let (netns, task) = (0, Task::default());
                sink.socket(&SocketChange::Connect { time_us, source: Source::Packet(Place::default()), socket, netns, local, remote, task });
            }
            flow.syn[side] = Some(packet.tcp.seq);
        }
        sink.segment(&Segment {
            time_us,
            source: Source::Packet(Place::default()),
            socket: flow.socket,
            direction,
            protocol: packet.protocol,
            local: flow.local,
            remote: flow.remote,
            netns: 0,
            task: Task::default(),
            // A SYN takes one number of its own: the first byte follows it.
            tcp_seq: if syn { packet.tcp.seq.wrapping_add(1) } else { packet.tcp.seq },
            length: packet.length,
            payload: packet.payload,
        });
        flow.fin[side] |= tcp && packet.tcp.flags & FIN != 0;
        let over = tcp && (packet.tcp.flags & RST != 0 || flow.fin == [true, true]);
        if over && !flow.ending {
            flow.ending = true;
            self.ending.push_back((time_us, tuple, flow.socket));
        }
    }

    /// Closes flows that ended a while ago.
    fn finish(&mut self, time_us: u64, sink: &mut impl EventSink) {
        while let Some((ended_us, tuple, socket)) = self.ending.front().copied() {
            if time_us < ended_us.saturating_add(LINGER_US) {
                return;
            }
            self.ending.pop_front();
            if self.flows.get(&tuple).is_some_and(|flow| flow.socket == socket) {
                self.flows.remove(&tuple);
                sink.socket(&SocketChange::Close { time_us, socket });
            }
        }
    }
}
