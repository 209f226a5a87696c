//! Finalizers: clean-up that may await, and runs once whatever happens.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use pin_project_lite::pin_project;

use crate::current;
use crate::host::{self, Frame, Node};
use crate::outcome::Panic;
use crate::region::{Cutting, End, Region};
use crate::report::{Event, Subject};
use crate::rest::{Rest, hand_on};
use crate::seat::Seat;
use crate::shield::{Exposed, Shield, shield, shield_with};

/// Gives finalizers to any future: clean-up that may await.
pub trait FinalizeExt: Future + Sized {
    /// Runs `finalizer` if this future is cut off by a cancel, or dropped after its first poll.
    ///
    /// The finalizer is shielded; in a cancel it runs in place, before anything around it unwinds, and after a drop it is rescued.
    /// Finalizers run from the innermost outwards, each after what was rescued from inside it. A panic of the finalizer never
    /// replaces the end of the future; it is reported. After a value or a panic the finalizer is dropped; see
    /// [`finally`](Self::finally) for one that always runs.
    ///
    /// # Cancel safety
    ///
    /// Dropping it after the first poll drops this future where it stands, and its value is lost; the finalizer runs.
    ///
    /// # Examples
    ///
    /// ```
    /// # use testudo::{CancelScope, FinalizeExt};
    /// # use std::time::Duration;
    /// # use tokio::time::sleep;
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let upload = sleep(Duration::from_secs(60)).on_cancel(async {
    ///     sleep(Duration::from_secs(1)).await; // abort the upload at the server
    /// });
    /// let started = tokio::time::Instant::now();
    /// assert!(CancelScope::new().timeout(Duration::from_secs(5)).run(upload).await.is_err());
    /// assert_eq!(started.elapsed(), Duration::from_secs(6));
    /// # }
    /// ```
    #[doc(alias = "onCancel")]
    #[doc(alias = "defer")]
    #[track_caller]
    fn on_cancel<C>(self, finalizer: C) -> Finalized<Self, C>
    where
        C: Future<Output = ()> + Send + 'static,
    {
        Finalized::new(self, shield(finalizer).name("finalizer"), When::Cancelled)
    }

    /// Runs `finalizer` when this future has ended in any way: with a value, by a cancel, by a panic, or dropped after its first poll.
    ///
    /// The value is given when the finalizer has ended. For the rest see [`on_cancel`](Self::on_cancel).
    ///
    /// # Cancel safety
    ///
    /// Dropping it after the first poll drops this future where it stands, and its value is lost; the finalizer runs.
    #[doc(alias = "guarantee")]
    #[doc(alias = "ensuring")]
    #[track_caller]
    fn finally<C>(self, finalizer: C) -> Finalized<Self, C>
    where
        C: Future<Output = ()> + Send + 'static,
    {
        Finalized::new(self, shield(finalizer).name("finalizer"), When::Always)
    }
}

impl<F: Future> FinalizeExt for F {}

/// Acquires a resource, uses it, and releases it exactly once if it was acquired, whatever happens.
///
/// `acquire` is shielded; it gets the right to open its shield for the part that only waits. If the caller is dropped meanwhile, the
/// rescue finishes it and then releases. `release` is a [finalizer](FinalizeExt::finally) of the use. The resource is cloned: make
/// it an `Arc`, a handle, an id.
///
/// # Cancel safety
///
/// Dropping it loses the value of the use; what was acquired is released.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use std::sync::atomic::{AtomicUsize, Ordering};
/// # use std::time::Duration;
/// # use testudo::{bracket, drain};
/// # use tokio::time::{sleep, timeout};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// # const SECOND: Duration = Duration::from_secs(1);
/// let open = Arc::new(AtomicUsize::new(0));
/// let connection = bracket(
///     |_exposed| async move {
///         open.fetch_add(1, Ordering::Relaxed);
///         open
///     },
///     |_open| sleep(60 * SECOND),
///     |open| async move {
///         sleep(SECOND).await; // says goodbye
///         open.fetch_sub(1, Ordering::Relaxed);
///         assert_eq!(open.load(Ordering::Relaxed), 0);
///     },
/// );
/// assert!(timeout(SECOND, connection).await.is_err()); // dropped half-way
/// assert!(drain(60 * SECOND).await.is_clean()); // and released
/// # }
/// ```
#[doc(alias = "acquire_release")]
#[doc(alias = "with_resource")]
#[track_caller]
pub fn bracket<R, A, U, C>(
    acquire: impl FnOnce(Exposed) -> A,
    using: impl FnOnce(R) -> U,
    release: impl FnOnce(R) -> C + Send + 'static,
) -> impl Future<Output = U::Output>
where
    R: Clone + Send + 'static,
    A: Future<Output = R> + Send + 'static,
    U: Future,
    C: Future<Output = ()> + Send + 'static,
{
    let release = Arc::new(std::sync::Mutex::new(Some(release)));
    let late = Arc::clone(&release);
    let releasing = move |resource: R| async move {
        let release = crate::host::lock(&late).take();
        if let Some(release) = release {
            release(resource).await;
        }
    };
    let place = Location::caller();
    let finalizer = move |resource| Shield::at(place, releasing(resource)).name("release");
    let instead = finalizer.clone();
    let release_late = move |resource| instead(resource).launch(current::frame().as_ref(), Vec::new());
    let acquire = shield_with(acquire).on_rescued(release_late);
    async move {
        let resource = acquire.await;
        let finalizer = finalizer(resource.clone());
        // Called in there: it may panic before it has made its future.
        Finalized::new(async move { using(resource).await }, finalizer, When::Always).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Cancelled,
    Always,
}

pin_project! {
    /// Made by [`FinalizeExt::on_cancel`] and [`FinalizeExt::finally`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it after the first poll drops the future inside where it stands; then the finalizer is rescued, and awaited by the
    /// nearest open nursery upwards or the runner. Dropping it before the first poll drops both.
    #[must_use = "futures do nothing unless polled"]
    pub struct Finalized<F, C>
    where
        F: Future,
        C: Future<Output = ()>,
        C: Send,
        C: 'static,
    {
        #[pin]
        region: Region<F>,
        seat: Seat,
        // What was rescued from inside at the end: the finalizer has not begun as long as this is there.
        before: Option<Rest>,
        finalizer: Option<Shield<C>>,
        end: Option<End<F::Output>>,
        when: When,
    }

    impl<F, C> PinnedDrop for Finalized<F, C>
    where
        F: Future,
        C: Future<Output = ()>,
        C: Send,
        C: 'static,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(end) = this.end.take() {
                // A panic has nobody left who would go on with it.
                if let (End::Panicked(payload), Some(frame)) = (end, this.region.frame()) {
                    report_panic(frame.node(), payload);
                }
                // Without anything before it, the finalizer has begun, and its shield rescues itself.
                if let (Some(before), Some(finalizer)) = (this.before.take(), this.finalizer.take()) {
                    // The seat's, which has followed it since; outside of all frames there is none, as below.
                    finalizer.launch(this.seat.frame().or_else(|| this.region.frame()), vec![before]);
                }
                return;
            }
            if !this.region.is_entered() {
                return;
            }
            let Some(finalizer) = this.finalizer.take() else { return };
            // Not the seat's: outside of all frames there is none, and this thread may be outside of the runtime.
            let frame = this.region.frame().map(Arc::clone);
            let result = this.region.as_mut().discard();
            finalizer.launch(frame.as_ref(), this.region.take_rests());
            this.seat.leave();
            if let (Err(payload), false) = (result, std::thread::panicking()) {
                resume_unwind(payload);
            }
        }
    }
}

