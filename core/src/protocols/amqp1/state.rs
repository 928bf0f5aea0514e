//! What a connection remembers: its sessions, its links, and what is asked on them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;

use crate::connection::other;
use crate::protocols::{Kind, Role};

/// Most sessions, links and requests remembered.
const MAX_SESSIONS: usize = 1024;
const MAX_LINKS: usize = 1024;
const MAX_ASKED: usize = 8192;

/// What a performative asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    Sasl,
    Open,
    Begin(u32),
    /// Session and link.
    Attach(u32, u64),
    Detach(u32, u64),
    /// Session and delivery id.
    Delivery(u32, u32),
    End(u32),
    Close,
}

impl What {
    pub fn session(self) -> Option<u32> {
        match self {
            Self::Begin(session) | Self::Attach(session, _) | Self::Detach(session, _) => Some(session),
            Self::Delivery(session, _) => Some(session),
            Self::Sasl | Self::Open | Self::End(_) | Self::Close => None,
        }
    }
}

/// Requests that wait, of both sides.
#[derive(Default)]
pub struct Asked {
    waiting: VecDeque<(Role, What)>,
}

impl Asked {
    fn key(role: Role, what: What) -> u64 {
        FxBuildHasher.hash_one((role, what))
    }

    /// Remembers a request; its pairing key.
    pub fn expect(&mut self, role: Role, what: What) -> u64 {
        if self.waiting.len() >= MAX_ASKED {
            self.waiting.pop_front();
        }
        self.waiting.push_back((role, what));
        Self::key(role, what)
    }

    /// The response to what the other side asked, else a request.
    pub fn either(&mut self, role: Role, what: What) -> (Kind, Option<u64>) {
        match self.waiting.iter().position(|one| *one == (other(role), what)) {
            Some(place) => {
                self.waiting.remove(place);
                (Kind::Response, Some(Self::key(other(role), what)))
            }
            None => (Kind::Request, Some(self.expect(role, what))),
        }
    }

    /// Takes what the other side asked and `within` covers; the pairing keys.
    pub fn take(&mut self, role: Role, within: &dyn Fn(What) -> bool) -> Vec<u64> {
        let asker = other(role);
        let mut keys = Vec::new();
        self.waiting.retain(|(one, what)| {
            let covered = *one == asker && within(*what);
            if covered {
                keys.push(Self::key(*one, *what));
            }
            !covered
        });
        keys
    }

    /// Takes the other side's deliveries from `first` to `last` (serial numbers).
    pub fn deliveries(&mut self, role: Role, session: u32, first: u32, last: u32) -> Vec<u64> {
        self.take(role, &|what| match what {
            What::Delivery(on, delivery) => on == session && delivery.wrapping_sub(first) <= last.wrapping_sub(first),
            _ => false,
        })
    }
}

/// One number for both directions of a session, whose channels may differ.
#[derive(Default)]
pub struct Sessions {
    by_channel: HashMap<(Role, u16), u32>,
}

impl Sessions {
    fn number(role: Role, channel: u16) -> u32 {
        u32::from(role == Role::Server) << 16 | u32::from(channel)
    }

    /// A session begins; `remote` is the other side's channel when this answers.
    pub fn begin(&mut self, role: Role, channel: u16, remote: Option<u16>) -> u32 {
        let session = match remote {
            Some(remote) => self.of(other(role), remote),
            None => Self::number(role, channel),
        };
        if self.by_channel.len() < MAX_SESSIONS {
            self.by_channel.insert((role, channel), session);
        }
        session
    }

    pub fn of(&self, role: Role, channel: u16) -> u32 {
        let known = self.by_channel.get(&(role, channel));
        known.copied().unwrap_or_else(|| Self::number(Role::Client, channel))
    }

    pub fn end(&mut self, role: Role, channel: u16) {
        self.by_channel.remove(&(role, channel));
    }
}

/// Who attached, in which session, under which handle.
type Handle = (Role, u32, u32);

#[derive(Default)]
pub struct Links {
    /// Link and address of a handle.
    by_handle: HashMap<Handle, (u64, String)>,
    /// Handles amid a delivery of several transfers.
    delivering: HashSet<Handle>,
}

impl Links {
    /// One number for a link's name.
    pub fn link(session: u32, name: &[u8]) -> u64 {
        FxBuildHasher.hash_one((session, name))
    }

    /// A side attaches; gives the address that the link leads to, which is what the first side said.
    pub fn attach(&mut self, handle: Handle, link: u64, address: String) -> String {
        let peer = self.by_handle.iter().find(|((role, ..), (one, _))| *role != handle.0 && *one == link);
        let address = peer.map_or(address, |(_, (_, first))| first.clone());
        if self.by_handle.len() < MAX_LINKS || self.by_handle.contains_key(&handle) {
            self.by_handle.insert(handle, (link, address.clone()));
        }
        address
    }

    pub fn address(&self, handle: Handle) -> Option<&str> {
        self.by_handle.get(&handle).map(|(_, address)| address.as_str())
    }

    /// Link and address of a handle that is given up.
    pub fn detach(&mut self, handle: Handle) -> (u64, String) {
        self.delivering.remove(&handle);
        self.by_handle.remove(&handle).unwrap_or_default()
    }

    /// Does this transfer continue a delivery? `more` says whether another one follows.
    pub fn continues(&mut self, handle: Handle, more: bool) -> bool {
        if !more {
            return self.delivering.remove(&handle);
        }
        self.delivering.len() < MAX_LINKS && !self.delivering.insert(handle)
    }
}
