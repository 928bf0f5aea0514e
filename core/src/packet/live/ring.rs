//! One AF_PACKET socket with a memory-mapped TPACKET_V3 ring (Documentation/networking/packet_mmap.rst).
//!
//! The kernel writes packets into blocks and hands a block over when it is full or `RETIRE_MS` old. Nobody is woken:
//! the reader looks on its own timer, takes whole blocks and gives them back.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, c_void};

use super::filter::{self, Instruction};
use crate::packet::Frame;

/// Bytes of a block; the largest packet fits with its header.
pub const BLOCK_BYTES: usize = 256 * 1024;
/// A block that is not full is handed over after this time.
const RETIRE_MS: u32 = 50;
/// Least room of a packet, of which the kernel wants to know although blocks are filled without gaps.
const FRAME_BYTES: usize = 2048;

const LINK_ETHERNET: u16 = 1;
const LINK_RAW: u16 = 101;
/// ARPHRD_* of interfaces whose frames begin with an Ethernet header.
const ETHERNET: u16 = 1;
const LOOPBACK: u16 = 772;

/// Sockets that share the packets of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fanout {
    /// The first one; the kernel chooses the number of the group.
    New {
        mode: u16,
    },
    Join {
        group: u16,
        mode: u16,
    },
}

/// What one socket takes.
pub struct Wanted {
    /// One interface, or 0 for all of the namespace.
    pub ifindex: u32,
    /// Only what comes in: on a loopback everything also goes out.
    pub incoming_only: bool,
    pub promiscuous: bool,
    pub blocks: usize,
    pub fanout: Option<Fanout>,
}

/// The socket of a ring; the filter can be exchanged while another thread reads.
#[derive(Debug)]
pub struct Socket(OwnedFd);

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Socket {
    fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers; protocol 0 takes no packets before `bind`.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: `fd` is open and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn set<T>(&self, level: c_int, name: c_int, value: &T) -> io::Result<()> {
        let size = size_of::<T>() as libc::socklen_t;
        // SAFETY: the pointer is valid for `size` bytes during the call.
        check(unsafe { libc::setsockopt(self.raw(), level, name, (&raw const *value).cast::<c_void>(), size) })?;
        Ok(())
    }

    fn option<T: Copy>(&self, name: c_int, mut value: T) -> io::Result<T> {
        let mut size = size_of::<T>() as libc::socklen_t;
        let to = (&raw mut value).cast::<c_void>();
        // SAFETY: the kernel writes at most `size` bytes into `value`.
        check(unsafe { libc::getsockopt(self.raw(), libc::SOL_PACKET, name, to, &mut size) })?;
        Ok(value)
    }

    /// Exchanges the filter; packets of the old one may already be in the ring.
    pub fn filter(&self, program: &[Instruction]) -> io::Result<()> {
        let mut code: Vec<libc::sock_filter> =
            program.iter().map(|one| libc::sock_filter { code: one.code, jt: one.jt, jf: one.jf, k: one.k }).collect();
        let length = u16::try_from(code.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &libc::sock_fprog { len: length, filter: code.as_mut_ptr() })
    }

    /// Packets that came through the filter and those for which there was no room, since the last call.
    fn statistics(&self) -> io::Result<(u64, u64)> {
        // SAFETY: plain numbers, zero is a value of each.
        let empty: libc::tpacket_stats_v3 = unsafe { MaybeUninit::zeroed().assume_init() };
        let stats = self.option(libc::PACKET_STATISTICS, empty)?;
        Ok((u64::from(stats.tp_packets), u64::from(stats.tp_drops)))
    }

    fn bind(&self, ifindex: u32) -> io::Result<()> {
        // SAFETY: plain numbers, zero is a value of each.
        let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = ifindex.cast_signed();
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointer is valid for `size` bytes during the call.
        check(unsafe { libc::bind(self.raw(), (&raw const address).cast(), size) })?;
        Ok(())
    }

    fn fan_out(&self, fanout: Fanout) -> io::Result<()> {
        let (group, mode) = match fanout {
            Fanout::New { mode } => (0, u32::from(mode) | libc::PACKET_FANOUT_FLAG_UNIQUEID),
            Fanout::Join { group, mode } => (u32::from(group), u32::from(mode)),
        };
        self.set(libc::SOL_PACKET, libc::PACKET_FANOUT, &(group | mode << 16))
    }

    /// Number of the fan-out group.
    pub fn group(&self) -> io::Result<u16> {
        Ok(self.option(libc::PACKET_FANOUT, 0u32)? as u16)
    }
}

