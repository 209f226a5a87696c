//! Nothing is orphaned: whatever is dropped, somebody owns the work, waits for it, and hears how it has ended.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, mpsc};

use futures_util::FutureExt;
use testudo::{
    AbsorbCancel, CancelScope, CauseKind, Failed, FinalizeExt, Finished, Nursery, NurseryError, Outcome, Policy,
    Runner, StartError, all_tasks, cancel, cancelled, current_task, drain, dump, find, move_on_after, nursery,
    nursery_local, root_nursery, shield, shield_scoped, shield_with, spawn,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, advance, sleep, timeout};

use crate::support::{Count, Heard, Log, OnDrop, S, Work, blow_up, is_pending, said, turns};

#[derive(Debug, PartialEq, Eq)]
struct Boom(u8);

impl std::fmt::Display for Boom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "boom {}", self.0)
    }
}

impl Error for Boom {}

/// Something that is dropped half-way, with work in it that must go on to its end.
type Orphan = fn(Work) -> futures_util::future::LocalBoxFuture<'static, ()>;

const ORPHANS: &[(&str, Orphan)] = &[
    ("shield", |w| Box::pin(shield(w.run()).map(drop))),
    ("shield in its exposed part", |w| {
        let work = w.run();
        let run = shield_with(|exposed| async move {
            assert!(exposed.run(pending::<()>()).await.is_err());
            work.await;
        });
        Box::pin(run)
    }),
    ("nursery", |w| {
        let work = shield(w.run());
        let run = nursery(|n| async move {
            n.spawn(work.map(drop));
            pending::<()>().await;
        });
        Box::pin(run.map(drop))
    }),
    ("nursery in its join", |w| {
        let work = shield(w.run());
        let run = nursery(|n| async move {
            n.spawn(work.map(drop));
        });
        Box::pin(run.map(drop))
    }),
    ("nursery in a nursery", |w| {
        let work = shield(w.run());
        let inner = nursery(|n| async move {
            n.spawn(work.map(drop));
        });
        let outer = nursery(|n| async move {
            n.spawn(inner.map(drop));
        });
        Box::pin(outer.map(drop))
    }),
    ("handle of a child", |w| {
        let work = shield(w.run());
        let run = nursery(|n| async move {
            drop(n.spawn(work.map(drop)));
            pending::<()>().await;
        });
        Box::pin(run.map(drop))
    }),
    ("daemon", |w| {
        let work = shield(w.run());
        let run = nursery(|n| async move {
            n.task().daemon().spawn(work.map(drop));
            pending::<()>().await;
        });
        Box::pin(run.map(drop))
    }),
    ("shielded child", |w| {
        let work = w.run();
        let run = nursery(|n| async move {
            n.task().shielded(true).spawn(work.map(drop));
            pending::<()>().await;
        });
        Box::pin(run.map(drop))
    }),
    ("start", |w| {
        let work = shield(w.run());
        let run = nursery(|n| async move {
            let child = n.start(|started| async move {
                work.await;
                started.started(());
            });
            drop(child.await);
        });
        Box::pin(run.map(drop))
    }),
    ("started child", |w| {
        let work = shield(w.run());
        let run = nursery(|n| async move {
            let child = n.start(|started| async move {
                started.started(());
                work.await;
            });
            child.await.unwrap();
        });
        Box::pin(run.map(drop))
    }),
    ("finalizer", |w| Box::pin(pending::<()>().finally(w.run().map(drop)))),
    ("scope", |w| Box::pin(CancelScope::new().run(shield(w.run())).map(drop))),
    ("child of a nursery_local", |w| {
        let work = shield(w.run());
        let run = nursery_local(|n| {
            n.spawn(work.map(drop));
            pending::<()>()
        });
        Box::pin(run.map(drop))
    }),
];

/// Drops the orphan half-way, then lets its work go on. The turns let it begin; the last of them is a child of a child.
async fn orphan(make: Orphan, w: &Work) {
    let mut run = make(w.clone());
    assert!(is_pending(run.as_mut()).await);
    for _ in 0..4 {
        turns().await;
        assert!(is_pending(run.as_mut()).await);
    }
    drop(run);
    assert_eq!(w.done(), 0);
}

