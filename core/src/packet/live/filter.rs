//! Classic BPF programs for packet sockets (Documentation/networking/filter.rst): what the kernel hands over at all.
//!
//! A filter is a condition over the outermost IP packet, compiled from its end to its beginning, so that every jump
//! knows where it goes. A program of the user's, compiled elsewhere, may stand before it.

use std::net::IpAddr;

use serde::Deserialize;

/// As the kernel takes it (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "(u16, u8, u8, u32)")]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

impl From<(u16, u8, u8, u32)> for Instruction {
    fn from((code, jt, jf, k): (u16, u8, u8, u32)) -> Self {
        Self { code, jt, jf, k }
    }
}

const fn plain(code: u32, k: u32) -> Instruction {
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_HALF_AT_X: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const LOAD_MEMORY: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_MEM;
const LOAD_NUMBER: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IMM;
const LOAD_X_NUMBER: u32 = libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM;
/// X = 4 × the lower half of a byte: length of an IPv4 header.
const LOAD_X_HEADER: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const STORE: u32 = libc::BPF_ST;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Takes no packet.
pub const NOTHING: [Instruction; 1] = [plain(RETURN, 0)];

/// Most instructions of a program (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

const fn extension(number: i32) -> u32 {
    (libc::SKF_AD_OFF + number).cast_unsigned()
}
const PROTOCOL: u32 = extension(libc::SKF_AD_PROTOCOL);
const PACKET_TYPE: u32 = extension(libc::SKF_AD_PKTTYPE);
const IFINDEX: u32 = extension(libc::SKF_AD_IFINDEX);
const HARDWARE: u32 = extension(libc::SKF_AD_HATYPE);
/// Offsets from here count from the network header, whatever the link layer.
const NETWORK: u32 = libc::SKF_NET_OFF.cast_unsigned();

const ETHER_IPV4: u32 = 0x0800;
const ETHER_IPV6: u32 = 0x86dd;
const ETHER_VLAN: [u32; 3] = [0x8100, 0x88a8, 0x9100];
const ARPHRD_ETHER: u32 = 1;
const ARPHRD_LOOPBACK: u32 = 772;

/// Scratch memory: what conditions read.
const FAMILY: u32 = 0;
const TRANSPORT: u32 = 1;
/// Ports of source and destination.
const PORT: [u32; 2] = [2, 3];
/// Addresses: one word of IPv4, four of IPv6.
const ADDRESS: [u32; 2] = [4, 8];

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// A condition over a packet. Packets without ports (later fragments, other protocols) have ports 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Always,
    /// Number of the IP protocol behind the IP header.
    Transport(u8),
    /// A port of this end lies within, both included.
    Port(End, u16, u16),
    Address(End, IpAddr),
    /// Interface index is one of these, in order.
    Interface(Vec<u32>),
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

impl Condition {
    /// One of the two ends has a port of this range.
    pub fn port(first: u16, last: u16) -> Self {
        Self::Any(vec![Self::Port(End::Source, first, last), Self::Port(End::Destination, first, last)])
    }

    /// Goes to or comes from this end.
    pub fn end(address: IpAddr, port: u16) -> Self {
        let at = |end| Self::All(vec![Self::Port(end, port, port), Self::Address(end, address)]);
        Self::Any(vec![at(End::Source), at(End::Destination)])
    }

    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Words of an address that it compares at most.
    fn address_words(&self) -> u32 {
        match self {
            Self::Address(_, IpAddr::V4(_)) => 1,
            Self::Address(_, IpAddr::V6(_)) => 4,
            Self::Not(one) => one.address_words(),
            Self::All(list) | Self::Any(list) => list.iter().map(Self::address_words).max().unwrap_or(0),
            _ => 0,
        }
    }
}

/// Ranges of ports that cover exactly these ports.
pub fn ranges(ports: &[u16]) -> Vec<(u16, u16)> {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in sorted {
        match ranges.last_mut() {
            Some((_, last)) if u32::from(*last) + 1 == u32::from(port) => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    ranges
}

/// Place of an instruction, counted from the end of the program.
type Label = usize;

/// A program that is written from its end.
#[derive(Default)]
struct Backwards {
    code: Vec<Instruction>,
    /// Of an address kept in memory.
    words: u32,
}

impl Backwards {
    fn put(&mut self, code: u32, k: u32) -> Label {
        self.code.push(plain(code, k));
        self.code.len() - 1
    }

    /// Instructions between the one that is put next and `to`.
    fn distance(&self, to: Label) -> usize {
        self.code.len() - 1 - to
    }

    fn jump(&mut self, to: Label) -> Label {
        match self.distance(to) {
            0 => to,
            distance => self.put(JUMP, distance as u32),
        }
    }

    /// Compares A with `k`.
    fn branch(&mut self, test: u32, k: u32, yes: Label, no: Label) -> Label {
        // A conditional jump reaches 255 instructions: further on it takes one that reaches them all.
        let far = |program: &mut Self, to: Label| {
            // One more instruction may come in between.
            if program.distance(to) >= 254 { program.put(JUMP, program.distance(to) as u32) } else { to }
        };
        let yes = far(self, yes);
        let no = far(self, no);
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.code.push(Instruction { code: test as u16, jt, jf, k });
        self.code.len() - 1
    }

    /// A is one of a range.
    fn within(&mut self, first: u32, last: u32, yes: Label, no: Label) -> Label {
        if first == last {
            return self.branch(EQUAL, first, yes, no);
        }
        let below = self.branch(AT_LEAST, last + 1, no, yes);
        self.branch(AT_LEAST, first, below, no)
    }

    /// A is one of these, which are in order: found by halving.
    fn one_of(&mut self, numbers: &[u32], yes: Label, no: Label) -> Label {
        match numbers {
            [] => self.jump(no),
            [one] => self.branch(EQUAL, *one, yes, no),
            _ => {
                let (low, high) = numbers.split_at(numbers.len() / 2);
                let above = self.one_of(high, yes, no);
                let below = self.one_of(low, yes, no);
                self.branch(AT_LEAST, high[0], above, below)
            }
        }
    }

    fn condition(&mut self, condition: &Condition, yes: Label, no: Label) -> Label {
        match condition {
            Condition::Always => self.jump(yes),
            Condition::Transport(number) => {
                self.branch(EQUAL, u32::from(*number), yes, no);
                self.put(LOAD_MEMORY, TRANSPORT)
            }
            Condition::Port(end, first, last) => {
                self.within(u32::from(*first), u32::from(*last), yes, no);
                self.put(LOAD_MEMORY, PORT[*end as usize])
            }
            Condition::Address(end, address) => self.address(ADDRESS[*end as usize], *address, yes, no),
            Condition::Interface(numbers) => {
                self.one_of(numbers, yes, no);
                self.put(LOAD_WORD, IFINDEX)
            }
            Condition::Not(one) => self.condition(one, no, yes),
            Condition::All(list) => list.iter().rev().fold(yes, |next, one| self.condition(one, next, no)),
            Condition::Any(list) => list.iter().rev().fold(no, |next, one| self.condition(one, yes, next)),
        }
    }

    fn address(&mut self, memory: u32, address: IpAddr, yes: Label, no: Label) -> Label {
        let (version, words) = match address {
            IpAddr::V4(address) => (4, vec![u32::from(address)]),
            IpAddr::V6(address) => {
                let bits = u128::from(address);
                (6, [96, 64, 32, 0].map(|shift| (bits >> shift) as u32).to_vec())
            }
        };
        let mut next = yes;
        for (at, word) in words.iter().enumerate().rev() {
            self.branch(EQUAL, *word, next, no);
            next = self.put(LOAD_MEMORY, memory + at as u32);
        }
        self.branch(EQUAL, version, next, no);
        self.put(LOAD_MEMORY, FAMILY)
    }

    /// Reads an IPv4 header at `base` into memory and goes on at `then`.
    fn ipv4(&mut self, base: u32, then: Label) -> Label {
        self.ports(base, then);
        let unfragmented = self.put(LOAD_X_HEADER, base);
        // Later fragments have no ports.
        self.branch(ANY_BIT, 0x1fff, then, unfragmented);
        let fragment = self.put(LOAD_HALF, base.wrapping_add(6));
        self.transport_with_ports(fragment, then);
        if self.words > 0 {
            for (memory, at) in [(ADDRESS[1], 16), (ADDRESS[0], 12)] {
                self.put(STORE, memory);
                self.put(LOAD_WORD, base.wrapping_add(at));
            }
        }
        self.transport(base.wrapping_add(9), 4)
    }

    fn ipv6(&mut self, base: u32, then: Label) -> Label {
        self.ports(base, then);
        // Extension headers are not walked: what has some has no ports here.
        let directly = self.put(LOAD_X_NUMBER, 40);
        self.transport_with_ports(directly, then);
        if self.words > 1 {
            for (memory, at) in [(ADDRESS[1], 24), (ADDRESS[0], 8)] {
                for word in (0..4).rev() {
                    self.put(STORE, memory + word);
                    self.put(LOAD_WORD, base.wrapping_add(at + 4 * word));
                }
            }
        }
        self.transport(base.wrapping_add(6), 6)
    }

    /// Stores both ports, which stand X bytes behind `base`.
    fn ports(&mut self, base: u32, then: Label) {
        self.jump(then);
        for (memory, at) in [(PORT[1], 2), (PORT[0], 0)] {
            self.put(STORE, memory);
            self.put(LOAD_HALF_AT_X, base.wrapping_add(at));
        }
    }

    /// Goes on at `with` for TCP and UDP.
    fn transport_with_ports(&mut self, with: Label, then: Label) {
        let udp = self.branch(EQUAL, 17, with, then);
        self.branch(EQUAL, 6, with, udp);
        self.put(LOAD_MEMORY, TRANSPORT);
    }

    /// Stores the number of the transport protocol and the IP version, and zeros where ports and addresses will be: the
    /// kernel refuses a program that could read what was not written.
    fn transport(&mut self, at: u32, version: u32) -> Label {
        self.put(STORE, TRANSPORT);
        self.put(LOAD_BYTE, at);
        self.put(STORE, FAMILY);
        self.put(LOAD_NUMBER, version);
        let words = self.words;
        for memory in PORT.into_iter().chain(ADDRESS.into_iter().flat_map(|first| first..first + words)) {
            self.put(STORE, memory);
        }
        self.put(LOAD_NUMBER, 0)
    }

    /// The IP header by its EtherType, which is in A.
    fn network(&mut self, base: u32, then: Label, other: Label) -> Label {
        let ipv6 = self.ipv6(base, then);
        let ipv4 = self.ipv4(base, then);
        let or_ipv6 = self.branch(EQUAL, ETHER_IPV6, ipv6, other);
        self.branch(EQUAL, ETHER_IPV4, ipv4, or_ipv6)
    }
}

/// The program that takes the first `snap` bytes of IPv4 and IPv6 packets which meet the condition, also of those whose
/// VLAN tags (one or two) are still in the frame. Of a loopback it takes what comes in, not the same going out. Where
/// there is an `extra` program, it has to take the packet too.
///
/// # Errors
/// A sentence when the program is longer than the kernel takes, or the extra one ends in a way that is none.
pub fn program(
    interfaces: Option<&[u32]>,
    condition: &Condition,
    extra: Option<&Extra>,
    snap: u32,
) -> Result<Vec<Instruction>, String> {
    let mut program = Backwards { code: Vec::new(), words: condition.address_words() };
    let reject = program.put(RETURN, 0);
    let accept = program.put(RETURN, snap);
    let wanted = program.condition(condition, accept, reject);
    let any_tag = |program: &mut Backwards, yes: Label, no: Label| {
        ETHER_VLAN.iter().fold(no, |next, tag| program.branch(EQUAL, *tag, yes, next))
    };
    // Tags in the frame: the EtherTypes behind them stand at 16 and 20.
    program.network(22, wanted, reject);
    let two_tags = program.put(LOAD_HALF, 20);
    let one_tag = program.network(18, wanted, reject);
    any_tag(&mut program, two_tags, one_tag);
    let tagged = program.put(LOAD_HALF, 16);
    let other = any_tag(&mut program, tagged, reject);
    program.network(NETWORK, wanted, other);
    let mut begin = program.put(LOAD_WORD, PROTOCOL);
    if let Some(numbers) = interfaces {
        begin = program.condition(&Condition::Interface(numbers.to_vec()), begin, reject);
    }
    program.branch(EQUAL, u32::from(libc::PACKET_OUTGOING), reject, begin);
    let both_ways = program.put(LOAD_WORD, PACKET_TYPE);
    program.branch(EQUAL, ARPHRD_LOOPBACK, both_ways, begin);
    program.put(LOAD_WORD, HARDWARE);
    program.code.reverse();
    let code = match extra {
        Some(extra) => extra.before(program.code)?,
        None => program.code,
    };
    match code.len() {
        ..=MAX_INSTRUCTIONS => Ok(code),
        more => Err(format!(
            "The packet filter has {more} instructions and the kernel takes {MAX_INSTRUCTIONS}; name fewer ports or \
             put them together as ranges."
        )),
    }
}

/// An expression of the user's as libpcap compiled it, for frames that begin with an Ethernet header and for those that
/// begin with that of IP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extra {
    ethernet: Vec<Instruction>,
    raw: Vec<Instruction>,
}

impl Extra {
    /// One program: what this one takes goes on to `own`.
    fn before(&self, own: Vec<Instruction>) -> Result<Vec<Instruction>, String> {
        let mut code = vec![
            plain(LOAD_WORD, HARDWARE),
            Instruction { code: EQUAL as u16, jt: 2, jf: 0, k: ARPHRD_ETHER },
            Instruction { code: EQUAL as u16, jt: 1, jf: 0, k: ARPHRD_LOOPBACK },
            plain(JUMP, self.ethernet.len() as u32),
        ];
        let end = code.len() + self.ethernet.len() + self.raw.len();
        for instruction in self.ethernet.iter().chain(&self.raw) {
            let returns = u32::from(instruction.code) & 0x07 == libc::BPF_RET;
            code.push(match instruction {
                Instruction { k, .. } if returns && u32::from(instruction.code) == RETURN => match k {
                    0 => *instruction,
                    _ => plain(JUMP, (end - code.len() - 1) as u32),
                },
                _ if returns => return Err("The extra packet filter returns what no filter returns.".to_string()),
                _ => *instruction,
            });
        }
        code.extend(own);
        Ok(code)
    }
}
