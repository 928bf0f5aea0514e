//! Flows: what the packets between two ports tell about the connection and about the network under it.

pub mod perf;
pub mod sent;
pub mod state;
