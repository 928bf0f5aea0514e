//! What the engines of one agent have in common, and what Python tells them of sockets.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use crate::batch::RowNumbers;
use crate::event::Endpoint;
use crate::peers::{Process, SharedPeers};

/// A socket that existed before the source began: from /proc.
#[derive(Clone, Copy, Debug)]
pub struct KnownSocket {
    pub netns: u32,
    pub protocol: u8,
    pub local: Endpoint,
    pub remote: Endpoint,
    pub process: Process,
}

/// What the engines of one agent have in common.
#[derive(Clone, Debug)]
pub struct Shared {
    pub peers: SharedPeers,
    pub numbers: RowNumbers,
}

impl Default for Shared {
    /// Row numbers begin anywhere.
    fn default() -> Self {
        Self::numbered(RandomState::new().hash_one("row counter") as u32)
    }
}

impl Shared {
    /// Row numbers begin at `counter`.
    pub fn numbered(counter: u32) -> Self {
        Self { peers: SharedPeers::default(), numbers: RowNumbers::beginning_at(counter) }
    }
}

/// A listening socket.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    pub netns: u32,
    pub ip: IpAddr,
    pub port: u16,
    pub pid: u32,
}
