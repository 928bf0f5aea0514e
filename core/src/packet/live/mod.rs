//! Packets of this host's interfaces: AF_PACKET rings (`ring`) behind a filter in the kernel (`filter`), on the
//! interfaces that a regular expression chooses in the node's and in other namespaces (`scan`).
//!
//! One thread looks which interfaces there are and opens the rings; each worker reads its own, on its own timer.

mod capture;
mod capture_nics;
pub mod filter;
pub mod interfaces;
mod namespaces;
mod netlink;
mod ring;
mod scan;
mod settings;

pub use capture::{Live, LiveCounters, LiveReport, Present, probe};
pub use interfaces::{Captured, Interface, Interfaces, Kind};
pub use settings::PacketConfig;
