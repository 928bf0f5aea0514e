//! Reads capture files packet by packet.
//!
//! pcap: draft-ietf-opsawg-pcap, and its variant with longer packet headers (Kuznetzov's libpcap);
//! pcapng: draft-ietf-opsawg-pcapng (section header, interface description, enhanced,
//! simple and old packet blocks; others are passed over). Either byte order, any time resolution.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};

/// Largest packet and largest block that are believed; a longer one means a corrupt file.
const MAX_PACKET: u32 = 262_144;
const MAX_BLOCK: u32 = 16 * 1024 * 1024;
const MAX_INTERFACES: usize = 4096;

const PCAP_MICRO: u32 = 0xa1b2_c3d4;
const PCAP_NANO: u32 = 0xa1b2_3c4d;
/// Every packet header has interface, protocol and packet type behind it.
const PCAP_LONG: u32 = 0xa1b2_cd34;
const LONG_BY: usize = 8;
const PACKET_HEADER: usize = 16;
const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const OPTION_TSRESOL: u16 = 9;
const OPTION_TSOFFSET: u16 = 14;

/// One packet; `data` may be shorter than `length`.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    /// Wall clock, µs.
    pub time_us: u64,
    /// LINKTYPE_* number of the interface.
    pub link_type: u16,
    /// Bytes on the wire.
    pub length: u32,
    pub data: Vec<u8>,
}

/// How time stamps of an interface count.
#[derive(Clone, Copy, Debug)]
struct Clock {
    ticks_per_second: u64,
    offset_s: i64,
}

impl Clock {
    const MICRO: Self = Self { ticks_per_second: 1_000_000, offset_s: 0 };

    fn micros(self, ticks: u64) -> u64 {
        let micros = u128::from(ticks) * 1_000_000 / u128::from(self.ticks_per_second);
        let shifted = i128::try_from(micros).unwrap_or(0) + i128::from(self.offset_s) * 1_000_000;
        u64::try_from(shifted).unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: u16,
    snap_length: u32,
    clock: Clock,
}

enum Format {
    Pcap { interface: Interface, header: usize },
    Pcapng { interfaces: Vec<Interface> },
}

/// An open capture file.
pub struct Capture<R> {
    name: String,
    input: R,
    /// Bytes read so far.
    offset: u64,
    packets: u64,
    big_endian: bool,
    format: Format,
}

impl Capture<BufReader<File>> {
    /// Opens a file and reads its header. The error is a sentence.
    pub fn open(path: &str) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| format!("{path} cannot be opened: {error}."))?;
        Self::new(path, BufReader::with_capacity(256 * 1024, file))
    }
}

impl<R: Read> Capture<R> {
    /// `name` is what errors call the input.
    pub fn new(name: &str, input: R) -> Result<Self, String> {
        let format = Format::Pcapng { interfaces: Vec::new() };
        let mut capture = Self { name: name.to_string(), input, offset: 0, packets: 0, big_endian: false, format };
        let mut magic = [0; 4];
        if !capture.fill(&mut magic, "the file's magic number")? {
            return Err(format!("{name} is empty; give a pcap or pcapng file."));
        }
        let little = u32::from_le_bytes(magic);
        if little == SECTION {
            capture.section()?;
            return Ok(capture);
        }
        capture.big_endian = matches!(little.swap_bytes(), PCAP_MICRO | PCAP_NANO | PCAP_LONG);
        let (ticks_per_second, longer) = match capture.u32(&magic) {
            PCAP_MICRO => (1_000_000, 0),
            PCAP_NANO => (1_000_000_000, 0),
            PCAP_LONG => (1_000_000, LONG_BY),
            _ => {
                return Err(format!(
                    "{name} is no capture file: it begins with {:02x}{:02x}{:02x}{:02x}, neither pcap nor pcapng; \
                     unpack it first if it is compressed.",
                    magic[0], magic[1], magic[2], magic[3]
                ));
            }
        };
        let mut header = [0; 20];
        capture.exact(&mut header, "the pcap header")?;
        let link_type = (capture.u32(&header[16..]) & 0xffff) as u16;
        let clock = Clock { ticks_per_second, offset_s: 0 };
        let interface = Interface { link_type, snap_length: MAX_PACKET, clock };
        capture.format = Format::Pcap { interface, header: PACKET_HEADER + longer };
        Ok(capture)
    }

