//! Heads that were read a moment ago, so that one that comes again, byte for byte, is not read again: the server's end
//! of a connection brings what the client's end has just brought, and most answers differ in nothing but their date.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use memchr::memmem::Finder;
use rustc_hash::FxBuildHasher;

use super::head::Framing;
use crate::protocols::{Message, Role};

/// Heads that are remembered (a power of two), and the longest.
const PLACES: usize = 128;
const LONGEST: usize = 1024;
/// Where so many heads in a row were new, only some of each thousand and odd are looked up, until one is found.
const NEW: u32 = 512;
const OF_EACH: u32 = 1024;
const LOOKED_UP: u32 = 64;

/// What ends a head.
static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// What a head said.
#[derive(Clone, Debug)]
pub struct Known {
    pub framing: Framing,
    pub message: Rc<Message>,
}

#[derive(Debug)]
struct Place {
    role: Role,
    bytes: Vec<u8>,
    known: Known,
}

/// A head to be looked up: its bytes with the empty line that ends it, and their place.
#[derive(Debug)]
pub struct Sought<'a> {
    role: Role,
    pub bytes: &'a [u8],
    place: usize,
}

impl<'a> Sought<'a> {
    /// The head that `window` begins with, when all of it is there.
    pub fn of(role: Role, window: &'a [u8]) -> Option<Self> {
        let within = window.get(..LONGEST).unwrap_or(window);
        let bytes = within.get(..END.find(within)? + END.needle().len())?;
        let place = FxBuildHasher.hash_one((role, bytes)) as usize % PLACES;
        Some(Self { role, bytes, place })
    }
}

/// What one thread remembers, for the engine that used it last.
struct Here {
    owner: u64,
    /// Heads since one was found.
    new: u32,
    places: Vec<Option<Place>>,
    /// Where the last one was of each side: the next is mostly the same.
    last: [usize; 2],
}

impl Here {
    const fn of(owner: u64) -> Self {
        Self { owner, new: 0, places: Vec::new(), last: [0; 2] }
    }

    /// The head in this place, when `window` begins with it. What is kept ends with its first empty line, so that what
    /// begins with it has no shorter head.
    fn begins(&self, place: usize, role: Role, window: &[u8]) -> Option<&Place> {
        let place = self.places.get(place)?.as_ref()?;
        (place.role == role && window.starts_with(&place.bytes)).then_some(place)
    }
}

thread_local! {
    // An engine has one thread: without a lock, which costs as much as all the rest here.
    static HERE: RefCell<Here> = const { RefCell::new(Here::of(NOBODY)) };
}

const NOBODY: u64 = 0;

/// The heads of an engine's connections.
#[derive(Debug)]
pub struct Recent {
    /// Number of this engine's settings, or `NOBODY`: each head is read.
    owner: u64,
}

impl Default for Recent {
    fn default() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(NOBODY);
        Self { owner: LAST.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Clone for Recent {
    /// What a head says depends on the settings, and those that are copied may be changed.
    fn clone(&self) -> Self {
        if self.owner == NOBODY { Self::off() } else { Self::default() }
    }
}

impl Recent {
    /// Remembers nothing.
    pub fn off() -> Self {
        Self { owner: NOBODY }
    }

    /// What the head said that `window` begins with; else, when it is worth to be kept, where.
    pub fn find<'a>(&self, role: Role, window: &'a [u8]) -> Result<(usize, Known), Option<Sought<'a>>> {
        if self.owner == NOBODY {
            return Err(None);
        }
        HERE.with_borrow_mut(|here| {
            if here.owner != self.owner {
                *here = Here::of(self.owner);
            }
            if let Some(place) = here.begins(here.last[role as usize], role, window) {
                let found = (place.bytes.len(), place.known.clone());
                here.new = 0;
                return Ok(found);
            }
            let new = here.new;
            here.new = new.wrapping_add(1);
            if new >= NEW && new % OF_EACH >= LOOKED_UP {
                return Err(None);
            }
            let sought = Sought::of(role, window).ok_or(None)?;
            let Some(place) = here.begins(sought.place, role, sought.bytes) else {
                return Err(Some(sought));
            };
            let found = (place.bytes.len(), place.known.clone());
            here.new = 0;
            here.last[role as usize] = sought.place;
            Ok(found)
        })
    }