#[testudo::test(start_paused = true)]
async fn nursery_waits_for_whatever_is_orphaned_in_its_body() {
    for (name, make) in ORPHANS {
        let w = Work::new();
        let inner = w.clone();
        let run = nursery(|n| async move {
            orphan(*make, &inner).await;
            assert!(!n.is_empty(), "{name}: the nursery owns it now");
            inner.allow(1);
        });
        run.await.unwrap();
        assert_eq!(w.done(), 1, "{name}: the nursery has ended before its orphan");
        let report = drain(S).await;
        assert!(report.is_clean() && report.events().is_empty(), "{name}: {report}");
    }
}

#[testudo::test(start_paused = true)]
async fn nursery_local_waits_for_whatever_is_orphaned_in_its_child() {
    for (name, make) in ORPHANS {
        let w = Work::new();
        let inner = w.clone();
        let run = nursery_local(|n| {
            n.spawn(async move {
                orphan(*make, &inner).await;
                inner.allow(1);
            });
            async {}
        });
        run.await.unwrap();
        assert_eq!(w.done(), 1, "{name}: the nursery has ended before its orphan");
        assert!(drain(S).await.is_clean());
    }
}

#[testudo::test(start_paused = true)]
async fn nursery_waits_for_a_shield_orphaned_in_its_child() {
    let w = Work::new();
    let inner = w.clone();
    let run = nursery(|n| async move {
        n.spawn(async move {
            assert!(timeout(S, shield(inner.run())).await.is_err());
            inner.allow(1);
        });
    });
    run.await.unwrap();
    assert_eq!(w.done(), 1);
}

