//! Names of prepared statements and portals, and what they stand for.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// What a row shows of a statement.
#[derive(Default)]
pub struct Described {
    pub text: String,
    pub endpoint: String,
    pub trace_id: String,
    pub span_id: String,
}

/// Bytes of text kept a connection; the oldest names go first.
const MAX_TEXT: usize = 256 * 1024;
const MAX_NAMES: usize = 512;

#[derive(Default)]
pub struct Names {
    by_name: HashMap<Vec<u8>, Rc<Described>>,
    order: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Names {
    pub fn keep(&mut self, name: &[u8], described: Rc<Described>) {
        self.forget(name);
        self.bytes += described.text.len();
        self.order.push_back(name.to_vec());
        self.by_name.insert(name.to_vec(), described);
        while self.bytes > MAX_TEXT || self.by_name.len() > MAX_NAMES {
            let Some(oldest) = self.order.front().cloned() else {
                break;
            };
            self.forget(&oldest);
        }
    }

    pub fn get(&self, name: &[u8]) -> Option<Rc<Described>> {
        self.by_name.get(name).cloned()
    }

    pub fn forget(&mut self, name: &[u8]) {
        if let Some(described) = self.by_name.remove(name) {
            self.bytes = self.bytes.saturating_sub(described.text.len());
            self.order.retain(|kept| kept != name);
        }
    }
}
