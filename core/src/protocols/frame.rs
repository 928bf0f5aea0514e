//! Protocols whose messages say their length in front: one walk for all of them.

use super::{Message, Parser, Role, Step};
use crate::event::Origin;

/// Length of a frame, from its first bytes.
pub enum Size {
    /// `size` bytes, header included, of which the first `look` are looked at; the rest is skipped by count.
    Of { size: u64, look: usize },
    /// The header goes on beyond the window.
    Short,
    /// No frame begins here.
    Wrong,
}

/// What a frame says.
pub enum Said {
    Message(Box<Message>),
    /// A heartbeat, a part of a message that was named before.
    Nothing,
    /// No frame after all.
    Wrong,
}

impl From<Message> for Said {
    fn from(message: Message) -> Self {
        Self::Message(Box::new(message))
    }
}

/// A protocol of frames. State that one frame leaves for the next belongs to the implementing type.
pub trait Frames {
    fn size(&mut self, role: Role, window: &[u8]) -> Size;

    /// `frame` is the frame of `size` bytes, cut where nothing more is looked at or was captured.
    fn read(&mut self, role: Role, frame: &[u8], size: u64) -> Said;

    /// Could a frame begin here? Asked at every place after bytes were lost.
    fn begins(&self, role: Role, window: &[u8]) -> bool;

    /// Where the next frame begins after bytes were lost.
    fn find(&self, role: Role, window: &[u8]) -> Option<usize> {
        (0..window.len()).find(|&at| self.begins(role, window.get(at..).unwrap_or_default()))
    }

    /// Where the first byte of the next frame came from.
    fn at(&mut self, _origin: Origin) {}

    /// Bytes of this direction were lost.
    fn lost(&mut self, _role: Role) {}
}

/// Parser of a protocol of frames.
pub struct Framed<T>(pub T);

impl<T: Frames> Framed<T> {
    fn step(&mut self, role: Role, window: &[u8], cut: bool) -> Step {
        let (size, look) = match self.0.size(role, window) {
            Size::Of { size, look } => (size.max(1), look),
            Size::Short if !cut => return Step::NeedMore,
            Size::Short | Size::Wrong => return Step::Invalid,
        };
        let wanted = usize::try_from(size).unwrap_or(usize::MAX).min(look);
        if window.len() < wanted && !cut {
            return Step::NeedMore;
        }
        match self.0.read(role, window.get(..wanted).unwrap_or(window), size) {
            Said::Message(message) => Step::Message { consumed: size, message },
            Said::Nothing => Step::Skip(size),
            Said::Wrong => Step::Invalid,
        }
    }
}

impl<T: Frames> Parser for Framed<T> {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, false)
    }

    fn truncated(&mut self, role: Role, window: &[u8], _missing: u64) -> Step {
        self.step(role, window, true)
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.0.lost(role);
        self.0.find(role, window)
    }

    fn at(&mut self, origin: Origin) {
        self.0.at(origin);
    }
}

/// Key of a request of this side: the two sides of a connection count their ids apart.
pub fn pairing_key(id: u64, asker: Role) -> Option<u64> {
    Some(if asker == Role::Client { id } else { !id })
}

/// The side across.
pub fn across(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}
