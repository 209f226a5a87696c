//! The rest of dropped work: handed to its runtime, or to the finalizer around it that waits for it.

use std::cell::RefCell;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;

use crate::current;
use crate::host::Host;

/// Something that goes on after its caller was dropped.
pub(crate) type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// Set while a future with a finalizer is polled or dropped: the finalizer has to wait for what is rescued from inside it.
    static COLLECTED: RefCell<Option<Collected>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Collected {
    rests: Vec<Rest>,
    /// Something is being polled, not dropped: only what a panic rescues is collected. Whatever else is rescued may be waited for in this
    /// very poll, if that blocks on another runtime.
    only_of_panic: bool,
}

impl Collected {
    fn takes(&self) -> bool {
        !self.only_of_panic || std::thread::panicking()
    }
}

/// Gives the rest of something to its runtime, or to the finalizer around it that has to wait for it.
pub(crate) fn hand_over(host: &Host, rest: impl Future<Output = ()> + Send + 'static) {
    let mut rest = Some(rest);
    let collecting = COLLECTED.try_with(|collected| {
        if let Some(collected) = collected.borrow_mut().as_mut().filter(|collected| collected.takes()) {
            collected.rests.extend(rest.take().map(|rest| Box::pin(rest) as Rest));
        }
    });
    if let (Ok(()) | Err(_), Some(rest)) = (collecting, rest) {
        host.spawn(rest);
    }
}

/// Gives what was rescued to its runtime, where no finalizer has to wait for it.
pub(crate) fn hand_on(rests: Vec<Rest>) {
    if rests.is_empty() {
        return;
    }
    if let Some(host) = current::node().host() {
        rests.into_iter().for_each(|rest| hand_over(host, rest));
    }
}

/// Has the finalizer around it, if there is one, wait for something that goes on elsewhere.
pub(crate) fn wait_for(rest: impl Future<Output = ()> + Send + 'static) {
    // A thread that is being torn down collects nothing.
    let collecting = COLLECTED.try_with(|collected| {
        if let Some(collected) = collected.borrow_mut().as_mut().filter(|collected| collected.takes()) {
            collected.rests.push(Box::pin(rest));
        }
    });
    collecting.unwrap_or_default();
}

/// Gives back what is rescued while `discard` drops something.
pub(crate) fn collect<R>(discard: impl FnOnce() -> R) -> (Vec<Rest>, R) {
    collect_in(Collected::default(), discard)
}

/// Gives back what a panic rescues on its way out of `poll`.
pub(crate) fn collect_of_panic<R>(poll: impl FnOnce() -> R) -> (Vec<Rest>, R) {
    collect_in(Collected { only_of_panic: true, ..Collected::default() }, poll)
}

/// The same for what `discard` drops of a future that has panicked, between the catch of that panic and its resumption.
pub(crate) fn after_panic<R>(discard: impl FnOnce() -> R) -> R {
    let set = |only_of_panic| {
        let of = |collected: &mut Collected| mem::replace(&mut collected.only_of_panic, only_of_panic);
        COLLECTED.try_with(|collected| collected.borrow_mut().as_mut().map(of)).ok().flatten()
    };
    let before = set(false);
    let result = discard();
    before.and_then(set);
    result
}

fn collect_in<R>(collected: Collected, discard: impl FnOnce() -> R) -> (Vec<Rest>, R) {
    let swap = |with| COLLECTED.try_with(|collected| collected.replace(with)).ok().flatten();
    let outer = swap(Some(collected));
    // A reporter of the program may be called in it, and panic: what is outside collects on all the same.
    let result = catch_unwind(AssertUnwindSafe(discard));
    let rests = swap(outer).unwrap_or_default().rests;
    match result {
        Ok(result) => (rests, result),
        Err(payload) => {
            hand_on(rests);
            resume_unwind(payload)
        }
    }
}
