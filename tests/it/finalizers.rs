//! Finalizers and brackets: once, in order, to their end, whatever happens (S19, L12 to L18).

use std::future::pending;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use testudo::{
    CancelScope, Event, FinalizeExt, NurseryError, bracket, cancelled, catch_cancelled, drain, nursery, nursery_local,
    shield, shield_local,
};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Count, Log, S, Work, is_pending, said, turns};

async fn say(log: Log, what: &'static str) {
    log.push(what);
}

/// Clean-up that awaits before it counts.
async fn slowly(log: Log, what: &'static str) {
    sleep(S).await;
    log.push(what);
}

#[testudo::test(start_paused = true)]
async fn value_runs_finally_once_and_on_cancel_never() {
    let log = Log::default();
    let work = async { 7 }.on_cancel(slowly(log.clone(), "on_cancel")).finally(slowly(log.clone(), "finally"));
    assert_eq!(work.await, 7);
    assert_eq!(log.seen(), ["finally"]);
}

#[testudo::test(start_paused = true)]
async fn cancel_runs_both_once_before_the_scope_ends() {
    let log = Log::default();
    let work = pending::<()>().on_cancel(slowly(log.clone(), "on_cancel")).finally(slowly(log.clone(), "finally"));
    let began = Instant::now();
    assert!(CancelScope::new().timeout(S).run(work).await.is_err());
    assert_eq!(log.seen(), ["on_cancel", "finally"]);
    assert_eq!(began.elapsed(), 3 * S);
}

#[testudo::test(start_paused = true)]
async fn panic_runs_finally_once_and_on_cancel_never() {
    let log = Log::default();
    let work = async { std::panic::resume_unwind(Box::new("primary")) };
    let work = work.on_cancel(slowly(log.clone(), "on_cancel")).finally(slowly(log.clone(), "finally"));
    let payload = AssertUnwindSafe(work).catch_unwind().await.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"primary"));
    assert_eq!(log.seen(), ["finally"]);
}

#[testudo::test(start_paused = true)]
async fn drop_runs_both_once_and_drain_waits_for_them() {
    let log = Log::default();
    let work = pending::<()>().on_cancel(slowly(log.clone(), "on_cancel")).finally(slowly(log.clone(), "finally"));
    assert!(timeout(S, work).await.is_err());
    assert!(log.seen().is_empty());
    let report = drain(10 * S).await;
    assert!(report.is_clean() && report.events().is_empty(), "{report}");
    assert_eq!(log.seen(), ["on_cancel", "finally"]);
}

#[testudo::test(start_paused = true)]
async fn drop_before_the_first_poll_runs_nothing() {
    let log = Log::default();
    drop(pending::<()>().on_cancel(say(log.clone(), "on_cancel")).finally(say(log.clone(), "finally")));
    assert!(drain(S).await.is_clean());
    assert!(log.seen().is_empty());
}

#[testudo::test(start_paused = true)]
async fn cancel_before_the_first_poll_still_runs_to_the_first_suspension_and_then_finalizes() {
    let log = Log::default();
    let scope = CancelScope::new();
    scope.handle().cancel("before entry");
    let begun = log.clone();
    let work = async move {
        begun.push("begun");
        pending::<()>().await;
    };
    assert!(scope.run(work.finally(slowly(log.clone(), "finally"))).await.is_err());
    assert_eq!(log.seen(), ["begun", "finally"]);
}

#[testudo::test(start_paused = true)]
async fn drop_in_the_middle_of_a_finalizer_loses_none_of_it() {
    let log = Log::default();
    let work = async {}.finally(slowly(log.clone(), "inner")).finally(slowly(log.clone(), "outer"));
    assert!(timeout(S / 2, work).await.is_err());
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(log.seen(), ["inner", "outer"]);
}

#[testudo::test(start_paused = true)]
async fn three_nested_finalizers_run_inside_out_after_a_drop_each_awaiting() {
    let log = Log::default();
    let inner = pending::<()>().finally(slowly(log.clone(), "1"));
    let middle = inner.on_cancel(slowly(log.clone(), "2"));
    let outer = CancelScope::new().run(middle).finally(slowly(log.clone(), "3"));
    assert!(timeout(S, outer).await.is_err());
    let began = Instant::now();
    assert!(drain(10 * S).await.is_clean());
    assert_eq!((log.seen(), began.elapsed()), (vec!["1", "2", "3"], 3 * S));
}