#[test]
fn run_waits_for_whatever_is_orphaned_outside_of_any_nursery() {
    for (name, make) in ORPHANS {
        let w = Work::new();
        let inner = w.clone();
        let finished = Runner::new().current_thread().signals(false).reporter(None).run(async move {
            orphan(*make, &inner).await;
            inner.allow(1);
        });
        assert!(finished.report.is_clean(), "{name}: {}", finished.report);
        assert_eq!(w.done(), 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_whatever_is_orphaned_without_the_runner() {
    for (name, make) in ORPHANS {
        let w = Work::new();
        orphan(*make, &w).await;
        w.allow(1);
        let report = drain(S).await;
        assert!(report.is_clean(), "{name}: {report}");
        assert_eq!(w.done(), 1, "{name}");
    }
}

#[testudo::test(start_paused = true)]
async fn orphans_of_a_nursery_that_is_dropped_itself_go_to_the_next_open_one() {
    let w = Work::new();
    let (inner, orphaned) = (w.clone(), w.clone());
    let run = nursery(|n| async move {
        let middle = nursery(|_| async move {
            orphan(|w| Box::pin(shield(w.run()).map(drop)), &orphaned).await;
            pending::<()>().await;
        });
        assert!(timeout(S, middle).await.is_err());
        assert_eq!(n.len(), 1);
        n.spawn(async move {
            sleep(S).await;
            inner.allow(1);
        });
    });
    run.await.unwrap();
    assert_eq!(w.done(), 1);
}

#[testudo::test(start_paused = true)]
async fn a_nursery_that_is_carried_out_of_what_it_unwound_for_returns() {
    let mut run = Box::pin(nursery(|n| async move {
        n.spawn(pending::<()>());
        pending::<()>().await;
    }));
    let scope = CancelScope::new();
    let handle = scope.handle();
    let around = scope.run(async {
        assert!(is_pending(run.as_mut()).await);
        turns().await;
        handle.cancel("enough");
        // Its child is cut off for the scope, and it is not polled any more.
        pending::<()>().await;
    });
    around.await.unwrap_err();
    let end = timeout(S, run).await.expect("it does not wait for ever");
    assert!(matches!(end, Err(NurseryError::Cancelled(cause)) if cause.reason() == Some("enough")));
}

#[testudo::test(start_paused = true)]
async fn blocking_work_of_a_dropped_nursery_is_waited_for_and_told() {
    let (told, until_told) = mpsc::channel();
    let done = Count::default();
    let counted = done.clone();
    let outer = nursery(|_| async move {
        let inner = nursery(|n| async move {
            n.spawn_blocking(move |cx| {
                until_told.recv().unwrap();
                assert!(cx.is_cancelled());
                assert_eq!(cx.cause().unwrap().kind(), CauseKind::Dropped);
                counted.add();
            });
            pending::<()>().await;
        });
        let mut inner = Box::pin(inner);
        assert!(is_pending(inner.as_mut()).await);
        turns().await;
        drop(inner);
        told.send(()).unwrap();
    });
    outer.await.unwrap();
    assert_eq!(done.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn what_blocking_work_begins_has_an_age_of_its_own() {
    let (go, until_go) = mpsc::channel();
    let (begun, mut until_begun) = tokio::sync::mpsc::unbounded_channel();
    let run = nursery(|n| async move {
        let siblings = n.clone();
        n.spawn_blocking(move |_| {
            for () in until_go {
                begun.send(siblings.spawn(pending::<()>()).as_ref()).unwrap();
            }
        });
        go.send(()).unwrap();
        let first = until_begun.recv().await.unwrap();
        advance(S).await;
        go.send(()).unwrap();
        let second = until_begun.recv().await.unwrap();
        assert_eq!(first.age() - second.age(), S);
        n.cancel("enough");
    });
    run.await.unwrap();
}

#[testudo::test(start_paused = true)]
async fn abandoned_blocking_work_does_not_keep_its_cancelled_nursery() {
    let (release, until_released) = mpsc::channel::<()>();
    let run = nursery(|n| async move {
        n.task().abandon().spawn_blocking(move |_| until_released.recv().unwrap());
        turns().await;
        n.cancel("enough");
    });
    run.await.unwrap();
    release.send(()).unwrap();
}

#[testudo::test(start_paused = true)]
async fn children_of_a_dropped_nursery_local_are_dropped_with_it_and_it_is_no_loss() {
    let dropped = Count::default();
    let words = [dropped.clone(), dropped.clone()];
    let run = nursery_local(|n| {
        for word in &words {
            let guard = OnDrop(word.clone());
            n.spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            });
        }
        pending::<()>()
    });
    assert!(timeout(S, run).await.is_err());
    assert_eq!(dropped.get(), 2);
    let report = drain(S).await;
    assert!(report.is_clean() && report.events().is_empty(), "{report}");
}

#[testudo::test(start_paused = true)]
async fn error_in_a_nursery_local_that_is_dropped_before_its_end_is_reported() {
    let run = nursery_local(|n| {
        n.spawn(async { Err::<(), _>(Boom(1)) });
        n.spawn(async {
            shield(sleep(10 * S)).await;
            Ok(())
        });
        pending::<Result<(), Boom>>()
    });
    assert!(timeout(S, run).await.is_err());
    let report = drain(20 * S).await;
    let [text] = said(report.events()).try_into().unwrap_or_else(|all| panic!("{all:?}"));
    assert!(text.ends_with("boom 1"), "{text}");
}

#[testudo::test(start_paused = true)]
async fn failure_of_adopted_work_never_triggers_the_policy_of_its_adopter() {
    let run = nursery(|n| async move {
        let lost = nursery(|inner| async move {
            inner.task().name("late error").spawn(shield(async {
                sleep(2 * S).await;
                Err::<(), _>(Boom(1))
            }));
            inner.task().name("late panic").spawn(shield(async {
                sleep(3 * S).await;
                blow_up("late");
            }));
            pending::<Result<(), Boom>>().await
        });
        assert!(timeout(S, lost).await.is_err());
        let rescued = shield(async {
            sleep(2 * S).await;
            blow_up("rescued");
        });
        assert!(timeout(S, rescued.name("ledger")).await.is_err());
        assert!(!n.scope().is_cancelled());
        sleep(10 * S).await;
        Ok::<_, Boom>(7)
    });
    assert_eq!(run.await.unwrap(), 7);
    let report = drain(S).await;
    let mut said = said(report.events());
    said.sort();
    assert_eq!(said, ["failed late error: boom 1", "panicked late panic: late", "panicked ledger: rescued"]);
    assert!(report.is_clean(), "reported, but not lost");
}

#[testudo::test(start_paused = true)]
async fn value_of_a_rescued_shield_goes_to_on_rescued_and_only_then() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let taken = |name: &'static str| {
        let seen = Arc::clone(&seen);
        move |value: u8| seen.lock().unwrap().push((name, value))
    };
    assert_eq!(shield(async { 1 }).on_rescued(taken("in place")).await, 1);
    let late = async {
        sleep(2 * S).await;
        2
    };
    assert!(timeout(S, shield(late).on_rescued(taken("rescued"))).await.is_err());
    assert!(drain(10 * S).await.is_clean());
    assert_eq!(*seen.lock().unwrap(), [("rescued", 2)]);
}

#[testudo::test(start_paused = true)]
async fn error_of_a_rescued_shield_is_reported_if_it_was_asked_for() {
    let late = || async {
        sleep(2 * S).await;
        Err::<(), _>(Boom(3))
    };
    assert!(timeout(S, shield(late()).name("silent")).await.is_err());
    assert!(timeout(S, shield(late()).name("loud").report_err()).await.is_err());
    assert_eq!(shield(late()).name("in place").report_err().await, Err(Boom(3)));
    let report = drain(10 * S).await;
    assert_eq!(said(report.events()), ["failed loud: boom 3"]);
}

#[testudo::test(start_paused = true)]
async fn fail_fast_cancels_the_rest_awaits_all_and_holds_every_error() {
    let log = Log::default();
    let cleaned = log.clone();
    let run = nursery(|n| async move {
        n.task().name("first").spawn(async {
            sleep(S).await;
            Err::<(), _>(Boom(1))
        });
        n.task().name("second").spawn(async {
            let cause = cancelled().await;
            assert_eq!((cause.kind(), cause.task()), (CauseKind::Failed, Some("first")));
            Err::<(), _>(Boom(2))
        });
        n.spawn(async move {
            shield(async { sleep(5 * S).await }).await;
            cleaned.push("awaited");
            Ok::<(), _>(())
        });
        sleep(100 * S).await;
        Ok(())
    });
    let error = run.await.unwrap_err();
    assert_eq!(error.source().and_then(|source| source.downcast_ref::<Boom>()), Some(&Boom(1)));
    let failures = error.failures().unwrap();
    let names: Vec<_> = failures.iter().map(|failure| failure.task()).collect();
    assert_eq!((names, log.seen()), (vec!["first", "second"], vec!["awaited"]));
    assert_eq!(error.to_string(), "task `first` failed: boom 1 (and 1 more)");
}

#[testudo::test(start_paused = true)]
async fn error_of_the_body_cancels_the_children_and_comes_first() {
    let run = nursery(|n| async move {
        n.spawn(pending::<Result<(), Boom>>());
        Err::<(), _>(Boom(9))
    });
    let error = run.await.unwrap_err();
    assert!(matches!(error.failures().unwrap().first().what(), Failed::Error(error) if **error == Boom(9)));
}

#[testudo::test(start_paused = true)]
async fn awaited_error_still_cancels_the_siblings_and_is_shared() {
    let run = nursery(|n| async move {
        let sibling = n.spawn(pending::<Result<(), Boom>>());
        let Outcome::Err(error) = n.spawn(async { Err::<(), _>(Boom(1)) }).await else { panic!("it has failed") };
        assert_eq!(*error, Boom(1));
        assert!(sibling.await.is_cancelled());
        Ok(())
    });
    assert_eq!(run.await.unwrap_err().failures().unwrap().len(), 1);
}

#[testudo::test(start_paused = true)]
async fn supervise_isolates_and_gives_errors_to_the_handles_alone() {
    let run = nursery(|n| async move {
        let seen = n.spawn(async { Err::<(), _>(Boom(1)) });
        n.task().name("unseen").spawn(async { Err::<(), _>(Boom(2)) });
        n.task().name("unseen panic").spawn(async { blow_up("late") });
        let sibling = n.spawn(async {
            sleep(S).await;
            Ok(())
        });
        assert!(matches!(seen.await, Outcome::Err(error) if *error == Boom(1)));
        assert!(sibling.await.is_ok());
        Ok(7)
    });
    assert_eq!(run.policy(Policy::Supervise).await.unwrap(), 7);
    let report = drain(S).await;
    let mut said = said(report.events());
    said.sort();
    assert_eq!(said, ["failed unseen: boom 2", "panicked unseen panic: late"]);
}

#[testudo::test(start_paused = true)]
async fn unseen_error_of_a_supervised_child_is_reported_once_whenever_its_handle_goes() {
    let run = nursery(|n| async move {
        let child = n.task().name("early end").spawn(async { Err::<(), _>(Boom(1)) });
        turns().await;
        assert!(child.is_finished());
        drop(child);
        let child = n.task().name("late end").spawn(async {
            turns().await;
            Err::<(), _>(Boom(2))
        });
        drop(child);
        Ok(())
    });
    run.policy(Policy::Supervise).await.unwrap();
    let report = drain(S).await;
    assert_eq!(said(report.events()), ["failed early end: boom 1", "failed late end: boom 2"]);
}

#[testudo::test(start_paused = true)]
async fn first_success_cancels_the_others_and_forgives_what_failed_before() {
    let run = nursery(|n| async move {
        n.spawn(async { Err::<u8, _>(Boom(1)) });
        let winner = n.task().name("winner").spawn(async {
            sleep(S).await;
            Ok(7)
        });
        let slow = n.spawn(async {
            sleep(100 * S).await;
            Ok(8)
        });
        let value = winner.await.ok();
        let Outcome::Cancelled(cause) = slow.await else { panic!("it was cut off") };
        assert_eq!((cause.kind(), cause.task()), (CauseKind::Succeeded, Some("winner")));
        Ok(value)
    });
    let began = Instant::now();
    let value = run.policy(Policy::FirstSuccess).await;
    assert_eq!(began.elapsed(), S);
    assert_eq!(value.unwrap(), Some(7));
}

#[testudo::test(start_paused = true)]
async fn first_success_fails_with_every_error_if_none_succeeds() {
    let run = nursery(|n| async move {
        n.spawn(async { Err::<(), _>(Boom(1)) });
        n.spawn(async { Err::<(), _>(Boom(2)) });
        Ok(())
    });
    assert_eq!(run.policy(Policy::FirstSuccess).await.unwrap_err().failures().unwrap().len(), 2);
}

#[testudo::test(start_paused = true)]
async fn collect_cancels_nobody_and_returns_errors_and_panics() {
    let done = Count::default();
    let counted = done.clone();
    let run = nursery(|n| async move {
        n.spawn(async { Err::<(), _>(Boom(1)) });
        n.spawn(async { blow_up("oh") });
        sleep(S).await;
        counted.add();
        Ok(())
    });
    let error = run.policy(Policy::Collect).await.unwrap_err();
    let all: Vec<_> = error.failures().unwrap().iter().map(|failure| failure.error().to_string()).collect();
    assert_eq!((all, done.get()), (vec!["boom 1".to_owned(), "panicked: oh".to_owned()], 1));
}

#[testudo::test(start_paused = true)]
async fn panic_cancels_the_siblings_at_once_and_goes_on_at_the_end_with_its_payload() {
    let log = Log::default();
    let cleaned = log.clone();
    let run = nursery(|n| async move {
        n.spawn(async {
            sleep(S).await;
            blow_up(Boom(5));
        });
        n.spawn(pending::<()>().on_cancel(async move { cleaned.push("cleaned") }));
        n.task().name("error beside it").spawn(async {
            cancelled().await;
            Err::<(), _>(Boom(6))
        });
        sleep(100 * S).await;
        Ok(())
    });
    let began = Instant::now();
    let payload = AssertUnwindSafe(run).catch_unwind().await.map(drop).unwrap_err();
    assert_eq!(payload.downcast_ref::<Boom>(), Some(&Boom(5)));
    assert_eq!((began.elapsed(), log.seen()), (S, vec!["cleaned"]));
    let report = drain(S).await;
    assert_eq!(
        said(report.events()),
        ["failed error beside it: boom 6"],
        "no error is lost because a panic came first"
    );
}

#[testudo::test(start_paused = true)]
async fn error_that_comes_after_a_cancel_of_the_nursery_is_not_lost() {
    let run = nursery(|n| async move {
        n.spawn(async {
            cancelled().await;
            Err::<(), _>(Boom(1))
        });
        turns().await;
        n.cancel("enough");
        Ok(())
    });
    assert!(matches!(run.await, Err(NurseryError::Failed(failures)) if failures.len() == 1));
}

#[testudo::test(start_paused = true)]
async fn error_in_a_nursery_that_unwinds_from_outside_is_reported() {
    let run = nursery(|n| async move {
        n.task().name("late").spawn(async {
            cancelled().await;
            Err::<(), _>(Boom(1))
        });
        pending::<Result<(), Boom>>().await
    });
    assert!(CancelScope::new().timeout(S).run(run).await.is_err());
    assert_eq!(said(drain(S).await.events()), ["failed late: boom 1"]);
}

#[testudo::test(start_paused = true)]
async fn own_cancel_is_no_failure_and_has_a_short_way_to_an_option() {
    let run = |finish: bool| {
        nursery(move |n| async move {
            n.spawn(pending::<Result<(), Boom>>());
            turns().await;
            n.cancel("enough");
            if !finish {
                pending::<()>().await;
            }
            Ok::<_, Boom>(7)
        })
    };
    assert_eq!(run(true).await.unwrap(), 7, "a body that ends all the same gives its value");
    let cut = run(false).await;
    assert!(matches!(&cut, Err(NurseryError::Cancelled(cause)) if cause.reason() == Some("enough")));
    assert_eq!(cut.absorb_cancel().unwrap(), None);
}

#[testudo::test(start_paused = true)]
async fn nursery_whose_child_was_cut_off_from_outside_does_not_return() {
    let published = Count::default();
    let counted = published.clone();
    let scope = CancelScope::new().timeout(S).run(async move {
        let run = nursery(|n| async move {
            n.spawn(pending::<()>());
        });
        drop(run.await);
        counted.add();
    });
    assert!(scope.await.is_err());
    assert_eq!(published.get(), 0);
}

#[testudo::test(start_paused = true)]
async fn daemons_are_cancelled_when_only_they_are_left() {
    let run = nursery(|n| async move {
        let daemon = n.task().daemon().spawn(pending::<()>());
        n.spawn(async move { sleep(S).await });
        Ok::<_, Infallible>(daemon)
    });
    let began = Instant::now();
    let daemon = run.await.unwrap();
    assert_eq!(began.elapsed(), S);
    let Outcome::Cancelled(cause) = daemon.await else { panic!("it was cut off") };
    assert_eq!(cause.kind(), CauseKind::OnlyDaemons);
}

#[testudo::test(start_paused = true)]
async fn failure_of_a_daemon_is_a_failure() {
    let run = nursery(|n| async move {
        n.task().daemon().spawn(async { Err::<(), _>(Boom(1)) });
        sleep(S).await;
        Ok(())
    });
    assert!(run.await.unwrap_err().failures().is_some());
}

#[testudo::test(start_paused = true)]
async fn closed_nursery_gives_the_future_back_unpolled() {
    let polled = Count::default();
    let mut kept: Option<Nursery<Infallible>> = None;
    nursery(|n| {
        kept = Some(n);
        async {}
    })
    .await
    .unwrap();
    let kept = kept.unwrap();
    let counted = polled.clone();
    let refused = kept.try_spawn(async move { counted.add() }).unwrap_err();
    turns().await;
    assert_eq!(polled.get(), 0);
    refused.into_future().await;
    assert_eq!(polled.get(), 1, "it can be used elsewhere");
    assert!(matches!(kept.start(|s| async move { s.started(()) }).await, Err(StartError::Closed)));
}

#[testudo::test(start_paused = true)]
async fn child_spawned_into_a_cancelled_nursery_runs_to_its_first_suspension() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        n.cancel("before");
        n.spawn(async move {
            inner.push("begun");
            shield(async { sleep(S).await }).await;
            inner.push("shielded");
            sleep(S).await;
            inner.push("too far");
        });
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["begun", "shielded"]);
}

