//! Frames to rows: decodes them, follows their flows, and hands their payload to an application engine of its own.

use crate::batch::Batch;
use crate::engine::{Engine, EngineConfig, Shared};
use crate::flow::report::Reports;
use crate::flow::seen::{Places, Sighting};
use crate::flow::settings::FlowSettings;
use crate::flow::state::End;
use crate::flow::table::FlowTable;
use crate::packet::Frame;
use crate::packet::decoder::Decoder;
use crate::packet::tunnel::Decapsulation;

/// How long after its last packet a capture file is over for every flow, µs, at least: longer than any time-out.
const AFTERWARDS_US: u64 = 600_000_000;

/// Totals since the start; what became of them is counted by the decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounters {
    pub frames: u64,
    pub bytes: u64,
}

pub struct Packets {
    pub engine: Engine,
    decoder: Decoder,
    flows: FlowTable,
    pub frames: FrameCounters,
    afterwards_us: u64,
}

impl Packets {
    /// `thread` distinguishes the flow numbers of several of them in one agent.
    pub fn new(config: &EngineConfig, shared: &Shared, thread: u8) -> Self {
        let reports = Reports::new(config, shared.clone());
        let flows = FlowTable::new(FlowSettings::of(config), thread, reports);
        let decoder = Decoder::new(Decapsulation::of(&config.tunnel_decap_protocols));
        let engine = Engine::beside(config, shared);
        let afterwards_us = AFTERWARDS_US.max(2 * config.flow_timeouts.longest_us());
        Self { engine, decoder, flows, frames: FrameCounters::default(), afterwards_us }
    }

    pub fn set_agent_id(&mut self, agent_id: u16) {
        self.engine.set_agent_id(agent_id);
        self.flows.reports().agent_id = agent_id;
    }

    /// Takes one frame.
    pub fn frame(&mut self, frame: &Frame<'_>, places: &dyn Places) {
        let Self { engine, decoder, flows, frames, .. } = self;
        frames.frames += 1;
        frames.bytes += u64::from(frame.wire);
        // What gives no packet is counted by the decoder.
        if let Ok(mut packet) = decoder.decode(frame.nic, frame.time_us, frame.link_type, frame.data) {
            // A header may claim more than there was.
            packet.l3_length = packet.l3_length.min(frame.wire);
            packet.length = packet.length.min(packet.l3_length);
            packet.link.vlan = frame.vlan.filter(|_| packet.link.vlan == 0).unwrap_or(packet.link.vlan);
            let seen = Sighting { time_us: frame.time_us, nic: frame.nic, wire: frame.wire };
            flows.packet(seen, &packet, places, engine);
        }
    }

    /// Time passes. Call a few times a second.
    pub fn tick(&mut self, now_us: u64) {
        self.engine.tick(now_us);
        self.flows.tick(now_us, &mut self.engine);
    }

    /// Rows that wait for `drain`, and seconds that are open.
    pub fn backlog(&self) -> (usize, usize) {
        let (rows, seconds) = self.engine.backlog();
        let (own_rows, own_seconds) = self.flows.backlog();
        (rows + own_rows, seconds.max(own_seconds))
    }

    /// Rows since the last call.
    pub fn drain(&mut self, now_us: u64) -> Vec<Batch> {
        let mut batches = self.engine.drain(now_us, false);
        batches.extend(self.flows.drain(now_us, false, &mut self.engine));
        batches
    }

    /// The last rows; every flow ends. `file`: nothing follows the last packet, so that open flows time out, as they
    /// would have; otherwise they go on unseen.
    pub fn finish(&mut self, now_us: u64, file: bool) -> Vec<Batch> {
        let mut batches = self.engine.drain(now_us, true);
        let (why, later_us) =
            if file { (End::TimedOut, now_us.saturating_add(self.afterwards_us)) } else { (End::Flushed, now_us) };
        self.flows.finish(why, later_us, &mut self.engine);
        batches.extend(self.flows.drain(later_us, true, &mut self.engine));
        batches
    }

    /// Flows seen so far and followed now.
    pub fn flow_numbers(&self) -> (u64, usize) {
        (self.flows.counters.flows, self.flows.len())
    }

    /// Totals since the start, and a few present sizes (`*_now`).
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut list = self.engine.counters();
        let FrameCounters { frames, bytes } = self.frames;
        list.extend(self.decoder.counters().list());
        let flows = self.flows.counters;
        let reports = self.flows.report_counters();
        list.extend([
            ("frames", frames),
            ("frame_bytes", bytes),
            ("flows", flows.flows),
            ("flows_evicted", flows.evicted),
            ("flows_swapped", flows.swapped),
            ("flow_packets_late", flows.late),
            ("flow_rows_out", reports.rows_out),
            ("flow_rows_throttled", reports.rows_throttled),
            ("flow_rows_unencodable", reports.rows_unencodable),
            ("flow_meter_rows_out", reports.meter_rows_out),
            ("flow_meter_keys_overflowed", self.flows.meter().overflow),
            ("flows_now", self.flows.len() as u64),
        ]);
        list
    }
}