#[testudo::test(start_paused = true)]
async fn finalizer_waits_for_a_shield_rescued_from_inside_it_by_a_drop() {
    let log = Log::default();
    let work = shield(slowly(log.clone(), "shield")).finally(say(log.clone(), "finally"));
    assert!(timeout(S / 2, work).await.is_err());
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(log.seen(), ["shield", "finally"]);
}

#[testudo::test(start_paused = true)]
async fn finalizer_waits_for_a_shield_rescued_from_inside_it_by_a_panic() {
    let log = Log::default();
    let begun = log.clone();
    let work = shield(slowly(log.clone(), "shield"));
    let work = async move {
        let mut work = Box::pin(work);
        assert!(is_pending(work.as_mut()).await);
        begun.push("panic");
        std::panic::resume_unwind(Box::new("primary"));
    };
    let end = AssertUnwindSafe(work.finally(say(log.clone(), "finally"))).catch_unwind().await;
    assert!(end.is_err());
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(log.seen(), ["panic", "shield", "finally"]);
}

#[testudo::test(start_paused = true)]
async fn finalizer_waits_for_a_shield_that_was_kept_but_not_polled_when_the_cancel_came() {
    let log = Log::default();
    let work = shield(slowly(log.clone(), "shield"));
    let work = async move {
        let mut work = Box::pin(work);
        assert!(is_pending(work.as_mut()).await);
        pending::<()>().await;
    };
    let end = CancelScope::new().timeout(S / 2).run(work.finally(say(log.clone(), "finally"))).await;
    assert!(end.is_err());
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(log.seen(), ["shield", "finally"]);
}

