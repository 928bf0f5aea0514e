//! The whole Python surface of the core, and nothing else.
pub mod bpf;
pub mod event;
pub mod protocols;
