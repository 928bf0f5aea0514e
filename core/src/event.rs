//! What a source of traffic (kernel sockets, capture file) hands to the engine.

use std::net::IpAddr;

use serde::Serialize;

/// Which way the bytes went, seen from the owner of the socket.
/// A capture file has no owner: the sender of the flow's first packet is taken as `local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Local wrote, remote will read.
    Egress,
    /// Local read what remote wrote.
    Ingress,
}

/// Where on its way a packet was seen (docs/network.md): the values of `observation_point` that packets have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// At neither end, or nobody knows: capture files.
    #[default]
    Rest,
    Client,
    Server,
    /// Client and server are behind the same interface.
    Local,
    ClientNode,
    ServerNode,
}

impl Point {
    /// As rows name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Client => "c",
            Self::Server => "s",
            Self::Local => "local",
            Self::ClientNode => "c-nd",
            Self::ServerNode => "s-nd",
        }
    }

    /// The same place once client and server are known to be the other way round.
    pub fn mirrored(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
            Self::ClientNode => Self::ServerNode,
            Self::ServerNode => Self::ClientNode,
            Self::Rest | Self::Local => self,
        }
    }
}

/// The interface a packet was seen at, and how the ends of its flow lie to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    pub point: Point,
    /// Whether client and server are the next machine on the link, and whether their addresses are here.
    pub l2_end: [bool; 2],
    pub l3_end: [bool; 2],
    /// Low 32 bits of the interface's hardware address (`capture_nic`), 0 for a file.
    pub nic: u32,
    /// Kind of the tunnel that carried it (`tunnel_type`), 0 none.
    pub tunnel: u8,
    /// What told the addresses before translation (`nat_source`), 0 nothing.
    pub nat_source: u8,
    /// Network namespace (inode) of the interface, 0 unknown.
    pub netns: u32,
}

impl Place {
    /// The same place once client and server are known to be the other way round.
    pub fn mirrored(self) -> Self {
        let [l2, l3] = [self.l2_end, self.l3_end];
        Self { point: self.point.mirrored(), l2_end: [l2[1], l2[0]], l3_end: [l3[1], l3[0]], ..self }
    }
}

/// Where the observation was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A socket call, in the process that made it (signal_source 3, observation points c-p and s-p).
    Socket,
    /// A packet (signal_source 0), with the local side as the client.
    Packet(Place),
}

impl Source {
    pub fn is_packet(self) -> bool {
        matches!(self, Self::Packet(_))
    }
}

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
}

/// The task that made a socket call; zeros for packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Task {
    pub pid: u32,
    pub tid: u32,
    pub comm: [u8; 16],
}

/// Where a byte of a stream came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub time_us: u64,
    /// TCP sequence number, 0 unknown.
    pub seq: u32,
}

impl Origin {
    /// Of the byte so many bytes further on in the same segment.
    pub fn after(self, bytes: usize) -> Self {
        let seq = if self.seq == 0 { 0 } else { self.seq.wrapping_add(bytes as u32) };
        Self { seq, ..self }
    }
}

/// A piece of a stream or one datagram.
#[derive(Clone, Debug)]
pub struct Segment<'a> {
    /// Wall clock, µs since the epoch.
    pub time_us: u64,
    pub source: Source,
    /// Identity of the socket (kernel cookie) or of the flow in a capture.
    pub socket: u64,
    pub direction: Direction,
    /// IP protocol number: 6, 17, and of echo requests and replies 1 and 58 (ports are 0 there).
    pub protocol: u8,
    pub local: Endpoint,
    pub remote: Endpoint,
    /// Network namespace (inode), 0 unknown.
    pub netns: u32,
    pub task: Task,
    /// Id of the task's cgroup in the v2 tree, 0 for packets.
    pub cgroup: u64,
    /// TCP sequence number of the first byte, 0 unknown or not TCP.
    pub tcp_seq: u32,
    /// Bytes of this call or packet; `payload` may be shorter.
    pub length: u32,
    /// The captured prefix.
    pub payload: &'a [u8],
}

/// What a source reports besides data.
#[derive(Clone, Debug)]
pub enum SocketChange {
    /// The local side began to connect, in this task (before the first byte is written).
    Connect { time_us: u64, source: Source, socket: u64, netns: u32, local: Endpoint, remote: Endpoint, task: Task },
    /// The socket is gone.
    Close { time_us: u64, socket: u64 },
}

/// Life of processes, for the process table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ProcessChange {
    Exec { time_us: u64, pid: u32, ppid: u32, uid: u32, cgroup: u64, netns: u32, comm: String, filename: String },
    Fork { time_us: u64, pid: u32, ppid: u32, comm: String },
    Exit { time_us: u64, pid: u32, exit_code: i32 },
}

/// Takes what a source reports, in the order of time of each thread.
pub trait EventSink {
    fn segment(&mut self, segment: &Segment<'_>);
    fn socket(&mut self, change: &SocketChange);
    fn process(&mut self, change: ProcessChange);
}
