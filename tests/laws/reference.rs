//! The library against the model, and what all laws are checked with.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::exec::{self, Cut, Obs};
use crate::model;
use crate::program::{ALL, Grammar, HIDDEN, P, programs};

pub(crate) type Verdict = Result<(), TestCaseError>;

/// Checks a property of generated programs. The seed is fixed, unless the environment's `TESTUDO_SEED` names another;
/// `PROPTEST_CASES` programs instead of `cases`.
pub(crate) fn check(cases: u32, grammar: Grammar, property: impl Fn(&P) -> Verdict) {
    check_of(cases, programs(grammar, 24), |p| property(&p));
}

pub(crate) fn check_of<T: std::fmt::Debug>(
    cases: u32,
    strategy: impl Strategy<Value = T>,
    property: impl Fn(T) -> Verdict,
) {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let cases = u32::try_from(number("PROPTEST_CASES", cases.into())).expect("a small number");
    let seed = number("TESTUDO_SEED", 1_u64);
    let config = Config {
        cases,
        max_global_rejects: cases * 20,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    if let Err(error) = runner.run(&strategy, property) {
        panic!("TESTUDO_SEED={seed}: {error}");
    }
}

/// The moments in the middle between two of a run: there is no other one at the same time.
pub(crate) fn between(obs: &Obs) -> Vec<u64> {
    obs.moments().windows(2).filter(|pair| pair[1] - pair[0] > 1).map(|pair| (pair[0] + pair[1]) / 2).collect()
}

/// What the library and the model agree on. So a law that holds for it, holds for both.
pub(crate) fn agree(p: &P, cuts: &[(u64, Cut)]) -> Result<Obs, TestCaseError> {
    let Some(expected) = model::run(p, cuts) else { return Err(TestCaseError::reject("a race")) };
    let seen = exec::run(p, cuts);
    prop_assert_eq!(&seen, &expected, "cuts: {:?} (left: the library, right: the model), in {:?}", cuts, p);
    Ok(expected)
}

/// Gives `law` what is seen without a cut, and with each of `cuts` at each suspension.
pub(crate) fn each(p: &P, cuts: &[Cut], law: impl Fn(Option<(u64, Cut)>, &Obs) -> Verdict) -> Verdict {
    let plain = agree(p, &[])?;
    law(None, &plain)?;
    for at in between(&plain) {
        for cut in cuts {
            law(Some((at, *cut)), &agree(p, &[(at, *cut)])?)?;
        }
    }
    Ok(())
}

/// The law that two programs are the same, for all that is seen of them, whenever they are cut off.
pub(crate) fn same(left: &P, right: &P, cuts: &[Cut]) -> Verdict {
    each(left, cuts, |cut, seen| {
        let cuts: Vec<_> = cut.into_iter().collect();
        let other = agree(right, &cuts)?.seen();
        prop_assert_eq!(seen.clone().seen(), other, "cut: {:?}\n left: {:?}\nright: {:?}", cut, left, right);
        Ok(())
    })
}

/// A part that a law puts around others; it is not seen.
pub(crate) fn hidden(n: u16) -> u16 {
    HIDDEN + n
}

pub(crate) fn mask(n: u16, p: P) -> P {
    P::Mask(hidden(n), Box::new(p))
}

/// `poll x P`, with the shield number `x`.
pub(crate) fn poll(x: u16, p: P) -> P {
    P::Expose(hidden(100 + x), hidden(x), Box::new(p))
}

/// Something that is seen, after a suspension: a pending cancel ends the program before it.
pub(crate) fn then_more(p: P) -> P {
    P::seq([p, P::Yield(MORE)])
}

pub(crate) const MORE: u16 = 999;

pub(crate) const BOTH: [Cut; 2] = [Cut::Cancel, Cut::Drop];

/// The library does what the model says: without a cut, with one at each suspension, and with a drop at each that follows a cancel.
#[test]
fn r_the_library_is_the_model() {
    check(6_000, ALL, |p| {
        each(p, &BOTH, |cut, obs| {
            let Some((at, Cut::Cancel)) = cut else { return Ok(()) };
            for then in between(obs).into_iter().filter(|then| *then > at) {
                agree(p, &[(at, Cut::Cancel), (then, Cut::Drop)])?;
            }
            Ok(())
        })
    });
}
