//! What is not captured: the filters of `bpf/include/filter.h`.

use super::capture::CaptureConfig;

const INLINE_PIDS: usize = 4;
const PID_IGNORED: u32 = 1;
const PID_ONLY: u32 = 2;
const PORT_BLACK: u32 = 1;
const PORT_WHITE: u32 = 2;

/// The filters of a configuration, in the form of the programs.
pub struct Filters {
    pub pids: Vec<(u32, u32)>,
    pub inline_pids: [u32; INLINE_PIDS],
    pub inline_count: u32,
    pub ports: Vec<(u32, u32)>,
}

impl Filters {
    pub fn new(config: &CaptureConfig) -> Self {
        let mut inline_pids = [0; INLINE_PIDS];
        let fits = config.ignored_pids.len() <= INLINE_PIDS;
        let mut pids = marks(config.only_pids.iter().copied(), PID_ONLY);
        if fits {
            inline_pids[..config.ignored_pids.len()].copy_from_slice(&config.ignored_pids);
        } else {
            pids = merged(pids, marks(config.ignored_pids.iter().copied(), PID_IGNORED));
        }
        let black = marks(config.ports_blacklist.iter().map(|&port| u32::from(port)), PORT_BLACK);
        let white = marks(config.ports_whitelist.iter().map(|&port| u32::from(port)), PORT_WHITE);
        let inline_count = if fits { u32::try_from(config.ignored_pids.len()).unwrap_or(0) } else { 0 };
        Self { pids, inline_pids, inline_count, ports: merged(black, white) }
    }
}

fn marks(keys: impl Iterator<Item = u32>, mark: u32) -> Vec<(u32, u32)> {
    merged(keys.map(|key| (key, mark)).collect(), Vec::new())
}

/// One entry a key, marks united.
fn merged(mut left: Vec<(u32, u32)>, right: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    left.extend(right);
    left.sort_unstable();
    left.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 |= next.1;
        }
        same
    });
    left
}

pub fn union(entries: &[(u32, u32)]) -> u32 {
    entries.iter().fold(0, |all, entry| all | entry.1)
}

pub fn entries(list: &[(u32, u32)]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX).max(1)
}
