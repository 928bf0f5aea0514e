//! Frame after frame to packets, with what is remembered between them and counted.

use super::decode::{Other, Packet, Trail, walk};
use super::fragment::{Belongs, FragmentCounters, Fragments};
use super::tunnel::Decapsulation;

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeCounters {
    /// Packets out of a tunnel.
    pub tunnelled: u64,
    /// A tunnel's header without a sound packet inside: the outer packet was given.
    pub lying_tunnels: u64,
    /// Packets within more tunnels than are taken off.
    pub deeper_tunnels: u64,
    /// Frames whose headers are cut or contradict themselves.
    pub malformed: u64,
    /// Frames that are not IP.
    pub foreign: u64,
    pub fragments: FragmentCounters,
}

impl DecodeCounters {
    /// Names and values, the same names at every call.
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        let fragments = &self.fragments;
        vec![
            ("packets_tunnelled", self.tunnelled),
            ("packets_lying_tunnels", self.lying_tunnels),
            ("packets_deeper_tunnels", self.deeper_tunnels),
            ("packets_malformed", self.malformed),
            ("packets_foreign", self.foreign),
            ("fragments_first", fragments.first),
            ("fragments_later", fragments.later),
            ("fragments_orphans", fragments.orphans),
            ("fragments_displaced", fragments.displaced),
            ("fragments_tunnelled", fragments.tunnelled),
            ("fragments_evicted", fragments.evicted),
        ]
    }
}

/// Decodes the frames of one thread.
#[derive(Debug, Default)]
pub struct Decoder {
    decapsulation: Decapsulation,
    fragments: Fragments,
    counters: DecodeCounters,
}

impl Decoder {
    pub fn new(decapsulation: Decapsulation) -> Self {
        Self { decapsulation, ..Self::default() }
    }

    /// `point`: number of the capture point (interface and namespace); a packet may be seen at several.
    /// `time_us`: of the frame.
    pub fn decode<'a>(
        &mut self,
        point: u32,
        time_us: u64,
        link_type: u16,
        frame: &'a [u8],
    ) -> Result<Packet<'a>, Other> {
        let mut trail = Trail::default();
        let mut found = walk(link_type, frame, self.decapsulation, &mut trail);
        self.counters.lying_tunnels += u64::from(trail.lying);
        self.counters.deeper_tunnels += u64::from(trail.deeper);
        match &mut found {
            Ok(packet) => {
                self.counters.tunnelled += u64::from(packet.tunnel.is_some());
                if trail.fragment.is_some() || trail.carrier.is_some() {
                    return self.fragment(point, time_us, &trail, found);
                }
            }
            Err(Other::Malformed) => self.counters.malformed += 1,
            Err(_) => self.counters.foreign += 1,
        }
        found
    }

    #[cold]
    fn fragment<'a>(
        &mut self,
        point: u32,
        time_us: u64,
        trail: &Trail,
        found: Result<Packet<'a>, Other>,
    ) -> Result<Packet<'a>, Other> {
        let mut packet = found?;
        if let Some(carrier) = &trail.carrier {
            self.fragments.carries(point, time_us, carrier);
        }
        let Some(fragment) = &trail.fragment else {
            return Ok(packet);
        };
        if !packet.later_fragment {
            self.fragments.begins(point, time_us, fragment, &packet);
            return Ok(packet);
        }
        match self.fragments.continues(point, time_us, fragment, &mut packet) {
            Belongs::Flow => Ok(packet),
            Belongs::Tunnel => Err(Other::Continued),
        }
    }

    pub fn counters(&self) -> DecodeCounters {
        DecodeCounters { fragments: self.fragments.counters, ..self.counters }
    }

    /// Packets whose other fragments are awaited, `fragment::MAX_PACKETS` at most.
    pub fn awaited(&self) -> usize {
        self.fragments.len()
    }
}
