//! A shield holds whatever is done to its caller, on every runtime, and a loss is never silent.

use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use testudo::{
    CancelScope, CauseKind, Event, FinalizeExt, Runner, ScopeHandle, all_tasks, cancelled, drain, fail_after, find,
    move_on_after, nursery, nursery_local, shield, shield_local, shield_scoped, shield_with, spawn,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Count, Heard, S, Work, is_pending, plain_task, said, turns};

const LONG: Duration = Duration::from_secs(20);

/// Begins a shield over the work, and loses it after it has begun.
type Way = fn(Work) -> LocalBoxFuture<'static, ()>;

/// Every way that we know to lose a future.
const WAYS: &[(&str, Way)] = &[
    ("select!", |w| {
        Box::pin(async move {
            tokio::select! {
                biased;
                _ = shield(w.run()) => unreachable!("the gate is closed"),
                () = w.has_begun() => {}
            }
            w.lose();
        })
    }),
    ("timeout", |w| {
        Box::pin(async move {
            assert!(timeout(Duration::ZERO, shield(w.run())).await.is_err());
            w.lose();
        })
    }),
    ("aborted JoinHandle", |w| {
        Box::pin(async move {
            let task = plain_task(shield(w.run()));
            w.has_begun().await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            w.lose();
        })
    }),
    ("dropped JoinSet", |w| {
        Box::pin(async move {
            let mut set = JoinSet::new();
            set.spawn(shield(w.run()));
            w.has_begun().await;
            set.shutdown().await;
            w.lose();
        })
    }),
    ("body of a dropped nursery", |w| {
        Box::pin(async move {
            let work = shield(w.run());
            tokio::select! {
                biased;
                _ = nursery(|_| async move { work.await; }) => unreachable!("the gate is closed"),
                () = w.has_begun() => {}
            }
            w.lose();
        })
    }),
    ("child of a dropped nursery", |w| {
        Box::pin(async move {
            let work = shield(w.run());
            let run = nursery(|n| async move {
                n.spawn(async move {
                    work.await;
                });
                pending::<()>().await;
            });
            tokio::select! {
                biased;
                _ = run => unreachable!("the body waits for ever"),
                () = w.has_begun() => {}
            }
            w.lose();
        })
    }),
    ("child of a cancelled nursery", |w| {
        Box::pin(async move {
            let (work, by) = (shield(w.run()), w.clone());
            let run = nursery(|n| async move {
                n.spawn(async move {
                    work.await;
                });
                by.has_begun().await;
                n.cancel("adversity");
                by.lose();
                pending::<()>().await;
            });
            assert!(run.await.unwrap_err().is_cancelled());
        })
    }),
    ("body of a dropped nursery_local", |w| {
        Box::pin(async move {
            let work = shield(w.run());
            tokio::select! {
                biased;
                _ = nursery_local(|_| async move { work.await; }) => unreachable!("the gate is closed"),
                () = w.has_begun() => {}
            }
            w.lose();
        })
    }),
    ("child of a dropped nursery_local", |w| {
        Box::pin(async move {
            let work = shield(w.run());
            let run = nursery_local(|n| {
                n.spawn(async move {
                    work.await;
                });
                pending::<()>()
            });
            tokio::select! {
                biased;
                _ = run => unreachable!("the body waits for ever"),
                () = w.has_begun() => {}
            }
            w.lose();
        })
    }),
    ("dropped FuturesUnordered", |w| {
        Box::pin(async move {
            let mut branches = FuturesUnordered::new();
            branches.push(pending::<u8>().boxed());
            branches.push(shield(w.run()).boxed());
            tokio::select! {
                biased;
                _ = branches.next() => unreachable!("the gate is closed"),
                () = w.has_begun() => {}
            }
            drop(branches);
            w.lose();
        })
    }),
    ("cancelled FuturesUnordered", |w| {
        Box::pin(async move {
            let scope = CancelScope::new();
            let (handle, work) = (scope.handle(), shield(w.run()));
            let run = scope.run(async move {
                let mut branches = FuturesUnordered::new();
                branches.push(pending::<u8>().boxed());
                branches.push(work.boxed());
                assert_eq!(branches.next().await, Some(7), "the value of the branch is there");
                branches.next().await
            });
            let (end, ()) = tokio::join!(run, cancel_when_begun(&w, handle));
            assert!(end.is_err());
        })
    }),
    ("cancelled join!", |w| {
        Box::pin(async move {
            let scope = CancelScope::new();
            let (handle, work) = (scope.handle(), shield(w.run()));
            let run = scope.run(async move { tokio::join!(work, pending::<()>()) });
            let (end, ()) = tokio::join!(run, cancel_when_begun(&w, handle));
            assert!(end.is_err());
        })
    }),
    ("cancelled outer of two scopes", |w| {
        Box::pin(async move {
            let outer = CancelScope::new();
            let (handle, work) = (outer.handle(), shield(w.run()));
            let run = outer.run(async move {
                let value = CancelScope::new().run(work).await.expect("the inner scope's body has ended");
                assert_eq!(value, 7);
                pending::<()>().await;
            });
            let (end, ()) = tokio::join!(run, cancel_when_begun(&w, handle));
            assert!(end.is_err());
        })
    }),
    ("dropped outer of two scopes", |w| {
        Box::pin(async move {
            let run = CancelScope::new().run(CancelScope::new().run(shield(w.run())));
            tokio::select! {
                biased;
                _ = run => unreachable!("the gate is closed"),
                () = w.has_begun() => {}
            }
            w.lose();
        })
    }),
    ("caller that panics", |w| {
        Box::pin(async move {
            let (work, by) = (shield(w.run()), w.clone());
            let caller = AssertUnwindSafe(async move {
                let mut work = pin!(work);
                assert!(is_pending(work.as_mut()).await);
                by.has_begun().await;
                std::panic::resume_unwind(Box::new("adversity"));
            });
            assert!(caller.catch_unwind().await.is_err());
            w.lose();
        })
    }),
    ("dropped on a thread without a runtime", |w| {
        Box::pin(async move {
            let mut work = Box::pin(shield(w.run()));
            assert!(is_pending(work.as_mut()).await);
            std::thread::spawn(move || drop(work)).join().unwrap();
            w.lose();
        })
    }),
    ("dropped on a blocking thread", |w| {
        Box::pin(async move {
            let mut work = Box::pin(shield(w.run()));
            assert!(is_pending(work.as_mut()).await);
            tokio::task::spawn_blocking(move || drop(work)).await.unwrap();
            w.lose();
        })
    }),
    ("shield in a dropped shield", |w| {
        Box::pin(async move {
            let work = shield(shield(w.run()));
            assert!(timeout(Duration::ZERO, work).await.is_err());
            w.lose();
        })
    }),
    ("dropped after its exposed part", |w| {
        Box::pin(async move {
            let work = w.run();
            let work = shield_with(|exposed| async move {
                assert!(exposed.run(async {}).await.is_ok());
                work.await
            });
            assert!(timeout(Duration::ZERO, work).await.is_err());
            w.lose();
        })
    }),
    ("dropped in its exposed part", |w| {
        Box::pin(async move {
            let work = w.run();
            let work = shield_with(|exposed| async move {
                let cause = exposed.run(pending::<()>()).await.unwrap_err().cause().kind();
                assert_eq!(cause, CauseKind::Dropped);
                work.await
            });
            assert!(timeout(Duration::ZERO, work).await.is_err());
            w.lose();
        })
    }),
    ("finalizer of a dropped future", |w| {
        Box::pin(async move {
            let work = w.run();
            let run = pending::<()>().finally(async move {
                work.await;
            });
            assert!(timeout(Duration::ZERO, run).await.is_err());
            w.lose();
        })
    }),
    ("LocalSet, aborted task", |w| {
        Box::pin(async move {
            let task = tokio::task::spawn_local(shield(w.run()));
            w.has_begun().await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            w.lose();
        })
    }),
    ("LocalSet, shield_local dropped", |w| {
        Box::pin(async move {
            assert!(timeout(Duration::ZERO, shield_local(w.run())).await.is_err());
            w.lose();
        })
    }),
    ("LocalSet, shield_local aborted", |w| {
        Box::pin(async move {
            let task = tokio::task::spawn_local(shield_local(w.run()));
            w.has_begun().await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            w.lose();
        })
    }),
    ("LocalSet, shield_local cancelled", |w| {
        Box::pin(async move {
            let scope = CancelScope::new();
            let (handle, work) = (scope.handle(), shield_local(w.run()));
            let run = scope.run(async move {
                assert_eq!(work.await, 7);
                pending::<()>().await;
            });
            let (end, ()) = tokio::join!(run, cancel_when_begun(&w, handle));
            assert!(end.is_err());
        })
    }),
];

