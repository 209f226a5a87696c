//! Many children at once: nothing that is done for each of them costs more the more of them there are.

use std::future::pending;
use std::sync::{Arc, Mutex};

use testudo::nursery;
use tokio::task::yield_now;

/// Says which child it was in.
struct Mark(usize, Arc<Mutex<Vec<usize>>>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

/// In another order the walk jumps through memory, which makes a storm four times slower.
#[testudo::test(start_paused = true)]
async fn a_cancel_ends_children_in_the_order_of_their_spawning() {
    const N: usize = 1000;
    let ended = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ended);
    let run = nursery(|n| async move {
        for child in 0..N {
            let mark = Mark(child, Arc::clone(&ended));
            n.spawn(async move {
                pending::<()>().await;
                drop(mark);
            });
        }
        for _ in 0..100 {
            yield_now().await;
        }
        n.cancel("enough");
    });
    run.await.unwrap();
    assert_eq!(*seen.lock().unwrap(), (0..N).collect::<Vec<_>>());
}
