//! The records of `bpf/include/record.h`, and how they become events.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::event::{Direction, Endpoint, EventSink, ProcessChange, Segment, SocketChange, Source, Task};

const NOTHING: u8 = 0;
pub const DATA: u8 = 1;
pub const CONNECT: u8 = 2;
pub const CLOSE: u8 = 3;
pub const EXEC: u8 = 4;
pub const FORK: u8 = 5;
pub const EXIT: u8 = 6;

/// `struct df_header`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    pub time_ns: u64,
    pub pid: u32,
    pub tid: u32,
    pub kind: u8,
    pub direction: u8,
    pub family: u8,
    pub protocol: u8,
    pub netns: u32,
    pub cgroup: u64,
    pub comm: [u8; 16],
}

/// `struct df_socket` without its size; `payload` bytes follow it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SocketRecord {
    pub header: Header,
    pub socket: u64,
    pub length: u32,
    pub tcp_seq: u32,
    pub local_port: u16,
    pub remote_port: u16,
    pub payload: u16,
    pub flags: u16,
    pub local: [u8; 16],
    pub remote: [u8; 16],
}

/// `struct df_process`; `filename` bytes follow it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ProcessRecord {
    pub header: Header,
    pub ppid: u32,
    pub uid: u32,
    pub exit_code: i32,
    pub filename: u32,
}

/// `struct df_counters`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelCounters {
    pub dropped: u64,
    pub filtered: u64,
    pub quiet: u64,
    pub unreadable: u64,
}

// SAFETY: four u64 and nothing else: any bytes are a valid value.
unsafe impl aya::Pod for KernelCounters {}

// The layout that the C side has, checked when this is compiled.
const _: () = {
    assert!(size_of::<Header>() == 48 && offset_of!(Header, netns) == 20 && offset_of!(Header, comm) == 32);
    assert!(size_of::<SocketRecord>() == 104 && offset_of!(SocketRecord, local_port) == 64);
    assert!(offset_of!(SocketRecord, payload) == 68 && offset_of!(SocketRecord, local) == 72);
    assert!(size_of::<ProcessRecord>() == 64 && offset_of!(ProcessRecord, filename) == 60);
    assert!(size_of::<KernelCounters>() == 32);
};

/// Marks the structs above: integers only, no padding, so that any bytes are a value.
trait Plain: Copy {}
impl Plain for Header {}
impl Plain for SocketRecord {}
impl Plain for ProcessRecord {}

/// The struct at the start of `bytes`, and what follows it.
fn split<T: Plain>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (head, rest) = bytes.split_at_checked(size_of::<T>())?;
    // SAFETY: `head` has the size of T, T takes any bytes, and the read does not ask for alignment.
    Some((unsafe { head.as_ptr().cast::<T>().read_unaligned() }, rest))
}

/// CLOCK_BOOTTIME of a record, None if it is too short to have one.
pub fn time_ns(bytes: &[u8]) -> Option<u64> {
    split::<Header>(bytes).map(|(header, _)| header.time_ns)
}

fn address(family: u8, bytes: [u8; 16]) -> IpAddr {
    if family == 4 {
        IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
    } else {
        IpAddr::V6(Ipv6Addr::from(bytes))
    }
}

/// Up to the first zero; what is no UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// As Python's `subprocess` has it: the code of `exit()`, or minus the signal that ended the process.
fn exit_code(wait_status: i32) -> i32 {
    let signal = wait_status & 0x7f;
    if signal == 0 { (wait_status >> 8) & 0xff } else { -signal }
}