#[testudo::test(start_paused = true)]
async fn cancel_says_whether_it_was_still_possible() {
    let run = nursery(|n| async move {
        let child = n.spawn(pending::<()>());
        assert!(child.cancel("first"));
        assert!(child.cancel("second"), "it has not ended yet");
        let mut child = child;
        let Outcome::Cancelled(cause) = child.outcome().await else { panic!("it was cut off") };
        assert_eq!(cause.reason(), Some("first"));
        assert!(child.is_finished() && !child.cancel("third"));
        assert!(!n.scope().is_cancelled(), "its siblings are not touched");
    });
    run.await.unwrap();
}

#[testudo::test(start_paused = true)]
async fn cancel_and_wait_requests_even_if_nobody_awaits() {
    let run = nursery(|n| async move {
        let child = n.spawn(pending::<()>());
        let seen = child.as_ref();
        drop(child.cancel_and_wait("now"));
        turns().await;
        assert!(seen.is_finished());
    });
    run.await.unwrap();
}

#[testudo::test(start_paused = true)]
async fn names_need_not_be_unique_but_a_cancel_by_name_does() {
    let run = nursery(|n| async move {
        let twins = [n.task().name("twin").spawn(pending::<()>()), n.task().name("twin").spawn(pending::<()>())];
        let unnamed = n.spawn(pending::<()>());
        assert_eq!(&*unnamed.name(), format!("Task-{}", unnamed.id()));
        let ids: Vec<_> = find("twin").iter().map(testudo::TaskRef::id).collect();
        assert_eq!(ids, [twins[0].id(), twins[1].id()]);
        let error = cancel("twin", "which?").unwrap_err();
        assert_eq!(error.ids(), ids);
        assert!(ids.iter().all(|id| error.to_string().contains(&id.to_string())), "{error}");
        assert!(cancel("nobody", "").unwrap_err().ids().is_empty());
        assert!(cancel(ids[0], "this one").unwrap());
        let [first, second] = twins;
        assert!(first.await.is_cancelled());
        assert!(cancel("twin", "now it is one").unwrap());
        assert!(second.await.is_cancelled());
        unnamed.cancel("the end");
    });
    run.await.unwrap();
    let me = current_task().unwrap();
    assert_eq!(all_tasks(), [me]);
}

