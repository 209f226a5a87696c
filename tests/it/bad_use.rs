//! Bad use gets clear words, and what looks bad but is legal works.

use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use testudo::{
    CancelScope, CauseKind, EffectiveDeadline, Nursery, Report, Runner, StartError, Task, cancel, current_deadline,
    drain, fail_after, move_on_after, nursery, root_nursery, run, shield, shield_local, shield_scoped, shield_with,
    spawn,
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::nowhere;

const S: Duration = Duration::from_secs(1);

/// The message with which `call` panics.
#[track_caller]
fn panic_of<T>(call: impl FnOnce() -> T) -> String {
    let payload = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => payload,
    };
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).expect("a text")
}

#[track_caller]
fn check(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

fn poll_once<F: Future>(fut: Pin<&mut F>) -> Poll<F::Output> {
    fut.poll(&mut Context::from_waker(Waker::noop()))
}

/// Counts its polls and is ready at the first.
fn counted(polls: &Arc<AtomicUsize>) -> impl Future<Output = ()> + Send + 'static {
    let polls = Arc::clone(polls);
    async move {
        polls.fetch_add(1, Ordering::Relaxed);
    }
}

/// A nursery that has ended.
async fn closed() -> Nursery<Infallible> {
    nursery(|n| async move { Ok::<_, Infallible>(n) }).await.expect("nothing fails")
}

#[test]
fn a_deadline_on_a_runtime_without_a_timer_says_so_to_whoever_waits() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("it can be built");
    assert_eq!(runtime().block_on(move_on_after(S, ready(1))), Some(1), "it needs none");
    let nursery = nursery(|_| pending::<Result<(), Infallible>>()).timeout(S);
    for text in [
        panic_of(|| runtime().block_on(move_on_after(S, pending::<()>()))),
        panic_of(|| runtime().block_on(nursery)),
        panic_of(|| runtime().block_on(shield(shield_with(|_| fail_after(S, pending::<()>()))))),
    ] {
        check(&text, &["enable_time"]);
    }
}

#[tokio::test]
async fn a_name_that_somebody_has_sent_makes_no_lines_in_a_report() {
    let mut dropped = Box::pin(shield_scoped(pending::<()>()).name("a\nb\u{1b}[31m"));
    assert!(poll_once(dropped.as_mut()).is_pending());
    drop(dropped);
    let report = drain(S).await.to_string();
    check(&report, &["`a\\nb\\u{1b}[31m`"]);
    assert!(!report.contains('\u{1b}'), "{report}");
}

#[testudo::test]
async fn a_closed_nursery_gives_the_future_back_unpolled() {
    let (n, polls) = (closed().await, Arc::new(AtomicUsize::new(0)));
    let refused = n.try_spawn(counted(&polls)).expect_err("closed");
    check(&refused.to_string(), &["nursery is closed to new tasks", "outer nursery"]);
    assert_eq!(polls.load(Ordering::Relaxed), 0, "not polled");
    refused.into_future().await;
    assert_eq!(polls.load(Ordering::Relaxed), 1, "still good");
    assert!(n.is_empty(), "nothing was counted in");
}

#[testudo::test]
async fn a_spawn_into_a_closed_nursery_says_what_to_do() {
    let n = closed().await;
    for text in [
        panic_of(|| n.spawn(async {})),
        panic_of(|| n.task().name("late").spawn(async {})),
        panic_of(|| n.task().spawn_blocking(|_| ())),
    ] {
        check(&text, &["nursery is closed to new tasks", "keep a child or the body alive", "outer nursery"]);
    }
    let refused = n.start(|started| async move { started.started(1) }).await;
    assert!(matches!(refused, Err(StartError::Closed)), "{refused:?}");
}

#[test]
fn a_budget_of_zero_is_refused_where_it_is_set() {
    for text in [
        panic_of(|| drop(shield(ready(())).budget(Duration::ZERO))),
        panic_of(|| drop(shield_scoped(ready(())).budget(Duration::ZERO))),
        panic_of(|| drop(shield_local(ready(())).budget(Duration::ZERO))),
        panic_of(|| drop(shield_with(|_| ready(())).budget(Duration::ZERO))),
    ] {
        check(&text, &["budget of zero holds nothing off", "the time that the work needs"]);
    }
}