/// Hands the event in `bytes` to `sink`; `offset_ns` takes CLOCK_BOOTTIME to the wall clock. False when the bytes are
/// no record of these.
#[inline]
pub fn deliver(bytes: &[u8], offset_ns: i64, sink: &mut impl EventSink) -> bool {
    let Some((header, _)) = split::<Header>(bytes) else {
        return false;
    };
    let time_us = header.time_ns.saturating_add_signed(offset_ns) / 1000;
    match header.kind {
        DATA | CONNECT | CLOSE => {
            let Some((record, rest)) = split::<SocketRecord>(bytes) else {
                return false;
            };
            let Some(payload) = rest.get(..usize::from(record.payload)) else {
                return false;
            };
            let local = Endpoint { ip: address(header.family, record.local), port: record.local_port };
            let remote = Endpoint { ip: address(header.family, record.remote), port: record.remote_port };
            let task = Task { pid: header.pid, tid: header.tid, comm: header.comm };
            let (source, socket, netns) = (Source::Socket, record.socket, header.netns);
            match header.kind {
                DATA => sink.segment(&Segment {
                    time_us,
                    source,
                    socket,
                    direction: if header.direction == 0 { Direction::Egress } else { Direction::Ingress },
                    protocol: header.protocol,
                    local,
                    remote,
                    netns,
                    task,
                    cgroup: header.cgroup,
                    tcp_seq: record.tcp_seq,
                    length: record.length,
                    payload,
                }),
                CONNECT => sink.socket(&SocketChange::Connect { time_us, source, socket, netns, local, remote, task }),
                _ => sink.socket(&SocketChange::Close { time_us, socket }),
            }
        }
        EXEC | FORK | EXIT => {
            let Some((record, rest)) = split::<ProcessRecord>(bytes) else {
                return false;
            };
            let (pid, ppid, comm) = (header.pid, record.ppid, text(&header.comm));
            sink.process(match header.kind {
                EXEC => {
                    let length = usize::try_from(record.filename).unwrap_or(usize::MAX);
                    let Some(filename) = rest.get(..length) else {
                        return false;
                    };
                    let (uid, cgroup, netns, filename) = (record.uid, header.cgroup, header.netns, text(filename));
                    ProcessChange::Exec { time_us, pid, ppid, uid, cgroup, netns, comm, filename }
                }
                FORK => ProcessChange::Fork { time_us, pid, ppid, comm },
                _ => ProcessChange::Exit { time_us, pid, exit_code: exit_code(record.exit_code) },
            });
        }
        NOTHING => {}
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        payloads: Vec<Vec<u8>>,
        others: usize,
    }

    impl EventSink for Seen {
        fn segment(&mut self, segment: &Segment<'_>) {
            self.payloads.push(segment.payload.to_vec());
        }
        fn socket(&mut self, _: &SocketChange) {
            self.others += 1;
        }
        fn process(&mut self, _: ProcessChange) {
            self.others += 1;
        }
    }

    #[test]
    fn every_prefix_of_a_record_is_refused_and_the_whole_is_read() {
        let mut bytes = vec![0u8; size_of::<SocketRecord>() + 5];
        bytes[offset_of!(Header, kind)] = DATA;
        bytes[offset_of!(Header, family)] = 4;
        bytes[offset_of!(SocketRecord, payload)] = 5;
        bytes[size_of::<SocketRecord>()..].copy_from_slice(b"GET /");
        let mut seen = Seen::default();
        for length in 0..bytes.len() {
            assert!(!deliver(&bytes[..length], 0, &mut seen), "{length} bytes were taken for a record");
        }
        assert!(deliver(&bytes, 0, &mut seen));
        assert_eq!(seen.payloads, [b"GET /".to_vec()]);
    }

    #[test]
    fn any_bytes_are_either_an_event_or_refused() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut seen = Seen::default();
        for round in 0..20_000usize {
            let bytes: Vec<u8> = (0..round % 300)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[3]
                })
                .collect();
            deliver(&bytes, i64::MIN, &mut seen);
        }
        assert!(seen.others > 0, "none of the random records was of a known kind");
    }

    #[test]
    fn exit_codes_are_those_of_subprocess() {
        assert_eq!([exit_code(0), exit_code(7 << 8), exit_code(9), exit_code(0x8b)], [0, 7, -9, -11]);
    }
}
