//! What several modules need to write their scenarios down.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use testudo::{Event, Reporter};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A second of paused time.
pub(crate) const S: Duration = Duration::from_secs(1);

/// What is outside of all runtimes has one root for all tests: those that count something in there, or look, take turns.
pub(crate) fn nowhere() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task that nobody but Tokio owns.
#[expect(clippy::disallowed_methods, reason = "the point is a task without an owner")]
pub(crate) fn plain_task<F>(fut: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(fut)
}

/// Polls a future once with the waker of this task.
pub(crate) async fn is_pending<F: Future + ?Sized>(mut fut: Pin<&mut F>) -> bool {
    poll_fn(|cx| Poll::Ready(fut.as_mut().poll(cx).is_pending())).await
}

/// Gives all other tasks of a current-thread runtime several turns.
pub(crate) async fn turns() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Panics with that payload, without a word on stderr; its type is `()` so that a child may end with it.
pub(crate) fn blow_up(payload: impl Send + 'static) {
    std::panic::resume_unwind(Box::new(payload));
}

/// What happened, in its order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    pub(crate) fn push(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    pub(crate) fn seen(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

/// How often something was done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Counts when it is dropped.
pub(crate) struct OnDrop(pub(crate) Count);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add();
    }
}

/// Work that says when it has begun, goes on when it is allowed to, and counts its end.
#[derive(Clone)]
pub(crate) struct Work {
    begun: Arc<Semaphore>,
    gate: Arc<Semaphore>,
    lost: Arc<Semaphore>,
    done: Count,
}

impl Work {
    pub(crate) fn new() -> Self {
        let closed = || Arc::new(Semaphore::new(0));
        Self { begun: closed(), gate: closed(), lost: closed(), done: Count::default() }
    }

    /// Several suspensions before and after the gate; the last thing it does is to count.
    pub(crate) fn run(&self) -> impl Future<Output = u8> + Send + use<> {
        let this = self.clone();
        async move {
            this.begun.add_permits(1);
            this.gate.acquire().await.unwrap().forget();
            turns().await;
            this.done.add();
            7
        }
    }

    pub(crate) async fn has_begun(&self) {
        self.begun.acquire().await.unwrap().forget();
    }

    /// Says that whoever waited for the work is gone or cancelled.
    pub(crate) fn lose(&self) {
        self.lost.add_permits(1);
    }

    pub(crate) async fn is_lost(&self) {
        self.lost.acquire().await.unwrap().forget();
    }

    /// Allows `times` works that share this gate to end.
    pub(crate) fn allow(&self, times: usize) {
        self.gate.add_permits(times);
    }

    pub(crate) fn done(&self) -> usize {
        self.done.get()
    }
}

/// A reporter that keeps what it hears.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<Event>>>);

impl Heard {
    pub(crate) fn reporter(&self) -> Reporter {
        let heard = Arc::clone(&self.0);
        Reporter::new(move |event| heard.lock().unwrap().push(event.clone()))
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }
}

/// The events as text without places and ages: what kind, who, and what it said.
pub(crate) fn said(events: &[Event]) -> Vec<String> {
    let name = |who: &testudo::Subject| who.name().unwrap_or("?").to_owned();
    events
        .iter()
        .map(|event| match event {
            Event::Lost(who) => format!("lost {}", name(who)),
            Event::Dropped(who) => format!("dropped {}", name(who)),
            Event::Overran(who) => format!("overran {}", name(who)),
            Event::Failed(who, error) => format!("failed {}: {error}", name(who)),
            Event::Panicked(who, message) => format!("panicked {}: {message}", name(who)),
            Event::Stopping { .. } | Event::Unfinished { .. } | Event::Waiting { .. } | Event::Forced { .. } | _ => {
                event.to_string()
            }
        })
        .collect()
}

/// Whose budget was used up.
pub(crate) fn overran(events: &[Event]) -> Vec<&str> {
    let overran = events.iter().filter_map(|event| {
        let Event::Overran(who) = event else { return None };
        who.name()
    });
    overran.collect()
}
