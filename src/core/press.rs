//! Which signals are one press.
//!
//! It is pure: a kind of press is an opaque number, and time is whatever monotonic scale of
//! milliseconds the caller reads.

/// Tells presses from the bursts that terminals, parents and keys that are held down make of them.
#[derive(Debug)]
pub(crate) struct Presses {
    window_ms: u64,
    /// When each kind was last counted; one entry per kind.
    counted: Vec<(u8, u64)>,
}

impl Presses {
    /// Presses of one kind less than `window_ms` apart are one press; 0 counts every press.
    pub(crate) fn new(window_ms: u64) -> Self {
        Self { window_ms, counted: Vec::new() }
    }

    /// Notes the press and returns true, unless it is the same press as the last counted one.
    ///
    /// The window begins at the last *counted* press, so that a key held down still climbs; and it
    /// is a distance in either direction, so that a clock set back cannot swallow presses for as
    /// long as it was set back.
    pub(crate) fn count(&mut self, kind: u8, now_ms: u64) -> bool {
        match self.counted.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, last_ms)) if now_ms.abs_diff(*last_ms) < self.window_ms => return false,
            Some((_, last_ms)) => *last_ms = now_ms,
            None => self.counted.push((kind, now_ms)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Presses;

    const INT: u8 = 0;
    const TERM: u8 = 1;

    /// Plays `(kind, now_ms)` presses: `x` for a counted one, `-` for one that is the same as the last.
    fn check(window_ms: u64, presses: &[(u8, u64)], expect: &str) {
        let mut counter = Presses::new(window_ms);
        let counted = presses.iter().map(|&(kind, now)| if counter.count(kind, now) { 'x' } else { '-' });
        assert_eq!(counted.collect::<String>(), expect, "presses {presses:?}");
    }

    #[test]
    fn a_burst_of_one_kind_is_one_press() {
        let burst: Vec<_> = (0..50).map(|i| (INT, 4 * i)).collect();
        check(200, &burst, &format!("x{}", "-".repeat(49)));
    }

    #[test]
    fn the_window_begins_at_the_last_counted_press() {
        check(200, &[(INT, 0), (INT, 150), (INT, 300)], "x-x");
        check(200, &[(INT, 0), (INT, 150), (INT, 300), (INT, 450), (INT, 600)], "x-x-x");
        check(200, &[(INT, 0), (INT, 199), (INT, 200)], "x-x");
        check(200, &[(INT, 7000), (INT, 7199), (INT, 7200)], "x-x");
    }

    #[test]
    fn another_kind_is_another_press() {
        check(200, &[(INT, 0), (TERM, 0)], "xx");
        check(200, &[(INT, 0), (TERM, 10), (INT, 20), (TERM, 30)], "xx--");
        check(200, &[(INT, 0), (TERM, 150), (INT, 210), (TERM, 340)], "xxx-");
    }

    #[test]
    fn a_window_of_zero_counts_every_press() {
        check(0, &[(INT, 0), (INT, 0), (INT, 0)], "xxx");
    }

    #[test]
    fn a_clock_set_back_neither_panics_nor_swallows_presses() {
        check(200, &[(INT, 5000), (INT, 4900)], "x-");
        check(200, &[(INT, 3_600_000), (INT, 0), (INT, 100), (INT, 200)], "xx-x");
        check(200, &[(INT, u64::MAX), (INT, 0)], "xx");
        check(u64::MAX, &[(INT, 0), (INT, u64::MAX)], "xx");
    }
}
