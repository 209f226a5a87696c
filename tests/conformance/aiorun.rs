//! Ports of aiorun's tests that need no signal; those with one are in `tests/process/ported.rs`. Read at 2025.1.1.

use std::future::pending;

use testudo::{CauseKind, Outcome, nursery, spawn};

use crate::read::{note_cancel, run_quietly};
use crate::support::{Log, turns};

/// A protected task that is cancelled itself ends, and who waits for it is told so.
#[testudo::test]
async fn test_sigterm_enduring_indirect_cancel() {
    let run = nursery(|n| async move {
        let protected = n.task().shielded(true).spawn(pending::<()>());
        turns().await;
        protected.cancel("directly");
        let Outcome::Cancelled(cause) = protected.await else { panic!("it went on") };
        assert_eq!((cause.kind(), cause.reason()), (CauseKind::Requested, Some("directly")));
    });
    run.await.unwrap();
}

/// An error of main stops the run, cancels ten tasks, and comes out.
#[test]
fn test_exc_stop() {
    let log = Log::default();
    let inner = log.clone();
    let finished = run_quietly(async move {
        for _ in 0..10 {
            spawn(note_cancel(inner.clone(), "cancelled", pending::<()>()));
        }
        turns().await;
        Err::<(), _>("stops")
    });
    assert_eq!(finished.outcome, Outcome::Err("stops"));
    assert_eq!(log.seen(), ["cancelled"; 10]);
}
