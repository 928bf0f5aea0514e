//! Packets of capture files and of live interfaces: the file formats, the rings, the headers, the flows.

pub mod decode;
pub mod decoder;
pub mod file;
pub mod flows;
pub mod fragment;
pub mod live;
mod network;
mod tcp_options;
pub mod tunnel;
