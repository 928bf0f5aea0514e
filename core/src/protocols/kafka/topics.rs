//! Names of topics by their ids (KIP-516). An id is unique in the world, so what one connection learns serves all: a
//! client asks one broker for the names and fetches from others.

use std::sync::{LazyLock, RwLock};

use rustc_hash::FxHashMap;

use super::fields::TopicId;

/// Topics that are remembered; names have at most 249 bytes.
const MAX_TOPICS: usize = 16_384;
const MAX_NAME: usize = 249;

static NAMES: LazyLock<RwLock<FxHashMap<TopicId, Box<[u8]>>>> = LazyLock::new(RwLock::default);

pub fn learn(named: &[(TopicId, &[u8])]) {
    let known = |names: &FxHashMap<TopicId, Box<[u8]>>| {
        named.iter().all(|(id, name)| names.get(id).is_some_and(|known| **known == **name))
    };
    if named.is_empty() || NAMES.read().is_ok_and(|names| known(&names)) {
        return;
    }
    if let Ok(mut names) = NAMES.write() {
        for (id, name) in named.iter().filter(|(_, name)| name.len() <= MAX_NAME) {
            if names.len() >= MAX_TOPICS && !names.contains_key(id) {
                names.clear();
            }
            names.insert(*id, (*name).into());
        }
    }
}

/// The name, or the id as Kafka's tools print it (base64url without padding).
pub fn name(id: &TopicId) -> Vec<u8> {
    let known = NAMES.read().ok().and_then(|names| names.get(id).map(|name| name.to_vec()));
    known.unwrap_or_else(|| printed(id))
}

fn printed(id: &TopicId) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = u128::from_be_bytes(*id);
    // 22 digits of 6 bits: the last holds the two bits that are left.
    (0..22u32)
        .map(|digit| {
            let place = match 122u32.checked_sub(6 * digit) {
                Some(shift) => value >> shift,
                None => value << 4,
            };
            DIGITS.get((place & 63) as usize).copied().unwrap_or_default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_like_kafka_s() {
        let id = [0x6f, 0x3a, 0xff, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0xfd];
        assert_eq!(printed(&id), b"bzr_AAECAwQFBgcICQoL_Q");
        assert_eq!(name(&id), b"bzr_AAECAwQFBgcICQoL_Q");
        learn(&[(id, b"orders")]);
        assert_eq!(name(&id), b"orders");
    }
}
