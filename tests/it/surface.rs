//! What the types promise to the compiler.

use std::convert::Infallible;
use std::future::Ready;

use testudo::{
    CancelScope, Cancelled, CatchCancelled, Cause, Checkpoint, Elapsed, Exposed, ExposedRun, Failures, Finalized,
    FindError, Nursery, NurseryError, Outcome, Panic, Reporter, ScopeCancelled, ScopeHandle, Scoped, ScopedShield,
    Shield, SpawnError, Start, StartError, Task, TaskRef, WaitCancelled, bracket, checkpoint, move_on_after, nursery,
    shield, shield_scoped,
};

fn send<T: Send>() {}
fn sync<T: Sync>() {}
fn unpin<T: Unpin>() {}
fn error<T: std::error::Error + Send + Sync + 'static>() {}

type Fut = Ready<()>;

#[test]
fn handles_go_anywhere() {
    fn anywhere<T: Send + Sync + Unpin + Clone + 'static>() {}
    anywhere::<ScopeHandle>();
    anywhere::<TaskRef>();
    anywhere::<Nursery<Infallible>>();
    anywhere::<Cause>();
    anywhere::<Exposed>();
    anywhere::<Reporter>();
    anywhere::<Outcome<u8, Infallible>>();
}

#[test]
fn futures_can_be_spawned() {
    send::<Scoped<Fut>>();
    send::<CatchCancelled<Fut>>();
    send::<Shield<Fut>>();
    send::<ScopedShield<Fut>>();
    send::<ExposedRun<Fut>>();
    send::<Finalized<Fut, Fut>>();
    send::<Task<u8>>();
    send::<Checkpoint>();
    send::<WaitCancelled>();
    send::<ScopeCancelled>();
    send::<Start<u8, Infallible>>();
    unpin::<Shield<Fut>>();
    unpin::<Task<u8>>();
    sync::<CancelScope>();
}

#[test]
fn errors_are_errors() {
    error::<Cancelled>();
    error::<Elapsed>();
    error::<NurseryError<std::io::Error>>();
    error::<Failures<std::io::Error>>();
    error::<StartError<std::io::Error>>();
    error::<FindError>();
    error::<Panic>();
    error::<SpawnError<Fut>>();
}

/// A borrowed value in a scope, and a nursery in a task: the usual shapes are `Send`.
#[test]
fn usual_shapes_are_send() {
    fn is_send<T: Send>(_: T) {}
    is_send(nursery(|n| async move {
        n.spawn(shield(async {}));
        checkpoint().await;
    }));
    let text = String::from("borrowed");
    is_send(CancelScope::new().run(async { shield_scoped(async { text.len() }).await }));
    is_send(bracket(|_| async { 1 }, |n| async move { n }, |_| async {}));
    is_send(move_on_after(std::time::Duration::ZERO, async {}));
}