#[testudo::test(start_paused = true)]
async fn shield_that_goes_with_a_future_that_has_ended_is_rescued_under_either_finalizer() {
    let log = Log::default();
    let holding = |what| {
        let mut work = Box::pin(shield(slowly(log.clone(), what)));
        std::future::poll_fn(move |cx| {
            assert!(work.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(7)
        })
    };
    assert_eq!(holding("1").on_cancel(say(log.clone(), "on_cancel")).await, 7);
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(holding("2").finally(say(log.clone(), "finally")).await, 7);
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(log.seen(), ["1", "2", "finally"]);
}

#[testudo::test(start_paused = true)]
async fn drop_while_a_finalizer_waits_for_what_was_rescued_runs_it_after_that() {
    let log = Log::default();
    let work = shield(slowly(log.clone(), "shield"));
    let work = async move {
        let mut work = Box::pin(work);
        assert!(is_pending(work.as_mut()).await);
        pending::<()>().await;
    };
    let work = work.finally(say(log.clone(), "finally"));
    let run = CancelScope::new().timeout(S / 4).run(work);
    assert!(timeout(S / 2, run).await.is_err());
    assert!(log.seen().is_empty());
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(log.seen(), ["shield", "finally"]);
}

#[testudo::test(start_paused = true)]
async fn finalizer_waits_for_the_children_of_a_nursery_dropped_inside_it() {
    let log = Log::default();
    let child = shield(slowly(log.clone(), "child"));
    let work = nursery(|n| async move {
        n.spawn(child);
        pending::<()>().await;
    });
    assert!(timeout(S / 2, work.finally(say(log.clone(), "finally"))).await.is_err());
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(log.seen(), ["child", "finally"]);
}

#[testudo::test(start_paused = true)]
async fn finalizer_waits_for_the_shields_of_a_nursery_local_dropped_inside_it() {
    let log = Log::default();
    let child = shield(slowly(log.clone(), "child"));
    let work = nursery_local(|n| {
        n.spawn(child);
        pending::<()>()
    });
    assert!(timeout(S / 2, work.finally(say(log.clone(), "finally"))).await.is_err());
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(log.seen(), ["child", "finally"]);
}

#[tokio::test(start_paused = true)]
async fn finalizer_waits_for_a_local_shield_rescued_from_inside_it() {
    let log = Log::default();
    let set = LocalSet::new();
    let work = shield_local(slowly(log.clone(), "shield")).finally(say(log.clone(), "finally"));
    let run = set.run_until(async {
        assert!(timeout(S / 2, work).await.is_err());
        drain(10 * S).await
    });
    assert!(run.await.is_clean());
    assert_eq!(log.seen(), ["shield", "finally"]);
}

#[testudo::test(start_paused = true)]
async fn nursery_ends_after_the_finalizers_of_a_future_dropped_in_it() {
    let log = Log::default();
    let finalizer = slowly(log.clone(), "finally");
    let run = nursery(|_| async move { assert!(timeout(S, pending::<()>().finally(finalizer)).await.is_err()) });
    run.await.unwrap();
    assert_eq!(log.seen(), ["finally"]);
}

#[testudo::test(start_paused = true)]
async fn nothing_inside_a_running_finalizer_is_cancelled_by_what_caused_it() {
    let log = Log::default();
    let inside = log.clone();
    let work = pending::<()>().on_cancel(async move {
        let run = nursery(|n| async move {
            n.spawn(slowly(inside.clone(), "child"));
            assert!(!testudo::is_cancelled());
            sleep(2 * S).await;
            inside.push("body");
        });
        run.await.unwrap();
    });
    assert!(CancelScope::new().timeout(S).run(work).await.is_err());
    assert_eq!(log.seen(), ["child", "body"]);
}

#[testudo::test(start_paused = true)]
async fn finalizer_over_its_budget_is_cut_off_and_the_next_one_runs() {
    let log = Log::default();
    let work = pending::<()>().on_cancel(async { sleep(100 * S).await }).budget(2 * S);
    let work = work.finally(slowly(log.clone(), "finally"));
    let began = Instant::now();
    assert!(CancelScope::new().timeout(S).run(work).await.is_err());
    assert_eq!((log.seen(), began.elapsed()), (vec!["finally"], 4 * S));
    let report = drain(S).await;
    assert_eq!(report.lost(), 1);
    assert!(matches!(report.events(), [Event::Overran(_)]), "{report}");
}

#[testudo::test(start_paused = true)]
async fn rescued_finalizer_over_its_budget_is_cut_off_and_the_next_one_runs() {
    let log = Log::default();
    let work = pending::<()>().on_cancel(async { sleep(100 * S).await }).budget(2 * S);
    assert!(timeout(S, work.finally(slowly(log.clone(), "finally"))).await.is_err());
    let began = Instant::now();
    let report = drain(10 * S).await;
    assert_eq!((log.seen(), began.elapsed(), report.lost()), (vec!["finally"], 3 * S, 1));
}

#[testudo::test(start_paused = true)]
async fn panic_of_a_finalizer_never_replaces_a_value() {
    let log = Log::default();
    let work = async { 7 }.finally(async { std::panic::resume_unwind(Box::new("secondary")) });
    assert_eq!(work.finally(slowly(log.clone(), "next")).await, 7);
    assert_eq!(log.seen(), ["next"]);
    let report = drain(S).await;
    assert!(matches!(report.events(), [Event::Panicked(_, message)] if &**message == "secondary"), "{report}");
}

#[testudo::test(start_paused = true)]
async fn panic_of_a_finalizer_never_replaces_a_cancel() {
    let work = pending::<()>().finally(async {
        sleep(S).await;
        std::panic::resume_unwind(Box::new("secondary"))
    });
    let end = CancelScope::new().timeout(S).run(work).await;
    assert!(end.is_err());
    let report = drain(S).await;
    assert!(matches!(report.events(), [Event::Panicked(_, message)] if &**message == "secondary"), "{report}");
}

#[testudo::test(start_paused = true)]
async fn panic_of_a_finalizer_never_replaces_a_panic() {
    let work = async { std::panic::resume_unwind(Box::new("primary")) };
    let work = work.finally(async { std::panic::resume_unwind(Box::new("secondary")) });
    let payload = AssertUnwindSafe(work).catch_unwind().await.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"primary"));
    let report = drain(S).await;
    assert!(matches!(report.events(), [Event::Panicked(_, message)] if &**message == "secondary"), "{report}");
}