/// The mapped blocks.
struct Map {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and has one owner.
unsafe impl Send for Map {}

impl Map {
    fn new(socket: &Socket, bytes: usize) -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address the kernel chooses.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, socket.raw(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, bytes })
    }

    /// State of a block, which the kernel and the reader hand to each other.
    fn status(&self, block: usize) -> Option<&AtomicU32> {
        let at = block.checked_mul(BLOCK_BYTES)?;
        if at.checked_add(BLOCK_BYTES)? > self.bytes {
            return None;
        }
        // The descriptor begins with version and offset of the private area, then the state.
        // SAFETY: within the mapping (checked above), aligned to 4 and only used as an atomic.
        Some(unsafe { &*self.start.as_ptr().add(at + 8).cast::<AtomicU32>() })
    }

    /// A block that belongs to the reader: the kernel does not write there until its state is given back.
    fn block(&self, block: usize) -> Option<&[u8]> {
        self.status(block)?;
        // SAFETY: within the mapping (checked by `status`); the caller owns the block.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(block * BLOCK_BYTES), BLOCK_BYTES) })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this mapping, once.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// What a ring counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Packets that the filter let through.
    pub packets: u64,
    /// Those of them for which no block was free.
    pub dropped: u64,
    /// Packets whose place in a block cannot be.
    pub malformed: u64,
}

impl RingCounters {
    pub fn add(&mut self, more: Self) {
        self.packets += more.packets;
        self.dropped += more.dropped;
        self.malformed += more.malformed;
    }
}

/// A ring being read.
pub struct Ring {
    map: Map,
    socket: Arc<Socket>,
    blocks: usize,
    next: usize,
    /// Interface index → number of the interface (`Frame::nic`).
    nics: Vec<(i32, u32)>,
    counters: RingCounters,
}

/// Words of `struct tpacket3_hdr` and of the address behind it.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(*self.0.get(at..)?.first_chunk()?))
    }
}

/// Bytes of the header, after which stands a `sockaddr_ll`.
const HEADER_BYTES: usize = size_of::<libc::tpacket3_hdr>();

impl Ring {
    /// Opens a socket in the namespace of this thread and maps its ring. Nothing comes in before it has a filter.
    pub fn open(wanted: &Wanted) -> io::Result<Self> {
        let socket = Socket::open()?;
        socket.set(libc::SOL_PACKET, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as c_int))?;
        // A kernel before 4.20 does not know it: there the filter sees to it.
        if wanted.incoming_only {
            let _ = socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1u32);
        }
        let bytes = wanted.blocks * BLOCK_BYTES;
        socket.set(
            libc::SOL_PACKET,
            libc::PACKET_RX_RING,
            &libc::tpacket_req3 {
                tp_block_size: BLOCK_BYTES as u32,
                tp_block_nr: wanted.blocks as u32,
                tp_frame_size: FRAME_BYTES as u32,
                tp_frame_nr: (bytes / FRAME_BYTES) as u32,
                tp_retire_blk_tov: RETIRE_MS,
                tp_sizeof_priv: 0,
                tp_feature_req_word: 0,
            },
        )?;
        let map = Map::new(&socket, bytes)?;
        socket.filter(&filter::NOTHING)?;
        socket.bind(wanted.ifindex)?;
        if let Some(fanout) = wanted.fanout {
            socket.fan_out(fanout)?;
        }
        if wanted.promiscuous && wanted.ifindex != 0 {
            let request = libc::packet_mreq {
                mr_ifindex: wanted.ifindex.cast_signed(),
                mr_type: libc::PACKET_MR_PROMISC as u16,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            socket.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)?;
        }
        let (counters, nics) = (RingCounters::default(), Vec::new());
        Ok(Self { map, socket: Arc::new(socket), blocks: wanted.blocks, next: 0, nics, counters })
    }

    pub fn socket(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    /// Which number an interface index of this namespace has.
    pub fn number(&mut self, mut nics: Vec<(i32, u32)>) {
        nics.sort_unstable();
        self.nics = nics;
    }

    /// Hands over every packet of the blocks that are ready, each block once at most; which part of the blocks it was.
    pub fn read(&mut self, each: &mut impl FnMut(&Frame<'_>)) -> f64 {
        let mut read = 0;
        while read < self.blocks {
            let Some(status) = self.map.status(self.next) else {
                break;
            };
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                break;
            }
            if let Some(block) = self.map.block(self.next) {
                self.counters.malformed += walk(block, &self.nics, each);
            }
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % self.blocks;
            read += 1;
        }
        read as f64 / self.blocks as f64
    }

    /// Totals since the ring was opened.
    pub fn counters(&mut self) -> RingCounters {
        if let Ok((packets, dropped)) = self.socket.statistics() {
            self.counters.packets += packets;
            self.counters.dropped += dropped;
        }
        self.counters
    }
}

