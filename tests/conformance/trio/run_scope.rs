//! Ports of trio's `_core/_tests/test_run.py`: cancel scopes.

use std::future::{Future, pending, poll_fn, ready};
use std::pin::Pin;
use std::task::Poll;

use futures_util::FutureExt;
use testudo::{
    CancelScope, EffectiveDeadline, FinalizeExt, ScopeHandle, cancelled, catch_cancelled, checkpoint, current_deadline,
    nursery, shield,
};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};

use crate::read::{End, errors, note_cancel, run_heard};
use crate::support::{Count, Log, OnDrop, S, is_pending, plain_task, turns};

/// A scope shows its state. Differs (S41): a deadline is read from the handle, not from the text; "unbound" and "exited" are one word.
#[testudo::test(start_paused = true)]
async fn test_cancel_scope_repr() {
    let scope = CancelScope::new().name("search");
    let handle = scope.handle();
    assert!(format!("{handle:?}").contains("unbound"));
    let run = scope.run(async {
        assert!(format!("{handle:?}").contains("active"));
        handle.set_deadline(Some(Instant::now() + 10 * S));
        assert_eq!(handle.deadline(), Some(Instant::now() + 10 * S));
        handle.cancel("enough");
        assert!(format!("{handle:?}").contains("cancelled"));
    });
    run.await.unwrap();
    assert!(format!("{handle:?}").contains("search"));
}

/// Differs (S2): there is no NaN and no negative `Duration`, and a scope may have both kinds of deadline; the earlier counts.
#[testudo::test(start_paused = true)]
async fn test_cancel_scope_validation() {
    let now = Instant::now();
    let both = CancelScope::new().deadline(now + 7 * S).timeout(10 * S);
    let handle = both.handle();
    both.run(async { assert_eq!(current_deadline(), EffectiveDeadline::At(now + 7 * S)) }).await.unwrap();
    assert_eq!(handle.deadline(), Some(now + 7 * S));
    let endless = CancelScope::new().timeout(std::time::Duration::MAX);
    endless.run(async { assert_eq!(current_deadline(), EffectiveDeadline::None) }).await.unwrap();
}

/// Each kind of checkpoint raises after a cancel; a shielded one does not, the next one does.
#[testudo::test(start_paused = true)]
async fn test_cancel_points() {
    let log = Log::default();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = scope.run(async {
        handle.cancel("now");
        for point in [checkpoint().boxed(), pending().boxed(), sleep(S).boxed()] {
            assert!(catch_cancelled(point).await.is_err());
        }
        shield(checkpoint()).await;
        log.push("after the shielded one");
        checkpoint().await;
        log.push("too far");
    });
    assert!(run.await.is_err());
    assert_eq!(log.seen(), ["after the shielded one"]);
}

/// Two cancels are one; it is called and caught; it is seen at each checkpoint.
#[testudo::test(start_paused = true)]
async fn test_cancel_edge_cases() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    assert!(handle.cancel("one") && !handle.cancel("two"));
    let run = scope.run(async {
        assert!(catch_cancelled(checkpoint()).await.is_err());
        assert!(catch_cancelled(checkpoint()).await.is_err());
        checkpoint().await;
    });
    assert!(run.await.is_err());
    assert!(handle.cancel_requested());
}

/// Three cancelled children and an error inside a cancelled scope. Differs (S20): the nursery unwinds, so the error is reported and
/// the outer scope gives `Err(Cancelled)`; in trio a group with the error goes on.
#[test]
fn test_cancel_scope_exceptiongroup_filtering() {
    let (finished, said) = run_heard(async {
        let outer = CancelScope::new();
        let handle = outer.handle();
        let run = outer.run(nursery(|n| async move {
            n.task().name("t1").spawn(pending::<()>());
            n.task().name("t2").spawn(pending::<()>());
            n.cancel("inner");
            shield(turns()).await;
            n.task().name("t3").spawn(pending::<()>());
            handle.cancel("outer");
            n.task().name("t4").spawn(ready(Err::<(), _>("KeyError")));
            Ok(())
        }));
        assert_eq!(run.await.unwrap_err().cause().reason(), Some("outer"));
    });
    finished.outcome.unwrap();
    assert_eq!(said, ["failed t4: KeyError"]);
}

/// A task that is spawned into a cancelled nursery starts, and is cancelled at its first block.
#[testudo::test(start_paused = true)]
async fn test_precancelled_task() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        n.cancel("early");
        n.spawn(async move {
            inner.push("started");
            checkpoint().await;
            inner.push("too far");
        });
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["started"]);
}

