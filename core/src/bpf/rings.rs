//! Reads the rings of `bpf/include/ring.h`: one a CPU, in memory that the kernel programs write.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;

use super::record::SocketRecord;

/// `DF_CHUNK`, `DF_SLACK` and `struct df_cursor`.
pub const CHUNK: u64 = 1 << 17;
const SLACK: u64 = 17 << 10;
const STRIDE: usize = (CHUNK + SLACK) as usize;
const CURSOR: usize = 128;
const TAIL: usize = 8;
/// Where the time stamp of a record stands: behind its size.
const TIME: usize = 8;
/// How far ahead of a record the cache is asked for what comes next: two or three records, so that it is there in time.
const AHEAD: usize = 512;
const LINE: usize = 64;

/// Memory of an array map.
struct Mapping {
    at: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is shared with the kernel and not bound to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(map: &MapData, bytes: usize) -> io::Result<Self> {
        let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, map.fd().as_fd().as_raw_fd());
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast()).map(|at| Self { at, bytes }).ok_or_else(|| io::Error::other("mapped at zero"))
    }

    /// A word that both sides use.
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.bytes);
        // SAFETY: inside the mapping, aligned, and only ever used as an atomic while it is shared.
        unsafe { self.at.add(offset).cast::<AtomicU64>().as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what `new` mapped; nothing borrows it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

/// Asks the cache for `bytes` from `at` on, to be written: the reader zeroes what it has read. They were written up to a
/// quarter of a second ago, often by another CPU. Where nothing is mapped nothing happens.
#[inline]
fn fetch(at: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a hint to the processor; it does not read, and takes any address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, bytes);
}

/// One CPU's ring as far as the reader knows it.
#[derive(Clone, Copy, Default)]
struct Ring {
    /// Where the next record begins.
    position: u64,
    /// How far the programs had come when it was last looked at.
    head: u64,
    /// Time stamp of the next record, when it is whole.
    time_ns: Option<u64>,
}

/// All rings.
pub struct Rings {
    cursors: Mapping,
    chunks: Mapping,
    chunk_bits: u32,
    rings: Vec<Ring>,
}

impl Rings {
    /// `cpus` rings of `1 << chunk_bits` chunks each.
    pub fn new(cursors: &MapData, chunks: &MapData, cpus: usize, chunk_bits: u32) -> io::Result<Self> {
        Ok(Self {
            cursors: Mapping::new(cursors, cpus * CURSOR)?,
            chunks: Mapping::new(chunks, (cpus << chunk_bits) * STRIDE)?,
            chunk_bits,
            rings: vec![Ring::default(); cpus],
        })
    }

    fn offset(&self, cpu: usize) -> usize {
        let position = self.rings[cpu].position;
        let chunk = (position / CHUNK) as usize & ((1 << self.chunk_bits) - 1);
        ((cpu << self.chunk_bits) + chunk) * STRIDE + (position % CHUNK) as usize
    }

    /// Looks how far the programs have come. A record that is not seen now gets a later time stamp than this moment.
    pub fn look(&mut self) {
        for cpu in 0..self.rings.len() {
            self.rings[cpu].head = self.cursors.word(cpu * CURSOR).load(Ordering::Acquire);
            self.peek(cpu);
        }
    }

    /// Whether a ring is more than half full now. Its programs tell only when it passes three quarters: one that fills
    /// faster than it is read stays beyond.
    pub fn filling(&self) -> bool {
        (0..self.rings.len()).any(|cpu| {
            let head = self.cursors.word(cpu * CURSOR).load(Ordering::Acquire);
            head - self.rings[cpu].position > (CHUNK << self.chunk_bits) / 2
        })
    }

    fn peek(&mut self, cpu: usize) {
        self.rings[cpu].time_ns = None;
        if self.rings[cpu].position < self.rings[cpu].head {
            let at = self.offset(cpu);
            if self.chunks.word(at).load(Ordering::Acquire) != 0 {
                self.rings[cpu].time_ns = Some(self.chunks.word(at + TIME).load(Ordering::Relaxed));
            }
        }
    }

    /// The CPU whose record comes next in the order of time, its time, and how late it may become before another CPU's
    /// turn. None when nothing is left, or when a program is still writing a record that may be earlier.
    pub fn next(&mut self) -> Option<(usize, u64, u64)> {
        let (mut first, mut until) = (None, u64::MAX);
        for cpu in 0..self.rings.len() {
            if self.rings[cpu].position >= self.rings[cpu].head {
                continue;
            }
            if self.rings[cpu].time_ns.is_none() {
                self.peek(cpu);
            }
            let time_ns = self.rings[cpu].time_ns?;
            match first {
                Some((_, earliest)) if earliest <= time_ns => until = until.min(time_ns),
                Some((_, earliest)) => {
                    until = earliest;
                    first = Some((cpu, time_ns));
                }
                None => first = Some((cpu, time_ns)),
            }
        }
        first.map(|(cpu, time_ns)| (cpu, time_ns, until))
    }

    /// Time of the next whole record of this CPU.
    pub fn time_ns(&self, cpu: usize) -> Option<u64> {
        self.rings[cpu].time_ns
    }

    /// Gives the next record of `cpu`, which has to be whole, to `each` (without its size), and frees its place.
    /// `false` when its size makes no sense: then the rest of what the ring had is given up.
    pub fn take(&mut self, cpu: usize, mut each: impl FnMut(&[u8])) -> bool {
        let (at, position) = (self.offset(cpu), self.rings[cpu].position);
        let size = self.chunks.word(at).load(Ordering::Acquire);
        if !(size_of::<SocketRecord>() as u64 + 8..=SLACK).contains(&size) || !size.is_multiple_of(8) {
            self.rings[cpu].position = self.rings[cpu].head;
            self.free(cpu);
            self.peek(cpu);
            return false;
        }
        // SAFETY: inside the mapping (the record begins in a chunk and is no longer than the slack); the program has
        // written it and leaves it alone until its place is freed.
        let record = unsafe { std::slice::from_raw_parts_mut(self.chunks.at.add(at).as_ptr(), size as usize) };
        fetch(record.as_ptr().wrapping_add(AHEAD), record.len());
        each(&record[8..]);
        record.fill(0);
        let next = position + size;
        self.rings[cpu].position = if next / CHUNK == position / CHUNK { next } else { next / CHUNK * CHUNK };
        if next / CHUNK != position / CHUNK {
            self.free(cpu);
        }
        self.peek(cpu);
        true
    }

    /// Passes over all that is there.
    pub fn forget(&mut self) {
        self.look();
        for cpu in 0..self.rings.len() {
            while self.rings[cpu].time_ns.is_some() {
                self.take(cpu, |_| ());
            }
        }
        self.free_all();
    }

    fn free(&self, cpu: usize) {
        self.cursors.word(cpu * CURSOR + TAIL).store(self.rings[cpu].position, Ordering::Release);
    }

    /// Gives all places back that were read.
    pub fn free_all(&self) {
        for cpu in 0..self.rings.len() {
            self.free(cpu);
        }
    }
}
