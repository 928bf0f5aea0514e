//! Delays and health of one flow, from its packets. Definitions: docs/network.md, "TCP timing and health".
//!
//! Sides: 0 the client, 1 the server. Times are µs of the capture; where it runs backwards nothing is measured.

use super::sent::{Segment, Sent};
use crate::packet::decode::{ACK, FIN, Packet, RST, SYN, TCP, Tcp, UDP};

/// Longer ones are not the network's: they are dropped.
const MAX_RTT_US: u64 = 30_000_000;
const MAX_SRT_US: u64 = 10_000_000;
/// A response after the time-out of a request is none.
const MAX_ART_TCP_US: u64 = 300_000_000;
const MAX_ART_UDP_US: u64 = 150_000_000;
const MAX_CIT_US: u64 = u32::MAX as u64;
/// A SYN-ACK acknowledges no more data of a SYN than one segment has.
const MAX_FAST_OPEN: u32 = 1 << 16;
/// No time: nothing is waited for.
const NEVER: u64 = u64::MAX;

/// Delays of one kind, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    pub sum: u64,
    pub count: u32,
    pub max: u32,
}

impl Delay {
    fn measure(&mut self, from_us: u64, to_us: u64, limit_us: u64) -> Option<u32> {
        let delay = to_us.checked_sub(from_us).filter(|delay| *delay <= limit_us)?;
        let delay = u32::try_from(delay).ok()?;
        self.record(delay);
        Some(delay)
    }

    fn record(&mut self, delay_us: u32) {
        self.add(&Self { sum: delay_us.into(), count: 1, max: delay_us });
    }

    pub fn add(&mut self, other: &Self) {
        self.sum = self.sum.saturating_add(other.sum);
        self.count = self.count.saturating_add(other.count);
        self.max = self.max.max(other.max);
    }
}

/// What was measured of a flow in some time. Pairs: of the client's packets, of the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// SYN to the ACK that ends the handshake, of what is sent again the last: the server's and the client's part.
    pub rtt: Delay,
    /// SYN-ACK to ACK.
    pub rtt_client: Delay,
    /// SYN to SYN-ACK.
    pub rtt_server: Delay,
    /// Data of the client to the server's ACK without data; of ICMP echo request to reply.
    pub srt: Delay,
    /// The same for data of the server and the client's ACK.
    pub srt_client: Delay,
    /// Last data of a request to the first data of the response.
    pub art: Delay,
    /// Last data of a response, or the end of the handshake, to the client's next data.
    pub cit: Delay,
    /// TLS: client hello to the end of the handshake.
    pub tls_rtt: Delay,
    /// Data, SYN and SYN-ACK that were sent again.
    pub retrans: [u32; 2],
    pub retrans_syn: u32,
    pub retrans_synack: u32,
    pub zero_win: [u32; 2],
    pub ooo: [u32; 2],
    pub syn_count: u32,
    pub synack_count: u32,
    pub fin_count: u32,
}

impl Report {
    pub fn add(&mut self, other: &Self) {
        self.rtt.add(&other.rtt);
        self.rtt_client.add(&other.rtt_client);
        self.rtt_server.add(&other.rtt_server);
        self.srt.add(&other.srt);
        self.srt_client.add(&other.srt_client);
        self.art.add(&other.art);
        self.cit.add(&other.cit);
        self.tls_rtt.add(&other.tls_rtt);
        for side in 0..2 {
            count(&mut self.retrans[side], other.retrans[side]);
            count(&mut self.zero_win[side], other.zero_win[side]);
            count(&mut self.ooo[side], other.ooo[side]);
        }
        count(&mut self.retrans_syn, other.retrans_syn);
        count(&mut self.retrans_synack, other.retrans_synack);
        count(&mut self.syn_count, other.syn_count);
        count(&mut self.synack_count, other.synack_count);
        count(&mut self.fin_count, other.fin_count);
    }

    /// Client and server were the other way round. What was an answer is the client's next request then.
    pub fn swap(&mut self) {
        std::mem::swap(&mut self.srt, &mut self.srt_client);
        std::mem::swap(&mut self.art, &mut self.cit);
        self.retrans.swap(0, 1);
        self.zero_win.swap(0, 1);
        self.ooo.swap(0, 1);
    }
}

fn count(counter: &mut u32, by: u32) {
    *counter = counter.saturating_add(by);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No handshake was seen.
    None,
    Syn,
    SynAck,
    Done,
    /// It is not seen in its order: its times would be wrong.
    Spoiled,
}