/// A shield holds off the outer cancel, not its own and not those inside; it can be lowered and raised.
#[testudo::test(start_paused = true)]
async fn test_cancel_shielding() {
    let (outer, log) = (CancelScope::new(), Log::default());
    let outer_handle = outer.handle();
    let run = outer.run(async {
        let inner = CancelScope::new();
        let inner_handle = inner.handle();
        let end = inner.run(async {
            checkpoint().await;
            assert_eq!(current_deadline(), EffectiveDeadline::None);
            outer_handle.cancel("outer");
            assert!(catch_cancelled(checkpoint()).await.is_err());
            inner_handle.set_shielded(true);
            checkpoint().await; // held off
            let innerest = CancelScope::new();
            innerest.handle().cancel("innerest");
            assert_eq!(innerest.run(checkpoint()).await.unwrap_err().cause().reason(), Some("innerest"));
            inner_handle.set_shielded(false);
            assert!(catch_cancelled(checkpoint()).await.is_err());
            inner_handle.set_shielded(true);
            checkpoint().await;
            inner_handle.cancel("inner"); // its shield does not stop its own cancel
            checkpoint().await;
        });
        assert_eq!(end.await.unwrap_err().cause().reason(), Some("inner"));
        log.push("inner absorbed its own");
        checkpoint().await;
        log.push("too far");
    });
    assert_eq!(run.await.unwrap_err().cause().reason(), Some("outer"));
    assert_eq!(log.seen(), ["inner absorbed its own"]);
}

/// A cancel reaches all leaves of nested nurseries.
#[testudo::test(start_paused = true)]
async fn test_cancel_inheritance() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        for _ in 0..2 {
            let log = inner.clone();
            n.spawn(
                nursery(move |n| async move {
                    n.spawn(note_cancel(log.clone(), "leaf", pending::<()>()));
                    n.spawn(note_cancel(log, "leaf", pending::<()>()));
                })
                .map(drop),
            );
        }
        turns().await;
        n.cancel("all");
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["leaf"; 4]);
}

/// A task that sleeps under a shield in a cancelled scope is woken when the shield is lowered.
#[testudo::test(start_paused = true)]
async fn test_cancel_shield_abort() {
    let (outer, inner, log) = (CancelScope::new(), CancelScope::new().shielded(true), Log::default());
    let (outer_handle, inner_handle) = (outer.handle(), inner.handle());
    let sleeper = log.clone();
    let run = outer.run(nursery(|n| async move {
        outer_handle.cancel("outer");
        n.spawn(inner.run(note_cancel(sleeper.clone(), "woken", pending::<()>())).map(drop));
        shield(turns()).await;
        assert!(sleeper.seen().is_empty());
        inner_handle.set_shielded(false);
    }));
    assert!(run.await.is_err());
    assert_eq!(log.seen(), ["woken"]);
}

/// A deadline after the end is ignored; one that passes cancels, once and for all; it can be moved into the past.
#[testudo::test(start_paused = true)]
async fn test_basic_timeout() {
    let began = Instant::now();
    let unused = CancelScope::new().deadline(began + S);
    let unused_handle = unused.handle();
    unused.run(checkpoint()).await.unwrap();
    let on_time = CancelScope::new().deadline(began + 2 * S).run(sleep(3 * S)).await;
    assert!(on_time.is_err());
    assert_eq!(began.elapsed(), 2 * S);
    assert!(!unused_handle.cancel_requested());
    let moved = CancelScope::new();
    let handle = moved.handle();
    let run = moved.run(async {
        checkpoint().await;
        handle.set_deadline(Some(Instant::now() - S));
        assert!(catch_cancelled(checkpoint()).await.is_err());
        handle.set_deadline(Some(Instant::now() + 10 * S));
        checkpoint().await;
    });
    assert!(run.await.is_err());
}

/// Both cancelled: the outer one catches. A shielded scope catches its own. Left without a checkpoint, a scope catches nothing.
#[testudo::test(start_paused = true)]
async fn test_cancel_scope_nesting() {
    let log = Log::default();
    let (one, two, three) = (CancelScope::new(), CancelScope::new(), CancelScope::new());
    let (two_handle, three_handle) = (two.handle(), three.handle());
    let run = one.run(async {
        let end = two.run(async {
            let inner = three.run(async {
                three_handle.cancel("three");
                assert!(catch_cancelled(checkpoint()).await.is_err());
                two_handle.cancel("two");
                checkpoint().await;
            });
            drop(inner.await);
            log.push("too far");
        });
        assert_eq!(end.await.unwrap_err().cause().reason(), Some("two"));
    });
    run.await.unwrap();

    let outer = CancelScope::new();
    let handle = outer.handle();
    let run = outer.run(async {
        let inner = CancelScope::new().shielded(true).run(async { handle.cancel("outer") });
        inner.await.unwrap(); // no checkpoint: nothing to catch
        checkpoint().await;
        log.push("too far");
    });
    assert!(run.await.is_err());
    let unseen = CancelScope::new();
    unseen.handle().cancel("unseen");
    unseen.run(async {}).await.unwrap();
    assert!(log.seen().is_empty());
}

