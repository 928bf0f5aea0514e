//! Flows: what the packets between two ports tell about the connection and about the network under it.

pub mod meter;
pub mod perf;
mod probes;
pub mod record;
pub mod report;
mod seconds;
pub mod seen;
pub mod sent;
pub mod settings;
pub mod state;
pub mod table;
mod wheel;
