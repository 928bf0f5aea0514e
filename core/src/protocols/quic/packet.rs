//! Initial packets (RFC 9000 section 17.2.2) and how they are protected (RFC 9001 section 5, RFC 9369).

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;

const MAX_CONNECTION_ID: usize = 20;
const TAG: usize = 16;
const SAMPLE: usize = 16;

const SALT_DRAFT_29: [u8; 20] = [
    0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43, 0x90, 0xa8,
    0x99,
];
const SALT_1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f,
    0x0a,
];
const SALT_2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e,
    0xd9,
];

/// A version whose Initial packets can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub name: &'static str,
    salt: &'static [u8; 20],
    /// Labels and packet types are those of version 2.
    second: bool,
}

impl Version {
    fn of(number: u32) -> Option<Self> {
        let (name, salt, second) = match number {
            1 => ("1", &SALT_1, false),
            0x6b33_43cf => ("2", &SALT_2, true),
            0xff00_001d => ("draft-29", &SALT_DRAFT_29, false),
            0xff00_001e => ("draft-30", &SALT_DRAFT_29, false),
            0xff00_001f => ("draft-31", &SALT_DRAFT_29, false),
            0xff00_0020 => ("draft-32", &SALT_DRAFT_29, false),
            0xff00_0021 => ("draft-33", &SALT_1, false),
            0xff00_0022 => ("draft-34", &SALT_1, false),
            _ => return None,
        };
        Some(Self { name, salt, second })
    }
}

/// A packet with a long header, not yet decrypted.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub version: Version,
    pub is_initial: bool,
    pub destination: &'a [u8],
    /// From the first byte to the end, or to where the capture ends.
    bytes: &'a [u8],
    number_at: usize,
    /// Where the packet ends in the datagram.
    pub end: usize,
}

/// An integer of variable length (RFC 9000 section 16) and the offset behind it.
pub fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    let size = 1usize << (first >> 6);
    let rest = bytes.get(at + 1..at + size)?;
    Some((rest.iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte)), at + size))
}

impl<'a> Packet<'a> {
    /// The packet that begins the bytes; `None` when it has no long header of a known version.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let first = *bytes.first().filter(|first| **first & 0xc0 == 0xc0)?;
        let version = Version::of(u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?))?;
        let kind = first >> 4 & 3;
        // Initial, 0-RTT, Handshake, Retry are 0 to 3 in version 1; version 2 counts from 1 on.
        let kind = if version.second { kind.wrapping_sub(1) & 3 } else { kind };
        let id = |at: usize| {
            let length = usize::from(*bytes.get(at)?);
            Some((bytes.get(at + 1..at + 1 + length)?, at + 1 + length)).filter(|_| length <= MAX_CONNECTION_ID)
        };
        let (destination, at) = id(5)?;
        let (_, mut at) = id(at)?;
        if kind == 3 {
            return None;
        }
        if kind == 0 {
            let (token, from) = varint(bytes, at)?;
            at = from.checked_add(usize::try_from(token).ok()?)?;
        }
        let (length, number_at) = varint(bytes, at)?;
        let end = number_at.checked_add(usize::try_from(length).ok()?)?;
        let bytes = bytes.get(..end.min(bytes.len()))?;
        Some(Self { version, is_initial: kind == 0, destination, bytes, number_at, end })
    }

    /// Is a part of it missing?
    pub fn is_cut(&self) -> bool {
        self.bytes.len() < self.end
    }

    /// What the client wrote, under keys that follow from `destination` (the first one that the client chose). The
    /// tag is not verified: the end of the packet may be missing. `None` when the header cannot be right.
    pub fn decrypt(&self, destination: &[u8]) -> Option<Vec<u8>> {
        let keys = Keys::client(self.version, destination)?;
        let mut mask: [u8; SAMPLE] =
            self.bytes.get(self.number_at + 4..self.number_at + 4 + SAMPLE)?.try_into().ok()?;
        keys.header.encrypt_block((&mut mask).into());
        let first = self.bytes.first()? ^ (mask[0] & 0x0f);
        // The reserved bits are zero under the right key.
        if first & 0x0c != 0 {
            return None;
        }
        let size = usize::from(first & 3) + 1;
        let number = self.bytes.get(self.number_at..self.number_at + size)?;
        let mut nonce = keys.iv;
        for ((byte, sent), mask) in nonce.get_mut(12 - size..)?.iter_mut().zip(number).zip(mask.get(1..)?) {
            *byte ^= sent ^ mask;
        }
        let from = self.number_at + size;
        let mut text = self.bytes.get(from..self.bytes.len().min(self.end.checked_sub(TAG)?))?.to_vec();
        // Counter mode as in GCM: the block behind the one that the tag takes is the first (NIST SP 800-38D).
        for (index, chunk) in text.chunks_mut(16).enumerate() {
            let mut block = [0; 16];
            block.get_mut(..12)?.copy_from_slice(&nonce);
            block.get_mut(12..)?.copy_from_slice(&(index as u32).wrapping_add(2).to_be_bytes());
            keys.payload.encrypt_block((&mut block).into());
            chunk.iter_mut().zip(block).for_each(|(byte, key)| *byte ^= key);
        }
        Some(text)
    }
}