#[testudo::test(start_paused = true)]
async fn error_before_started_comes_out_of_start_alone() {
    let run = nursery(|n| async move {
        let child = n.start(|started: testudo::Started<()>| async move {
            let _never = started;
            sleep(S).await;
            Err::<(), _>(Boom(1))
        });
        assert!(matches!(child.await, Err(StartError::Failed(Boom(1)))));
        let child = n.start(|started: testudo::Started<()>| async move { drop(started) });
        assert!(matches!(child.await, Err(StartError::NotStarted)));
        Ok::<_, Boom>(())
    });
    run.await.unwrap();
}

#[testudo::test(start_paused = true)]
async fn error_after_started_is_the_nurserys() {
    let run = nursery(|n| async move {
        let child = n.start(|started| async move {
            started.started(7);
            sleep(S).await;
            Err::<(), _>(Boom(1))
        });
        assert_eq!(child.await.unwrap(), 7);
        sleep(100 * S).await;
        Ok(())
    });
    assert_eq!(run.await.unwrap_err().failures().unwrap().len(), 1);
}

#[testudo::test(start_paused = true)]
async fn error_before_started_is_reported_if_the_caller_of_start_is_gone() {
    let run = nursery(|n| async move {
        let failing = |code| {
            move |started: testudo::Started<()>| async move {
                let _never = started;
                shield(sleep(S)).await;
                Err::<(), _>(Boom(code))
            }
        };
        assert!(timeout(S / 2, n.start(failing(1))).await.is_err());
        sleep(S).await;
        let mut late = Box::pin(n.start(failing(2)));
        assert!(is_pending(late.as_mut()).await);
        sleep(2 * S).await;
        drop(late);
        Ok::<_, Boom>(())
    });
    run.await.unwrap();
    let said: Vec<_> = drain(S).await.events().iter().map(ToString::to_string).collect();
    assert!(said.len() == 2 && said[0].contains("boom 1") && said[1].contains("boom 2"), "{said:?}");
}

