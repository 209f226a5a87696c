//! The smallest form of what the comparison with trio has found.

use std::time::Duration;

use testudo::{CancelScope, EffectiveDeadline, StartError, Started, current_deadline, nursery, shield_with};
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
