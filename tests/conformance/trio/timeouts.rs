//! Ports of trio's `_tests/test_timeouts.py`.

use std::future::{Future, pending};
use std::time::Duration;

use testudo::{CancelScope, CauseKind, EffectiveDeadline, checkpoint, current_deadline, fail_after, move_on_after};
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::{Log, S};

/// How long `fut` takes on the paused clock.
async fn took<F: Future>(fut: F) -> Duration {
    let began = Instant::now();
    fut.await;
    began.elapsed()
}

/// A sleep takes as long as said, and a deadline of now ends one at its first checkpoint. The sleeps are Tokio's.
#[testudo::test(start_paused = true)]
async fn test_sleep() {
    assert_eq!(took(sleep_until(Instant::now() + 2 * S)).await, 2 * S);
    assert_eq!(took(sleep(2 * S)).await, 2 * S);
    assert_eq!(took(sleep(Duration::ZERO)).await, Duration::ZERO);
    let log = Log::default();
    let run = CancelScope::new().deadline(Instant::now()).run(async {
        log.push("entered");
        checkpoint().await;
        log.push("too far");
    });
    assert!(run.await.is_err());
    assert_eq!(log.seen(), ["entered"]);
}

/// A long sleep is left after a second.
#[testudo::test(start_paused = true)]
async fn test_move_on_after() {
    assert_eq!(took(async { assert_eq!(move_on_after(S, sleep(100 * S)).await, None) }).await, S);
}

/// A timeout that is also a shield holds the outer cancel; lowering the shield lets it through. Ours is a scope with both.
#[testudo::test(start_paused = true)]
async fn test_context_shields_from_outer() {
    let outer = CancelScope::new();
    outer.handle().cancel("outer");
    let log = Log::default();
    let run = outer.run(async {
        let inner = CancelScope::new().timeout(100 * S).shielded(true);
        let handle = inner.handle();
        let end = inner.run(async {
            checkpoint().await;
            log.push("held");
            handle.set_shielded(false);
            checkpoint().await;
            log.push("too far");
        });
        drop(end.await);
        log.push("too far");
    });
    assert!(run.await.is_err());
    assert_eq!(log.seen(), ["held"]);
}

/// Its own deadline fires under its own shield, though the outer scope is cancelled.
#[testudo::test(start_paused = true)]
async fn test_move_on_after_moves_on_even_if_shielded() {
    let outer = CancelScope::new();
    outer.handle().cancel("outer");
    let run = outer.run(async {
        let inner = CancelScope::new().timeout(S).shielded(true);
        let end = took(async { assert!(inner.run(pending::<()>()).await.is_err()) });
        assert_eq!(end.await, S);
    });
    run.await.unwrap();
}

/// The same, where the end of the time is an error.
#[testudo::test(start_paused = true)]
async fn test_fail_after_fails_even_if_shielded() {
    let outer = CancelScope::new();
    outer.handle().cancel("outer");
    let run = outer.run(async {
        let inner = CancelScope::new().shielded(true).run(fail_after(S, pending::<()>()));
        assert_eq!(inner.await.unwrap().unwrap_err().timeout(), S);
    });
    run.await.unwrap();
}

/// It fails in time, and not otherwise.
#[testudo::test(start_paused = true)]
async fn test_fail() {
    assert_eq!(took(async { assert!(fail_after(S, pending::<()>()).await.is_err()) }).await, S);
    assert_eq!(took(async { assert!(fail_after(100 * S, sleep(S)).await.is_ok()) }).await, S);
    let at = CancelScope::new().deadline(Instant::now() + S).run(pending::<()>());
    assert_eq!(at.await.unwrap_err().cause().kind(), CauseKind::Deadline);
    let at = CancelScope::new().deadline(Instant::now() + 100 * S).run(sleep(S));
    at.await.unwrap();
}

/// Differs (S2): negative lengths and NaN are no `Duration`; a length of zero is fine, and one beyond the clock is none.
#[testudo::test(start_paused = true)]
async fn test_timeouts_raise_value_error() {
    assert_eq!(move_on_after(Duration::ZERO, pending::<()>()).await, None);
    assert!(fail_after(Duration::ZERO, pending::<()>()).await.is_err());
    assert_eq!(move_on_after(Duration::MAX, sleep(S)).await, Some(()));
}

/// A relative deadline counts from the entry; inside, the absolute one is known.
#[testudo::test(start_paused = true)]
async fn test_timeout_deadline_on_entry() {
    let scope = CancelScope::new().timeout(5 * S);
    let handle = scope.handle();
    sleep(3 * S).await;
    let entered = Instant::now();
    let run = scope.run(async {
        assert_eq!(handle.deadline(), Some(entered + 5 * S));
        assert_eq!(current_deadline(), EffectiveDeadline::At(entered + 5 * S));
        handle.set_deadline(Some(entered + 7 * S));
        pending::<()>().await;
    });
    assert!(run.await.is_err());
    assert_eq!(entered.elapsed(), 7 * S);
}

/// Before the entry a relative deadline is no point in time. Differs (S2): it reads as none instead of being an error, and an absolute
/// one may be set beside it.
#[testudo::test(start_paused = true)]
async fn test_invalid_access_unentered() {
    let scope = CancelScope::new().timeout(5 * S);
    let handle = scope.handle();
    assert_eq!(handle.deadline(), None);
    handle.set_deadline(Some(Instant::now() + 9 * S));
    let began = Instant::now();
    assert!(scope.run(pending::<()>()).await.is_err());
    assert_eq!(began.elapsed(), 5 * S, "the earlier one counts");
}

/// What may fail can be looked at and moved before it is entered. Ours is the scope.
#[testudo::test(start_paused = true)]
async fn test_fail_access_before_entering() {
    let scope = CancelScope::new().deadline(Instant::now() + 5 * S);
    let handle = scope.handle();
    handle.set_deadline(Some(Instant::now() + S));
    assert_eq!(handle.deadline(), Some(Instant::now() + S));
    assert_eq!(took(scope.run(pending::<()>())).await, S);
}
