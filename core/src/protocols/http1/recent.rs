//! Heads that were read a moment ago, so that one that comes again, byte for byte, is not read again: the server's end
//! of a connection brings what the client's end has just brought, and most answers differ in nothing but their date. Of
//! a request that differs in its target alone from the one whose place it gets, only that is read.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::ops::Range;
use std::rc::Rc;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use rustc_hash::FxBuildHasher;

use super::head::{Framing, plain_target, target};
use crate::protocols::{Message, ParserSettings, Role};

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
    /// Where its target is, when that may be another one.
    target: Option<Range<usize>>,
    known: Known,
}

impl Place {
    /// Becomes the head that is sought, when that differs from this one in its target alone and nobody holds on to what
    /// this one said.
    fn turn_into(&mut self, sought: &Sought<'_>, settings: &ParserSettings) -> Option<(usize, Known)> {
        let Range { start, end } = self.target.clone()?;
        let (before, behind) = (self.bytes.get(..start)?, self.bytes.get(end..)?);
        let bytes = sought.bytes;
        if self.role != sought.role || !bytes.starts_with(before) || !bytes.ends_with(behind) {
            return None;
        }
        let target = plain_target(bytes.get(start..bytes.len() - behind.len())?, settings)?;
        let message = Rc::get_mut(&mut self.known.message)?;
        message.request_resource.clear();
        message.request_resource.push_str(target);
        settings.endpoint_into(target, &mut message.endpoint);
        self.target = Some(start..start + target.len());
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        Some((bytes.len(), self.known.clone()))
    }
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

/// What is remembered.
#[derive(Debug, Default)]
struct Heads {
    /// Heads since one was found.
    new: u32,
    places: Vec<Option<Place>>,
    /// Where the last one was of each side: the next is mostly the same.
    last: [usize; 2],
}

impl Heads {
    /// The head in this place, when `window` begins with it. What is kept ends with its first empty line, so that what
    /// begins with it has no shorter head.
    fn begins(&self, place: usize, role: Role, window: &[u8]) -> Option<(usize, Known)> {
        let place = self.places.get(place)?.as_ref()?;
        let found = place.role == role && window.starts_with(&place.bytes);
        found.then(|| (place.bytes.len(), place.known.clone()))
    }
}

/// The heads of an engine's connections.
#[derive(Debug)]
pub struct Recent {
    heads: RefCell<Heads>,
    /// If not, each head is read.
    remembers: bool,
}

impl Default for Recent {
    fn default() -> Self {
        Self { heads: RefCell::default(), remembers: true }
    }
}

impl Clone for Recent {
    /// What a head says depends on the settings, and those that are copied may be changed.
    fn clone(&self) -> Self {
        Self { heads: RefCell::default(), remembers: self.remembers }
    }
}

impl Recent {
    /// Remembers nothing.
    pub fn off() -> Self {
        Self { heads: RefCell::default(), remembers: false }
    }

