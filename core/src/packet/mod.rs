//! Packets of capture files and of live interfaces: the file formats, the rings, the headers, tunnels.

pub mod decode;
pub mod decoder;
pub mod file;
pub mod fragment;
pub mod live;
mod network;
mod tcp_options;
pub mod tunnel;

/// One frame as it passed an interface, or stands in a file; `data` may be shorter than `wire`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Wall clock, µs since the epoch.
    pub time_us: u64,
    /// LINKTYPE_* number.
    pub link_type: u16,
    /// Number of the interface (`live::Interface::nic`), 0 for a file.
    pub nic: u32,
    /// Bytes on the wire, from the link layer on.
    pub wire: u32,
    pub data: &'a [u8],
    /// VLAN number that the interface took off the frame.
    pub vlan: Option<u16>,
    pub outgoing: bool,
}
