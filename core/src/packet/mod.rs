//! Packets of a capture file: the file formats, the headers, the flows.

pub mod capture;
pub mod decode;
pub mod flows;