#[testudo::test]
async fn value_of_a_child_that_started_in_a_cancelled_start_arrives_when_it_has_ended() {
    let scope = CancelScope::new();
    scope.handle().cancel("early");
    let log = Log::default();
    let child = log.clone();
    let run = nursery(|n| async move {
        let start = n.start(|started| async move {
            started.started(7);
            shield(turns()).await;
            child.push("ended");
        });
        scope.run(start).await.unwrap().map_err(|error| error.to_string())
    });
    assert_eq!(run.await.unwrap(), 7);
    assert_eq!(log.seen(), ["ended"]);
}

#[testudo::test(start_paused = true)]
async fn start_cancelled_before_started_keeps_the_child_under_its_caller() {
    let log = Log::default();
    let inner = log.clone();
    let run = nursery(|n| async move {
        let started = move_on_after(
            S,
            n.start(|started| async move {
                let cause = cancelled().await;
                assert_eq!(cause.kind(), CauseKind::Deadline);
                started.started(());
                inner.push("told");
                sleep(S).await;
                inner.push("too far");
            }),
        );
        assert!(started.await.is_none());
        assert!(n.is_empty());
    });
    run.await.unwrap();
    assert_eq!(log.seen(), ["told"]);
}

fn finish<F: Future<Output: testudo::TaskOutput>>(
    runner: Runner,
    main: F,
) -> Finished<<F::Output as testudo::TaskOutput>::Value, <F::Output as testudo::TaskOutput>::Error> {
    runner.current_thread().signals(false).reporter(None).run(main)
}

