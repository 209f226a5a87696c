//! `#[testudo::test]` itself.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use testudo::__private::{TestOptions, run_test};
use testudo::{current_task, nursery, root_nursery, shield, spawn};
use tokio::time::{Instant, sleep, timeout};

const OPTIONS: TestOptions = TestOptions { name: "the_test", start_paused: true };

/// The words of the panic with which a test fails.
fn failure(test: impl Future<Output = ()>) -> String {
    let payload = catch_unwind(AssertUnwindSafe(|| run_test(OPTIONS, test))).expect_err("the test should fail");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().map(ToString::to_string).unwrap_or_default(),
    }
}

#[test]
fn a_task_that_is_left_behind_fails_the_test_by_name_and_place() {
    let words = failure(async {
        root_nursery::<std::convert::Infallible>().task().name("forgotten").spawn(pending::<()>());
        spawn(pending::<()>());
    });
    assert!(words.contains("2 tasks") && words.contains("`forgotten`") && words.contains("test_macro.rs:"), "{words}");
}

#[test]
fn a_rescued_shield_that_is_left_behind_fails_the_test() {
    let words = failure(async {
        let kept = shield(sleep(Duration::from_secs(60))).name("write");
        assert!(timeout(Duration::from_secs(1), kept).await.is_err());
    });
    assert!(words.contains("rescued shield `write`"), "{words}");
}

#[test]
fn the_panic_of_the_test_comes_first() {
    let words = failure(async {
        spawn(pending::<()>());
        panic!("boom");
    });
    assert_eq!(words, "boom");
}

#[testudo::test(start_paused = true)]
async fn time_stands_still_and_main_has_the_name_of_the_test() {
    let start = Instant::now();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(start.elapsed(), Duration::from_secs(3600));
    let task = current_task().expect("a test is a task");
    assert_eq!(&*task.name(), "time_stands_still_and_main_has_the_name_of_the_test");
}

#[testudo::test]
async fn a_test_may_return_a_result() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    nursery(|n| async move {
        n.spawn(async { Ok::<_, std::io::Error>(()) });
        Ok(())
    })
    .await?;
    Ok(())
}
