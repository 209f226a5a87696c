//! With the error type of the nursery named, the compiler says which child differs.

use std::io;

use testudo::Nursery;

#[testudo::main]
async fn main() {
    let tasks = testudo::nursery(|n: Nursery<io::Error>| async move {
        n.spawn(async { "x".parse::<i32>().map(drop) });
        Ok(())
    });
    tasks.await.unwrap();
}
