//! Messages as they are handed on.

use std::ops::Deref;
use std::rc::Rc;

use super::Message;

/// A message that was read, of its own or the same as others, word for word.
#[derive(Debug)]
pub enum Told {
    Own(Box<Message>),
    Shared(Rc<Message>),
}

impl Deref for Told {
    type Target = Message;

    fn deref(&self) -> &Message {
        match self {
            Self::Own(message) => message,
            Self::Shared(message) => message,
        }
    }
}
