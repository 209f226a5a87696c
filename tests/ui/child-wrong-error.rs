//! All children of a nursery share its error type.

use std::io;

#[testudo::main]
async fn main() {
    let tasks = testudo::nursery(|n| async move {
        n.spawn(async { "x".parse::<i32>().map(drop) });
        Ok::<_, io::Error>(())
    });
    tasks.await.unwrap();
}