/// Handshake of TCP.
#[derive(Debug)]
struct Handshake {
    stage: Stage,
    /// The side that asks for the connection.
    client: u8,
    /// The number that acknowledges the last SYN or SYN-ACK of a side, and which of the two it has sent with it.
    next: [u32; 2],
    opened: [u8; 2],
    syn_us: u64,
    synack_us: u64,
    /// SYN to ACK, 0 unknown.
    rtt_us: u32,
}

impl Handshake {
    fn is_server(&self, side: usize) -> bool {
        usize::from(self.client) != side
    }

    /// A SYN or SYN-ACK (`kind`) of a side: was it sent before?
    fn opens(&mut self, side: usize, next: u32, kind: u8) -> bool {
        let kind = 1 << u8::from(kind & ACK != 0);
        if self.next[side] != next {
            self.next[side] = next;
            self.opened[side] = 0;
        }
        let again = self.opened[side] & kind != 0;
        self.opened[side] |= kind;
        again
    }
}

/// One direction.
#[derive(Debug)]
struct Side {
    sent: Sent,
    /// The last data, until the peer sends anything: its time, and the number that acknowledges it.
    unanswered_us: u64,
    unanswered_next: u32,
    /// The peer's next data is measured from here.
    turn_us: u64,
}

impl Side {
    fn new() -> Self {
        Self { sent: Sent::default(), unanswered_us: NEVER, unanswered_next: 0, turn_us: NEVER }
    }
}

/// TLS handshake: both sides change to the new keys, or TLS 1.3 without its compatibility records: the client's first
/// encrypted record after the server's hello (RFC 5246, 7.3; RFC 8446, 2 and D.4).
#[derive(Debug)]
struct Tls {
    hello_us: u64,
    server_hello: bool,
    changed: [bool; 2],
}

/// The delays and the health of one flow.
#[derive(Debug)]
pub struct Perf {
    handshake: Handshake,
    sides: [Side; 2],
    tls: Tls,
    /// Numbers of the last keep-alive: sequence, acknowledgement.
    keepalive: Option<(u32, u32)>,
    /// Boxed: a silent flow has none.
    report: Option<Box<Report>>,
}

impl Default for Perf {
    fn default() -> Self {
        Self::new()
    }
}

impl Perf {
    pub fn new() -> Self {
        Self {
            handshake: Handshake {
                stage: Stage::None,
                client: 0,
                next: [0; 2],
                opened: [0; 2],
                syn_us: NEVER,
                synack_us: NEVER,
                rtt_us: 0,
            },
            sides: [Side::new(), Side::new()],
            tls: Tls { hello_us: NEVER, server_hello: false, changed: [false; 2] },
            keepalive: None,
            report: None,
        }
    }

    /// What was measured since the last call; the next report begins empty.
    pub fn take(&mut self) -> Report {
        self.report.take().map(|report| *report).unwrap_or_default()
    }

    /// Sequence and acknowledgement number of the last keep-alive.
    pub fn keepalive(&self) -> Option<(u32, u32)> {
        self.keepalive
    }

    /// Client and server were the other way round.
    pub fn swap(&mut self) {
        self.sides.swap(0, 1);
        self.handshake.client ^= 1;
        self.handshake.next.swap(0, 1);
        self.handshake.opened.swap(0, 1);
        self.tls.changed.swap(0, 1);
        if let Some(report) = &mut self.report {
            report.swap();
        }
    }

    /// A packet of the flow that `side` sent.
    pub fn packet(&mut self, time_us: u64, side: usize, packet: &Packet<'_>) {
        let side = side & 1;
        if packet.later_fragment && packet.length == 0 {
            return;
        }
        match packet.protocol {
            TCP => self.tcp(time_us, side, packet),
            UDP => self.datagram(time_us, side),
            _ => self.echo(time_us, side, packet.payload),
        }
    }

    fn report(&mut self) -> &mut Report {
        self.report.get_or_insert_default()
    }

    fn tcp(&mut self, time_us: u64, side: usize, packet: &Packet<'_>) {
        let tcp = &packet.tcp;
        let (syn, fin) = (tcp.flags & SYN != 0, tcp.flags & FIN != 0);
        if tcp.flags & RST != 0 {
            self.sides[side ^ 1].unanswered_us = NEVER;
            return;
        }
        if tcp.window == 0 && !packet.later_fragment {
            count(&mut self.report().zero_win[side], 1);
        }
        if fin {
            count(&mut self.report().fin_count, 1);
        }
        let seq = tcp.seq.wrapping_add(u32::from(syn));
        let mut again = false;
        if syn {
            again = self.opening(time_us, side, packet);
        } else {
            // Keep-alive (RFC 9293, 3.8.4), or a probe of a closed window: the byte before the next, or none.
            if packet.length <= 1 && !fin && self.sides[side].sent.next() == Some(seq.wrapping_add(1)) {
                self.keepalive = Some((seq, tcp.ack));
                return;
            }
            self.answer_of_handshake(time_us, side, packet);
        }
        self.acknowledged(time_us, side, tcp, packet.length == 0 && !syn && !fin);
        if packet.length > 0 {
            self.data(time_us, side, seq, packet, again);
        } else if !syn {
            self.sides[side].sent.reach(seq, time_us, packet.ip_id);
        }
    }

