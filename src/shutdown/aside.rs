//! Calls of code that may panic or hang, on a thread of their own, so that they stop no shutdown.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::host::Node;
use crate::registry;
use crate::report::Event;

/// How long is waited for such a call.
const MAX: Duration = Duration::from_millis(500);

/// Calls a hook, a handler or a reporter, and waits a while until it has returned. If it panics, the panic hook has said so; if
/// it hangs, as in a write to a full stderr, it hangs alone.
pub(crate) fn aside(call: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel::<()>();
    let calling = thread::Builder::new().name("testudo-aside".into()).spawn(move || {
        let _done = done;
        call();
    });
    if calling.is_ok() {
        // It ends by a disconnect, too: nothing is ever sent.
        is_done.recv_timeout(MAX).unwrap_or_default();
    }
}

/// Tells the subscriber of the program, which is its code, too, if it listens.
#[cfg(feature = "tracing")]
pub(super) fn trace(tell: impl FnOnce() + Send + 'static) {
    if !tracing::dispatcher::has_been_set() {
        return;
    }
    let subscriber = tracing::dispatcher::get_default(Clone::clone);
    aside(move || tracing::dispatcher::with_default(&subscriber, tell));
}

#[cfg(not(feature = "tracing"))]
pub(super) fn trace(_: impl FnOnce()) {}

/// Says what happened. That is put together aside as well, in the context of the run: its clock counts there.
pub(super) fn report(root: &Arc<Node>, event: impl FnOnce(&Arc<Node>) -> Event + Send + 'static) {
    let root = Arc::clone(root);
    aside(move || {
        if let Some(host) = root.host() {
            registry::inside(&root, || host.report(event(&root)));
        }
    });
}
