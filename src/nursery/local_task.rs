//! The outcome of a child of a local nursery: where it waits for its handle, and who looks at it if there is none.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::report::Event;
use crate::task::TaskRef;

/// The two sides of the outcome of a child that is listed as `task`.
pub(super) fn slot<T, E>(task: TaskRef, policy: Policy) -> (Fill<T, E>, LocalTask<T, E>) {
    let unseen = policy.handle_owns().then(|| Box::new(Unseen { task: task.clone(), failure: RefCell::new(None) }));
    let (outcome, waker) = (RefCell::new(None), RefCell::new(None));
    let slot = Rc::new(Slot { outcome, is_filled: Cell::new(false), waker, unseen });
    (Fill(Rc::clone(&slot)), LocalTask { slot: Some(slot), task })
}

/// Where a child leaves its outcome for its handle.
struct Slot<T, E> {
    outcome: RefCell<Option<Outcome<T, Arc<E>>>>,
    /// The outcome is there, or was.
    is_filled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Set if the handle owns the outcome. Boxed, because it is rare.
    unseen: Option<Box<Unseen>>,
}

impl<T, E> Slot<T, E> {
    fn set(&self, outcome: Outcome<T, Arc<E>>) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.is_filled.set(true);
        let waker = self.waker.borrow_mut().take();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// The failure of a child that its handle owns, which is reported if it goes with this: nobody has looked at it.
struct Unseen {
    task: TaskRef,
    failure: RefCell<Option<Event>>,
}

// Not that of the handle, which may outlive what its value borrows.
impl Drop for Unseen {
    fn drop(&mut self) {
        if let Some(failure) = self.failure.take() {
            self.task.report(failure);
        }
    }
}

/// The part of a child in its slot. A child that is dropped with its nursery leaves word of that.
pub(super) struct Fill<T, E>(Rc<Slot<T, E>>);

impl<T, E> Fill<T, E> {
    pub(super) fn fill(self, outcome: Outcome<T, Arc<E>>)
    where
        E: fmt::Display,
    {
        if let Some(unseen) = &self.0.unseen {
            *unseen.failure.borrow_mut() = unseen.task.failure(&outcome);
        }
        if Rc::strong_count(&self.0) > 1 {
            return self.0.set(outcome);
        }
        self.0.is_filled.set(true);
        // A panic in a destructor of the value is nobody's, as it is for a task of Tokio's; here it would end the siblings.
        drop(catch_unwind(AssertUnwindSafe(|| drop(outcome))));
    }
}

impl<T, E> Drop for Fill<T, E> {
    fn drop(&mut self) {
        if !self.0.is_filled.get() {
            self.0.set(Outcome::Lost);
        }
    }
}

/// A child of a [`nursery_local`](crate::nursery_local()); the future of its [`Outcome`], which is [`Lost`](Outcome::Lost) if the child is
/// dropped with its nursery.
///
/// # Cancel safety
///
/// Dropping it loses the outcome as far as this handle goes. The child is not touched.
///
/// # Panics
///
/// The future panics if it is polled again after it has given the outcome.
pub struct LocalTask<T, E> {
    /// None once the outcome has been returned.
    slot: Option<Rc<Slot<T, E>>>,
    task: TaskRef,
}

impl<T, E> LocalTask<T, E> {
    /// Cancels this child alone. See [`TaskRef::cancel`].
    pub fn cancel(&self, reason: impl Into<Cow<'static, str>>) -> bool {
        self.task.cancel(reason)
    }
}

impl<T, E> Future for LocalTask<T, E> {
    type Output = Outcome<T, Arc<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let slot = self.slot.as_ref().expect("the outcome of a task is returned once");
        let outcome = slot.outcome.borrow_mut().take();
        if let Some(outcome) = outcome {
            let seen = slot.unseen.as_ref().and_then(|unseen| unseen.failure.take());
            drop(seen);
            self.slot = None;
            return Poll::Ready(outcome);
        }
        let old = slot.waker.borrow_mut().replace(cx.waker().clone());
        drop(old);
        Poll::Pending
    }
}

impl<T, E> fmt::Debug for LocalTask<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalTask").field(&self.task).finish()
    }
}
