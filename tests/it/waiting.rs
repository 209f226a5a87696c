//! Regions that wait while nobody has looked into them, and what makes nodes of them.

use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use testudo::{
    CancelScope, CauseKind, EffectiveDeadline, FinalizeExt, Runner, all_tasks, cancelled, catch_cancelled, checkpoint,
    current_deadline, dump, is_cancelled, move_on_after, nursery, shield, shield_scoped, shield_with,
};
use tokio::join;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Count, Log, OnDrop, S, is_pending, plain_task, turns};

/// The lines of a dump from the one that has `from` on, without places and ages.
fn lines(from: &str) -> Vec<String> {
    let text = dump().to_string();
    let lines = text.lines().skip_while(|line| !line.contains(from));
    let depth = |line: &str| line.len() - line.trim_start().len();
    let first = lines.clone().next().map_or(0, depth);
    let short = |line: &str| {
        let (who, rest) = line.split_once(" at ").unwrap();
        let state: Vec<&str> = rest.split(", ").skip(1).filter(|part| !part.starts_with("age")).collect();
        format!("{}, {}", &who[first..], state.join(", "))
    };
    lines.take_while(|line| line.contains(from) || depth(line) > first).map(short).collect()
}

#[testudo::test(start_paused = true)]
async fn all_that_waits_is_in_a_dump_inside_of_what_it_is_in() {
    let body = async {
        let inner = shield(CancelScope::new().name("C").timeout(5 * S).run(pending::<()>())).name("B").budget(3 * S);
        let scope = CancelScope::new().name("A").run(inner);
        assert!(is_pending(pin!(scope)).await, "it is dropped at once");
        let inner = catch_cancelled(CancelScope::new().name("C").timeout(5 * S).run(pending::<()>()));
        let mut scope = pin!(CancelScope::new().name("A").run(inner));
        assert!(is_pending(scope.as_mut()).await);
        let expected = ["scope A, running", "  catch point, running", "    scope C, running, 5.0s left"];
        assert_eq!(lines("scope A"), expected);
        // A look changes nothing, and another poll neither.
        assert!(is_pending(scope.as_mut()).await);
        assert_eq!(lines("scope A"), expected);
    };
    nursery(|n| async move { n.spawn(body).await.unwrap() }).await.unwrap();
    assert_eq!(lines("scope A"), [""; 0], "nothing is left");
}

#[testudo::test(start_paused = true)]
async fn shield_that_waits_and_holds_off_says_so_in_a_dump() {
    let outer = CancelScope::new().name("outer");
    let handle = outer.handle();
    let body = async {
        shield(sleep(2 * S)).name("inner").budget(3 * S).await;
        pending::<()>().await;
    };
    let watch = async {
        sleep(S / 2).await;
        assert_eq!(lines("scope outer"), ["scope outer, running", "  shield inner, running"]);
        handle.cancel("test");
        turns().await;
        assert_eq!(lines("scope outer"), ["scope outer, cancelled", "  shield inner, holding, 3.0s left"]);
    };
    let (end, ()) = join!(outer.run(body), watch);
    assert!(end.is_err());
}

/// Two that wait beside each other in what waits itself.
#[testudo::test(start_paused = true)]
async fn siblings_that_wait_are_both_polled_once_more_by_a_cancel() {
    let log = Log::default();
    let last_words = |word: &'static str| {
        let log = log.clone();
        async move {
            cancelled().await;
            log.push(word);
        }
    };
    let outer = CancelScope::new();
    let handle = outer.handle();
    let body = async {
        let inner = async {
            let one = CancelScope::new().run(CancelScope::new().run(last_words("one")));
            let two = CancelScope::new().run(last_words("two"));
            join!(one, two)
        };
        CancelScope::new().run(inner).await
    };
    let cancel = async {
        sleep(S).await;
        handle.cancel("test");
    };
    let (_, ()) = join!(outer.run(body), cancel);
    let mut seen = log.seen();
    seen.sort_unstable();
    assert_eq!(seen, ["one", "two"]);
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

