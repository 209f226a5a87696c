//! The rest of dropped work: it goes on on its runtime, and the finalizer around it waits for it.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;

use tokio::sync::oneshot;

use crate::host::Host;

/// The end of something that goes on after its caller was dropped.
pub(crate) type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// Set while a future with a finalizer is polled or dropped: the finalizer has to wait for what is rescued from inside it.
    static COLLECTED: RefCell<Option<Vec<Rest>>> = const { RefCell::new(None) };
}

/// Gives the rest of something to its runtime. It begins at once: whoever collects its end may be blocked until it has ended.
pub(crate) fn hand_over(host: &Host, rest: impl Future<Output = ()> + Send + 'static) {
    if !COLLECTED.try_with(|collected| collected.borrow().is_some()).unwrap_or(false) {
        return host.spawn(rest);
    }
    let (done, ended) = oneshot::channel::<()>();
    wait_for(async move { drop(ended.await) });
    host.spawn(async move {
        rest.await;
        drop(done);
    });
}

/// Has the finalizer around it, if there is one, wait for what was rescued further in.
pub(crate) fn hand_on(rests: Vec<Rest>) {
    rests.into_iter().for_each(wait_for);
}

/// Has the finalizer around it, if there is one, wait for something that goes on elsewhere.
pub(crate) fn wait_for(rest: impl Future<Output = ()> + Send + 'static) {
    // A thread that is being torn down collects nothing.
    let collecting = COLLECTED.try_with(|collected| {
        if let Some(collected) = collected.borrow_mut().as_mut() {
            collected.push(Box::pin(rest));
        }
    });
    collecting.unwrap_or_default();
}

/// Gives back what is rescued while `discard` drops something.
pub(crate) fn collect<R>(discard: impl FnOnce() -> R) -> (Vec<Rest>, R) {
    let swap = |with| COLLECTED.try_with(|collected| collected.replace(with)).ok().flatten();
    let outer = swap(Some(Vec::new()));
    // A reporter of the program may be called in it, and panic: what is outside collects on all the same.
    let result = catch_unwind(AssertUnwindSafe(discard));
    let rests = swap(outer).unwrap_or_default();
    match result {
        Ok(result) => (rests, result),
        Err(payload) => {
            hand_on(rests);
            resume_unwind(payload)
        }
    }
}