/// Hands over the packets of one block; how many lie where no packet can be.
fn walk(block: &[u8], nics: &[(i32, u32)], each: &mut impl FnMut(&Frame<'_>)) -> u64 {
    let descriptor = Header(block);
    let (Some(packets), Some(first)) = (descriptor.u32(12), descriptor.u32(16)) else {
        return 1;
    };
    let mut at = first as usize;
    for done in 0..packets {
        let Some(header) = block.get(at..).map(Header) else {
            return u64::from(packets - done);
        };
        let Some(frame) = frame(&header, nics) else {
            return u64::from(packets - done);
        };
        each(&frame);
        match header.u32(0) {
            Some(next) if next > 0 => at = at.saturating_add(next as usize),
            // The last one.
            _ => return u64::from(packets - done - 1),
        }
    }
    0
}

fn frame<'a>(header: &Header<'a>, nics: &[(i32, u32)]) -> Option<Frame<'a>> {
    let (seconds, nanos) = (header.u32(4)?, header.u32(8)?);
    let (captured, wire, status) = (header.u32(12)? as usize, header.u32(16)?, header.u32(20)?);
    let (link_at, network_at) = (usize::from(header.u16(24)?), usize::from(header.u16(26)?));
    let vlan = (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(header.u32(32)? as u16 & 0x0fff);
    let ifindex = header.u32(HEADER_BYTES + 4)?.cast_signed();
    let hardware = header.u16(HEADER_BYTES + 8)?;
    let packet_type = *header.0.get(HEADER_BYTES + 10)?;
    let nic = nics.binary_search_by_key(&ifindex, |(index, _)| *index).ok().and_then(|at| nics.get(at));
    let data = header.0.get(link_at..link_at.checked_add(captured)?)?;
    // Interfaces without a link layer may still have what a tunnel left before the network layer.
    let (link_type, before) = match hardware {
        ETHERNET | LOOPBACK => (LINK_ETHERNET, 0),
        _ => (LINK_RAW, network_at.saturating_sub(link_at)),
    };
    Some(Frame {
        time_us: u64::from(seconds) * 1_000_000 + u64::from(nanos) / 1000,
        link_type,
        nic: nic.map_or(0, |(_, nic)| *nic),
        wire: wire.saturating_sub(before as u32),
        data: data.get(before..).unwrap_or_default(),
        vlan,
        outgoing: packet_type == libc::PACKET_OUTGOING,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block as the kernel writes it, with packets of which each has (link header bytes, hardware, data).
    fn block(packets: &[(usize, u16, &[u8])]) -> Vec<u8> {
        let mut block = vec![0; 48];
        block[12..16].copy_from_slice(&(packets.len() as u32).to_ne_bytes());
        block[16..20].copy_from_slice(&48u32.to_ne_bytes());
        for (number, (link, hardware, data)) in packets.iter().enumerate() {
            let begin = block.len();
            let next = if number + 1 == packets.len() { 0 } else { (96 + data.len()).next_multiple_of(16) };
            let mut put = |bytes: &[u8]| block.extend_from_slice(bytes);
            for word in [next as u32, 7, 5_000, data.len() as u32, 2000, libc::TP_STATUS_VLAN_VALID] {
                put(&word.to_ne_bytes());
            }
            for half in [96u16, 96 + *link as u16] {
                put(&half.to_ne_bytes());
            }
            for word in [0u32, 0x2005] {
                put(&word.to_ne_bytes());
            }
            put(&[0; 12]);
            put(&[17, 0, 0, 0]);
            put(&3i32.to_ne_bytes());
            put(&hardware.to_ne_bytes());
            put(&[4, 6]);
            block.resize(begin + 96, 0);
            block.extend_from_slice(data);
            block.resize(block.len().next_multiple_of(16), 0);
        }
        block
    }

    #[test]
    fn a_block_is_walked() {
        let block = block(&[(14, ETHERNET, b"frame"), (4, 778, b"gre:packet")]);
        let mut seen = Vec::new();
        let wrong = walk(&block, &[(3, 42)], &mut |frame| seen.push((frame.link_type, frame.nic, frame.data.to_vec())));
        assert_eq!(wrong, 0);
        assert_eq!(seen, [(LINK_ETHERNET, 42, b"frame".to_vec()), (LINK_RAW, 42, b"packet".to_vec())]);
        walk(&block, &[], &mut |frame| {
            assert_eq!((frame.time_us, frame.vlan, frame.outgoing, frame.nic), (7_000_005, Some(5), true, 0));
        });
    }

    #[test]
    fn what_is_out_of_place_is_counted() {
        let whole = block(&[(14, ETHERNET, b"one"), (14, ETHERNET, b"two")]);
        for cut in 0..whole.len() {
            let mut seen = 0;
            let wrong = walk(&whole[..cut], &[], &mut |_| seen += 1);
            assert!(cut < 20 || seen + wrong == 2, "{cut}: {seen} seen, {wrong} wrong");
        }
    }
}