struct RaiseOnDrop(ScopeHandle);

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        self.0.set_shielded(true);
    }
}

/// A shield that is raised while the cancel of an outer scope passes does not make the inner scope absorb it.
#[testudo::test(start_paused = true)]
async fn test_unshield_while_cancel_propagating() {
    let (outer, inner, log) = (CancelScope::new(), CancelScope::new(), Log::default());
    let (outer_handle, inner_handle) = (outer.handle(), inner.handle());
    let run = outer.run(async {
        let end = inner.run(async {
            outer_handle.cancel("outer");
            let _finally = RaiseOnDrop(inner_handle.clone());
            checkpoint().await;
        });
        drop(end.await);
        log.push("too far");
    });
    assert_eq!(run.await.unwrap_err().cause().reason(), Some("outer"));
    assert!(log.seen().is_empty() && inner_handle.is_shielded());
}

/// A scope can be cancelled and shielded before it is entered, and its deadline is looked at. Differs (S6): entering it twice does
/// not compile, since `run` takes it.
#[testudo::test(start_paused = true)]
async fn test_cancel_unbound() {
    let early = CancelScope::new();
    early.handle().cancel("early");
    assert!(early.run(checkpoint()).await.is_err());

    let outer = CancelScope::new();
    outer.handle().cancel("outer");
    let run = outer.run(async {
        let shielded = CancelScope::new();
        shielded.handle().set_shielded(true);
        shielded.run(checkpoint()).await.unwrap();
    });
    run.await.unwrap();

    let late = CancelScope::new().deadline(Instant::now() + S);
    let handle = late.handle();
    assert!(!handle.cancel_requested());
    advance(2 * S).await;
    assert!(handle.cancel_requested());
    handle.set_deadline(None);
    assert!(handle.cancel_requested());
    assert!(late.run(checkpoint()).await.is_err());
}

/// Polls a future once, inside of what is around.
async fn begin<F: Future>(fut: Pin<&mut F>) {
    assert!(is_pending(fut).await);
}

/// An outer scope is left before the inner one. Differs (S6): no error, since the inner one is a future that goes on elsewhere.
#[testudo::test(start_paused = true)]
async fn test_cancel_scope_misnesting_1() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let (outer_handle, inner_handle) = (outer.handle(), inner.handle());
    let mut inner = Box::pin(inner.run(pending::<()>()));
    outer.run(begin(inner.as_mut())).await.unwrap();
    outer_handle.cancel("over"); // nothing is inside any more
    assert!(is_pending(inner.as_mut()).await);
    inner_handle.cancel("now");
    assert_eq!(inner.await.unwrap_err().cause().reason(), Some("now"));
}

/// The same with a nursery between the two. Differs (S6, S26): its children go on with it, and what is dropped is adopted.
#[testudo::test(start_paused = true)]
async fn test_cancel_scope_misnesting_2() {
    let log = Log::default();
    let child = log.clone();
    let around = nursery(|_| async move {
        let mut inner = Box::pin(nursery(|n| async move {
            n.spawn(note_cancel(child, "child is cancelled", pending::<()>()));
            pending::<()>().await;
        }));
        CancelScope::new().run(begin(inner.as_mut())).await.unwrap();
        turns().await;
        drop(inner);
    });
    around.await.unwrap();
    assert_eq!(log.seen(), ["child is cancelled"]);
}

/// A scope that ends in another task than it began in. Differs (S6): legal, and nothing else changes by it.
#[testudo::test(start_paused = true)]
async fn test_cancel_scope_misnesting_3() {
    let outer = CancelScope::new();
    let outer_handle = outer.handle();
    let (go, gone) = oneshot::channel::<()>();
    let mut inner = Box::pin(CancelScope::new().run(gone));
    let run = outer.run(async move {
        begin(inner.as_mut()).await;
        let elsewhere = plain_task(inner);
        go.send(()).unwrap();
        assert!(elsewhere.await.unwrap().is_ok());
        checkpoint().await;
    });
    run.await.unwrap();
    assert!(!outer_handle.is_cancelled());
}