    /// SYN or SYN-ACK: was it sent before?
    fn opening(&mut self, time_us: u64, side: usize, packet: &Packet<'_>) -> bool {
        let tcp = &packet.tcp;
        let next = tcp.seq.wrapping_add(1);
        let asks = tcp.flags & ACK == 0;
        let shake = &mut self.handshake;
        let again = shake.opens(side, next, if asks { SYN } else { SYN | ACK });
        let answered = match shake.stage {
            Stage::None | Stage::Syn if asks => {
                shake.stage = Stage::Syn;
                shake.client = side as u8;
                shake.syn_us = time_us;
                false
            }
            Stage::SynAck if asks => {
                if again {
                    shake.syn_us = time_us;
                }
                false
            }
            Stage::None => {
                shake.stage = Stage::SynAck;
                shake.client = side as u8 ^ 1;
                false
            }
            // With data in the SYN (TCP Fast Open) more than the SYN may be acknowledged.
            Stage::Syn if shake.is_server(side) => tcp.ack.wrapping_sub(shake.next[side ^ 1]) < MAX_FAST_OPEN,
            _ => false,
        };
        if answered {
            shake.stage = Stage::SynAck;
        }
        if shake.stage == Stage::SynAck && !asks && shake.is_server(side) {
            shake.synack_us = time_us;
        }
        let syn_us = shake.syn_us;
        let report = self.report();
        let (seen, repeated) = if asks {
            (&mut report.syn_count, &mut report.retrans_syn)
        } else {
            (&mut report.synack_count, &mut report.retrans_synack)
        };
        count(seen, 1);
        if again {
            count(repeated, 1);
            count(&mut report.retrans[side], 1);
        }
        if answered {
            report.rtt_server.measure(syn_us, time_us, MAX_RTT_US);
        }
        if self.sides[side].sent.next().is_none() {
            self.sides[side].sent.begin(next, time_us, packet.ip_id);
        }
        again
    }

    /// Any packet without SYN: the ACK that ends the handshake, or one that comes before its turn.
    fn answer_of_handshake(&mut self, time_us: u64, side: usize, packet: &Packet<'_>) {
        let shake = &mut self.handshake;
        if shake.is_server(side) {
            return;
        }
        if shake.stage == Stage::Syn {
            shake.stage = Stage::Spoiled;
        }
        let tcp = &packet.tcp;
        if shake.stage != Stage::SynAck || tcp.flags & (ACK | FIN) != ACK || tcp.ack != shake.next[side ^ 1] {
            return;
        }
        shake.stage = Stage::Done;
        let (syn_us, synack_us) = (shake.syn_us, shake.synack_us);
        let report = self.report();
        report.rtt_client.measure(synack_us, time_us, MAX_RTT_US);
        let rtt_us = report.rtt.measure(syn_us, time_us, MAX_RTT_US);
        self.handshake.rtt_us = rtt_us.unwrap_or(0);
        if packet.length == 0 {
            self.sides[side ^ 1].turn_us = time_us;
        }
    }

    /// The first packet of a side after data of its peer: its system's answer, if it acknowledges just that.
    fn acknowledged(&mut self, time_us: u64, side: usize, tcp: &Tcp, pure: bool) {
        let peer = &mut self.sides[side ^ 1];
        let from_us = std::mem::replace(&mut peer.unanswered_us, NEVER);
        if from_us != NEVER && pure && tcp.flags & ACK != 0 && tcp.ack == peer.unanswered_next {
            let report = self.report();
            let delay = if side == 1 { &mut report.srt } else { &mut report.srt_client };
            delay.measure(from_us, time_us, MAX_SRT_US);
        }
    }

