//! The smallest programs that showed the bugs which the laws have found.

use std::future::pending;

use testudo::{CancelScope, CauseKind, nursery, shield_with};
use tokio::time::{Instant, sleep};

use crate::support::{Count, S};

#[testudo::test(start_paused = true)]
async fn a_nursery_whose_body_has_caught_a_cancel_returns() {
    let mut foreign = None;
    drop(shield_with(|exposed| {
        foreign = Some(exposed);
        async {}
    }));
    let (exposed, returned) = (foreign.unwrap(), Count::default());
    let seen = returned.clone();
    let run = CancelScope::new().timeout(S).run(async move {
        // The scope inside unwinds up to the exposed part, and no further.
        let body = |_| async move { assert!(exposed.run(CancelScope::new().run(pending::<()>())).await.is_err()) };
        nursery(body).await.unwrap();
        returned.add();
    });
    run.await.unwrap();
    assert_eq!(seen.get(), 1);
}

#[testudo::test(start_paused = true)]
async fn two_shields_are_opened_one_after_the_other() {
    let start = Instant::now();
    let run = shield_with(|outer| async move {
        let inner = shield_with(|inner| async move {
            let part = outer.run(sleep(9 * S));
            inner.run(async { part.await.unwrap_err() }).await.unwrap()
        });
        inner.await
    });
    let cut = CancelScope::new().timeout(S).run(run).await.unwrap();
    assert_eq!(cut.cause().kind(), CauseKind::Deadline);
    assert_eq!(start.elapsed(), S);
}
