//! What ends the reader's wait: a ring that fills, and other threads.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};

/// Ends a thread's wait from another one.
pub struct Bell(OwnedFd);

impl Bell {
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The wait that is under way ends, or the next one.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight bytes that live through the call. It fails when the bell was rung 2^64 times unheard.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
    }

    /// Waits for it.
    pub fn wait(&self, timeout: Duration) {
        self.wait_beside(None, timeout);
    }

    fn wait_beside(&self, other: Option<i32>, timeout: Duration) {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // -1 is passed over.
        let mut fds = [entry(self.0.as_raw_fd()), entry(other.unwrap_or(-1))];
        // Rounded up, so that the time is over when the wait is.
        let millis = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        // SAFETY: the array is valid for its length during the call.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
        let mut count = 0u64;
        // SAFETY: eight bytes that live through the call, which does not block.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of_val(&count)) };
    }
}

/// The map `wake` of `bpf/include/ring.h`.
pub struct Wake(RingBuf<MapData>);

impl Wake {
    pub fn new(map: RingBuf<MapData>) -> Self {
        Self(map)
    }

    /// Waits for the bell or a ring that fills; whether one did since the last wait.
    pub fn wait(&mut self, bell: &Bell, timeout: Duration) -> bool {
        bell.wait_beside(Some(self.0.as_raw_fd()), timeout);
        let mut filled = false;
        while self.0.next().is_some() {
            filled = true;
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_bell_ends_the_wait_under_way_or_the_next() {
        let bell = std::sync::Arc::new(Bell::new().unwrap());
        bell.ring();
        bell.ring();
        let forever = Duration::from_secs(3600);
        bell.wait(forever);
        let (begun, began) = mpsc::channel();
        let waiting = std::thread::spawn({
            let bell = std::sync::Arc::clone(&bell);
            move || {
                begun.send(()).unwrap();
                bell.wait(forever);
            }
        });
        began.recv().unwrap();
        bell.ring();
        waiting.join().unwrap();
    }
}
