//! Frames (RFC 9113 section 4 and 6): header, and what is wrong with one.

/// What a client writes first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header.
pub const HEADER: usize = 9;
/// Largest frame that is believed; the usual bound is 16 KiB, and few raise it.
const MAX_LENGTH: u32 = 1 << 20;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// Extensions that are in use: ALTSVC, ORIGIN, PRIORITY_UPDATE.
const EXTENSIONS: [u8; 3] = [10, 12, 16];

/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const HAS_PRIORITY: u8 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Frame {
    /// The frame that `bytes` begin with, `None` when there are fewer than nine.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, stream @ ..] = bytes.first_chunk::<HEADER>()?;
        Some(Self { length: u32::from_be_bytes([0, a, b, c]), kind, flags, stream: u32::from_be_bytes(stream) })
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Header and payload.
    pub fn size(&self) -> usize {
        HEADER + self.length as usize
    }

    /// May it stand here? Flags that a kind does not define are ignored.
    pub fn is_valid(&self) -> bool {
        let on_stream = self.stream != 0 && self.stream >> 31 == 0;
        let on_connection = self.stream == 0;
        if self.length > MAX_LENGTH {
            return false;
        }
        match self.kind {
            DATA | CONTINUATION => on_stream,
            HEADERS => on_stream && self.length > 0,
            PRIORITY => on_stream && self.length == 5,
            RST_STREAM => on_stream && self.length == 4,
            SETTINGS => on_connection && (if self.has(ACK) { self.length == 0 } else { self.length.is_multiple_of(6) }),
            PUSH_PROMISE => on_stream && self.length > 4,
            PING => on_connection && self.length == 8,
            GOAWAY => on_connection && self.length >= 8,
            WINDOW_UPDATE => self.stream >> 31 == 0 && self.length == 4,
            kind => EXTENSIONS.contains(&kind),
        }
    }

    /// Is it what peers write? They set no flags that a kind does not define.
    pub fn is_plausible(&self) -> bool {
        let defined = match self.kind {
            DATA => END_STREAM | PADDED,
            HEADERS => END_STREAM | END_HEADERS | PADDED | HAS_PRIORITY,
            SETTINGS | PING => ACK,
            PUSH_PROMISE => END_HEADERS | PADDED,
            CONTINUATION => END_HEADERS,
            _ => 0,
        };
        self.is_valid() && self.flags & !defined == 0 && (self.kind != SETTINGS || self.length <= 240)
    }
}

/// The part of a HEADERS or PUSH_PROMISE payload that is header block. `None` when the padding is longer than it is.
pub fn fragment(frame: Frame, payload: &[u8]) -> Option<&[u8]> {
    let mut rest = payload;
    let mut padding = 0;
    if frame.has(PADDED) && frame.kind != CONTINUATION {
        let (&first, after) = rest.split_first()?;
        padding = usize::from(first);
        rest = after;
    }
    let before = match frame.kind {
        HEADERS if frame.has(HAS_PRIORITY) => 5,
        PUSH_PROMISE => 4,
        _ => 0,
    };
    let rest = rest.get(before..)?;
    // Of a frame that is cut the padding is what is missing.
    let missing = (frame.length as usize).saturating_sub(payload.len());
    rest.get(..rest.len().checked_sub(padding.saturating_sub(missing))?)
}

/// Names of the error codes (RFC 9113 section 7).
pub fn error_name(code: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).copied().unwrap_or("UNKNOWN_ERROR")
}
