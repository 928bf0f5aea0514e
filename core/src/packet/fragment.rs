//! Fragments of IP packets.

use std::net::IpAddr;

/// Place of a fragment in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub id: u32,
    /// Bytes before it.
    pub offset: u32,
    /// It is not the last.
    pub more: bool,
}

impl Fragment {
    /// None of a whole packet.
    pub fn new(id: u32, offset: u32, more: bool) -> Option<Self> {
        (more || offset != 0).then_some(Self { id, offset, more })
    }
}

/// A fragment, and what tells its packet from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragmented {
    pub fragment: Fragment,
    /// Id of the tunnel around it, 0 none.
    pub tunnel: u32,
    pub protocol: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
}
