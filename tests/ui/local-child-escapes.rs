//! The children of `nursery_local` may borrow from around it, not from its body, which can end before them.

use testudo::nursery_local;

#[testudo::main]
async fn main() {
    let tasks = nursery_local(|n| async move {
        let text = String::from("of the body");
        n.spawn(async { drop(text.len()) });
    });
    tasks.await.unwrap();
}