struct Keys {
    header: Aes128,
    payload: Aes128,
    iv: [u8; 12],
}

impl Keys {
    fn client(version: Version, destination: &[u8]) -> Option<Self> {
        let (_, initial) = Hkdf::<Sha256>::extract(Some(version.salt), destination);
        let mut secret = [0; 32];
        expand(&initial, "client in", &mut secret)?;
        let secret = Hkdf::<Sha256>::from_prk(&secret).ok()?;
        let labels =
            if version.second { ["quicv2 key", "quicv2 iv", "quicv2 hp"] } else { ["quic key", "quic iv", "quic hp"] };
        let (mut key, mut iv, mut header) = ([0; 16], [0; 12], [0; 16]);
        expand(&secret, labels[0], &mut key)?;
        expand(&secret, labels[1], &mut iv)?;
        expand(&secret, labels[2], &mut header)?;
        Some(Self { header: Aes128::new(&header.into()), payload: Aes128::new(&key.into()), iv })
    }
}

/// HKDF-Expand-Label without a context (RFC 8446 section 7.1).
fn expand(secret: &Hkdf<Sha256>, label: &str, out: &mut [u8]) -> Option<()> {
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let size = [u8::try_from(6 + label.len()).ok()?];
    secret.expand_multi_info(&[&length, &size, b"tls13 ", label.as_bytes(), &[0]], out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9001 appendix A.1 and RFC 9369 appendix A.1: the keys of a client that chose 8394c8f03e515708.
    #[test]
    fn keys_are_those_of_the_specifications() {
        let destination = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
        for (number, iv) in [
            (1, [0xfa, 0x04, 0x4b, 0x2f, 0x42, 0xa3, 0xfd, 0x3b, 0x46, 0xfb, 0x25, 0x5c]),
            (0x6b33_43cf, [0x91, 0xf7, 0x3e, 0x23, 0x51, 0xd8, 0xfa, 0x91, 0x66, 0x0e, 0x90, 0x9f]),
        ] {
            let version = Version::of(number).expect("a known version");
            assert_eq!(Keys::client(version, &destination).expect("keys").iv, iv);
        }
    }

    #[test]
    fn integers_of_every_size() {
        // RFC 9000 appendix A.1.
        let eight = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(varint(&eight, 0), Some((151_288_809_941_952_652, 8)));
        assert_eq!(varint(&[0x9d, 0x7f, 0x3e, 0x7d], 0), Some((494_878_333, 4)));
        assert_eq!(varint(&[0x7b, 0xbd], 0), Some((15_293, 2)));
        assert_eq!(varint(&[0x25], 0), Some((37, 1)));
        assert_eq!(varint(&eight[..7], 0), None);
    }
}