    /// `again`: the packet is a SYN that was counted as a retransmission; whatever its data, it counts once.
    fn data(&mut self, time_us: u64, side: usize, seq: u32, packet: &Packet<'_>, again: bool) {
        let rtt_us = self.handshake.rtt_us;
        let own = &mut self.sides[side];
        let segment = own.sent.segment(seq, packet.length, time_us, packet.ip_id, rtt_us);
        own.unanswered_us = time_us;
        own.unanswered_next = seq.wrapping_add(packet.length).wrapping_add(u32::from(packet.tcp.flags & FIN != 0));
        match segment {
            Segment::New => self.turn(time_us, side, MAX_ART_TCP_US),
            Segment::Overtaken => {
                if !again {
                    count(&mut self.report().ooo[side], 1);
                }
                self.turn(time_us, side, MAX_ART_TCP_US);
            }
            Segment::Repeated | Segment::Resent => {
                if own.turn_us != NEVER {
                    own.turn_us = time_us;
                }
                if !again {
                    count(&mut self.report().retrans[side], 1);
                }
            }
        }
        self.tls(time_us, side, packet.payload);
    }

    /// New data: it ends the peer's turn, and begins or prolongs one's own.
    fn turn(&mut self, time_us: u64, side: usize, limit_us: u64) {
        self.sides[side].turn_us = time_us;
        let from_us = std::mem::replace(&mut self.sides[side ^ 1].turn_us, NEVER);
        if from_us == NEVER {
            return;
        }
        let report = self.report();
        if side == 1 {
            report.art.measure(from_us, time_us, limit_us);
        } else {
            report.cit.measure(from_us, time_us, MAX_CIT_US);
        }
    }

    fn datagram(&mut self, time_us: u64, side: usize) {
        if side == 0 {
            self.sides[0].turn_us = time_us;
            return;
        }
        let from_us = std::mem::replace(&mut self.sides[0].turn_us, NEVER);
        if from_us != NEVER {
            self.report().art.measure(from_us, time_us, MAX_ART_UDP_US);
        }
    }

    /// Echo of ICMP (RFC 792) and ICMPv6 (RFC 4443): type, code, checksum, identifier, number.
    fn echo(&mut self, time_us: u64, side: usize, message: &[u8]) {
        let Some([kind, _, _, _, id @ ..]) = message.first_chunk::<8>() else { return };
        let id = u32::from_be_bytes(*id);
        if matches!(kind, 8 | 128) {
            self.sides[side].unanswered_us = time_us;
            self.sides[side].unanswered_next = id;
            return;
        }
        let peer = &mut self.sides[side ^ 1];
        if peer.unanswered_us != NEVER && peer.unanswered_next == id {
            let from_us = std::mem::replace(&mut peer.unanswered_us, NEVER);
            let report = self.report();
            let delay = if side == 1 { &mut report.srt } else { &mut report.srt_client };
            delay.measure(from_us, time_us, MAX_SRT_US);
        }
    }

    fn tls(&mut self, time_us: u64, side: usize, payload: &[u8]) {
        const CHANGE_CIPHER_SPEC: u8 = 20;
        const HANDSHAKE: u8 = 22;
        const APPLICATION_DATA: u8 = 23;
        const CLIENT_HELLO: u8 = 1;
        const SERVER_HELLO: u8 = 2;
        let begins = side == 0 && payload.first() == Some(&HANDSHAKE);
        if self.tls.hello_us == NEVER && !begins {
            return;
        }
        let mut rest = payload;
        // A segment that begins inside a record does not look like one, most of the time; what follows then is missed.
        while let Some([kind @ CHANGE_CIPHER_SPEC..=APPLICATION_DATA, 3, 0..=4, length @ ..]) = rest.first_chunk::<5>()
        {
            let length = usize::from(u16::from_be_bytes(*length));
            let body = rest.get(5..).unwrap_or_default();
            match (*kind, body.first()) {
                (HANDSHAKE, Some(&CLIENT_HELLO)) if side == 0 && !self.tls.server_hello => {
                    self.tls = Tls { hello_us: time_us, server_hello: false, changed: [false; 2] };
                }
                (HANDSHAKE, Some(&SERVER_HELLO)) if side == 1 => self.tls.server_hello = true,
                (CHANGE_CIPHER_SPEC, Some(1)) if length == 1 => self.tls.changed[side] = true,
                _ => {}
            }
            // Before its change of keys nothing of a client is encrypted, unless there is no such record; after it, and
            // before the server's, it may be (False Start, RFC 7918).
            let encrypted = *kind == APPLICATION_DATA && side == 0 && self.tls.server_hello && !self.tls.changed[0];
            if self.tls.hello_us != NEVER && (self.tls.changed == [true; 2] || encrypted) {
                let from_us = self.tls.hello_us;
                self.tls = Tls { hello_us: NEVER, server_hello: false, changed: [false; 2] };
                self.report().tls_rtt.measure(from_us, time_us, MAX_RTT_US);
                return;
            }
            rest = body.get(length..).unwrap_or_default();
        }
    }
}

const _: () = assert!(size_of::<Perf>() <= 280);