/// A deadline of a second takes a second.
#[testudo::test(start_paused = true)]
async fn test_timekeeping() {
    let began = Instant::now();
    assert!(CancelScope::new().timeout(S).run(pending::<()>()).await.is_err());
    assert_eq!(began.elapsed(), S);
}

/// An operation that refuses to be aborted goes on; the cancel comes at the next checkpoint. Ours is a shield.
#[testudo::test(start_paused = true)]
async fn test_failed_abort() {
    let (log, scope, (wake, woken)) = (Log::default(), CancelScope::new(), oneshot::channel());
    let handle = scope.handle();
    let inner = log.clone();
    let stubborn = scope.run(async move {
        shield(woken).await.unwrap();
        inner.push("woken");
        checkpoint().await;
        inner.push("too far");
    });
    let (end, ()) = tokio::join!(stubborn, async {
        handle.cancel("now");
        turns().await;
        assert!(log.seen().is_empty());
        wake.send(()).unwrap();
    });
    assert!(end.is_err());
    assert_eq!(log.seen(), ["woken"]);
}

/// A checkpoint sees a deadline that passed since the last turn.
#[testudo::test(start_paused = true)]
async fn test_yield_briefly_checks_for_timeout() {
    let log = Log::default();
    let run = CancelScope::new().timeout(5 * S).run(async {
        checkpoint().await;
        let _ = advance(10 * S).now_or_never(); // no turn for the timers
        checkpoint().await;
        log.push("too far");
    });
    assert!(run.await.is_err());
    assert!(log.seen().is_empty());
}

/// An abort that takes its time: the scope ends when the clean-up has ended.
#[testudo::test(start_paused = true)]
async fn test_slow_abort_basic() {
    let began = Instant::now();
    let scope = CancelScope::new();
    scope.handle().cancel("now");
    assert!(scope.run(pending::<()>().on_cancel(async { sleep(S).await })).await.is_err());
    assert_eq!(began.elapsed(), S);
}

/// The clean-up is asked for once although two scopes are cancelled, and a shield that is raised meanwhile does not recall it.
#[testudo::test(start_paused = true)]
async fn test_slow_abort_edge_cases() {
    let (outer, inner, asked) = (CancelScope::new(), CancelScope::new(), Count::default());
    let (outer_handle, inner_handle, once) = (outer.handle(), inner.handle(), asked.clone());
    let began = Instant::now();
    let raised = inner_handle.clone();
    let work = pending::<()>().on_cancel(async move {
        once.add();
        raised.set_shielded(true);
        sleep(S).await;
    });
    let run = outer.run(async { drop(inner.run(work).await) });
    let (end, ()) = tokio::join!(run, async {
        outer_handle.cancel("one");
        inner_handle.cancel("two");
    });
    assert_eq!(end.unwrap_err().cause().reason(), Some("one"));
    assert_eq!((asked.get(), began.elapsed()), (1, S));
}

/// The minimum over the scopes; a shield cuts it; cancelled is its own value; restored after the end.
#[testudo::test(start_paused = true)]
async fn test_current_effective_deadline() {
    let now = Instant::now();
    assert_eq!(current_deadline(), EffectiveDeadline::None);
    let one = CancelScope::new().deadline(now + 5 * S);
    let one_handle = one.handle();
    let run = one.run(async {
        let two = CancelScope::new().deadline(now + 3 * S);
        let two_handle = two.handle();
        let inner = two.run(async {
            assert_eq!(current_deadline(), EffectiveDeadline::At(now + 3 * S));
            two_handle.set_deadline(Some(now + 10 * S));
            assert_eq!(current_deadline(), EffectiveDeadline::At(now + 5 * S));
            two_handle.set_shielded(true);
            assert_eq!(current_deadline(), EffectiveDeadline::At(now + 10 * S));
            one_handle.cancel("one");
            assert_eq!(current_deadline(), EffectiveDeadline::At(now + 10 * S));
            two_handle.set_shielded(false);
            assert_eq!(current_deadline(), EffectiveDeadline::Cancelled);
        });
        inner.await.unwrap();
    });
    run.await.unwrap();
    assert_eq!(current_deadline(), EffectiveDeadline::None);
}

