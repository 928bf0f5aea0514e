//! Says that a test was skipped, and why.

use std::io::Write;

/// Past the capture of the test harness, which hides what a passing test prints.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {why}\n", thread.name().unwrap_or("?"));
    // Without anybody to tell it to, the test is skipped in silence.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
