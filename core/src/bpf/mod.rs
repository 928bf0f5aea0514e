//! Kernel programs: load, attach, read the ring, and what of it works here.

mod capture;
mod cgroup;
mod clock;
mod filters;
mod probe;
mod record;
mod rings;
mod sockopt;
mod wake;

pub use capture::{Capture, CaptureConfig, CaptureCounters, CaptureError, Hook, HookReport, POLL_MAX};
pub use cgroup::cgroup_tree;
pub use probe::{ProbeLine, probe};
pub use sockopt::{OptionCounters, OptionTracing};
pub use wake::Bell;

/// The kernel programs, compiled by `build/bpf.rs`.
mod object {
    pub static SOCKET: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/socket.bpf.o"));
    pub static SYSCALL: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/syscall.bpf.o"));
    pub static PROCESS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/process.bpf.o"));
    pub static SOCKOPT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockopt.bpf.o"));
    pub static PROBE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe.bpf.o"));
}
