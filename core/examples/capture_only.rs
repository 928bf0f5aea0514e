//! Attaches the kernel programs, reads the rings as often as the agent does and discards what is there, until standard
//! input closes: the kernel part alone.
//! Arguments: processes that are not observed.

use std::io::{Read, Write};

use _core::agent::READ_INTERVAL;
use _core::bpf::{Bell, Capture, CaptureConfig};
use _core::engine::EngineConfig;
use _core::event::{EventSink, ProcessChange, Segment, SocketChange};

struct Discard;

impl EventSink for Discard {
    fn segment(&mut self, _: &Segment<'_>) {}
    fn socket(&mut self, _: &SocketChange) {}
    fn process(&mut self, _: ProcessChange) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = CaptureConfig {
        ring_bytes: u32::try_from(EngineConfig::default().ring_bytes)?,
        ignored_pids: vec![std::process::id()],
        ..CaptureConfig::default()
    };
    for pid in std::env::args().skip(1) {
        config.ignored_pids.push(pid.parse()?);
    }
    let (mut capture, _) = Capture::start(&config)?;
    println!("attached");
    std::io::stdout().flush()?;
    let closed = std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    });
    let bell = Bell::new()?;
    while !closed.is_finished() {
        capture.poll(&mut Discard);
        capture.wait(&bell, READ_INTERVAL);
    }
    Ok(())
}
