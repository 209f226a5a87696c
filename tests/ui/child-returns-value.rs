//! A child returns `()` or a `Result`.

#[testudo::main]
async fn main() {
    let tasks = testudo::nursery(|n| async move {
        n.spawn(async { 42 });
    });
    tasks.await.unwrap();
}
