//! L38, L39: time.

use std::time::Duration;

use proptest::prelude::*;
use testudo::{CancelScope, EffectiveDeadline, current_deadline, fail_after, nursery, shield};
use tokio::time::{Instant, sleep};

use crate::cancel::{start_paused, to32};
use crate::reference::check_of;

const S: Duration = Duration::from_secs(1);

/// L38. A timeout is never taken for another one: the inner one's end is the inner error, the outer one's the outer.
#[test]
fn l38_a_timeout_is_attributed_to_its_own_scope() {
    check_of(150, (1..30_u64, 1..30_u64, 1..30_u64), |(outer, inner, length)| {
        prop_assume!(outer != inner && inner != length && outer != length);
        let seen = start_paused(async move {
            let start = Instant::now();
            let work = fail_after(S * to32(inner), sleep(S * to32(length)));
            let seen = match fail_after(S * to32(outer), work).await {
                Err(elapsed) => ("outer", elapsed.timeout().as_secs()),
                Ok(Err(elapsed)) => ("inner", elapsed.timeout().as_secs()),
                Ok(Ok(())) => ("none", start.elapsed().as_secs()),
            };
            (seen, start.elapsed().as_secs())
        });
        let first = outer.min(inner).min(length);
        let who = if first == length {
            "none"
        } else if first == inner {
            "inner"
        } else {
            "outer"
        };
        prop_assert_eq!(seen, ((who, first), first));
        Ok(())
    });
}

/// L39. The earliest deadline counts, up to the innermost shield; a shield holds it off for its budget at most.
#[test]
fn l39_deadlines_compose_and_a_budget_bounds_the_shield() {
    check_of(150, (1..30_u64, 1..30_u64, 1..30_u64, 1..90_u64), |(outer, inner, budget, length)| {
        let deadline = outer.min(inner);
        prop_assume!(length != deadline && length != deadline + budget);
        let (effective, inside, ended) = start_paused(async move {
            let start = Instant::now();
            let mut seen = (EffectiveDeadline::None, EffectiveDeadline::None);
            let looked = std::sync::Arc::new(std::sync::Mutex::new(EffectiveDeadline::Cancelled));
            let look = std::sync::Arc::clone(&looked);
            let body = async {
                seen.0 = current_deadline();
                let work = async move {
                    *look.lock().expect("alive") = current_deadline();
                    sleep(S * to32(length)).await;
                };
                shield(work).budget(S * to32(budget)).await;
            };
            let body = CancelScope::new().timeout(S * to32(inner)).run(body);
            drop(CancelScope::new().timeout(S * to32(outer)).run(body).await);
            seen.1 = *looked.lock().expect("alive");
            let since = |at: EffectiveDeadline| match at {
                EffectiveDeadline::At(at) => Some((at - start).as_secs()),
                EffectiveDeadline::None | EffectiveDeadline::Cancelled => None,
            };
            (since(seen.0), since(seen.1), start.elapsed().as_secs())
        });
        prop_assert_eq!((effective, inside), (Some(deadline), None));
        prop_assert_eq!(ended, length.min(deadline + budget));
        Ok(())
    });
}

/// L39. On paused time, together is the maximum, one after the other is the sum.
#[test]
fn l39_times_add_up() {
    check_of(100, (1..99_u64, 1..99_u64), |(a, b)| {
        let (sum, max) = start_paused(async move {
            let start = Instant::now();
            sleep(S * to32(a)).await;
            sleep(S * to32(b)).await;
            let (sum, start) = (start.elapsed().as_secs(), Instant::now());
            let both = nursery(|n| async move {
                n.spawn(sleep(S * to32(a)));
                n.spawn(sleep(S * to32(b)));
            });
            both.await.expect("nothing fails");
            (sum, start.elapsed().as_secs())
        });
        prop_assert_eq!((sum, max), (a + b, a.max(b)));
        Ok(())
    });
}
