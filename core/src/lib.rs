//! The whole Python surface of the core, and nothing else.
pub mod causality;
pub mod connection;
pub mod engine;
pub mod event;
pub mod meter;
pub mod packet;
pub mod peers;
pub mod protocols;
pub mod replay;
pub mod rows;
pub mod session;
pub mod stream;