async fn cancel_when_begun(w: &Work, scope: ScopeHandle) {
    w.has_begun().await;
    scope.cancel("adversity");
    w.lose();
}

/// Loses the work, allows it to end only after that, and returns at once.
async fn lose_then_allow(way: Way, w: Work) {
    let allow = async {
        w.is_lost().await;
        assert_eq!(w.done(), 0, "the work has ended before it was lost: this proves nothing");
        w.allow(1);
    };
    tokio::join!(way(w.clone()), allow);
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn two_workers() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A program without the runner: the shield ends before `drain` returns, once.
fn check_plain(runtime: fn() -> Runtime) {
    for (name, way) in WAYS {
        let w = Work::new();
        let runtime = runtime();
        let report = LocalSet::new().block_on(&runtime, async {
            lose_then_allow(*way, w.clone()).await;
            drain(LONG).await
        });
        assert!(report.is_clean(), "{name}: {report}");
        assert!(report.events().is_empty(), "{name}: {report}");
        assert_eq!(w.done(), 1, "{name}");
    }
}

/// Under the runner: the shield ends before `run` returns, once.
fn check_run(runner: fn() -> Runner) {
    for (name, way) in WAYS.iter().filter(|(name, _)| !name.starts_with("LocalSet")) {
        let w = Work::new();
        let finished = runner().signals(false).reporter(None).run(lose_then_allow(*way, w.clone()));
        assert!(finished.outcome.is_ok(), "{name}: {:?}", finished.outcome);
        assert!(finished.report.is_clean(), "{name}: {}", finished.report);
        assert_eq!(w.done(), 1, "{name}");
    }
}

#[test]
fn shield_survives_every_loss_on_a_plain_current_thread_runtime() {
    check_plain(current_thread);
}

#[test]
fn shield_survives_every_loss_on_two_plain_workers() {
    check_plain(two_workers);
}

#[test]
fn shield_survives_every_loss_in_a_current_thread_run() {
    check_run(|| Runner::new().current_thread());
}

#[test]
fn shield_survives_every_loss_in_a_run_with_two_workers() {
    check_run(|| Runner::new().worker_threads(2));
}

#[test]
fn shield_in_a_plain_task_ends_before_the_run_returns() {
    let w = Work::new();
    let inner = w.clone();
    let finished = Runner::new().worker_threads(2).signals(false).reporter(None).run(async move {
        plain_task(shield(inner.run()));
        inner.has_begun().await;
        inner.allow(1);
    });
    assert!(finished.report.is_clean(), "{}", finished.report);
    assert_eq!(w.done(), 1);
}

#[test]
fn shield_that_outlives_its_runtime_is_lost_with_name_and_place() {
    let heard = Heard::default();
    let w = Work::new();
    let inner = w.clone();
    let above = line!();
    let finished = Runner::new().current_thread().signals(false).reporter(heard.reporter()).run(async move {
        let mut work = Box::pin(shield(inner.run()).name("ledger"));
        assert!(is_pending(work.as_mut()).await);
        Ok::<_, std::convert::Infallible>(work)
    });
    let work = finished.outcome.unwrap();
    assert!(heard.events().is_empty());
    drop(work);
    let events = heard.events();
    let [Event::Lost(who)] = events.as_slice() else { panic!("{:?}", said(&events)) };
    assert_eq!((who.name(), who.place().line() > above), (Some("ledger"), true));
    assert!(who.place().file().ends_with("adversity.rs"));
    assert_eq!(w.done(), 0);
}

#[test]
fn rescued_shield_that_drain_gives_up_on_is_named() {
    let w = Work::new();
    let above = line!();
    let (given_up, report) = current_thread().block_on(async {
        assert!(timeout(Duration::ZERO, shield(w.run()).name("ledger")).await.is_err());
        let given_up = drain(Duration::ZERO).await;
        w.allow(1);
        (given_up, drain(LONG).await)
    });
    let [who] = given_up.left() else { panic!("{given_up}") };
    assert_eq!((who.what(), who.name()), ("rescued shield", Some("ledger")));
    assert!(who.place().line() > above && who.place().file().ends_with("adversity.rs"));
    assert_eq!(given_up.lost(), 0, "it can still end");
    assert!(report.is_clean(), "{report}");
    assert_eq!(w.done(), 1);
}

#[test]
fn local_shield_without_its_local_set_is_lost_with_name_and_place() {
    let w = Work::new();
    let runtime = current_thread();
    let set = LocalSet::new();
    let inner = w.clone();
    let above = line!();
    set.spawn_local(shield_local(w.run()).name("ledger"));
    let report = runtime.block_on(async {
        set.run_until(async { inner.has_begun().await }).await;
        drop(set);
        drain(Duration::ZERO).await
    });
    let [Event::Lost(who)] = report.events() else { panic!("{report}") };
    assert_eq!((who.name(), who.place().line() > above), (Some("ledger"), true));
    assert_eq!((report.lost(), w.done()), (1, 0));
}

#[test]
fn local_shield_dropped_after_its_local_set_is_lost_once() {
    let w = Work::new();
    let runtime = current_thread();
    let set = LocalSet::new();
    let report = runtime.block_on(async {
        let mut work = Box::pin(shield_local(w.run()).name("ledger"));
        set.run_until(async { assert!(is_pending(work.as_mut()).await) }).await;
        drop(set);
        drop(work);
        drain(Duration::ZERO).await
    });
    assert_eq!(said(report.events()), ["lost ledger"]);
    assert_eq!((report.lost(), report.left().len(), w.done()), (1, 0, 0));
}

#[testudo::test(start_paused = true)]
async fn borrowed_shield_dropped_half_way_says_so_once() {
    let done = Count::default();
    let work = async {
        sleep(S).await;
        done.add();
    };
    assert!(timeout(S / 2, shield_scoped(work).name("ledger")).await.is_err());
    let report = drain(10 * S).await;
    assert_eq!(said(report.events()), ["dropped ledger"]);
    assert_eq!((report.lost(), done.get()), (1, 0));
}

#[testudo::test(start_paused = true)]
async fn shield_dropped_before_its_first_poll_is_no_loss() {
    let w = Work::new();
    drop(shield(w.run()));
    drop(shield_local(w.run()));
    drop(shield_scoped(w.run()));
    let report = drain(S).await;
    assert!(report.is_clean() && report.events().is_empty(), "{report}");
    assert_eq!(w.done(), 0);
}

#[testudo::test(start_paused = true)]
async fn everything_opened_inside_a_shield_is_covered_by_it() {
    let w = Work::new();
    let [in_scope, in_body, in_child, in_grandchild, in_local] = [(); 5].map(|()| w.run());
    let inside = shield(async move {
        let scoped = CancelScope::new().run(in_scope).await.is_ok();
        let joined = nursery(|n| async move {
            let siblings = n.clone();
            n.spawn(async move {
                siblings.spawn(async move {
                    in_grandchild.await;
                });
                in_child.await;
            });
            in_body.await;
        });
        let joined = joined.await.is_ok();
        (scoped, joined)
    });
    let local = shield_scoped(async {
        let run = nursery_local(|n| {
            n.spawn(async {
                in_local.await;
            });
            async {}
        });
        run.await.is_ok()
    });
    let scope = CancelScope::new();
    let handle = scope.handle();
    let run = scope.run(async { tokio::join!(inside, local) });
    let cancel = async {
        w.has_begun().await;
        handle.cancel("adversity");
        sleep(S).await;
        assert_eq!(w.done(), 0);
        w.allow(5);
    };
    let (end, ()) = tokio::join!(run, cancel);
    assert_eq!(end.unwrap(), ((true, true), true), "nothing was cut off, so the body has ended");
    assert_eq!(w.done(), 5);
}

#[testudo::test(start_paused = true)]
async fn everything_opened_inside_a_shield_is_covered_after_a_rescue() {
    let w = Work::new();
    let [in_body, in_child] = [(); 2].map(|()| w.run());
    let work = shield(async move {
        let run = nursery(|n| async move {
            n.spawn(async move {
                in_child.await;
            });
            in_body.await;
        });
        run.await.unwrap();
    });
    let end = CancelScope::new().timeout(2 * S).run(async {
        assert!(timeout(S, work).await.is_err());
        sleep(100 * S).await;
    });
    assert!(end.await.is_err());
    assert_eq!(w.done(), 0);
    w.allow(2);
    assert!(drain(S).await.is_clean());
    assert_eq!(w.done(), 2);
}

#[testudo::test(start_paused = true)]
async fn deadlines_inside_a_shield_still_count() {
    let began = Instant::now();
    let end = CancelScope::new().timeout(S).run(shield(async move {
        let moved_on = move_on_after(3 * S, sleep(100 * S)).await;
        assert_eq!((moved_on, began.elapsed()), (None, 3 * S));
        let run = nursery(|n| async move {
            n.spawn(async { sleep(100 * S).await });
            pending::<()>().await;
        });
        assert!(run.timeout(3 * S).await.unwrap_err().is_cancelled());
        assert_eq!(began.elapsed(), 6 * S);
        fail_after(3 * S, sleep(100 * S)).await
    }));
    assert!(end.await.unwrap().is_err(), "the inner time-out, as a value");
    assert_eq!(began.elapsed(), 9 * S);
}

#[testudo::test(start_paused = true)]
async fn child_spawned_inside_a_shield_into_a_nursery_outside_is_not_covered() {
    let done = Count::default();
    let counted = done.clone();
    let run = nursery(|n| async move {
        let outer = n.clone();
        shield(async move {
            let child = outer.spawn(async { sleep(100 * S).await });
            outer.cancel("adversity");
            assert!(child.await.is_cancelled(), "it is the outer nursery's");
            sleep(S).await;
            counted.add();
        })
        .await;
        pending::<()>().await;
    });
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(done.get(), 1);
}

#[test]
fn task_of_the_root_is_not_covered_by_the_shield_that_spawned_it() {
    let ends = Heard::default();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(None));
    let slot = seen.clone();
    let runner = Runner::new().current_thread().signals(false).reporter(ends.reporter());
    let finished = runner.run(async move {
        let scope = CancelScope::new();
        let handle = scope.handle();
        let end = scope.run(shield(async move {
            spawn(async move {
                let cause = cancelled().await;
                *slot.lock().unwrap() = Some(cause.kind());
            });
            turns().await;
            handle.cancel("the place that spawned it");
            turns().await;
        }));
        end.await.unwrap();
        turns().await;
        assert_eq!(find("main").len(), 1);
        assert_eq!(all_tasks().len(), 2, "neither that cancel nor the end of the shield has reached it");
    });
    assert!(finished.outcome.is_ok());
    assert_eq!(*seen.lock().unwrap(), Some(CauseKind::MainEnded));
}
