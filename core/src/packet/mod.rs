//! Packets of a capture file: the file formats, the headers, the flows.

pub mod decode;
pub mod file;
pub mod flows;
mod fragment;
mod network;
mod tcp_options;
pub mod tunnel;
