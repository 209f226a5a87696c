//! The machine that turns presses of a signal into the rungs of a stop.
//!
//! It is pure: a kind of press is an opaque number, and time is whatever monotonic scale of
//! milliseconds the caller reads.

/// What a counted press asks for; each rung asks for more than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rung {
    /// Cancel all that is not shielded.
    Cancel,
    /// Say what is being waited for, and that the next press forces.
    Report,
    /// Pierce the shields and exit now. The last rung: every later press asks for it again.
    Force,
}

impl Rung {
    fn above(self) -> Self {
        match self {
            Self::Cancel => Self::Report,
            Self::Report | Self::Force => Self::Force,
        }
    }
}

/// Counts presses and says which rung each of them reaches.
#[derive(Debug)]
pub(crate) struct Ladder {
    window_ms: u64,
    /// When each kind was last counted; one entry per kind.
    counted: Vec<(u8, u64)>,
    /// The rung of the next counted press; it only rises.
    next: Rung,
}

impl Ladder {
    /// Returns a ladder on which presses of one kind less than `window_ms` apart are one press; 0
    /// counts every press.
    pub(crate) fn new(window_ms: u64) -> Self {
        Self { window_ms, counted: Vec::new(), next: Rung::Cancel }
    }

    /// Takes the next rung, for a counted press or because code asks for it.
    pub(crate) fn escalate(&mut self) -> Rung {
        let rung = self.next;
        self.next = rung.above();
        rung
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
    use super::{Ladder, Rung};

    const INT: u8 = 0;
    const TERM: u8 = 1;

    /// The rung that a press reaches, if it counts.
    fn press(ladder: &mut Ladder, kind: u8, now_ms: u64) -> Option<Rung> {
        ladder.count(kind, now_ms).then(|| ladder.escalate())
    }

    /// Plays `(kind, now_ms)` presses and returns the reached rungs, `-` for a coalesced press.
    fn check(window_ms: u64, presses: &[(u8, u64)], expect: &str) {
        let mut ladder = Ladder::new(window_ms);
        let reached: Vec<_> = presses.iter().map(|&(kind, now)| press(&mut ladder, kind, now)).collect();
        assert_eq!(letters(&reached), expect, "presses {presses:?}");
    }

    fn letters(rungs: &[Option<Rung>]) -> String {
        let letter = |rung: &Option<Rung>| match rung {
            None => '-',
            Some(Rung::Cancel) => 'C',
            Some(Rung::Report) => 'R',
            Some(Rung::Force) => 'F',
        };
        rungs.iter().map(letter).collect()
    }

    #[test]
    fn each_counted_press_climbs_one_rung_up_to_force() {
        check(200, &[(INT, 0)], "C");
        check(200, &[(INT, 0), (INT, 1000)], "CR");
        check(200, &[(INT, 0), (INT, 1000), (INT, 2000)], "CRF");
        check(200, &[(INT, 0), (INT, 1000), (INT, 2000), (INT, 3000), (INT, 4000)], "CRFFF");
    }

    #[test]
    fn a_burst_of_one_kind_is_one_press() {
        let burst: Vec<_> = (0..50).map(|i| (INT, 4 * i)).collect();
        check(200, &burst, &format!("C{}", "-".repeat(49)));
    }

    #[test]
    fn the_window_begins_at_the_last_counted_press() {
        check(200, &[(INT, 0), (INT, 150), (INT, 300)], "C-R");
        check(200, &[(INT, 0), (INT, 150), (INT, 300), (INT, 450), (INT, 600)], "C-R-F");
        check(200, &[(INT, 0), (INT, 199), (INT, 200)], "C-R");
        check(200, &[(INT, 7000), (INT, 7199), (INT, 7200)], "C-R");
    }

    #[test]
    fn another_kind_is_another_press() {
        check(200, &[(INT, 0), (TERM, 0)], "CR");
        check(200, &[(INT, 0), (TERM, 10), (INT, 20), (TERM, 30)], "CR--");
        check(200, &[(INT, 0), (TERM, 150), (INT, 210), (TERM, 340)], "CRF-");
    }

    #[test]
    fn a_window_of_zero_counts_every_press() {
        check(0, &[(INT, 0), (INT, 0), (INT, 0)], "CRF");
    }

    #[test]
    fn a_clock_set_back_neither_panics_nor_swallows_presses() {
        check(200, &[(INT, 5000), (INT, 4900)], "C-");
        check(200, &[(INT, 3_600_000), (INT, 0), (INT, 100), (INT, 200)], "CR-F");
        check(200, &[(INT, u64::MAX), (INT, 0)], "CR");
        check(u64::MAX, &[(INT, 0), (INT, u64::MAX)], "CR");
    }

    #[test]
    fn a_rung_taken_by_code_is_not_reached_again() {
        let mut ladder = Ladder::new(200);
        assert_eq!(ladder.escalate(), Rung::Cancel);
        assert_eq!(press(&mut ladder, INT, 0), Some(Rung::Report));
        assert_eq!(ladder.escalate(), Rung::Force);
        assert_eq!(ladder.escalate(), Rung::Force);
        assert_eq!(press(&mut ladder, INT, 100), None, "escalating does not count as a press");
    }
}
