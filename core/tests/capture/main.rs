//! Kernel capture against real sockets of this process; needs root and BTF, says so and skips otherwise.

mod calls;
mod hooks;
mod lifetimes;
mod limits;
mod seen;
#[path = "../driver/skipped.rs"]
mod skipped;
