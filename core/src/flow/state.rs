//! State of one connection, and why it ended (docs/network.md, "Ends of flows").

use super::settings::Timeouts;
use crate::packet::decode::{ACK, FIN, RST, SYN, TCP, Tcp};

/// An ACK of a SYN-ACK acknowledges no more than this: what a server may have sent before it.
const MAX_EARLY: u32 = 1 << 16;

/// Why a row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// No packets for `State::timeout_us`.
    TimedOut,
    /// The flow goes on, a minute is over.
    Forced,
    /// A new connection of the same ports began (`State::is_replaced_by`).
    Replaced,
    /// The table is full.
    Evicted,
    /// The capture stops.
    Flushed,
}

/// Values of close_type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CloseType {
    Other = 0,
    Normal = 1,
    ServerReset = 2,
    TimedOut = 3,
    Forced = 5,
    ServerSynMiss = 7,
    ServerHalfClose = 8,
    ClientReset = 9,
    ClientAckMiss = 10,
    ClientHalfClose = 11,
    ClientPortReuse = 13,
    ServerDirectReset = 15,
    ServerQueueOverflow = 17,
    ClientEstablishReset = 18,
    ServerEstablishReset = 19,
    NormalClientReset = 20,
}

impl CloseType {
    /// The status column: 0 success, 2 unknown, 3 server error, 4 client error.
    pub fn status(self, protocol: u8) -> u8 {
        match self {
            Self::Normal | Self::Forced | Self::NormalClientReset | Self::ServerHalfClose | Self::ClientHalfClose => 0,
            Self::TimedOut if protocol != TCP => 0,
            Self::ClientReset | Self::ClientAckMiss | Self::ClientPortReuse | Self::ClientEstablishReset => 4,
            Self::ServerReset
            | Self::TimedOut
            | Self::ServerSynMiss
            | Self::ServerDirectReset
            | Self::ServerQueueOverflow
            | Self::ServerEstablishReset
                if protocol == TCP =>
            {
                3
            }
            _ => 2,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No packet yet, or not TCP.
    Raw,
    /// The client asks.
    Syn,
    /// The server answers with something else than a SYN-ACK: it holds an older connection of these ports.
    PortReuse,
    SynAck,
    Established,
    /// The server repeats its SYN-ACK after the client's ACK: its queue of connections to accept is full.
    QueueOverflow,
    /// One side has sent FIN.
    Closing {
        side: u8,
    },
    /// Both have.
    ClosingBoth,
    Closed,
    /// RST before the connection stood.
    OpeningReset {
        side: u8,
        close: CloseType,
    },
    Reset {
        side: u8,
        close: CloseType,
    },
}

/// State of one flow. Sides: 0 the client, 1 the server.
#[derive(Debug)]
pub struct State {
    phase: Phase,
    /// The server has sent more than SYN-ACKs.
    server_spoke: bool,
    synacks: u8,
    /// Number of the first byte of a side, and the number that acknowledges its FIN.
    first: [Option<u32>; 2],
    fin_next: [Option<u32>; 2],
    /// Number of the RST.
    rst_seq: u32,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    pub fn new() -> Self {
        Self { phase: Phase::Raw, server_spoke: false, synacks: 0, first: [None; 2], fin_next: [None; 2], rst_seq: 0 }
    }

    /// A TCP packet that `side` sent, with `length` bytes of data. Other protocols have no state.
    pub fn packet(&mut self, side: usize, tcp: &Tcp, length: u32) {
        let side = side & 1;
        let (syn, ack) = (tcp.flags & SYN != 0, tcp.flags & ACK != 0);
        if tcp.flags & RST != 0 {
            self.reset(side, tcp);
        } else if syn && !ack {
            self.syn(side, tcp);
        } else if syn {
            self.syn_ack(side, tcp);
        } else {
            self.other(side, tcp, length);
        }
    }

    /// Client and server were the other way round.
    pub fn swap(&mut self) {
        self.first.swap(0, 1);
        self.fin_next.swap(0, 1);
        self.phase = match self.phase {
            Phase::Closing { side } => Phase::Closing { side: side ^ 1 },
            Phase::Reset { side, close } => Phase::Reset { side: side ^ 1, close: mirrored(close) },
            Phase::OpeningReset { side, close } => Phase::OpeningReset { side: side ^ 1, close: mirrored(close) },
            phase => phase,
        };
    }

    fn syn(&mut self, side: usize, tcp: &Tcp) {
        match self.phase {
            Phase::Raw | Phase::Syn | Phase::PortReuse | Phase::OpeningReset { .. } => {
                self.phase = Phase::Syn;
                self.first[side] = Some(tcp.seq.wrapping_add(1));
            }
            _ => {}
        }
    }

    fn syn_ack(&mut self, side: usize, tcp: &Tcp) {
        let next = Some(tcp.seq.wrapping_add(1));
        // The answer to the SYN; data in it (TCP Fast Open) may be acknowledged too.
        let answers = self.first[side ^ 1].is_none_or(|first| tcp.ack.wrapping_sub(first) < MAX_EARLY);
        match self.phase {
            Phase::Raw | Phase::Syn | Phase::PortReuse | Phase::SynAck | Phase::OpeningReset { .. } => {
                if answers {
                    self.phase = Phase::SynAck;
                    self.first[side] = next;
                    self.synacks = 1;
                } else if self.phase == Phase::Syn {
                    self.phase = Phase::PortReuse;
                }
            }
            Phase::Established | Phase::Closing { side: 0 } if side == 1 && !self.server_spoke => {
                self.synacks = self.synacks.saturating_add(1);
                if self.synacks > 1 {
                    self.phase = Phase::QueueOverflow;
                }
            }
            _ => {}
        }
    }

    fn other(&mut self, side: usize, tcp: &Tcp, length: u32) {
        let next = tcp.seq.wrapping_add(length);
        self.revive(side, tcp.flags, next);
        let first = self.first[side ^ 1];
        self.first[side].get_or_insert(tcp.seq);
        self.server_spoke |= side == 1;
        match (self.phase, side) {
            (Phase::Raw, _) => self.phase = Phase::Established,
            (Phase::QueueOverflow, 1) => self.resume(),
            (Phase::Syn, 1) => self.phase = Phase::PortReuse,
            (Phase::Syn | Phase::PortReuse, 0) if tcp.flags & ACK != 0 => self.phase = Phase::Established,
            (Phase::SynAck, 0) if first.is_none_or(|first| tcp.ack.wrapping_sub(first) < MAX_EARLY) => {
                self.phase = Phase::Established;
            }
            (Phase::SynAck, 1) => self.phase = Phase::Established,
            _ => {}
        }
        if tcp.flags & FIN != 0 {
            self.fin(side, next.wrapping_add(1));
        }
        self.last_ack(side, tcp);
    }

    fn fin(&mut self, side: usize, next: u32) {
        self.fin_next[side] = Some(next);
        if matches!(self.phase, Phase::Established | Phase::Closing { .. }) {
            self.resume();
        }
    }

    /// The connection stands, as far as the FINs say.
    fn resume(&mut self) {
        self.phase = match self.fin_next {
            [None, None] => Phase::Established,
            [Some(_), None] => Phase::Closing { side: 0 },
            [None, Some(_)] => Phase::Closing { side: 1 },
            [Some(_), Some(_)] => Phase::ClosingBoth,
        };
    }

    fn last_ack(&mut self, side: usize, tcp: &Tcp) {
        let acknowledged = Some(tcp.ack) == self.fin_next[side ^ 1];
        if self.phase == Phase::ClosingBoth && tcp.flags & (ACK | FIN) == ACK && acknowledged {
            self.phase = Phase::Closed;
        }
    }

    fn reset(&mut self, side: usize, tcp: &Tcp) {
        let close = match (self.phase, side) {
            // Nothing is known of a connection, not even who is its client.
            (Phase::Raw, _) => CloseType::Other,
            (Phase::PortReuse, 0) => CloseType::ClientPortReuse,
            (Phase::Syn | Phase::SynAck, 0) => CloseType::ClientEstablishReset,
            (Phase::Syn, _) => CloseType::ServerDirectReset,
            (Phase::PortReuse | Phase::SynAck, _) => CloseType::ServerEstablishReset,
            (Phase::QueueOverflow, _) => CloseType::ServerQueueOverflow,
            (Phase::Closing { .. } | Phase::ClosingBoth, 0) => CloseType::NormalClientReset,
            (Phase::ClosingBoth, _) => CloseType::Normal,
            (Phase::Established, 0) => CloseType::ClientReset,
            (Phase::Established | Phase::Closing { .. }, _) => CloseType::ServerReset,
            (Phase::Closed | Phase::OpeningReset { .. } | Phase::Reset { .. }, _) => return,
        };
        self.rst_seq = tcp.seq;
        let side = side as u8;
        self.phase = match self.phase {
            Phase::Raw | Phase::Syn | Phase::PortReuse | Phase::SynAck => Phase::OpeningReset { side, close },
            _ => Phase::Reset { side, close },
        };
    }

    /// Who has reset a connection sends nothing more in it: the RST was another's, and the connection goes on.
    fn revive(&mut self, side: usize, flags: u8, next: u32) {
        if let Phase::Reset { side: who, .. } | Phase::OpeningReset { side: who, .. } = self.phase
            && usize::from(who) == side
            && flags & ACK != 0
            && (next.wrapping_sub(self.rst_seq) as i32) > 0
        {
            self.resume();
        }
    }

    /// Does this SYN begin another connection of the same ports?
    pub fn is_replaced_by(&self, side: usize, tcp: &Tcp) -> bool {
        tcp.flags & (SYN | ACK | RST | FIN) == SYN
            && !matches!(self.phase, Phase::Raw | Phase::Syn | Phase::PortReuse | Phase::SynAck)
            && self.first[side & 1] != Some(tcp.seq.wrapping_add(1))
    }

    /// How long the flow is kept without packets.
    pub fn timeout_us(&self, timeouts: &Timeouts) -> u64 {
        match self.phase {
            Phase::Established | Phase::QueueOverflow => timeouts.established_us,
            Phase::OpeningReset { .. } => timeouts.opening_rst_us,
            Phase::Reset { .. } => timeouts.closing_rst_us,
            _ => timeouts.others_us,
        }
    }

    /// Both sides have ended the connection, or one has reset it.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed | Phase::OpeningReset { .. } | Phase::Reset { .. })
    }

    pub fn close_type(&self, why: End) -> CloseType {
        let open = !self.is_closed() && self.phase != Phase::ClosingBoth;
        match why {
            End::Forced => CloseType::Forced,
            End::Flushed if open => CloseType::Forced,
            End::Evicted if open => CloseType::Other,
            // The end was not seen: nobody knows whether it failed.
            End::Replaced if self.phase == Phase::Established => CloseType::Other,
            _ => self.own_close_type(),
        }
    }

    fn own_close_type(&self) -> CloseType {
        match self.phase {
            Phase::Raw | Phase::Established => CloseType::TimedOut,
            Phase::Syn => CloseType::ServerSynMiss,
            Phase::PortReuse => CloseType::ClientPortReuse,
            Phase::SynAck => CloseType::ClientAckMiss,
            Phase::QueueOverflow => CloseType::ServerQueueOverflow,
            // Named after the side whose FIN is missing, as ServerSynMiss and ClientAckMiss are.
            Phase::Closing { side: 0 } => CloseType::ServerHalfClose,
            Phase::Closing { .. } => CloseType::ClientHalfClose,
            Phase::ClosingBoth | Phase::Closed => CloseType::Normal,
            Phase::OpeningReset { close, .. } | Phase::Reset { close, .. } => close,
        }
    }
}

/// The same end with client and server exchanged, where it has a counterpart.
fn mirrored(close: CloseType) -> CloseType {
    match close {
        CloseType::ClientReset => CloseType::ServerReset,
        CloseType::ServerReset => CloseType::ClientReset,
        CloseType::ClientEstablishReset => CloseType::ServerEstablishReset,
        CloseType::ServerEstablishReset => CloseType::ClientEstablishReset,
        close => close,
    }
}
