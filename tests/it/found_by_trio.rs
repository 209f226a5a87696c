//! The smallest form of what the comparison with trio has found.

use std::time::Duration;

use testudo::{
    CancelScope, EffectiveDeadline, FinalizeExt, StartError, Started, checkpoint, current_deadline, nursery,
    shield_with,
};
use tokio::time::{Instant, sleep};

const S: Duration = Duration::from_secs(1);

#[testudo::test(start_paused = true)]
async fn a_scope_that_ended_in_time_was_never_told_to_cancel() {
    let scope = CancelScope::new().timeout(S);
    let handle = scope.handle();
    scope.run(async {}).await.unwrap();
    sleep(2 * S).await;
    assert!(!handle.cancel_requested());
    handle.set_deadline(Some(Instant::now()));
    assert!(!handle.cancel_requested());
}

#[testudo::test(start_paused = true)]
async fn code_exposed_in_a_shield_sees_the_deadline_outside_of_it() {
    let at = Instant::now() + S;
    let body = shield_with(|exposed| async move {
        assert_eq!(current_deadline(), EffectiveDeadline::None);
        assert_eq!(exposed.run(async { current_deadline() }).await.unwrap(), EffectiveDeadline::At(at));
        // The second shield is not open.
        let inner = shield_with(|_| async { current_deadline() });
        assert_eq!(exposed.run(inner).await.unwrap(), EffectiveDeadline::None);
    });
    CancelScope::new().deadline(at).run(body).await.unwrap();
}

#[testudo::test(start_paused = true)]
async fn a_child_that_starts_in_a_cancelled_start_and_ends_well_has_started() {
    let (told, value) = tokio::sync::oneshot::channel();
    let end = nursery(|n| async move {
        n.cancel("at once");
        let child = |started: Started<u8>| async move { started.started(7) };
        drop(told.send(n.start(child).await));
    });
    end.await.unwrap();
    assert_eq!(value.await.unwrap().unwrap(), 7);
}

#[testudo::test(start_paused = true)]
async fn a_child_that_starts_in_a_cancelled_start_and_fails_gives_its_error() {
    let (told, value) = tokio::sync::oneshot::channel();
    let end = nursery(|n| async move {
        n.cancel("at once");
        let child = |started: Started<u8>| async move {
            started.started(7);
            Err::<(), _>("but")
        };
        drop(told.send(n.start(child).await));
        Ok::<(), &str>(())
    });
    end.await.unwrap();
    assert!(matches!(value.await.unwrap(), Err(StartError::Failed("but"))));
}

/// Cancelled by itself after one second, and by what is around it after two, while a finalizer runs; a second finalizer then raises
/// its shield. True if it has ended, and not unwound.
async fn a_scope_that_is_shielded_by_its_last_finalizer<F: Future<Output = ()>>(body: impl FnOnce() -> F) -> bool {
    let mut ended = false;
    let inner = CancelScope::new().timeout(S);
    let handle = inner.handle();
    let outer = CancelScope::new().timeout(2 * S).run(async {
        let unwinding = body().on_cancel(async move { handle.set_shielded(true) });
        assert!(inner.run(unwinding).await.is_err());
        ended = true;
        checkpoint().await;
        unreachable!("the scope around it is cancelled");
    });
    assert!(outer.await.is_err());
    ended
}

#[testudo::test(start_paused = true)]
async fn a_finalizer_that_is_passed_leaves_the_choice_of_who_absorbs_to_the_end_of_the_scope() {
    let body = || sleep(60 * S).on_cancel(sleep(4 * S));
    assert!(a_scope_that_is_shielded_by_its_last_finalizer(body).await);
}

#[testudo::test(start_paused = true)]
async fn a_scope_that_is_passed_leaves_the_choice_of_who_absorbs_to_the_one_that_was_cancelled() {
    let body = || async {
        let passed = CancelScope::new().run(sleep(60 * S).on_cancel(sleep(4 * S)));
        unreachable!("it unwinds: {:?}", passed.await);
    };
    assert!(a_scope_that_is_shielded_by_its_last_finalizer(body).await);
}

#[testudo::test(start_paused = true)]
async fn a_scope_whose_outside_is_cancelled_during_its_last_finalizer_does_not_return() {
    let outer = CancelScope::new().timeout(2 * S).run(async {
        let end = CancelScope::new().timeout(S).run(sleep(60 * S).on_cancel(sleep(4 * S))).await;
        unreachable!("the outermost absorbs, and not the inner one with {end:?}");
    });
    assert!(outer.await.is_err());
}
