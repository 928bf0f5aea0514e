//! Wall-clock time of kernel records, which carry CLOCK_BOOTTIME.

/// Nanoseconds since boot between two measurements of the offset: the wall clock may be set or slewed.
const REMEASURE_NS: u64 = 1_000_000_000;

fn now_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec; both clocks exist on every Linux that runs BPF.
    unsafe { libc::clock_gettime(clock, &mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// CLOCK_BOOTTIME.
pub fn boot_ns() -> u64 {
    now_ns(libc::CLOCK_BOOTTIME)
}

/// Keeps wall clock − CLOCK_BOOTTIME.
pub struct WallClock {
    offset_ns: i64,
    measured_at: u64,
}

impl WallClock {
    pub fn new() -> Self {
        let mut clock = Self { offset_ns: 0, measured_at: 0 };
        clock.measure();
        clock
    }

    fn measure(&mut self) {
        // Of three tries the one with the least time between its two boot-time readings is the most exact.
        let tries = (0..3).map(|_| {
            let before = now_ns(libc::CLOCK_BOOTTIME);
            let wall = now_ns(libc::CLOCK_REALTIME);
            let after = now_ns(libc::CLOCK_BOOTTIME);
            let middle = before + (after - before) / 2;
            (after - before, wall.cast_signed() - middle.cast_signed(), after)
        });
        if let Some((_, offset_ns, at)) = tries.min() {
            self.offset_ns = offset_ns;
            self.measured_at = at;
        }
    }

    /// Nanoseconds to add to CLOCK_BOOTTIME; measured again when the last measurement is about a second old.
    pub fn offset_ns(&mut self) -> i64 {
        if now_ns(libc::CLOCK_BOOTTIME).saturating_sub(self.measured_at) > REMEASURE_NS {
            self.measure();
        }
        self.offset_ns
    }
}