/// A checkpoint yields; an empty nursery in a cancelled scope catches nothing; an error of its body comes out. Differs (S20): the end of
/// an empty nursery does not yield.
#[testudo::test(start_paused = true)]
async fn test_trivial_yields() {
    let others = Log::default();
    let other = others.clone();
    let task = plain_task(async move { other.push("had a turn") });
    checkpoint().await;
    assert_eq!(others.seen(), ["had a turn"]);
    task.await.unwrap();

    let scope = CancelScope::new();
    scope.handle().cancel("early");
    scope.run(async { nursery(|_| async {}).await.unwrap() }).await.unwrap();
    let scope = CancelScope::new();
    scope.handle().cancel("early");
    let with_child = nursery(|n| async move {
        n.spawn(async {});
    });
    scope.run(async { with_child.await.unwrap() }).await.unwrap();
    let scope = CancelScope::new();
    scope.handle().cancel("early");
    let failing = scope.run(nursery(|_| async { Err::<(), _>("KeyError") })).await;
    assert_eq!(errors(failing.unwrap()), ["KeyError"]);
}

/// A scope that another executor polls is cancelled there.
#[testudo::test(start_paused = true)]
async fn test_detached_coroutine_cancellation() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let mut run = Box::pin(scope.run(pending::<()>()));
    begin(run.as_mut()).await;
    let elsewhere = plain_task(run);
    turns().await;
    handle.cancel("now");
    assert!(elsewhere.await.unwrap().is_err());
}

fn nested(depth: usize) -> futures_util::future::BoxFuture<'static, ()> {
    let innermost = pending::<()>().boxed();
    (0..depth).fold(innermost, |fut, _| CancelScope::new().run(fut).map(drop).boxed())
}

/// Five thousand scopes, the outermost is cancelled. Polling that deep needs a stack in Rust; the cancel needs none.
#[test]
fn test_very_deep_cancel_scope_nesting() {
    let outer = CancelScope::new();
    let handle = outer.handle();
    let deep = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut run = Box::pin(outer.run(nested(5_000)));
        let entered = runtime.block_on(poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx).is_pending())));
        assert!(entered);
        std::thread::scope(|threads| {
            let cancel = std::thread::Builder::new().stack_size(128 * 1024);
            let on_a_shallow_stack = cancel.spawn_scoped(threads, || handle.cancel("all")).unwrap();
            assert!(on_a_shallow_stack.join().unwrap());
        });
        assert!(runtime.block_on(run).is_err());
    };
    std::thread::Builder::new().stack_size(512 << 20).spawn(deep).unwrap().join().unwrap();
}

/// A deadline that is toggled two thousand times fires once, at its last value.
#[testudo::test(start_paused = true)]
async fn test_cancel_scope_deadline_duplicates() {
    let (now, scope) = (Instant::now(), CancelScope::new());
    let handle = scope.handle();
    let run = scope.run(async {
        for _ in 0..1_000 {
            handle.set_deadline(Some(now + S));
            handle.set_deadline(Some(now + 9 * S));
        }
        handle.set_deadline(Some(now + 3 * S));
        pending::<()>().await;
    });
    assert!(run.await.is_err());
    assert_eq!(now.elapsed(), 3 * S);
}

/// What a scope held is dropped when it ends.
#[testudo::test(start_paused = true)]
async fn test_simple_cancel_scope_usage_doesnt_create_cyclic_garbage() {
    let dropped = Count::default();
    let local = OnDrop(dropped.clone());
    let scope = CancelScope::new();
    let handle = scope.handle();
    scope.run(async move { drop(local) }).await.unwrap();
    assert_eq!(dropped.get(), 1);
    let (value, inner) = (OnDrop(dropped.clone()), handle.clone());
    assert!(
        CancelScope::new()
            .timeout(S)
            .run(async move {
                let _kept = (value, inner);
                pending::<()>().await;
            })
            .await
            .is_err()
    );
    assert_eq!(dropped.get(), 2);
}

/// The same where a scope is cancelled inside of another.
#[testudo::test(start_paused = true)]
async fn test_cancel_scope_exit_doesnt_create_cyclic_garbage() {
    let dropped = Count::default();
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let (outer_handle, value) = (outer.handle(), OnDrop(dropped.clone()));
    let run = outer.run(async move {
        let _kept = (value, inner.handle());
        outer_handle.cancel("now");
        drop(inner.run(pending::<()>()).await);
    });
    assert!(run.await.is_err());
    assert_eq!(dropped.get(), 1);
}

/// A group without a cancel in it is not taken for one, though the scope is cancelled.
#[testudo::test(start_paused = true)]
async fn test_cancel_scope_no_cancellederror() {
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = scope.run(async {
        handle.cancel("now");
        let end: End = nursery(|_| async { Err("KeyError") }).await;
        end
    });
    assert_eq!(errors(run.await.unwrap()), ["KeyError"]);
    yield_now().await;
    assert!(cancelled().now_or_never().is_none());
}
