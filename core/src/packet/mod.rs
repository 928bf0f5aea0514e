//! Packets: capture files, headers, tunnels.

pub mod decode;
pub mod file;
mod fragment;
mod network;
mod tcp_options;
pub mod tunnel;
