//! What no other test has seen when a line of the library was changed.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use testudo::{CancelScope, shield};
use tokio::time::{Instant, sleep};

use crate::support::S;

struct Silent;

impl Wake for Silent {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn cancelled_that_is_dropped_lets_go_of_its_waker() {
    let handle = CancelScope::new().handle();
    let bell = Arc::new(Silent);
    let waker = Waker::from(Arc::clone(&bell));
    {
        let mut cancelled = pin!(handle.cancelled());
        assert!(cancelled.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(Arc::strong_count(&bell) > 2, "it waits");
    }
    assert_eq!(Arc::strong_count(&bell), 2);
}

/// An executor within the task may give a few turns to others before it polls the shield.
#[testudo::test(start_paused = true)]
async fn shield_holds_its_scope_if_it_is_polled_some_turns_after_the_cancel() {
    let (scope, start) = (CancelScope::new(), Instant::now());
    let handle = scope.handle();
    let body = async {
        let (mut shield, mut turn) = (pin!(shield(sleep(S))), 0);
        poll_fn(|cx| {
            turn += 1;
            if turn % 5 == 0 {
                return shield.as_mut().poll(cx);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    };
    let cancel = async {
        sleep(S / 4).await;
        handle.cancel("test");
    };
    let (result, ()) = tokio::join!(scope.run(body), cancel);
    assert!(result.is_ok(), "it was cut off after {:?}", start.elapsed());
    assert_eq!(start.elapsed(), S);
}
