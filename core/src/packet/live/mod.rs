//! Packets of this host's interfaces: AF_PACKET rings (`ring`) behind a filter in the kernel (`filter`), on the
//! interfaces that a regular expression chooses in the node's and in other namespaces (`scan`).
//!
//! One thread looks which interfaces there are and opens the rings; each worker reads its own, on its own timer.

mod capture;
pub mod filter;
pub mod interfaces;
mod namespaces;
mod netlink;
mod ring;
mod scan;
mod settings;

pub use capture::{Live, LiveCounters, LiveReport};
pub use interfaces::{Interface, Interfaces, Kind, Place};
pub use settings::PacketConfig;

/// One frame as it passed an interface; `data` may be shorter than `wire`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Wall clock, µs since the epoch.
    pub time_us: u64,
    /// LINKTYPE_* number.
    pub link_type: u16,
    /// Number of the interface (`Interface::nic`).
    pub nic: u32,
    /// Bytes on the wire, from the link layer on.
    pub wire: u32,
    pub data: &'a [u8],
    /// VLAN number that the interface took off the frame.
    pub vlan: Option<u16>,
    pub outgoing: bool,
}
