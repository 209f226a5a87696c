//! A nursery does nothing until it is awaited.
#![deny(unused_must_use)]

#[testudo::main]
async fn main() {
    testudo::nursery(|n| async move {
        n.spawn(async {});
    });
    testudo::shield(async {});
    testudo::CancelScope::new().run(async {});
}
