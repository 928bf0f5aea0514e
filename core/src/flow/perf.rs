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
/// No time: nothing is waited for.
const NEVER: u64 = u64::MAX;
const UNKNOWN: u32 = u32::MAX;

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
    /// SYN to the ACK that ends the handshake: the server's and the client's part together.
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
    seen_syn: bool,
    seen_synack: bool,
    /// Sequence number that the SYN-ACK has to acknowledge, and the one that the ACK has to.
    syn_next: u32,
    synack_next: u32,
    syn_us: u64,
    synack_us: u64,
    /// SYN to SYN-ACK.
    server_us: u32,
    /// The whole, 0 unknown.
    rtt_us: u32,
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
                seen_syn: false,
                seen_synack: false,
                syn_next: 0,
                synack_next: 0,
                syn_us: 0,
                synack_us: 0,
                server_us: UNKNOWN,
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
        self.tls.changed.swap(0, 1);
        if let Some(report) = &mut self.report {
            report.swap();
        }
    }

    /// A packet of the flow that `side` sent.
    pub fn packet(&mut self, time_us: u64, side: usize, packet: &Packet<'_>) {
        let side = side & 1;
        if packet.later_fragment {
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
        if tcp.window == 0 {
            count(&mut self.report().zero_win[side], 1);
        }
        if fin {
            count(&mut self.report().fin_count, 1);
        }
        let seq = tcp.seq.wrapping_add(u32::from(syn));
        if syn {
            self.opening(time_us, side, packet);
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
            self.data(time_us, side, seq, packet);
        }
    }

    /// SYN or SYN-ACK.
    fn opening(&mut self, time_us: u64, side: usize, packet: &Packet<'_>) {
        let tcp = &packet.tcp;
        let next = tcp.seq.wrapping_add(1);
        let shake = &mut self.handshake;
        if tcp.flags & ACK == 0 {
            let again = std::mem::replace(&mut shake.seen_syn, true);
            let other = shake.stage == Stage::Done && shake.syn_next != next;
            match shake.stage {
                Stage::None | Stage::Syn => {
                    shake.stage = if shake.seen_synack { Stage::Spoiled } else { Stage::Syn };
                    shake.syn_us = time_us;
                }
                Stage::SynAck | Stage::Done | Stage::Spoiled => {}
            }
            if !other {
                shake.client = side as u8;
                shake.syn_next = next;
            }
            let report = self.report();
            count(&mut report.syn_count, 1);
            if again {
                count(&mut report.retrans_syn, 1);
                count(&mut report.retrans[side], 1);
            }
        } else {
            let again = std::mem::replace(&mut shake.seen_synack, true);
            let mut server_us = None;
            match shake.stage {
                // With data in the SYN (TCP Fast Open) more than the SYN may be acknowledged.
                Stage::Syn
                    if usize::from(shake.client) != side
                        && tcp.ack.wrapping_sub(shake.syn_next) < u32::from(u16::MAX) =>
                {
                    shake.stage = Stage::SynAck;
                    server_us = Some((shake.syn_us, time_us));
                }
                Stage::None => {
                    shake.client = side as u8 ^ 1;
                    shake.stage = Stage::SynAck;
                }
                _ => {}
            }
            if shake.stage == Stage::SynAck {
                shake.synack_us = time_us;
                shake.synack_next = next;
            }
            let report = self.report();
            count(&mut report.synack_count, 1);
            if again {
                count(&mut report.retrans_synack, 1);
                count(&mut report.retrans[side], 1);
            }
            if let Some((from, to)) = server_us {
                self.handshake.server_us = report.rtt_server.measure(from, to, MAX_RTT_US).unwrap_or(UNKNOWN);
            }
        }
        if self.sides[side].sent.next().is_none() {
            self.sides[side].sent.begin(next, time_us, packet.ip_id);
        }
    }

    /// Any packet without SYN: the ACK that ends the handshake, or one that comes before its turn.
    fn answer_of_handshake(&mut self, time_us: u64, side: usize, packet: &Packet<'_>) {
        let shake = &mut self.handshake;
        if usize::from(shake.client) != side {
            return;
        }
        if shake.stage == Stage::Syn {
            shake.stage = Stage::Spoiled;
        }
        let tcp = &packet.tcp;
        if shake.stage != Stage::SynAck || tcp.flags & (ACK | FIN) != ACK || tcp.ack != shake.synack_next {
            return;
        }
        shake.stage = Stage::Done;
        let (synack_us, server_us) = (shake.synack_us, shake.server_us);
        let report = self.report();
        let client_us = report.rtt_client.measure(synack_us, time_us, MAX_RTT_US);
        if let Some(client_us) = client_us.filter(|_| server_us != UNKNOWN) {
            let rtt_us = client_us.saturating_add(server_us);
            if u64::from(rtt_us) <= MAX_RTT_US {
                report.rtt.record(rtt_us);
                self.handshake.rtt_us = rtt_us;
            }
        }
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

    fn data(&mut self, time_us: u64, side: usize, seq: u32, packet: &Packet<'_>) {
        let rtt_us = self.handshake.rtt_us;
        let own = &mut self.sides[side];
        let segment = own.sent.segment(seq, packet.length, time_us, packet.ip_id, rtt_us);
        own.unanswered_us = time_us;
        own.unanswered_next = seq.wrapping_add(packet.length).wrapping_add(u32::from(packet.tcp.flags & FIN != 0));
        match segment {
            Segment::New => self.turn(time_us, side, MAX_ART_TCP_US),
            Segment::Overtaken => {
                count(&mut self.report().ooo[side], 1);
                self.turn(time_us, side, MAX_ART_TCP_US);
            }
            Segment::Repeated | Segment::Resent => {
                if own.turn_us != NEVER {
                    own.turn_us = time_us;
                }
                count(&mut self.report().retrans[side], 1);
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
            let encrypted = *kind == APPLICATION_DATA && side == 0 && self.tls.server_hello;
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