#[test]
fn a_default_budget_of_zero_is_refused_where_it_is_set() {
    check(&panic_of(|| Runner::new().shield_budget(Duration::ZERO)), &["budget of zero"]);
}

#[test]
fn a_run_inside_of_a_run_is_refused() {
    let inner = run(async { Ok::<_, Infallible>(panic_of(|| run(async {}))) });
    check(&inner.unwrap(), &["inside of a Tokio runtime", "inside of another run", "`.await` the future", "`nursery`"]);
}

#[test]
fn a_run_inside_of_a_tokio_runtime_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("can build");
    let text = runtime.block_on(async { panic_of(|| Runner::new().run(async {})) });
    check(&text, &["inside of a Tokio runtime"]);
    let entered = runtime.enter();
    check(&panic_of(|| Runner::new().run_and_exit(async {})), &["inside of a Tokio runtime"]);
    drop(entered);
}

#[test]
fn a_spawn_outside_of_a_run_is_refused() {
    let words = ["needs a run", "testudo::run", "#[testudo::main]", "spawn into a `nursery`"];
    check(&panic_of(|| spawn(async {})), &words);
    check(&panic_of(root_nursery::<Infallible>), &words);
}

#[tokio::test]
async fn a_spawn_on_a_plain_runtime_is_refused() {
    check(&panic_of(|| spawn(async {})), &["needs a run"]);
}

#[test]
fn a_spawn_after_the_run_is_refused() {
    let outcome = run(async { Ok::<_, Infallible>(root_nursery::<Infallible>()) });
    check(&panic_of(|| outcome.unwrap().spawn(async {})), &["closed to new tasks"]);
}

#[test]
fn a_nursery_outside_of_a_runtime_says_what_it_lacks() {
    let inside = |n: Nursery<Infallible>| async move { Ok(panic_of(|| n.spawn(async {}))) };
    let Poll::Ready(Ok(text)) = poll_once(pin!(nursery(inside))) else { panic!("its body has ended") };
    check(&text, &["not polled on a Tokio runtime", "#[testudo::main]"]);
}

#[test]
fn a_shield_outside_of_any_runtime_works_in_place() {
    let _turn = nowhere();
    assert_eq!(poll_once(pin!(shield(ready(7)))), Poll::Ready(7));
}

/// Where there is no runtime there is nobody to rescue: `drain` gives the loss to whoever asks.
#[test]
fn a_shield_that_is_dropped_outside_of_any_runtime_is_a_reported_loss() {
    let _turn = nowhere();
    let before = drain_nowhere().lost();
    let mut lost = Box::pin(shield(pending::<()>()).name("nobody's"));
    let line = line!() - 1;
    assert!(poll_once(lost.as_mut()).is_pending());
    drop(lost);
    let report = drain_nowhere();
    assert!(report.lost() > before, "{report}");
    check(&report.to_string(), &["lost", "`nobody's`", &format!("{}:{line}", file!())]);
}

/// A drain that is polled outside of any runtime; its timer needs one, but it has nothing to wait for.
fn drain_nowhere() -> Report {
    match poll_once(pin!(drain(S))) {
        Poll::Ready(report) => report,
        Poll::Pending => panic!("nothing can be waited for here"),
    }
}

#[testudo::test(start_paused = true)]
async fn a_name_that_fits_several_is_an_error_that_lists_them() {
    let end = nursery(|n| async move {
        let twins = [(); 2].map(|()| n.task().name("twin").spawn(sleep(S)));
        let error = cancel("twin", "one of them").expect_err("which?");
        assert_eq!(error.ids(), twins.each_ref().map(Task::id));
        let ids = format!("{}, {}", twins[0].id(), twins[1].id());
        check(&error.to_string(), &["2 tasks are named `twin`", &ids]);
        assert!(twins.iter().all(|twin| !twin.is_finished()));
        assert!(cancel(twins[1].id(), "this one").expect("an id fits one"));
        let [first, second] = twins;
        assert!(first.await.is_ok(), "nobody cancelled it");
        assert!(second.await.is_cancelled());
    });
    end.await.expect("nothing fails");
}

