//! When flows are to be looked at again: a ring of seconds.

/// Seconds that the ring spans; what is due later is looked at then and entered again.
const SPAN: u64 = 512;

/// One entry: the place of a flow and its number, by which an entry of a flow that is gone is known.
pub type Entry = (u32, u64);

#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<Entry>>,
    /// Second that was turned last.
    now_s: u64,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { slots: vec![Vec::new(); SPAN as usize], now_s: 0 }
    }
}

impl Wheel {
    /// Enters a flow; gives the second at which it comes up, at least the next one.
    pub fn enter(&mut self, entry: Entry, due_s: u64) -> u64 {
        let due_s = due_s.clamp(self.now_s + 1, self.now_s + SPAN - 1);
        self.slots[(due_s % SPAN) as usize].push(entry);
        due_s
    }

    /// The first second, if it is.
    pub fn begin(&mut self, now_s: u64) {
        if self.now_s == 0 {
            self.now_s = now_s;
        }
    }

    /// Turns one second on if it is over at `now_s`: its number and what comes up in it.
    pub fn turn(&mut self, now_s: u64) -> Option<(u64, Vec<Entry>)> {
        self.begin(now_s);
        if now_s > self.now_s.saturating_add(SPAN) {
            // Time leapt: everything comes up within one round.
            self.now_s = now_s - SPAN;
        }
        if now_s <= self.now_s {
            return None;
        }
        self.now_s += 1;
        Some((self.now_s, std::mem::take(&mut self.slots[(self.now_s % SPAN) as usize])))
    }
}
