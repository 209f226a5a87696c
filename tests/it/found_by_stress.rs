//! The smallest form of what the stress test has found.

use std::time::Duration;

use testudo::{StartError, Started, nursery};
use tokio::time::sleep;

const S: Duration = Duration::from_secs(1);

#[testudo::test(start_paused = true)]
async fn start_outlives_a_child_that_drops_started_and_goes_on() {
    let end = nursery(|n| async move {
        let start = n.start(|started: Started<()>| async move {
            drop(started);
            sleep(S).await;
        });
        let other = async {
            sleep(S / 2).await;
        };
        let (result, ()) = tokio::join!(start, other);
        assert!(matches!(result, Err(StartError::NotStarted)));
    });
    end.await.unwrap();
}
