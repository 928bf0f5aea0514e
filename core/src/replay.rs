//! A capture file through the engine: the same rows as from sockets, without a kernel.

use crate::engine::{Batch, Engine, EngineConfig};
use crate::packet::decode::{Other, TCP, UDP};
use crate::packet::decoder::Decoder;
use crate::packet::file::Capture;
use crate::packet::flows::Flows;

/// Rows and seconds that are encoded at once.
const BATCH_ROWS: usize = 65_536;
const BATCH_SECONDS: usize = 512;
/// Capture time between two ticks, µs.
const TICK_US: u64 = 100_000;

/// What a capture held besides rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    pub packets: u64,
    pub transport: u64,
    pub fragments: u64,
    pub malformed: u64,
    pub foreign: u64,
    pub flows: u64,
}

/// Batches (table, rows, Arrow IPC stream), the engine's counters and those of the packets.
pub struct Replayed {
    pub batches: Vec<Batch>,
    pub counters: Vec<(&'static str, u64)>,
    pub packets: Packets,
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
    let mut engine = Engine::numbered(&config, 0);
    let (mut decoder, mut flows) = (Decoder::default(), Flows::default());
    let mut packets = Packets::default();
    let mut batches = Vec::new();
    let (mut now_us, mut ticked_us) = (0, 0);
    while let Some(packet) = capture.next_packet()? {
        packets.packets += 1;
        now_us = packet.time_us.max(now_us);
        match decoder.decode(0, packet.time_us, packet.link_type, &packet.data) {
            Ok(decoded) if decoded.later_fragment => {
                packets.fragments += 1;
                if decoded.length > 0 {
                    flows.packet(packet.time_us, &decoded, &mut engine);
                }
            }
            // Of other protocols only an echo has what the engine reads.
            Ok(decoded) if matches!(decoded.protocol, TCP | UDP) || !decoded.payload.is_empty() => {
                packets.transport += 1;
                flows.packet(packet.time_us, &decoded, &mut engine);
            }
            Ok(_) => packets.foreign += 1,
            Err(Other::Continued) => packets.fragments += 1,
            Err(Other::Malformed) => packets.malformed += 1,
            Err(Other::Link | Other::Protocol) => packets.foreign += 1,
        }
        if now_us >= ticked_us + TICK_US {
            ticked_us = now_us;
            engine.tick(now_us);
            let (rows, seconds) = engine.backlog();
            if rows >= BATCH_ROWS || seconds >= BATCH_SECONDS {
                batches.extend(engine.drain(now_us, false));
            }
        }
    }
    batches.extend(engine.drain(now_us, true));
    packets.flows = flows.seen();
    Ok(Replayed { batches, counters: engine.counters(), packets })
}
