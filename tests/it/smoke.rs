//! One line through each part.

use std::time::Duration;

use testudo::*;
use tokio::time::{sleep, timeout};

const S: Duration = Duration::from_secs(1);

#[testudo::test(start_paused = true)]
async fn scope_times_out() {
    let end = CancelScope::new().timeout(S).run(sleep(10 * S)).await;
    assert_eq!(end.unwrap_err().cause().kind(), CauseKind::Deadline);
}

#[testudo::test(start_paused = true)]
async fn outer_scope_absorbs() {
    let outer = CancelScope::new().timeout(S);
    let end = outer.run(async { CancelScope::new().timeout(S).run(sleep(10 * S)).await }).await;
    assert!(end.is_err());
}

#[testudo::test(start_paused = true)]
async fn shield_holds_then_scope_ends() {
    let t = tokio::time::Instant::now();
    let end = CancelScope::new().timeout(S).run(async {
        shield(sleep(5 * S)).await;
        sleep(S).await;
    });
    assert!(end.await.is_err());
    assert_eq!(t.elapsed(), 5 * S);
}

#[testudo::test(start_paused = true)]
async fn nursery_fails_fast() {
    let end: Result<(), _> = nursery(|n| async move {
        n.spawn(async {
            sleep(S).await;
            Err::<(), _>("boom")
        });
        n.spawn(async {
            sleep(100 * S).await;
            Ok(())
        });
        sleep(100 * S).await;
        Ok(())
    })
    .await;
    let error = end.unwrap_err();
    assert_eq!(error.failures().unwrap().len(), 1, "{error}");
}

#[testudo::test(start_paused = true)]
async fn dropped_shield_is_rescued() {
    let (tx, rx) = tokio::sync::oneshot::channel();
    let s = shield(async move {
        sleep(5 * S).await;
        tx.send(1).unwrap();
    });
    assert!(timeout(S, s).await.is_err());
    assert_eq!(rx.await.unwrap(), 1);
    tokio::task::yield_now().await;
}

#[testudo::test(start_paused = true)]
async fn start_gives_its_value() {
    let end = nursery(|n| async move {
        let v = n
            .start(|s| async move {
                sleep(S).await;
                s.started(5);
                sleep(S).await;
            })
            .await;
        assert_eq!(v.unwrap(), 5);
    });
    end.await.unwrap();
}

#[testudo::test(start_paused = true)]
async fn futurelock_is_broken() {
    let end = CancelScope::new().timeout(S).run(async {
        let mut s = std::pin::pin!(shield(sleep(5 * S)));
        assert!(timeout(S / 2, &mut s).await.is_err());
        std::future::pending::<()>().await;
    });
    assert!(end.await.is_err());
    let report = drain(100 * S).await;
    assert!(report.is_clean(), "{report}");
}

#[testudo::test(start_paused = true)]
async fn finalizers_run_in_order() {
    let log = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (a, b) = (log.clone(), log.clone());
    let fut = sleep(10 * S)
        .on_cancel(async move {
            sleep(S).await;
            a.lock().unwrap().push(1);
        })
        .finally(async move {
            sleep(S).await;
            b.lock().unwrap().push(2);
        });
    assert!(timeout(S, fut).await.is_err());
    assert!(drain(100 * S).await.is_clean());
    assert_eq!(*log.lock().unwrap(), [1, 2]);
}

#[testudo::test(start_paused = true)]
async fn exposed_sees_the_cancel() {
    let end = CancelScope::new().timeout(S).run(shield_with(|exposed| async move {
        let cut = exposed.run(sleep(100 * S)).await.is_err();
        sleep(S).await;
        cut
    }));
    assert!(end.await.unwrap());
}

#[testudo::test(start_paused = true)]
async fn budget_cuts() {
    let t = tokio::time::Instant::now();
    let end = CancelScope::new().timeout(S).run(shield(sleep(100 * S)).budget(2 * S));
    assert!(end.await.is_err());
    assert_eq!(t.elapsed(), 3 * S);
    assert_eq!(drain(S).await.lost(), 1);
}
