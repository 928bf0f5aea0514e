//! Packets by hand, and the flows of a capture.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use _core::event::Endpoint;
use _core::flow::perf::{Perf, Report};
use _core::flow::state::{CloseType, End, State};
use _core::packet::decode::{ACK, FIN, Link, Packet, RST, SYN, TCP, Tcp, decode};
use _core::packet::file::Capture;
use _core::packet::tunnel::Decapsulation;

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;

/// A packet of TCP without its addresses.
pub fn tcp(flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Packet<'_> {
    let nowhere = Endpoint { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: 0 };
    Packet {
        link: Link::default(),
        tunnel: None,
        protocol: TCP,
        source: nowhere,
        destination: nowhere,
        ip_id: 0,
        ttl: 64,
        later_fragment: false,
        l3_length: 20 + payload.len() as u32,
        tcp: Tcp { seq, ack, flags, window: 1_000, ..Tcp::default() },
        length: payload.len() as u32,
        payload,
    }
}

/// One flow, followed from packet to packet.
#[derive(Debug, Default)]
pub struct Followed {
    pub perf: Perf,
    pub state: State,
    pub report: Report,
    /// FINs without data at or before one that was seen.
    pub bare_fins_again: [u64; 2],
    fin: [Option<u32>; 2],
}

impl Followed {
    pub fn packet(&mut self, time_us: u64, side: usize, packet: &Packet<'_>) {
        self.perf.packet(time_us, side, packet);
        if packet.protocol == TCP {
            self.state.packet(side, &packet.tcp, packet.length);
            if packet.tcp.flags & (FIN | SYN | RST) == FIN && packet.length == 0 {
                let seq = packet.tcp.seq;
                if self.fin[side].replace(seq) == Some(seq) {
                    self.bare_fins_again[side] += 1;
                }
            }
        }
        self.report.add(&self.perf.take());
    }

    pub fn end(&self) -> CloseType {
        self.state.close_type(End::TimedOut)
    }
}

/// A flow of a capture.
#[derive(Debug)]
pub struct Flow {
    pub protocol: u8,
    pub client: Endpoint,
    pub server: Endpoint,
    pub followed: Followed,
}

/// All flows of a capture in the order of their beginnings; `each` sees each flow after each of its packets.
pub fn flows(path: &Path, mut each: impl FnMut(usize, &Flow)) -> Vec<Flow> {
    let mut capture = Capture::open(&path.to_string_lossy()).unwrap_or_else(|error| panic!("{error}"));
    let mut flows: Vec<Flow> = Vec::new();
    let mut open: HashMap<(u8, Endpoint, Endpoint), usize> = HashMap::new();
    while let Ok(Some(frame)) = capture.next_packet() {
        let Ok(packet) = decode(frame.link_type, &frame.data, Decapsulation::ALL) else { continue };
        let there = (packet.protocol, packet.source, packet.destination);
        let back = (packet.protocol, packet.destination, packet.source);
        let mut at = open.get(&there).or_else(|| open.get(&back)).copied();
        if let Some(flow) = at.map(|at| &flows[at]) {
            let side = usize::from(packet.source != flow.client);
            if packet.protocol == TCP && flow.followed.state.is_replaced_by(side, &packet.tcp) {
                open.remove(&there);
                open.remove(&back);
                at = None;
            }
        }
        let at = at.unwrap_or_else(|| {
            let answers = packet.protocol == TCP && packet.tcp.flags & (SYN | ACK) == SYN | ACK;
            let (client, server) =
                if answers { (packet.destination, packet.source) } else { (packet.source, packet.destination) };
            open.insert((packet.protocol, client, server), flows.len());
            flows.push(Flow { protocol: packet.protocol, client, server, followed: Followed::default() });
            flows.len() - 1
        });
        let flow = &mut flows[at];
        let side = usize::from(packet.source != flow.client);
        flow.followed.packet(frame.time_us, side, &packet);
        each(at, flow);
    }
    flows
}