#[testudo::test]
async fn a_name_that_fits_nobody_is_an_error() {
    let error = cancel("ghost", "boo").expect_err("nobody");
    check(&error.to_string(), &["no task named `ghost`"]);
    assert!(error.ids().is_empty());
    let id = spawn(async {}).id();
    tokio::task::yield_now().await;
    let error = cancel(id, "too late").expect_err("it has ended");
    check(&error.to_string(), &[&format!("no task with number {id}")]);
}

#[test]
fn a_runtime_without_workers_is_refused() {
    check(&panic_of(|| Runner::new().worker_threads(0)), &["at least one worker thread", "`current_thread`"]);
}

#[testudo::test(start_paused = true)]
async fn a_deadline_in_the_past_is_legal() {
    let past = Instant::now();
    sleep(S).await;
    let polled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&polled);
    let body = async move {
        count.fetch_add(1, Ordering::Relaxed);
        pending::<()>().await;
    };
    let end = CancelScope::new().deadline(past).run(body).await;
    assert_eq!(end.expect_err("cut").cause().kind(), CauseKind::Deadline);
    assert_eq!(polled.load(Ordering::Relaxed), 1, "to its first suspension");
    assert_eq!(CancelScope::new().deadline(past).run(ready(1)).await.ok(), Some(1), "it never suspends");
    assert_eq!(move_on_after(Duration::ZERO, pending::<()>()).await, None);
    assert!(fail_after(Duration::ZERO, pending::<()>()).await.is_err());
}

#[testudo::test(start_paused = true)]
async fn a_deadline_that_overflows_is_none() {
    let year = Duration::from_secs(365 * 24 * 3600);
    assert_eq!(move_on_after(Duration::MAX, sleep(year)).await, Some(()));
    assert!(fail_after(Duration::MAX, sleep(year)).await.is_ok());
    let deadline = CancelScope::new().timeout(Duration::MAX).run(async { current_deadline() }).await;
    assert_eq!(deadline.ok(), Some(EffectiveDeadline::None));
    let kept = CancelScope::new().timeout(S).run(shield(sleep(year)).budget(Duration::MAX)).await;
    assert!(kept.is_ok(), "the budget never ends");
}

#[testudo::test(start_paused = true)]
async fn a_drain_of_any_length_is_legal() {
    let slow = shield(sleep(5 * S)).name("slow");
    assert!(timeout(S, slow).await.is_err());
    let left = drain(Duration::ZERO).await;
    assert!(left.left().iter().any(|who| who.name() == Some("slow")), "it does not wait: {left}");
    assert!(drain(Duration::MAX).await.is_clean());
}

#[testudo::test(start_paused = true)]
async fn a_child_that_never_returns_needs_no_words() {
    let end = nursery(|n| async move {
        let server = n.spawn(async {
            loop {
                sleep(S).await;
            }
        });
        sleep(3 * S).await;
        assert!(server.cancel_and_wait("enough").await.is_cancelled());
    });
    end.await.expect("nothing fails");
}

#[testudo::test]
async fn an_outcome_is_taken_once() {
    let mut task = spawn(async { Ok::<_, Infallible>(7) });
    assert_eq!(task.outcome().await.ok(), Some(7));
    let text = panic_of(|| poll_once(pin!(task.outcome())));
    check(&text, &["outcome of a task is returned once"]);
}

/// Nobody could take the node out again: the place of the region was not made.
#[test]
fn a_deadline_outside_of_any_runtime_panics_and_leaves_nothing_in_the_tree() {
    let scope = CancelScope::new().name("outside of all").deadline(Instant::now() + 3600 * S);
    let mut run = pin!(scope.run(pending::<()>()));
    let words = panic_of(|| run.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    assert!(words.contains("a deadline needs a Tokio runtime"), "{words}");
    assert!(!testudo::dump().to_string().contains("outside of all"));
}
