//! Packets of a capture file: the file formats, the headers, the flows.

pub mod decode;
pub mod decoder;
pub mod file;
pub mod flows;
pub mod fragment;
mod network;
mod tcp_options;
pub mod tunnel;
