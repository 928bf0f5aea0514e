//! What rows of all tables share: their numbers, their addresses, their way into batches.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow_schema::ArrowError;

/// Numbers in the row id: agent (10 bits), counter (22 bits).
const AGENT_MASK: u64 = 0x3ff;
const COUNTER_MASK: u32 = 0x3f_ffff;

/// A table's name, number of rows and Arrow IPC stream.
pub type Batch = (&'static str, usize, Vec<u8>);

/// The counter of row ids, one for all threads of an agent.
#[derive(Clone, Debug, Default)]
pub struct RowNumbers(Arc<AtomicU32>);

impl RowNumbers {
    /// `counter`: where the numbers begin, so that a restart within one second does not repeat them.
    pub fn beginning_at(counter: u32) -> Self {
        Self(Arc::new(AtomicU32::new(counter)))
    }

    /// The id of a row: second of its end, agent, counter.
    pub fn next(&self, agent_id: u16, end_us: u64) -> u64 {
        let counter = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & COUNTER_MASK;
        (end_us / 1_000_000) << 32 | (u64::from(agent_id) & AGENT_MASK) << 22 | u64::from(counter)
    }
}

pub fn ip4(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(_) => 0,
    }
}

pub fn ip6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(_) => [0; 16],
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Adds a batch; gives the number of rows that could not be encoded.
pub fn push_batch(
    batches: &mut Vec<Batch>,
    table: &'static str,
    rows: usize,
    batch: Result<Vec<u8>, ArrowError>,
) -> u64 {
    match batch {
        Ok(bytes) => {
            batches.push((table, rows, bytes));
            0
        }
        Err(_) => rows as u64,
    }
}
