//! What must hold for whatever text comes in or goes out: for the targets in `fuzz/`, and for a bounded test.

use std::time::Duration;

/// What a target has been given, taken from the front.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Half of the time, none.
    pub(crate) fn maybe<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.byte() & 1 == 1).then(|| some(self))
    }

    /// Of any order of magnitude, the longest included.
    pub(crate) fn duration(&mut self) -> Duration {
        let (magnitude, digit) = (self.byte() % 30, u128::from(self.byte()) + 1);
        let nanos = 10_u128.pow(u32::from(magnitude)).saturating_mul(digit);
        let seconds = u64::try_from(nanos / 1_000_000_000);
        seconds.map_or(Duration::MAX, |seconds| Duration::new(seconds, (nanos % 1_000_000_000) as u32))
    }

    /// As text.
    pub(crate) fn rest(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}

/// The budget of a run, from the environment and from the code.
#[cfg(feature = "signal")]
pub fn budget(bytes: &[u8]) {
    crate::shutdown::budget::fuzzed::is_total(Bytes(bytes));
}

/// The cuts of a sweep, from the environment.
#[cfg(feature = "testing")]
pub fn cuts(bytes: &[u8]) {
    crate::testing::cuts::fuzzed::a_cut_is_read_as_it_is_written(Bytes(bytes));
}

/// Dumps and reports, as JSON and as text.
#[cfg(feature = "json")]
pub fn written(bytes: &[u8]) {
    crate::dump::fuzzed::what_is_written_is_read_back(Bytes(bytes));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    /// Runs a property on texts that are nearly good, and on any. `TESTUDO_SEED` and `PROPTEST_CASES` are as for the laws.
    fn holds(property: impl Fn(&[u8])) {
        let seed: u64 = std::env::var("TESTUDO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config { failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let piece = prop_oneof![
            "[0-9]{1,20}",
            "(ns|us|ms|s|m|h|d|w|M|y|sec|none| |@|,|-|[|])",
            "(cancel|drop)@[0-9]{1,21}",
            "\\PC{0,3}",
            "[\n\r\u{1b}\u{0}\u{85}\u{2028}\"\\\\]",
        ];
        let text = proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat().into_bytes());
        let input =
            (proptest::collection::vec(any::<u8>(), 0..24), text).prop_map(|(head, text)| [head, text].concat());
        let result = runner.run(&input, |input| {
            property(&input);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("TESTUDO_SEED={seed}: {error}"));
    }

    #[test]
    #[cfg(feature = "signal")]
    fn any_budget_is_refused_or_kept() {
        holds(super::budget);
    }

    #[test]
    #[cfg(feature = "testing")]
    fn any_cut_is_read_as_it_is_written() {
        holds(super::cuts);
    }

    #[test]
    #[cfg(feature = "json")]
    fn any_dump_and_report_is_read_back_and_any_dump_has_a_line_for_each_entry() {
        holds(super::written);
    }
}