    /// The next packet, `None` at the end of the file. The error is a sentence with the offset.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, String> {
        let packet = match &self.format {
            Format::Pcap { interface, header } => {
                let (interface, header) = (*interface, *header);
                self.pcap_packet(interface, header)?
            }
            Format::Pcapng { .. } => self.pcapng_packet()?,
        };
        self.packets += u64::from(packet.is_some());
        Ok(packet)
    }

    fn pcap_packet(&mut self, interface: Interface, header_size: usize) -> Result<Option<Packet>, String> {
        let mut header = [0; PACKET_HEADER + LONG_BY];
        if !self.fill(&mut header[..header_size], "a packet header")? {
            return Ok(None);
        }
        let (seconds, fraction) = (self.u32(&header), self.u32(&header[4..]));
        let (captured, length) = (self.u32(&header[8..]), self.u32(&header[12..]));
        if captured > MAX_PACKET {
            return Err(self.broken(header_size as u64, &format!("a packet header promises {captured} bytes")));
        }
        let data = self.bytes(captured, "a packet")?;
        let clock = interface.clock;
        let time_us = clock.micros(u64::from(seconds) * clock.ticks_per_second + u64::from(fraction));
        Ok(Some(Packet { time_us, link_type: interface.link_type, length: length.max(captured), data }))
    }

    /// After the block type of a section header: decides the byte order of what follows.
    fn section(&mut self) -> Result<(), String> {
        let mut start = [0; 8];
        self.exact(&mut start, "a section header")?;
        self.big_endian = u32::from_be_bytes([start[4], start[5], start[6], start[7]]) == BYTE_ORDER;
        if self.u32(&start[4..]) != BYTE_ORDER {
            return Err(self.broken(4, "the byte-order mark of a section header is wrong"));
        }
        let length = self.u32(&start);
        if !(28..=MAX_BLOCK).contains(&length) || !length.is_multiple_of(4) {
            return Err(self.broken(8, &format!("a section header claims a length of {length} bytes")));
        }
        self.bytes(length - 12, "a section header")?;
        self.format = Format::Pcapng { interfaces: Vec::new() };
        Ok(())
    }

    fn pcapng_packet(&mut self) -> Result<Option<Packet>, String> {
        loop {
            let mut kind = [0; 4];
            if !self.fill(&mut kind, "a block type")? {
                return Ok(None);
            }
            let kind = self.u32(&kind);
            if kind == SECTION {
                self.section()?;
                continue;
            }
            let mut length = [0; 4];
            self.exact(&mut length, "a block length")?;
            let length = self.u32(&length);
            if !(12..=MAX_BLOCK).contains(&length) || !length.is_multiple_of(4) {
                return Err(self.broken(4, &format!("a block claims a length of {length} bytes")));
            }
            let body = self.bytes(length - 12, "a block")?;
            let mut again = [0; 4];
            self.exact(&mut again, "the end of a block")?;
            if self.u32(&again) != length {
                return Err(self.broken(4, "a block ends with another length than it began with"));
            }
            if let Some(packet) = self.block(kind, &body)? {
                return Ok(Some(packet));
            }
        }
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> Result<Option<Packet>, String> {
        match kind {
            INTERFACE if body.len() >= 8 => {
                let interface = self.interface(body);
                let full = match &mut self.format {
                    Format::Pcapng { interfaces } if interfaces.len() < MAX_INTERFACES => {
                        interfaces.push(interface);
                        false
                    }
                    _ => true,
                };
                if full {
                    return Err(self.broken(body.len() as u64 + 8, "there are too many interfaces"));
                }
                Ok(None)
            }
            ENHANCED_PACKET | OLD_PACKET if body.len() >= 20 => {
                let number = if kind == ENHANCED_PACKET { self.u32(body) } else { u32::from(self.u16(body)) };
                let ticks = u64::from(self.u32(&body[4..])) << 32 | u64::from(self.u32(&body[8..]));
                self.packet(number, Some(ticks), self.u32(&body[12..]), self.u32(&body[16..]), &body[20..])
            }
            SIMPLE_PACKET if body.len() >= 4 => {
                let length = self.u32(body);
                self.packet(0, None, length, length, &body[4..])
            }
            INTERFACE | ENHANCED_PACKET | OLD_PACKET | SIMPLE_PACKET => {
                Err(self.broken(body.len() as u64 + 12, "a block is too short for its kind"))
            }
            _ => Ok(None),
        }
    }

    fn packet(
        &self,
        interface: u32,
        ticks: Option<u64>,
        captured: u32,
        length: u32,
        rest: &[u8],
    ) -> Result<Option<Packet>, String> {
        let Format::Pcapng { interfaces } = &self.format else {
            return Ok(None);
        };
        let Some(interface) = interfaces.get(interface as usize) else {
            let what = format!("a packet names interface {interface}, which was not described");
            return Err(self.broken(rest.len() as u64, &what));
        };
        // A simple packet block does not say how much was captured: the interface's snap length does.
        let captured = if ticks.is_none() { captured.min(interface.snap_length) } else { captured };
        let Some(data) = rest.get(..captured as usize).filter(|_| captured <= MAX_PACKET) else {
            let what = format!("a packet promises {captured} bytes, its block has {}", rest.len());
            return Err(self.broken(rest.len() as u64, &what));
        };
        let time_us = interface.clock.micros(ticks.unwrap_or(0));
        let length = length.max(captured);
        Ok(Some(Packet { time_us, link_type: interface.link_type, length, data: data.to_vec() }))
    }

    fn interface(&self, body: &[u8]) -> Interface {
        let snap_length = match self.u32(&body[4..]) {
            0 => MAX_PACKET,
            bound => bound,
        };
        let mut clock = Clock::MICRO;
        let mut options = &body[8..];
        while options.len() >= 4 {
            let (code, length) = (self.u16(options), usize::from(self.u16(&options[2..])));
            let Some(value) = options.get(4..4 + length) else {
                break;
            };
            match (code, value) {
                (0, _) => break,
                (OPTION_TSRESOL, [resolution, ..]) => {
                    let exponent = u32::from(resolution & 0x7f);
                    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
                    clock.ticks_per_second = base.checked_pow(exponent).unwrap_or(u64::MAX);
                }
                (OPTION_TSOFFSET, value) if length == 8 => {
                    let (first, second) = (self.u32(value), self.u32(&value[4..]));
                    let (high, low) = if self.big_endian { (first, second) } else { (second, first) };
                    clock.offset_s = (u64::from(high) << 32 | u64::from(low)) as i64;
                }
                _ => {}
            }
            options = options.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
        }
        Interface { link_type: self.u16(body), snap_length, clock }
    }

    fn u16(&self, bytes: &[u8]) -> u16 {
        let bytes = [bytes[0], bytes[1]];
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(&self, bytes: &[u8]) -> u32 {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn bytes(&mut self, count: u32, what: &str) -> Result<Vec<u8>, String> {
        let mut data = vec![0; count as usize];
        self.exact(&mut data, what)?;
        Ok(data)
    }

    fn exact(&mut self, into: &mut [u8], what: &str) -> Result<(), String> {
        if into.is_empty() || self.fill(into, what)? {
            return Ok(());
        }
        Err(self.cut(what))
    }

    /// Fills `into`; false at the end of the file, an error when the end comes within.
    fn fill(&mut self, into: &mut [u8], what: &str) -> Result<bool, String> {
        let mut filled = 0;
        while filled < into.len() {
            match self.input.read(&mut into[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => {
                    self.offset += filled as u64;
                    return Err(self.cut(what));
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let (name, offset) = (&self.name, self.offset + filled as u64);
                    return Err(format!("{name} cannot be read at offset {offset}: {error}."));
                }
            }
        }
        self.offset += filled as u64;
        Ok(true)
    }

    fn cut(&self, what: &str) -> String {
        format!(
            "{} is truncated: it ends at offset {} within {what}, after {} packets; capture it again or repair it.",
            self.name, self.offset, self.packets
        )
    }

    fn broken(&self, back: u64, what: &str) -> String {
        format!(
            "{} is corrupt at offset {}: {what}, after {} packets; capture it again or repair it.",
            self.name,
            self.offset.saturating_sub(back),
            self.packets
        )
    }
}