#[testudo::test(start_paused = true)]
async fn scope_that_waits_is_judged_by_where_it_is_polled_next() {
    let told = Count::default();
    let scope = || -> Boxed {
        let told = told.clone();
        Box::pin(async move {
            let wait = async {
                cancelled().await;
                told.add();
            };
            drop(CancelScope::new().run(CancelScope::new().run(wait)).await);
        })
    };
    // Begun without a look into it, in a task that goes on and one that ends.
    let mut moved: Boxed = Box::pin(async {
        drop(CancelScope::new().run(CancelScope::new().run(pending::<()>())).await);
    });
    assert!(is_pending(moved.as_mut()).await);
    let mut other = scope();
    let mut begun = nursery(|n| async move {
        let task = n.spawn(async move {
            assert!(is_pending(other.as_mut()).await);
            Ok::<_, String>(other)
        });
        Ok(task.await.unwrap())
    })
    .await
    .unwrap();
    let end = move_on_after(S, async {
        join!(moved, begun.as_mut());
    });
    assert!(end.await.is_none());
    assert_eq!(told.get(), 1);
}

/// The one in which it began waits as well, and is not cancelled.
#[testudo::test(start_paused = true)]
async fn what_waits_follows_into_another_scope_while_the_first_goes_on() {
    let (told, done) = (Count::default(), Notify::new());
    let (give, take) = tokio::sync::oneshot::channel::<Boxed>();
    let wait = {
        let told = told.clone();
        async move {
            yield_now().await;
            cancelled().await;
            told.add();
        }
    };
    let first = CancelScope::new().run(async {
        let mut inner: Boxed = Box::pin(async { drop(CancelScope::new().run(wait).await) });
        assert!(is_pending(inner.as_mut()).await);
        drop(give.send(inner));
        done.notified().await;
    });
    let second = async {
        let inner = take.await.unwrap();
        let end = move_on_after(S, async {
            inner.await;
            pending::<()>().await;
        });
        assert_eq!(end.await, None);
        done.notify_one();
    };
    let (end, ()) = join!(first, second);
    assert!(end.is_ok());
    assert_eq!(told.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn what_waits_in_a_scope_that_has_ended_is_judged_by_what_was_around_that() {
    let log = Log::default();
    let outer = CancelScope::new();
    let handle = outer.handle();
    let body = async {
        let mut inner = pin!(CancelScope::new().run(async {
            // In the first poll nothing asks for the place.
            yield_now().await;
            cancelled().await;
            log.push("told");
        }));
        // It stays in the tree when the scope in which it began ends.
        CancelScope::new().run(async { assert!(is_pending(inner.as_mut()).await) }).await.unwrap();
        inner.await.unwrap();
    };
    let cancel = async {
        sleep(S).await;
        handle.cancel("test");
    };
    let (end, ()) = join!(outer.run(body), cancel);
    assert!(end.is_ok(), "it has ended in spite of the cancel");
    assert_eq!(log.seen(), ["told"]);
}

#[testudo::test(start_paused = true)]
async fn deadline_of_what_waits_fires_wherever_that_is() {
    let start = Instant::now();
    let inner = || CancelScope::new().timeout(2 * S).run(pending::<()>());
    let nested = CancelScope::new().timeout(10 * S).run(CancelScope::new().run(inner()));
    assert_eq!(nested.await.unwrap().unwrap().unwrap_err().cause().kind(), CauseKind::Deadline);
    assert_eq!(start.elapsed(), 2 * S);
    // The earlier one around it.
    let nested = CancelScope::new().timeout(S).run(inner());
    assert!(nested.await.is_err());
    assert_eq!(start.elapsed(), 3 * S);
    // Polled with wakers of their own, and in a task of nobody's.
    let mut set: FuturesUnordered<_> = (1..4).map(|n| move_on_after(n * S, pending::<()>())).collect();
    while set.next().await.is_some() {}
    assert_eq!(start.elapsed(), 6 * S);
    assert_eq!(plain_task(move_on_after(S, pending::<()>())).await.unwrap(), None);
    assert_eq!(start.elapsed(), 7 * S);
}

#[testudo::test(start_paused = true)]
async fn deadline_that_has_passed_ends_a_checkpoint_in_what_waits() {
    let body = async {
        yield_now().await;
        // In one poll, so that nobody else has seen that it has passed.
        assert!(is_pending(pin!(tokio::time::advance(S))).await);
        assert!(!is_cancelled());
        assert!(is_pending(pin!(checkpoint())).await && is_cancelled());
        pending::<()>().await;
    };
    assert!(CancelScope::new().timeout(S).run(CancelScope::new().run(body)).await.is_err());
}

#[testudo::test(start_paused = true)]
async fn look_at_a_deadline_leaves_it_where_it_was() {
    let start = Instant::now();
    let body = async {
        yield_now().await;
        assert_eq!(current_deadline(), EffectiveDeadline::At(start + S));
        pending::<()>().await;
    };
    assert!(CancelScope::new().timeout(S).run(body).await.is_err());
    assert_eq!(start.elapsed(), S);
}

#[testudo::test(start_paused = true)]
async fn task_of_nobodys_that_waits_in_a_scope_is_cancelled_with_the_run() {
    let dropped = Count::default();
    let guard = OnDrop(dropped.clone());
    // It asks for nothing, so that nobody has looked into it before the stop.
    let wait = async move {
        pending::<()>().await;
        drop(guard);
    };
    let task = plain_task(CancelScope::new().run(CancelScope::new().run(wait)));
    turns().await;
    testudo::ShutdownHandle::current().unwrap().shutdown("test");
    shield(turns()).await;
    assert_eq!(dropped.get(), 1);
    drop(task);
}

/// More threads than the list of a root has parts.
#[test]
fn tasks_of_nobodys_on_many_threads_are_all_seen_and_all_cancelled_with_the_run() {
    const THREADS: usize = 20;
    let dropped = Count::default();
    let begun = Arc::new(Barrier::new(THREADS));
    let wait = |dropped: &Count| {
        let (begun, guard) = (Arc::clone(&begun), OnDrop(dropped.clone()));
        CancelScope::new().name("on a thread").run(async move {
            // None goes on before each thread has one.
            begun.wait();
            pending::<()>().await;
            drop(guard);
        })
    };
    let seen = || dump().to_string().lines().filter(|line| line.contains("on a thread")).count();
    let waits: Vec<_> = (0..THREADS).map(|_| wait(&dropped)).collect();
    let counted = dropped.clone();
    let main = async move {
        let tasks: Vec<_> = waits.into_iter().map(plain_task).collect();
        let all_wait = async {
            while seen() < THREADS {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(30), all_wait).await.expect("a dump shows each of them");
        assert_eq!((seen(), counted.get()), (THREADS, 0));
        testudo::ShutdownHandle::current().unwrap().shutdown("test");
        // They unwind into the end of the run, and give nothing.
        let ends = async move {
            while counted.get() < THREADS {
                sleep(Duration::from_millis(1)).await;
            }
        };
        shield(ends).await;
        drop(tasks);
    };
    drop(Runner::new().worker_threads(THREADS).signals(false).reporter(None).run(main));
    assert_eq!(dropped.get(), THREADS);
}

#[testudo::test(start_paused = true)]
async fn shield_that_waits_in_what_is_dropped_ends_all_the_same() {
    let (done, dropped) = (Count::default(), Count::default());
    let work = {
        let (done, guard) = (done.clone(), OnDrop(dropped.clone()));
        async move {
            sleep(S).await;
            done.add();
            drop(guard);
        }
    };
    {
        let mut scope = pin!(CancelScope::new().run(CancelScope::new().run(shield(work))));
        assert!(is_pending(scope.as_mut()).await);
    }
    assert_eq!((done.get(), dropped.get()), (0, 0));
    sleep(2 * S).await;
    assert_eq!((done.get(), dropped.get()), (1, 1));
}

#[testudo::test(start_paused = true)]
async fn budget_of_a_shield_that_waits_runs_from_the_cancel_that_it_holds_off() {
    let start = Instant::now();
    let outer = CancelScope::new();
    let handle = outer.handle();
    let body = async {
        let inner = CancelScope::new().run(shield(pending::<()>()).budget(2 * S));
        drop(CancelScope::new().run(inner).await);
    };
    let cancel = async {
        sleep(S).await;
        handle.cancel("test");
    };
    let (end, ()) = join!(outer.run(body), cancel);
    assert!(end.is_err());
    assert_eq!(start.elapsed(), 3 * S);
}

/// What is opened in it later, and a handle from inside.
#[testudo::test(start_paused = true)]
async fn what_waits_goes_on_as_a_node_when_something_is_opened_in_it() {
    let log = Log::default();
    let go = Notify::new();
    let outer = CancelScope::new();
    let handle = outer.handle();
    let body = async {
        go.notified().await;
        let children = nursery(|n| {
            let log = log.clone();
            async move {
                n.spawn(async move {
                    cancelled().await;
                    log.push("child");
                });
            }
        });
        drop(children.await);
    };
    let steps = async {
        turns().await;
        go.notify_one();
        turns().await;
        assert!(lines("scope A").iter().any(|line| line.trim_start().starts_with("nursery")), "{}", dump());
        handle.cancel("test");
    };
    let (_, ()) = join!(outer.run(CancelScope::new().name("A").run(body)), steps);
    assert_eq!(log.seen(), ["child"]);
}

/// Nothing of ours keeps what has ended, also if others looked meanwhile.
#[testudo::test(start_paused = true)]
async fn what_has_waited_leaves_nothing_behind() {
    let before = dump().to_string().lines().count();
    for turn in 0..300 {
        let body = async {
            yield_now().await;
            if turn % 3 == 0 {
                assert!(dump().to_string().lines().count() > before);
            }
            if turn % 5 == 0 {
                assert!(testudo::current_task().is_some_and(|task| all_tasks().contains(&task)));
            }
            yield_now().await;
        };
        let inner = CancelScope::new().timeout(Duration::from_secs(3600)).run(CancelScope::new().run(body));
        shield_scoped(catch_cancelled(CancelScope::new().run(async { drop(inner.await) }))).await.unwrap().unwrap();
    }
    assert_eq!(dump().to_string().lines().count(), before);
}

/// Found by the stress test.
#[testudo::test(start_paused = true)]
async fn code_in_a_shield_that_waits_sees_nothing_of_what_is_held_off() {
    let seen = Log::default();
    let outer = CancelScope::new().timeout(5 * S);
    let handle = outer.handle();
    let log = seen.clone();
    let work = async move {
        yield_now().await;
        let inner = async {
            yield_now().await;
            current_deadline()
        };
        assert_eq!(shield(inner).await, EffectiveDeadline::None);
        // In the middle of a poll, by somebody who looks into nothing here.
        assert!(std::thread::spawn(move || handle.cancel("test")).join().unwrap());
        let inner = CancelScope::new().run(async { is_cancelled() });
        assert_eq!((is_cancelled(), inner.await.unwrap()), (false, false));
        checkpoint().await;
        log.push("done");
    };
    let end = outer.run(async {
        CancelScope::new().run(shield(async { CancelScope::new().run(work).await.unwrap() })).await.unwrap();
        pending::<()>().await;
    });
    assert!(end.await.is_err());
    assert_eq!(seen.seen(), ["done"]);
}

#[testudo::test(start_paused = true)]
async fn scope_in_a_finalized_task_of_nobodys_hears_of_the_stop() {
    let log = Log::default();
    let finalizer = {
        let log = log.clone();
        async move { log.push("finalized") }
    };
    let task = plain_task(CancelScope::new().run(pending::<()>()).on_cancel(finalizer));
    turns().await;
    testudo::ShutdownHandle::current().unwrap().shutdown("test");
    shield(sleep(S)).await;
    assert_eq!(log.seen(), ["finalized"]);
    drop(task);
}

/// It has one from the moment on at which something inside waits, which may be long before its first poll ends.
#[test]
fn deadline_of_what_is_in_its_first_poll_fires_if_something_inside_waits() {
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let body = async {
        let mut side = pin!(catch_cancelled(pending::<()>()));
        assert!(is_pending(side.as_mut()).await);
        // Code that only looks, and leaves its worker to others.
        tokio::task::block_in_place(|| {
            while !is_cancelled() {
                std::thread::yield_now();
            }
        });
    };
    let task = rt.spawn(move_on_after(Duration::from_millis(20), body));
    rt.block_on(async { tokio::time::timeout(Duration::from_secs(20), task).await.unwrap().unwrap() });
}

#[testudo::test]
#[expect(clippy::disallowed_methods, reason = "the poll itself has to take its time")]
async fn what_was_cancelled_is_so_when_something_in_it_waits() {
    let end = nursery(|n| async move {
        // A look at the clock.
        n.spawn(async {});
        let late = move_on_after(Duration::from_millis(5), async {
            std::thread::sleep(Duration::from_millis(10));
            assert!(is_cancelled());
            let mut side = pin!(catch_cancelled(pending::<()>()));
            assert!(is_pending(side.as_mut()).await);
            assert!(is_cancelled());
        });
        assert_eq!(late.await, Some(()));
    });
    end.await.unwrap();
}

tokio::task_local! {
    static WHO: u8;
}

#[testudo::test(start_paused = true)]
async fn locals_of_a_shield_are_those_of_its_first_poll() {
    let seen = Count::default();
    let work = {
        let seen = seen.clone();
        async move {
            sleep(S).await;
            assert_eq!(WHO.get(), 1);
            seen.add();
        }
    };
    let mut shield = Box::pin(shield(work).with_local(&WHO));
    for who in [1, 2] {
        let polled = poll_fn(|cx| Poll::Ready(WHO.sync_scope(who, || shield.as_mut().poll(cx).is_pending())));
        assert!(polled.await);
    }
    drop(shield);
    sleep(2 * S).await;
    assert_eq!(seen.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn shield_that_waits_in_a_shield_is_not_named_beside_it() {
    let nested = || shield(async { shield(CancelScope::new().run(pending::<()>())).await });
    let task = plain_task(nested());
    let named = plain_task(CancelScope::new().run(nested().name("outer")));
    turns().await;
    let report = testudo::drain(S).await;
    let left: Vec<_> = report.left().iter().map(|left| (left.what(), left.name())).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&("shield", None)) && left.contains(&("shield", Some("outer"))), "{left:?}");
    drop((task, named));
}

/// A shield whose place is made before its first poll is counted in there.
#[tokio::test(start_paused = true)]
async fn shield_that_has_a_place_from_the_start_is_waited_for_in_a_task_of_nobodys() {
    let start = Instant::now();
    let task = plain_task(shield_with(|_| sleep(S)));
    turns().await;
    assert!(testudo::drain(5 * S).await.is_clean());
    assert_eq!(start.elapsed(), S);
    task.await.unwrap();
}

#[testudo::test(start_paused = true)]
async fn timeout_that_goes_on_after_one_around_it_that_would_have_come_first_keeps_its_time() {
    let begun = Instant::now();
    let mut inner = Box::pin(move_on_after(3 * S, pending::<()>()));
    let outer = move_on_after(2 * S, timeout(S, inner.as_mut()));
    assert!(outer.await.is_some_and(|inner| inner.is_err()));
    assert_eq!(begun.elapsed(), S);
    assert_eq!(inner.await, None);
    assert_eq!(begun.elapsed(), 3 * S);
}

#[testudo::test(start_paused = true)]
async fn timeout_that_passes_in_the_first_poll_cuts_what_waits_then() {
    let begun = Instant::now();
    let slow = async {
        tokio::time::advance(2 * S).await;
        pending::<()>().await;
    };
    assert_eq!(move_on_after(S, slow).await, None);
    assert_eq!(begun.elapsed(), 2 * S);
}

/// A future that was pending wakes whoever polled it when its time has come; it need not be polled before.
#[testudo::test(start_paused = true)]
async fn timeout_wakes_though_nobody_polls_it_after_the_end_of_a_shorter_one_around_it() {
    for (looks, drops) in [(false, false), (false, true), (true, false), (true, true)] {
        let begun = Instant::now();
        let within = move_on_after(4 * S, pending::<()>());
        let mut inner = Box::pin(move_on_after(3 * S, async {
            if looks {
                yield_now().await;
                assert_ne!(current_deadline(), EffectiveDeadline::None);
            }
            within.await
        }));
        let ends = timeout(S, inner.as_mut());
        if drops {
            assert!(timeout(S, move_on_after(2 * S, ends.map(drop).then(|()| pending::<()>()))).await.is_err());
        } else {
            assert!(move_on_after(2 * S, ends).await.is_some_and(|inner| inner.is_err()));
        }
        let mut is_woken = false;
        let end =
            poll_fn(|cx| if std::mem::replace(&mut is_woken, true) { inner.as_mut().poll(cx) } else { Poll::Pending });
        assert_eq!(timeout(10 * S, end).await, Ok(None));
        assert_eq!(begun.elapsed(), 3 * S, "{looks} {drops}");
    }
}

/// The cancel makes nodes of all three, and the innermost is not polled since.
#[testudo::test(start_paused = true)]
async fn timeout_wakes_though_nobody_polls_it_after_what_is_around_it_was_looked_into_and_has_ended() {
    let begun = Instant::now();
    let scope = CancelScope::new();
    let handle = scope.handle();
    let cancels = plain_task(async move {
        sleep(S / 2).await;
        handle.cancel("test");
    });
    let body = async {
        let mut inner = Box::pin(move_on_after(3 * S, pending::<()>()));
        let outer = async {
            assert!(is_pending(inner.as_mut()).await);
            sleep(S).await;
        };
        assert_eq!(move_on_after(2 * S, outer).await, Some(()));
        let mut is_woken = false;
        let end =
            poll_fn(|cx| if std::mem::replace(&mut is_woken, true) { inner.as_mut().poll(cx) } else { Poll::Pending });
        assert_eq!(timeout(10 * S, end).await, Ok(None));
        assert_eq!(begun.elapsed(), 3 * S);
    };
    scope.run(CancelScope::new().shielded(true).run(body)).await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), 3 * S);
    cancels.await.unwrap();
}

/// It moves inside of a scope that polls it no more until it has been woken.
#[testudo::test(start_paused = true)]
async fn timeout_that_leaves_a_shorter_one_inside_of_a_scope_wakes() {
    let begun = Instant::now();
    let mut inner = Box::pin(move_on_after(3 * S, pending::<()>()));
    let mut polls = 0;
    let moves = RefCell::new(Box::pin(CancelScope::new().run(poll_fn(move |cx| {
        polls += 1;
        if polls == 2 || polls == 3 { Poll::Pending } else { inner.as_mut().poll(cx) }
    }))));
    let mut shorter = Box::pin(move_on_after(2 * S, poll_fn(|cx| moves.borrow_mut().as_mut().poll(cx))));
    assert!(is_pending(shorter.as_mut()).await);
    let mut moved = Box::pin(poll_fn(|cx| moves.borrow_mut().as_mut().poll(cx)));
    assert!(is_pending(moved.as_mut()).await);
    drop(shorter);
    assert_eq!(timeout(10 * S, moved).await.unwrap().unwrap(), None);
    assert_eq!(begun.elapsed(), 3 * S);
}

/// The shorter one is not polled after its time.
#[testudo::test(start_paused = true)]
async fn timeout_that_leaves_a_shorter_one_after_its_time_is_over_at_once() {
    let inner = RefCell::new(Box::pin(move_on_after(3 * S, pending::<()>())));
    let mut shorter = Box::pin(move_on_after(2 * S, poll_fn(|cx| inner.borrow_mut().as_mut().poll(cx))));
    assert!(is_pending(shorter.as_mut()).await);
    sleep(10 * S).await;
    assert!(!is_pending(Box::pin(poll_fn(|cx| inner.borrow_mut().as_mut().poll(cx))).as_mut()).await);
}