#[test]
fn tasks_of_the_root_are_cancelled_when_main_has_ended_and_awaited() {
    let log = Log::default();
    let inner = log.clone();
    let finished = finish(Runner::new(), async move {
        spawn(async move {
            assert_eq!(cancelled().await.kind(), CauseKind::MainEnded);
            shield(turns()).await;
            inner.push("cleaned up");
            turns().await;
            inner.push("too far");
        });
        turns().await;
    });
    assert!(finished.outcome.is_ok() && finished.report.is_clean());
    assert_eq!(log.seen(), ["cleaned up"]);
}

#[test]
fn wait_for_tasks_lets_tasks_of_the_root_end() {
    let log = Log::default();
    let inner = log.clone();
    let finished = finish(Runner::new().wait_for_tasks(true), async move {
        spawn(async move {
            turns().await;
            inner.push("done");
        });
    });
    assert!(finished.outcome.is_ok());
    assert_eq!(log.seen(), ["done"]);
}

#[test]
fn error_of_a_task_of_the_root_that_nobody_awaits_is_in_the_report_once() {
    let heard = Heard::default();
    let runner = Runner::new().current_thread().signals(false).reporter(heard.reporter());
    let finished = runner.run(async {
        root_nursery().task().name("lonely").spawn(async { Err::<(), _>(Boom(1)) });
        turns().await;
    });
    assert!(finished.outcome.is_ok());
    assert_eq!(said(finished.report.events()), ["failed lonely: boom 1"]);
    assert_eq!(said(&heard.events()), ["failed lonely: boom 1"]);
}