#[testudo::test(start_paused = true)]
async fn panic_of_a_rescued_finalizer_is_reported_once_and_the_next_one_runs() {
    let log = Log::default();
    let work = pending::<()>().finally(async { std::panic::resume_unwind(Box::new("secondary")) });
    assert!(timeout(S, work.finally(slowly(log.clone(), "next"))).await.is_err());
    let report = drain(10 * S).await;
    assert!(matches!(report.events(), [Event::Panicked(_, message)] if &**message == "secondary"), "{report}");
    assert_eq!(log.seen(), ["next"]);
}

#[testudo::test(start_paused = true)]
async fn panic_whose_caller_is_dropped_while_it_finalizes_is_reported() {
    let log = Log::default();
    let work = async { std::panic::resume_unwind(Box::new("primary")) };
    let work = work.map(|()| ()).finally(slowly(log.clone(), "finally"));
    assert!(timeout(S / 2, work).await.is_err());
    let report = drain(10 * S).await;
    assert_eq!(log.seen(), ["finally"]);
    assert!(matches!(report.events(), [Event::Panicked(_, message)] if &**message == "primary"), "{report}");
}

#[testudo::test(start_paused = true)]
async fn caught_cancel_runs_the_finalizers_inside_the_catch_point_only() {
    let log = Log::default();
    let (inner, outer, between) = (log.clone(), log.clone(), log.clone());
    let work = async move {
        let caught = catch_cancelled(pending::<()>().on_cancel(slowly(inner, "inner"))).await;
        assert!(caught.is_err());
        between.push("caught");
    };
    let end = CancelScope::new().timeout(S).run(work.on_cancel(slowly(outer, "outer"))).await;
    assert!(end.is_ok());
    assert_eq!(log.seen(), ["inner", "caught"]);
}

/// A bracket that says when it acquires, uses and releases; each takes a second.
fn bracketed(log: &Log) -> impl Future<Output = &'static str> + use<> {
    let (acquiring, using, releasing) = (log.clone(), log.clone(), log.clone());
    bracket(
        |_| async move {
            sleep(S).await;
            acquiring.push("acquired");
            "resource"
        },
        |resource| async move {
            sleep(S).await;
            using.push("used");
            resource
        },
        |resource| async move {
            assert_eq!(resource, "resource");
            sleep(S).await;
            releasing.push("released");
        },
    )
}

#[testudo::test(start_paused = true)]
async fn bracket_gives_the_value_after_the_release() {
    let log = Log::default();
    assert_eq!(bracketed(&log).await, "resource");
    assert_eq!(log.seen(), ["acquired", "used", "released"]);
}

#[testudo::test(start_paused = true)]
async fn bracket_cancelled_or_dropped_at_any_half_second_releases_what_it_acquired_once() {
    for half_seconds in 1..7 {
        for is_dropped in [false, true] {
            let (log, at) = (Log::default(), half_seconds * S / 2);
            let is_over = if is_dropped {
                timeout(at, bracketed(&log)).await.is_ok()
            } else {
                CancelScope::new().timeout(at).run(bracketed(&log)).await.is_ok()
            };
            assert!(drain(10 * S).await.is_clean());
            let seen = log.seen();
            assert_eq!(seen.first(), Some(&"acquired"), "dropped: {is_dropped}, after {at:?}");
            assert_eq!(seen.last(), Some(&"released"), "dropped: {is_dropped}, after {at:?}");
            let used = usize::from(at >= 2 * S);
            if at != 2 * S {
                assert_eq!(seen.len(), 2 + used, "dropped: {is_dropped}, after {at:?}: {seen:?}");
            }
            assert!(!is_over || used == 1);
        }
    }
}

#[testudo::test(start_paused = true)]
async fn bracket_releases_after_a_panic_of_its_use_and_the_panic_goes_on() {
    let log = Log::default();
    let releasing = log.clone();
    let run = bracket(
        |_| async { 7 },
        |_| async { std::panic::resume_unwind(Box::new("use")) },
        move |_| slowly(releasing, "released"),
    );
    let payload = AssertUnwindSafe(run.map(|()| ())).catch_unwind().await.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"use"));
    assert_eq!(log.seen(), ["released"]);
}

#[testudo::test(start_paused = true)]
async fn nursery_waits_for_the_release_of_a_bracket_dropped_while_it_acquired() {
    let log = Log::default();
    let run = bracketed(&log);
    let end = nursery(|_| async move { assert!(timeout(S / 2, run).await.is_err()) }).await;
    end.unwrap();
    assert_eq!(log.seen(), ["acquired", "released"]);
    assert!(drain(S).await.is_clean());
}

