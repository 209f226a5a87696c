//! The smallest programs that showed the bugs which random compositions, and a newcomer, have found.

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use testudo::{CancelScope, FinalizeExt, drain, dump, nursery, shield, shield_with};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Count, S, plain_task};

/// One branch of a set: a scope around a set with one shield.
fn branch(polls: &Arc<AtomicUsize>) -> impl Future<Output = ()> + use<> {
    let polls = Arc::clone(polls);
    CancelScope::new()
        .run(async move {
            let mut shields = FuturesUnordered::from_iter([shield(sleep(10 * S))]);
            std::future::poll_fn(|cx| {
                assert!(polls.fetch_add(1, Ordering::Relaxed) < 10_000, "it polls for ever");
                shields.poll_next_unpin(cx)
            })
            .await;
        })
        .map(drop)
}

#[testudo::test(start_paused = true)]
async fn scopes_side_by_side_that_hold_do_not_probe_each_other_for_ever() {
    let polls = Arc::new(AtomicUsize::new(0));
    let both = FuturesUnordered::from_iter([branch(&polls), branch(&polls)]).for_each(|()| async {});
    CancelScope::new().timeout(S).run(both).await.unwrap();
    assert!(polls.load(Ordering::Relaxed) < 100);
}

#[testudo::test(start_paused = true)]
async fn what_outlives_its_task_leaves_no_node_behind() {
    let slot: Arc<Mutex<Option<BoxFuture<'static, ()>>>> = Arc::default();
    let (kept, given) = (Arc::clone(&slot), Arc::clone(&slot));
    let dropper = plain_task(async move {
        sleep(3 * S).await;
        drop(given.lock().unwrap().take());
    });
    let before = dump().entries().len();
    let run = nursery(|n| async move {
        n.spawn(async move {
            let mut fut = pending::<()>().on_cancel(async {}).boxed();
            assert!(timeout(S, &mut fut).await.is_err());
            *kept.lock().unwrap() = Some(fut);
        });
        n.spawn(sleep(9 * S));
    });
    run.await.unwrap();
    dropper.await.unwrap();
    assert_eq!(dump().entries().len(), before, "{}", dump());
}

#[testudo::test(start_paused = true)]
async fn budget_of_a_finalizer_that_waits_for_another_begins_after_that() {
    // From the end of the first, at 10 s.
    for (length, expected) in [(2, 1), (20, 0)] {
        assert_eq!(ends_behind_another(length * S).await, expected, "{length} s");
    }
}

/// How often a finalizer of that length, which has 5 s, ends.
async fn ends_behind_another(length: Duration) -> usize {
    let done = Count::default();
    let (seen, scope) = (done.clone(), CancelScope::new());
    let handle = scope.handle();
    let body = async move {
        handle.cancel("enough");
        pending::<()>().await;
    };
    let work = body.on_cancel(sleep(10 * S)).on_cancel(async move {
        sleep(length).await;
        seen.add();
    });
    // Dropped while the first finalizer runs.
    assert!(timeout(S, scope.run(work.budget(5 * S))).await.is_err());
    let began = Instant::now();
    drop(drain(60 * S).await);
    assert!(began.elapsed() < 15 * S, "{:?}", began.elapsed());
    done.get()
}

#[testudo::test(start_paused = true)]
async fn a_nursery_whose_body_dropped_what_was_cut_off_returns() {
    let run = CancelScope::new().timeout(S).run(async {
        let body = |_| async {
            // It is cut off at 1 s, its finalizer runs, and at 2 s it is dropped.
            assert!(timeout(2 * S, pending::<()>().on_cancel(async { sleep(5 * S).await })).await.is_err());
            Ok::<_, Infallible>(7)
        };
        nursery(body).await.unwrap()
    });
    assert_eq!(run.await.unwrap(), 7);
}

/// True if the nursery returns: nothing outside cuts it off once its shield is up.
async fn returns(two: bool) -> bool {
    let outer = CancelScope::new().timeout(3 * S).run(async move {
        let run = nursery(|n| async move {
            let scope = n.scope();
            let raise = async move { scope.set_shielded(true) };
            n.spawn(async move {
                let first = async { sleep(5 * S).await };
                match two {
                    true => pending::<()>().finally(first).finally(raise).await,
                    false => {
                        pending::<()>()
                            .finally(async move {
                                first.await;
                                raise.await
                            })
                            .await
                    }
                }
            });
            pending::<()>().await;
        });
        run.timeout(S).await.unwrap_err();
    });
    outer.await.is_ok()
}

#[testudo::test(start_paused = true)]
async fn two_finalizers_end_as_one_that_does_the_work_of_both() {
    assert!(returns(false).await);
    assert!(returns(true).await);
}

#[testudo::test(start_paused = true)]
async fn what_is_in_an_exposed_part_is_shown_once() {
    let opened = nursery(|n| async move {
        n.spawn(shield_with(|exposed| async move {
            exposed.run(shield(sleep(S)).name("inner")).await.unwrap();
        }));
        tokio::task::yield_now().await;
        let tree = dump().to_string();
        assert_eq!(tree.matches("shield inner").count(), 1, "{tree}");
    });
    opened.await.unwrap();
}