#[test]
fn shielded_main_survives_any_number_of_cancels() {
    let finished = finish(Runner::new().shield_main(true), async {
        for _ in 0..3 {
            assert!(cancel("main", "adversity").unwrap());
            turns().await;
        }
        let text = dump().to_string();
        assert!(text.contains("shield at tests/it/ownership.rs") && !text.contains("at src/"), "{text}");
        Ok::<_, Infallible>(7)
    });
    assert_eq!(finished.outcome, Outcome::Ok(7));
}

#[test]
fn main_that_is_cancelled_by_name_ends_with_that_cause() {
    let finished = finish(Runner::new(), async {
        cancel("main", "adversity").unwrap();
        pending::<()>().await;
    });
    let Outcome::Cancelled(cause) = finished.outcome else { panic!("{:?}", finished.outcome) };
    assert_eq!((cause.kind(), cause.reason()), (CauseKind::Requested, Some("adversity")));
}

#[testudo::test(start_paused = true)]
async fn locals_of_a_cancelled_child_are_dropped_before_its_nursery_ends() {
    let dropped = Count::default();
    let guard = OnDrop(dropped.clone());
    let (begun, has_begun) = oneshot::channel();
    let run = nursery(|n| async move {
        n.spawn(async move {
            let _guard = guard;
            begun.send(()).unwrap();
            pending::<()>().await;
        });
        has_begun.await.unwrap();
        n.cancel("enough");
    });
    run.await.unwrap();
    assert_eq!(dropped.get(), 1);
}

/// Finds out which task it is dropped in.
struct LooksAround;

impl Drop for LooksAround {
    fn drop(&mut self) {
        assert!(current_task().is_some());
    }
}

#[testudo::test(start_paused = true)]
async fn a_child_that_is_looked_into_from_inside_is_counted_out_however_it_ends() {
    for panics in [false, true] {
        let run = nursery(|n| async move {
            n.spawn(async move {
                current_task().unwrap();
                assert!(!panics);
            });
            n.spawn(async {
                let _guard = LooksAround;
                pending::<()>().await;
            });
            turns().await;
            n.cancel("enough");
        });
        let end = timeout(S, AssertUnwindSafe(run).catch_unwind()).await.expect("it does not wait for ever");
        assert_eq!(end.is_err(), panics);
    }
}

#[testudo::test(start_paused = true)]
async fn events_beyond_those_that_are_kept_are_counted() {
    const ALL: usize = 1100;
    for _ in 0..ALL {
        let mut work = Box::pin(shield_scoped(pending::<()>()));
        assert!(is_pending(work.as_mut()).await);
    }
    let report = drain(S).await;
    assert_eq!((report.events().len() + report.omitted(), report.lost()), (ALL, ALL));
    assert!(report.omitted() > 0);
}
