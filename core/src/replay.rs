//! A capture file through the engine: the same rows as from sockets, without a kernel.

use crate::batch::Batch;
use crate::engine::{EngineConfig, Shared};
use crate::flow::seen::Nowhere;
use crate::packet::Frame;
use crate::packet::file::Capture;
use crate::packets::{FrameCounters, Packets};

/// Rows and seconds that are encoded at once.
const BATCH_ROWS: usize = 65_536;
const BATCH_SECONDS: usize = 512;
/// Most flows of a file at one time.
const MAX_FLOWS: usize = 1 << 20;
/// Capture time between two ticks, µs.
const TICK_US: u64 = 100_000;

/// Batches (table, rows, Arrow IPC stream), all counters, those of the frames and the number of flows.
pub struct Replayed {
    pub batches: Vec<Batch>,
    pub counters: Vec<(&'static str, u64)>,
    pub frames: FrameCounters,
    pub flows: u64,
}

/// Runs a pcap or pcapng file through a new engine. `config`: JSON of docs/architecture.md, section 2.
/// A corrupt or truncated file gives a sentence and no rows.
pub fn replay(path: &str, config: &str) -> Result<Vec<Batch>, String> {
    replay_with_counters(path, config).map(|replayed| replayed.batches)
}

/// The same, with what was counted.
pub fn replay_with_counters(path: &str, config: &str) -> Result<Replayed, String> {
    let config = EngineConfig::from_json(config)?;
    let mut capture = Capture::open(path)?;
    // Nothing is thinned out of a file.
    let config = EngineConfig { l4_throttle: 0, concurrent_flow_limit: MAX_FLOWS, ..config };
    let mut packets = Packets::new(&config, &Shared::numbered(0), 0);
    let mut batches = Vec::new();
    let (mut now_us, mut ticked_us) = (0, 0);
    while let Some(packet) = capture.next_packet()? {
        let (time_us, link_type, wire) = (packet.time_us, packet.link_type, packet.length);
        now_us = time_us.max(now_us);
        let data = &packet.data;
        packets.frame(&Frame { time_us, link_type, nic: 0, wire, data, vlan: None, outgoing: false }, &Nowhere);
        if now_us >= ticked_us + TICK_US {
            ticked_us = now_us;
            packets.tick(now_us);
            let (rows, seconds) = packets.backlog();
            if rows >= BATCH_ROWS || seconds >= BATCH_SECONDS {
                batches.extend(packets.drain(now_us));
            }
        }
    }
    batches.extend(packets.finish(now_us, true));
    let (flows, _) = packets.flow_numbers();
    Ok(Replayed { batches, counters: packets.counters(), frames: packets.frames, flows })
}
