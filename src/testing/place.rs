//! The place in the program at which a future is suspended.

use std::backtrace::Backtrace;
use std::cell::{Cell, OnceCell};
use std::env;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::host::lock;

/// What is to be found, and whether to look now.
#[derive(Default)]
pub(super) struct Search {
    pub(super) look: Cell<bool>,
    pub(super) found: OnceCell<Option<String>>,
}

/// A future that finds the place of its next suspension when it is told to look, and is not polled again.
///
/// What waits keeps a clone of the last waker, and puts the one of the next poll in its place. If that clone is the last one, its drop
/// happens down there, below the `.await` that waits, and the stack tells where that is. It stays a guess: what keeps no waker, or
/// drops it elsewhere, gives another place or none.
pub(super) struct Searched<'a, F> {
    pub(super) fut: Pin<Box<F>>,
    pub(super) search: &'a Search,
}

impl<F: Future> Future for Searched<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.search.look.get() {
            return self.fut.as_mut().poll(cx);
        }
        let search = self.search;
        search.found.get_or_init(|| find(|cx| self.fut.as_mut().poll(cx).is_pending()));
        Poll::Pending
    }
}

fn find(mut is_pending: impl FnMut(&mut Context<'_>) -> bool) -> Option<String> {
    let found = Arc::new(Mutex::new(None));
    let waker = || Waker::from(Arc::new(Probe { found: Arc::clone(&found) }));
    let suspended = is_pending(&mut Context::from_waker(&waker()));
    // Some drop it at once: what was seen by now is no suspension.
    *lock(&found) = None;
    let stack = if suspended && is_pending(&mut Context::from_waker(&waker())) { lock(&found).take() } else { None };
    stack.and_then(|stack: Backtrace| place_in(&stack.to_string()))
}

struct Probe {
    found: Arc<Mutex<Option<Backtrace>>>,
}

impl Wake for Probe {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Probe {
    fn drop(&mut self) {
        let stack = Backtrace::force_capture();
        lock(&self.found).get_or_insert(stack);
    }
}

/// The innermost frame that belongs neither to a library nor to this crate.
fn place_in(stack: &str) -> Option<String> {
    const LIBRARIES: [&str; 4] = ["/rustc/", "/registry/src/", "/git/checkouts/", "/library/"];
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let here = env::current_dir().unwrap_or_default();
    let is_foreign = |place: &str| {
        let is_in_a_library = LIBRARIES.iter().any(|part| place.contains(part));
        is_in_a_library || here.join(place).starts_with(&ours)
    };
    let places = stack.lines().filter_map(|line| line.trim().strip_prefix("at "));
    places.map(|place| place.trim_start_matches("./")).find(|place| !is_foreign(place)).map(str::to_owned)
}