    /// What the head says that `window` begins with, and how long it is; else, when it is worth to be kept, where.
    pub fn find<'a>(
        &self,
        role: Role,
        window: &'a [u8],
        settings: &ParserSettings,
    ) -> Result<(usize, Known), Option<Sought<'a>>> {
        if !self.remembers {
            return Err(None);
        }
        let mut heads = self.heads.borrow_mut();
        if let Some(found) = heads.begins(heads.last[role as usize], role, window) {
            heads.new = 0;
            return Ok(found);
        }
        let new = heads.new;
        heads.new = new.wrapping_add(1);
        if new >= NEW && new % OF_EACH >= LOOKED_UP {
            return Err(None);
        }
        let sought = Sought::of(role, window).ok_or(None)?;
        let known = heads.begins(sought.place, role, sought.bytes).or_else(|| {
            let place = heads.places.get_mut(sought.place)?.as_mut()?;
            place.turn_into(&sought, settings)
        });
        let Some(found) = known else {
            return Err(Some(sought));
        };
        heads.new = 0;
        heads.last[role as usize] = sought.place;
        Ok(found)
    }

    /// Remembers a head in the place of another one.
    pub fn keep(&self, sought: &Sought<'_>, known: Known) {
        let mut heads = self.heads.borrow_mut();
        if heads.places.is_empty() {
            heads.places.resize_with(PLACES, || None);
        }
        heads.last[sought.role as usize] = sought.place;
        if let Some(place) = heads.places.get_mut(sought.place) {
            let mut bytes = place.take().map(|before| before.bytes).unwrap_or_default();
            bytes.clear();
            bytes.extend_from_slice(sought.bytes);
            let target = (sought.role == Role::Client).then(|| target(&bytes)).flatten();
            *place = Some(Place { role: sought.role, bytes, target, known });
        }
    }

    /// Forgets them all: heads hold secrets, which are not to be kept.
    pub fn forget(&self) {
        self.heads.borrow_mut().places = Vec::new();
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
        let Err(Some(sought)) = recent.find(Role::Server, head, &ParserSettings::default()) else {
            panic!("a whole head that is new")
        };
        assert_eq!(sought.bytes, &head[..head.len() - 1]);
        recent.keep(&sought, known("one"));
        let (length, found) = recent.find(Role::Server, head, &ParserSettings::default()).expect("kept");
        assert_eq!((length, found.message.request_type.as_str()), (sought.bytes.len(), "one"));
        assert!(recent.find(Role::Client, head, &ParserSettings::default()).is_err());
        assert!(
            recent
                .find(Role::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx", &ParserSettings::default())
                .is_err()
        );
        recent.forget();
        assert!(recent.find(Role::Server, head, &ParserSettings::default()).is_err());
    }

    fn request(number: usize, end: &str) -> Vec<u8> {
        format!("GET /{number} HTTP/1.1\r\n{end}\r\n").into_bytes()
    }

    #[test]
    fn heads_in_one_place_are_told_apart() {
        let (recent, settings, mut turned) = (Recent::default(), ParserSettings::default(), 0);
        for number in 0..64 * PLACES {
            let head = request(number, ["", "Host: a\r\n"][number / 3 % 2]);
            match recent.find(Role::Client, &head, &settings) {
                Ok((length, found)) => {
                    assert_eq!((length, found.message.request_resource.as_str()), (head.len(), &*format!("/{number}")));
                    assert_eq!(found.message.endpoint, "/*");
                    turned += 1;
                }
                Err(Some(sought)) => {
                    let message = Message { request_resource: format!("/{number}"), ..Message::default() };
                    recent.keep(&sought, Known { message: Rc::new(message), ..known("") });
                }
                Err(None) => panic!("among heads that are found each is looked up"),
            }
            let (length, found) = recent.find(Role::Client, &head, &settings).expect("kept");
            assert_eq!((length, found.message.request_resource.as_str()), (head.len(), &*format!("/{number}")));
        }
        assert!(turned > 16 * PLACES, "{turned}");
    }

    #[test]
    fn what_somebody_holds_is_left_as_it_is() {
        let (recent, settings) = (Recent::default(), ParserSettings::default());
        let mut held = Vec::new();
        for number in 0..8 * PLACES {
            let head = request(number, "");
            let Err(Some(sought)) = recent.find(Role::Client, &head, &settings) else { panic!("{number} is new") };
            let message = Rc::new(Message { request_resource: format!("/{number}"), ..Message::default() });
            recent.keep(&sought, Known { message: Rc::clone(&message), ..known("") });
            held.push(message);
            // Where no head is found, few are looked up.
            recent.heads.borrow_mut().new = 0;
        }
        assert!(held.iter().enumerate().all(|(number, message)| message.request_resource == format!("/{number}")));
    }

    #[test]
    fn engines_do_not_share_and_copies_begin_anew() {
        let (one, other, head) = (Recent::default(), Recent::default(), b"GET / HTTP/1.1\r\n\r\n");
        let Err(Some(sought)) = one.find(Role::Client, head, &ParserSettings::default()) else { panic!("new") };
        one.keep(&sought, known("one"));
        assert!(one.clone().find(Role::Client, head, &ParserSettings::default()).is_err());
        assert!(other.find(Role::Client, head, &ParserSettings::default()).is_err());
        other.keep(&sought, known("other"));
        let name = |recent: &Recent| {
            recent
                .find(Role::Client, head, &ParserSettings::default())
                .map(|(_, known)| known.message.request_type.clone())
        };
        assert_eq!((name(&one).ok().as_deref(), name(&other).ok().as_deref()), (Some("one"), Some("other")));
        assert!(matches!(Recent::off().find(Role::Client, head, &ParserSettings::default()), Err(None)));
    }

    #[test]
    fn the_last_head_is_tried_with_what_follows_it_and_for_its_side_alone() {
        let recent = Recent::default();
        let (short, long) = (&b"GET /a HTTP/1.1\r\n\r\n"[..], &b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n"[..]);
        for head in [short, long] {
            let Err(Some(sought)) = recent.find(Role::Client, head, &ParserSettings::default()) else { panic!("new") };
            recent.keep(&sought, known(&head.len().to_string()));
        }
        let pipelined = |head: &[u8]| [head, short, b"GET"].concat();
        for head in [long, short, short, long] {
            let (length, found) =
                recent.find(Role::Client, &pipelined(head), &ParserSettings::default()).expect("kept");
            assert_eq!((length, found.message.request_type.as_str()), (head.len(), head.len().to_string().as_str()));
            assert!(recent.find(Role::Server, head, &ParserSettings::default()).is_err());
            assert!(
                recent.find(Role::Client, &head[..head.len() - 1], &ParserSettings::default()).is_err(),
                "not whole yet"
            );
        }
        recent.forget();
        assert!(recent.find(Role::Client, short, &ParserSettings::default()).is_err());
    }

    #[test]
    fn where_no_head_comes_again_few_are_looked_up() {
        let (recent, head) = (Recent::default(), b"HTTP/1.1 204 No Content\r\n\r\n");
        let looked_up = |count| {
            (0..count)
                .filter(|_| matches!(recent.find(Role::Server, head, &ParserSettings::default()), Err(Some(_))))
                .count()
        };
        assert_eq!(looked_up(NEW), NEW as usize);
        assert_eq!(looked_up(8 * OF_EACH), 8 * LOOKED_UP as usize);
        let Some(sought) = Sought::of(Role::Server, head) else { panic!("a whole head") };
        recent.keep(&sought, known("one"));
        assert!((0..OF_EACH).any(|_| recent.find(Role::Server, head, &ParserSettings::default()).is_ok()));
        assert!(recent.find(Role::Server, head, &ParserSettings::default()).is_ok());
    }

    #[test]
    fn only_whole_heads_of_bounded_length_are_looked_up() {
        assert!(Sought::of(Role::Client, b"GET / HTTP/1.1\r\nHost: a\r\n").is_none());
        let long = [b"GET / HTTP/1.1\r\nCookie: ", "x".repeat(LONGEST).as_bytes(), b"\r\n\r\n"].concat();
        assert!(Sought::of(Role::Client, &long).is_none());
    }
}
