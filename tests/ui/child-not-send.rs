//! A child may move to another thread; what is held across its `await` must be able to.

use std::rc::Rc;

#[testudo::main]
async fn main() {
    let tasks = testudo::nursery(|n| async move {
        n.spawn(async {
            let counter = Rc::new(1);
            tokio::task::yield_now().await;
            drop(counter);
        });
    });
    tasks.await.unwrap();
}