impl<F, C> Finalized<F, C>
where
    F: Future,
    C: Future<Output = ()> + Send + 'static,
{
    fn new(fut: F, mut finalizer: Shield<C>, when: When) -> Self {
        if let Some(plan) = finalizer.plan() {
            plan.set_finalizer();
        }
        Self {
            region: Region::new(fut, Cutting::Unwinds).collecting(),
            seat: Seat::default(),
            before: None,
            finalizer: Some(finalizer),
            end: None,
            when,
        }
    }

    /// Allows the finalizer to hold off a cancel for so long. See [`Shield::budget`].
    ///
    /// # Panics
    ///
    /// If the budget is zero.
    #[track_caller]
    pub fn budget(mut self, budget: impl Into<Option<Duration>>) -> Self {
        let budget = budget.into();
        self.finalizer = self.finalizer.take().map(|finalizer| finalizer.budget(budget));
        self
    }
}

/// Binds a region without a node of its own (one with a finalizer) to the frame in which it is polled.
fn enter_inner<F: Future>(region: Pin<&mut Region<F>>, seat: &Seat) {
    if region.is_entered() && !seat.has_moved() {
        return;
    }
    let frame = match current::frame() {
        Some(outer) => Frame::of_frame(outer),
        None => Frame::of_node(host::root(), false),
    };
    region.enter(frame);
}

impl<F, C> Future for Finalized<F, C>
where
    F: Future,
    C: Future<Output = ()> + Send + 'static,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if this.finalizer.is_none() {
            return Poll::Pending; // Over, and unwinding.
        }
        if this.end.is_none() {
            enter_inner(this.region.as_mut(), this.seat);
            let Poll::Ready(end) = this.region.as_mut().poll(cx) else {
                this.seat.stay(cx);
                return Poll::Pending;
            };
            if *this.when == When::Cancelled && !matches!(end, End::Cut(_)) {
                *this.finalizer = None;
                this.seat.leave();
                hand_on(this.region.take_rests());
                return give(end);
            }
            *this.end = Some(end);
            let rests = this.region.take_rests();
            *this.before = (!rests.is_empty()).then(|| join_all(rests).map(drop).boxed());
        }
        if let Some(before) = this.before {
            if before.poll_unpin(cx).is_pending() {
                this.seat.stay(cx);
                return Poll::Pending;
            }
            *this.before = None;
        }
        let Some(finalizer) = this.finalizer else { return Poll::Pending };
        let poll = catch_unwind(AssertUnwindSafe(|| finalizer.poll_unpin(cx)));
        // The shield of the finalizer holds by now, or is over: there is no moment without a hold.
        this.seat.leave();
        match poll {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => {}
            Err(payload) => report_panic(&current::node(), payload),
        }
        *this.finalizer = None;
        this.end.take().map_or(Poll::Pending, give)
    }
}

/// Ends as the future inside has ended.
fn give<T>(end: End<T>) -> Poll<T> {
    match end {
        End::Done(value) => Poll::Ready(value),
        End::Cut(_) => Poll::Pending, // The unwinding goes on outside.
        End::Panicked(payload) => resume_unwind(payload),
    }
}

fn report_panic(node: &Node, payload: crate::region::Payload) {
    host::report(node, Event::Panicked(Subject::of_node(node), Panic::new(payload).message().into()));
}

impl<F, C> fmt::Debug for Finalized<F, C>
where
    F: Future,
    C: Future<Output = ()> + Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finalized").field("when", &self.when).finish_non_exhaustive()
    }
}
