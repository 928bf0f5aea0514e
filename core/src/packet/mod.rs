//! Packets: capture files, headers, tunnels.

pub mod decode;
pub mod decoder;
pub mod file;
pub mod fragment;
mod network;
mod tcp_options;
pub mod tunnel;
