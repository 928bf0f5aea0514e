//! Names of things that a protocol speaks of by id, where one connection tells the name and others use the id.

use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::FxHashMap;

/// Names that are remembered, and the longest.
const MAX_NAMES: usize = 16_384;
const MAX_NAME: usize = 256;

/// Names by the number of the protocol and an id that is unique among its servers. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Names(Rc<RefCell<Known>>);

type Known = FxHashMap<(u8, u128), Box<[u8]>>;

impl Names {
    pub fn learn(&self, protocol: u8, id: u128, name: &[u8]) {
        let key = (protocol, id);
        let mut known = self.0.borrow_mut();
        if name.len() > MAX_NAME || known.get(&key).is_some_and(|known| **known == *name) {
            return;
        }
        if known.len() >= MAX_NAMES && !known.contains_key(&key) {
            known.clear();
        }
        known.insert(key, name.into());
    }

    pub fn get(&self, protocol: u8, id: u128) -> Option<Vec<u8>> {
        self.0.borrow().get(&(protocol, id)).map(|name| name.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shared_and_bounded() {
        let names = Names::default();
        let other = names.clone();
        names.learn(1, 7, b"seven");
        names.learn(1, 7, b"VII");
        assert_eq!(other.get(1, 7).as_deref(), Some(&b"VII"[..]));
        assert_eq!(other.get(2, 7), None);
        names.learn(1, 8, &[b'x'; MAX_NAME + 1]);
        assert_eq!(other.get(1, 8), None);
        for id in 0..3 * MAX_NAMES as u128 {
            names.learn(3, id, b"x");
        }
        assert!(names.0.borrow().len() <= MAX_NAMES);
    }
}