    /// Remembers a head in the place of another one.
    pub fn keep(&self, sought: &Sought<'_>, known: Known) {
        HERE.with_borrow_mut(|here| {
            if here.owner != self.owner {
                return;
            }
            if here.places.is_empty() {
                here.places.resize_with(PLACES, || None);
            }
            let Some(place) = here.places.get_mut(sought.place) else {
                return;
            };
            let mut bytes = place.take().map(|before| before.bytes).unwrap_or_default();
            bytes.clear();
            bytes.extend_from_slice(sought.bytes);
            *place = Some(Place { role: sought.role, bytes, known });
            here.last[sought.role as usize] = sought.place;
        });
    }

    /// Forgets all that this thread remembers of them: heads hold secrets, which are not to be kept.
    pub fn forget(&self) {
        // A thread that ends has none left.
        let _ = HERE.try_with(|here| {
            if let Ok(mut here) = here.try_borrow_mut()
                && here.owner == self.owner
            {
                here.places = Vec::new();
            }
        });
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::http1::head::Start;

    fn known(name: &str) -> Known {
        let message = Message { request_type: name.to_owned(), ..Message::default() };
        let framing = Framing { start: Start::Response(200), content_length: None, chunked: false, encoded: false };
        Known { framing, message: Rc::new(message) }
    }

    #[test]
    fn a_head_is_found_by_all_its_bytes_and_its_side() {
        let recent = Recent::default();
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
        let Err(Some(sought)) = recent.find(Role::Server, head) else { panic!("a whole head that is new") };
        assert_eq!(sought.bytes, &head[..head.len() - 1]);
        recent.keep(&sought, known("one"));
        let (length, found) = recent.find(Role::Server, head).expect("kept");
        assert_eq!((length, found.message.request_type.as_str()), (sought.bytes.len(), "one"));
        assert!(recent.find(Role::Client, head).is_err());
        assert!(recent.find(Role::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx").is_err());
        recent.forget();
        assert!(recent.find(Role::Server, head).is_err());
    }

    #[test]
    fn heads_in_one_place_are_told_apart() {
        let recent = Recent::default();
        for number in 0..4 * PLACES {
            let head = format!("GET /{number} HTTP/1.1\r\n\r\n");
            match recent.find(Role::Client, head.as_bytes()) {
                Ok(_) => panic!("{number} is another head"),
                Err(Some(sought)) => recent.keep(&sought, known(&number.to_string())),
                Err(None) => {}
            }
            if let Ok((_, found)) = recent.find(Role::Client, head.as_bytes()) {
                assert_eq!(found.message.request_type, number.to_string());
            }
        }
    }

    #[test]
    fn engines_of_one_thread_do_not_share_and_copies_begin_anew() {
        let (one, head) = (Recent::default(), b"GET / HTTP/1.1\r\n\r\n");
        let Err(Some(sought)) = one.find(Role::Client, head) else { panic!("new") };
        one.keep(&sought, known("one"));
        assert!(one.clone().find(Role::Client, head).is_err());
        assert!(one.find(Role::Client, head).is_err(), "the other one has taken the place");
        one.clone().keep(&sought, known("late"));
        assert!(one.find(Role::Client, head).is_err());
        assert!(matches!(Recent::off().find(Role::Client, head), Err(None)));
    }

    #[test]
    fn where_no_head_comes_again_few_are_looked_up() {
        let (recent, head) = (Recent::default(), b"HTTP/1.1 204 No Content\r\n\r\n");
        let looked_up = |count| (0..count).filter(|_| matches!(recent.find(Role::Server, head), Err(Some(_)))).count();
        assert_eq!(looked_up(NEW), NEW as usize);
        assert_eq!(looked_up(8 * OF_EACH), 8 * LOOKED_UP as usize);
        let Some(sought) = Sought::of(Role::Server, head) else { panic!("a whole head") };
        recent.keep(&sought, known("one"));
        assert!((0..OF_EACH).any(|_| recent.find(Role::Server, head).is_ok()));
        assert!(recent.find(Role::Server, head).is_ok());
    }

    #[test]
    fn only_whole_heads_of_bounded_length_are_looked_up() {
        assert!(Sought::of(Role::Client, b"GET / HTTP/1.1\r\nHost: a\r\n").is_none());
        let long = [b"GET / HTTP/1.1\r\nCookie: ", "x".repeat(LONGEST).as_bytes(), b"\r\n\r\n"].concat();
        assert!(Sought::of(Role::Client, &long).is_none());
    }
}