#[testudo::test(start_paused = true)]
async fn finalizer_waits_for_the_release_of_a_bracket_dropped_while_it_acquired() {
    let log = Log::default();
    let run = bracketed(&log).map(|_| ()).finally(say(log.clone(), "finally"));
    assert!(timeout(S / 2, run).await.is_err());
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(log.seen(), ["acquired", "released", "finally"]);
}

#[testudo::test(start_paused = true)]
async fn panic_of_a_release_after_a_drop_in_acquire_is_reported_once() {
    let run =
        bracket(|_| sleep(S), |()| pending::<()>(), |()| async { std::panic::resume_unwind(Box::new("release")) });
    assert!(timeout(S / 2, run).await.is_err());
    let report = drain(10 * S).await;
    assert_eq!(said(report.events()), ["panicked release: release"]);
}

/// Waits for a permit where it may be cancelled; from then on it has one. `None` says that there is nothing to release.
fn permit(log: &Log, work: &Work) -> impl Future<Output = Option<()>> + use<> {
    let (acquiring, releasing, waiting) = (log.clone(), log.clone(), work.run());
    bracket(
        |exposed| async move {
            exposed.run(waiting).await.ok()?;
            acquiring.push("acquired");
            Some("permit")
        },
        |permit| async move { permit.map(|_| ()) },
        |permit| async move {
            if permit.is_some() {
                releasing.push("released");
            }
        },
    )
}

#[testudo::test(start_paused = true)]
async fn acquire_cut_off_in_its_exposed_part_has_nothing_to_release() {
    let (log, work) = (Log::default(), Work::new());
    let began = Instant::now();
    let cut = CancelScope::new().timeout(S).run(permit(&log, &work)).await;
    assert_eq!(cut.unwrap(), None);
    assert_eq!(began.elapsed(), S, "the cancel is seen at once");
    assert!(timeout(S, permit(&log, &work)).await.is_err());
    assert!(drain(10 * S).await.is_clean());
    assert!(log.seen().is_empty());

    work.allow(1);
    assert_eq!(permit(&log, &work).await, Some(()));
    assert_eq!(log.seen(), ["acquired", "released"]);
}

#[testudo::test(start_paused = true)]
async fn child_cancelled_alone_finalizes_before_its_handle_shows_the_end() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let child = n.spawn(pending::<()>().on_cancel(slowly(inner.clone(), "finalized")));
        turns().await;
        assert!(child.cancel_and_wait("alone").await.is_cancelled());
        inner.push("awaited");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["finalized", "awaited"]);
}

#[testudo::test(start_paused = true)]
async fn second_cancel_never_shortens_a_finalizer() {
    let log = Log::default();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let inner = handle.clone();
    let finalizer = slowly(log.clone(), "finalized");
    let run = scope.run(pending::<()>().on_cancel(async move {
        inner.cancel("second");
        finalizer.await;
    }));
    handle.cancel("first");
    let end = run.await.unwrap_err();
    assert_eq!(end.cause().reason(), Some("first"));
    let reasons: Vec<_> = handle.causes().iter().filter_map(|cause| cause.reason().map(str::to_owned)).collect();
    assert_eq!((log.seen(), reasons), (vec!["finalized"], vec!["first".into(), "second".into()]));
}

#[testudo::test(start_paused = true)]
async fn error_of_a_child_cancels_its_sibling_which_finalizes_before_the_nursery_ends() {
    let log = Log::default();
    let finalizer = slowly(log.clone(), "finalized");
    let uncounted = Count::default();
    let late = uncounted.clone();
    let run = nursery(|n| async move {
        n.spawn(async move {
            cancelled().await;
            Ok(())
        });
        n.spawn(pending::<Result<(), &str>>().finally(finalizer));
        n.spawn(async { Err::<(), _>("boom") });
        sleep(100 * S).await;
        late.add();
        Ok(())
    });
    let Err(NurseryError::Failed(failures)) = run.await else { panic!("it has failed") };
    assert_eq!((failures.len(), log.seen(), uncounted.get()), (1, vec!["finalized"], 0));
}
