//! TCP options that flows use (RFC 9293, section 3.1).

use std::net::Ipv4Addr;

use super::decode::{TcpOptions, Traced, u16_at, u32_at};
use crate::event::Endpoint;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMP: u8 = 8;
/// Kinds under which load balancers write the address of the client: port and IPv4 address.
const TOA: [u8; 2] = [200, 254];
const TOA_LENGTH: usize = 8;
/// Experiments (RFC 6994) begin with their number.
const EXPERIMENT: u8 = 253;
const TRACING: u16 = 0xdee9;
const TRACING_LENGTH: usize = 16;
/// TCP Fast Open before it had a kind of its own; it shares kind 254 with TOA.
const FAST_OPEN: u16 = 0xf989;
/// Most senders put nothing but a time stamp into a segment, behind two fillers (RFC 7323, appendix A).
const ONLY_TIMESTAMP: [u8; 4] = [NO_OPERATION, NO_OPERATION, TIMESTAMP, 10];
/// Largest shift of a window (RFC 7323, section 2.3).
const MAX_SCALE: u8 = 14;

/// Reads the options of one header. An option that is too short or too long for its kind is passed over; one whose
/// length leads out of the header ends the list.
pub(super) fn parse(bytes: &[u8]) -> TcpOptions {
    let mut options = TcpOptions::default();
    if bytes.len() == 12 && bytes.starts_with(&ONLY_TIMESTAMP) {
        options.timestamp = u32_at(bytes, 4).zip(u32_at(bytes, 8));
        return options;
    }
    let mut rest = bytes;
    while let Some((&kind, behind)) = rest.split_first() {
        if kind == END {
            break;
        }
        if kind == NO_OPERATION {
            rest = behind;
            continue;
        }
        let length = usize::from(behind.first().copied().unwrap_or(0));
        let Some(value) = rest.get(2..length) else {
            break;
        };
        one(kind, value, &mut options);
        rest = rest.get(length..).unwrap_or_default();
    }
    options
}

fn one(kind: u8, value: &[u8], options: &mut TcpOptions) {
    match (kind, value) {
        (MSS, &[high, low]) => options.mss = Some(u16::from_be_bytes([high, low])),
        (WINDOW_SCALE, &[shift]) => options.window_scale = Some(shift.min(MAX_SCALE)),
        (SACK_PERMITTED, []) => options.sack_permitted = true,
        (SACK, blocks) if blocks.len() % 8 == 0 => {
            for (block, to) in blocks.chunks_exact(8).zip(&mut options.sack) {
                *to = (u32_at(block, 0).unwrap_or(0), u32_at(block, 4).unwrap_or(0));
            }
            options.sack_count = (blocks.len() / 8).min(options.sack.len()) as u8;
        }
        (TIMESTAMP, value) if value.len() == 8 => options.timestamp = u32_at(value, 0).zip(u32_at(value, 4)),
        (EXPERIMENT, value) if value.len() + 2 == TRACING_LENGTH && u16_at(value, 0) == Some(TRACING) => {
            let ((pid, ip), tcp_seq) = match u32_at(value, 2).zip(u32_at(value, 6)).zip(u32_at(value, 10)) {
                Some(fields) => fields,
                None => return,
            };
            options.traced = Some(Traced { pid, ip: Ipv4Addr::from_bits(ip), tcp_seq });
        }
        (kind, &[high, low, a, b, c, d]) if TOA.contains(&kind) && value.len() + 2 == TOA_LENGTH => {
            let port = u16::from_be_bytes([high, low]);
            let ip = Ipv4Addr::new(a, b, c, d);
            if port != 0 && !ip.is_unspecified() && (kind, port) != (254, FAST_OPEN) {
                options.toa = Some(Endpoint { ip: ip.into(), port });
            }
        }
        _ => {}
    }
}
