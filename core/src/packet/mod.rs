//! Packets of a capture file: the file formats, the headers, the flows.

pub mod decode;
pub mod file;
pub mod flows;
pub mod live;
