//! A region that is a scope, a shield or a catch point: where it waits, is entered, followed and left.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::core::frame::WakerId;
use crate::core::node::Kind;
use crate::current::{self, Draft};
use crate::deadline::{self, BudTimer};
use crate::host::{BudSeat, Frame, Node};
use crate::plan::Plan;
use crate::region::{Cutting, End, Region};
use crate::seat::Branch;
use crate::shield;
use crate::ticket::Ticket;

pin_project! {
    /// A future that is a scope, a shield or a catch point.
    ///
    /// # Invariants
    ///
    /// 1. Whatever waits is in the tree from the end of its first poll on: as a bud, until something looks into it, or as a node, armed,
    ///    and holding what is around it. What ends in its first poll costs neither.
    /// 2. A region that has ended has left the tree before its end is given on.
    pub(crate) struct Placed<F> {
        #[pin]
        region: Region<F>,
        place: Place,
    }

    impl<F> PinnedDrop for Placed<F> {
        fn drop(mut this: Pin<&mut Self>) {
            if let Place::Bud { .. } = this.place {
                this.as_mut().disarm();
                this.end();
            }
        }
    }
}

enum Place {
    Planned(Plan),
    /// It waits, and nothing has looked into it.
    Bud {
        /// Of a shield in a task that nobody waits for.
        ticket: Option<Ticket>,
        /// The task that polls it, if nothing of ours is around it.
        task: Option<tokio::task::Id>,
        timer: Option<BudTimer>,
    },
    Made(Branch),
    /// The region has ended, or is in its first poll.
    Gone,
}

impl<F> Placed<F> {
    pub(crate) fn new(plan: Plan, fut: F, cutting: Cutting) -> Self {
        Self { region: Region::new(fut, cutting), place: Place::Planned(plan) }
    }

    /// The plan, as long as there was no poll.
    pub(crate) fn plan(&mut self) -> Option<&mut Plan> {
        match &mut self.place {
            Place::Planned(plan) => Some(plan),
            Place::Bud { .. } | Place::Made(_) | Place::Gone => None,
        }
    }

    /// True until the first poll.
    pub(crate) fn is_new(&self) -> bool {
        matches!(self.place, Place::Planned(_))
    }

    pub(crate) fn plan_pinned(self: Pin<&mut Self>) -> Option<&mut Plan> {
        match self.project().place {
            Place::Planned(plan) => Some(plan),
            Place::Bud { .. } | Place::Made(_) | Place::Gone => None,
        }
    }

    /// The place of what has a node.
    pub(crate) fn branch(&self) -> Option<&Branch> {
        match &self.place {
            Place::Made(branch) => Some(branch),
            Place::Planned(_) | Place::Bud { .. } | Place::Gone => None,
        }
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.branch().map(|branch| &branch.node)
    }

    pub(crate) fn branch_pinned(self: Pin<&mut Self>) -> Option<&mut Branch> {
        match self.project().place {
            Place::Made(branch) => Some(branch),
            Place::Planned(_) | Place::Bud { .. } | Place::Gone => None,
        }
    }

    /// Ends with the deadline of a bud.
    fn disarm(self: Pin<&mut Self>) {
        let this = self.project();
        let Place::Bud { timer, .. } = this.place else { return };
        if let (Some(timer), Some(bud)) = (timer.take(), this.region.as_ref().planted()) {
            timer.disarm(bud);
        }
    }

    /// Leaves the tree. The budget of a bud may have begun, if somebody has looked into it since the end of its last poll.
    fn end(self: Pin<&mut Self>) {
        let this = self.project();
        if let Some((frame, orphans)) = this.region.leave() {
            deadline::end(frame.node());
            orphans.iter().for_each(deadline::keep_all);
        }
        *this.place = Place::Gone;
    }

    /// Makes a node of a bud.
    pub(crate) fn grow(mut self: Pin<&mut Self>) {
        self.as_mut().disarm();
        let mut this = self.project();
        let Place::Bud { ticket, .. } = this.place else { return };
        if let Some((frame, hold)) = this.region.as_mut().grow() {
            deadline::keep(frame.node());
            *this.place = Place::Made(Branch::grown(&frame, hold, ticket.take()));
            this.region.enter(frame);
        }
    }

    /// Makes the place as a first poll inside `outer` would, without a poll.
    pub(crate) fn enter(self: Pin<&mut Self>, outer: Option<&Arc<Frame>>) {
        let this = self.project();
        if let Place::Planned(plan) = this.place {
            let (branch, frame) = plan.make(outer);
            this.region.enter(frame);
            *this.place = Place::Made(branch);
        }
    }
}

impl<F: Future> Placed<F> {
    /// Polls the future in its place. After the end it stays pending.
    pub(crate) fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        if let Place::Bud { task, .. } = self.place {
            match self.as_mut().project().region.poll_bud(task, cx) {
                Some(poll) => return self.end_poll_of_bud(poll),
                None => self.as_mut().come(),
            }
        }
        let this = self.as_mut().project();
        let Place::Made(branch) = this.place else { return self.poll_new(cx) };
        let Poll::Ready(end) = this.region.poll_at(branch, cx) else { return Poll::Pending };
        *this.place = Place::Gone;
        Poll::Ready(end)
    }

    fn end_poll_of_bud<T>(mut self: Pin<&mut Self>, poll: Poll<T>) -> Poll<T> {
        if poll.is_ready() {
            self.as_mut().disarm();
            self.end();
        }
        poll
    }

    /// Makes a node of a bud that may have moved.
    fn come(mut self: Pin<&mut Self>) {
        self.as_mut().grow();
        let this = self.project();
        if let (Place::Made(branch), Some(frame)) = (this.place, this.region.frame()) {
            branch.come(frame);
            if branch.node.info.kind == Kind::Shield {
                shield::watch(branch);
            }
        }
    }

    fn poll_new(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<F::Output>> {
        let this = self.as_mut().project();
        let Place::Planned(plan) = this.place else { return Poll::Pending };
        if let Some((poll, draft)) = plan.poll(cx, |cx| this.region.poll_planned(cx)) {
            return self.end_first_poll(poll, draft, cx);
        }
        self.as_mut().enter(current::frame().as_ref());
        let this = self.project();
        let Place::Made(branch) = this.place else { return Poll::Pending };
        let poll = this.region.poll_entered(branch, cx);
        if poll.is_ready() {
            *this.place = Place::Gone;
        }
        poll
    }

    fn end_first_poll<T>(mut self: Pin<&mut Self>, poll: Poll<T>, draft: Draft, cx: &Context<'_>) -> Poll<T> {
        match draft {
            // It needs none any more.
            Draft::None => *self.project().place = Place::Gone,
            Draft::Planted(bud) => {
                self.as_mut().wait_as_bud(bud, WakerId::of(cx.waker()));
                return self.end_poll_of_bud(poll);
            }
            Draft::Made(frame) if poll.is_pending() => return self.wait_in(frame, cx),
            Draft::Made(frame) => self.end_in(&frame),
        }
        poll
    }

    /// The first poll has planted it.
    fn wait_as_bud(self: Pin<&mut Self>, bud: BudSeat, polled_by: WakerId) {
        let this = self.project();
        let Place::Planned(plan) = this.place else { return };
        let timer = plan.timer();
        *this.place = Place::Bud { ticket: plan.counted(), task: current::bare_task(&bud), timer };
        this.region.stay(bud, polled_by);
    }

    /// The first poll has made its frame.
    fn wait_in<T>(self: Pin<&mut Self>, frame: Arc<Frame>, cx: &Context<'_>) -> Poll<T> {
        let mut this = self.project();
        let Place::Planned(plan) = this.place else { return Poll::Pending };
        *this.place = Place::Made(plan.settle(&frame));
        this.region.as_mut().enter(frame);
        this.region.arm(cx.waker());
        let Place::Made(branch) = this.place else { return Poll::Pending };
        branch.stay(cx)
    }

    /// The same, and was its last.
    fn end_in(self: Pin<&mut Self>, frame: &Arc<Frame>) {
        let this = self.project();
        if let Place::Planned(plan) = this.place {
            drop(plan.settle(frame));
        }
        *this.place = Place::Gone;
    }
}

#[cfg(all(test, not(testudo_loom)))]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::Mutex;
    use std::task::Waker;

    use tokio::task::yield_now;

    use super::*;
    use crate::core::live::Live;
    use crate::host::lock;
    use crate::{CancelScope, catch_cancelled, nursery, shield, shield_scoped};

    /// How many nodes and how many buds are in the node of this task.
    fn inside() -> (usize, usize) {
        let inside = current::made_node().inside();
        (inside.nodes.len(), inside.buds.len())
    }

    /// Runs it in a child that somebody waits for, which has a node and nothing in that.
    async fn in_a_task<F: Future<Output = ()> + Send + 'static>(body: F) {
        let run = nursery(|n| async move {
            n.spawn(async move {
                let frame = current::frame();
                frame.iter().for_each(|frame| frame.set_owned(true));
                drop(current::branch(frame.as_ref()));
                body.await;
            });
        });
        run.await.unwrap_or_else(|error| panic!("{error}"));
    }

    #[expect(clippy::disallowed_methods, reason = "nothing of ours is to be around it")]
    async fn in_a_plain_task<F: Future<Output: Send> + Send + 'static>(body: F) -> F::Output {
        tokio::spawn(body).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// True if it is pending.
    async fn poll_once<F: Future>(mut fut: Pin<&mut F>) -> bool {
        poll_fn(|cx| Poll::Ready(fut.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn what_waits_makes_no_node_in_all_its_polls_and_is_gone_before_its_end_is_given_on() {
        in_a_task(async {
            let inner = shield_scoped(catch_cancelled(async {
                for _ in 0..3 {
                    yield_now().await;
                    // Nobody looks for who waits for this task in order to count a shield.
                    assert!(current::is_owned());
                }
            }));
            let mut scope = Box::pin(CancelScope::new().run(inner));
            let mut polls = 0;
            let counts = poll_fn(|cx| {
                polls += 1;
                let is_ready = scope.as_mut().poll(cx).is_ready();
                assert_eq!(inside(), if is_ready { (0, 0) } else { (0, 3) }, "poll {polls}");
                if is_ready { Poll::Ready(polls) } else { Poll::Pending }
            });
            assert_eq!(counts.await, 4);
            drop(scope);
            assert_eq!(inside(), (0, 0));
        })
        .await;
    }

    #[tokio::test]
    async fn what_moves_to_another_region_of_its_task_is_cancelled_with_that() {
        in_a_task(async {
            let until_cancelled = poll_fn(|_| if current::is_cancelled() { Poll::Ready(()) } else { Poll::Pending });
            let inner = Mutex::new(Box::pin(CancelScope::new().run(until_cancelled)));
            let poll_inner = || poll_fn(|cx| lock(&inner).as_mut().poll(cx));
            let (scope, mut first) = (CancelScope::new(), Box::pin(CancelScope::new().run(poll_inner())));
            let handle = scope.handle();
            let mut second = Box::pin(scope.run(poll_inner()));
            assert!(poll_once(first.as_mut()).await && poll_once(second.as_mut()).await);
            handle.cancel("enough");
            assert!(matches!(second.await, Ok(Ok(()))), "it did not see the cancel");
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_asked_for_is_a_node_with_what_is_around_it_and_no_more_than_that() {
        in_a_task(async {
            let mut sibling = Box::pin(CancelScope::new().run(pending::<()>()));
            assert!(poll_once(sibling.as_mut()).await);
            let asks = async {
                yield_now().await;
                drop(current::frame());
                yield_now().await;
            };
            let mut scope = Box::pin(CancelScope::new().run(CancelScope::new().run(asks)));
            let mut seen = Vec::new();
            poll_fn(|cx| {
                let poll = scope.as_mut().poll(cx).map(drop);
                seen.push(inside());
                poll
            })
            .await;
            assert_eq!(seen, [(0, 3), (1, 1), (0, 1)]);
        })
        .await;
    }

    #[tokio::test]
    async fn shield_in_what_waits_is_counted_only_where_nobody_waits_for_the_task() {
        let unmade = || current::made_node().host().map_or(0, |host| host.unmade.list().len());
        let body = move || {
            CancelScope::new().run(async move {
                yield_now().await;
                shield(async move { unmade() }).await
            })
        };
        in_a_task(async move { assert_eq!(body().await.unwrap_or(9), 0) }).await;
        in_a_plain_task(async move { assert_eq!(body().await.unwrap_or(9), 1) }).await;
    }

    #[tokio::test]
    async fn what_waits_in_a_plain_task_makes_no_node_in_all_its_polls() {
        in_a_plain_task(async {
            let mut scope = Box::pin(CancelScope::new().run(async {
                yield_now().await;
                yield_now().await;
            }));
            poll_fn(|cx| {
                let poll = scope.as_mut().poll(cx).map(drop);
                assert_eq!(inside(), (0, usize::from(poll.is_pending())));
                poll
            })
            .await;
        })
        .await;
    }

    #[tokio::test]
    async fn what_moves_to_another_plain_task_or_waker_gets_a_node() {
        let mut scope = Box::pin(CancelScope::new().run(pending::<()>()));
        let first = in_a_plain_task(async {
            assert!(poll_once(scope.as_mut()).await);
            (inside(), scope)
        });
        let (before, mut scope) = first.await;
        let second = in_a_plain_task(async move {
            assert!(poll_once(scope.as_mut()).await);
            (inside(), scope)
        });
        assert_eq!((before, second.await.0), ((0, 1), (1, 0)));
        in_a_plain_task(async {
            let mut scope = Box::pin(CancelScope::new().run(pending::<()>()));
            assert!(scope.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(inside(), (0, 1));
            assert!(poll_once(scope.as_mut()).await);
            assert_eq!(inside(), (1, 0));
        })
        .await;
        in_a_plain_task(async {
            let mut moved = Box::pin(CancelScope::new().run(pending::<()>()));
            assert!(poll_once(moved.as_mut()).await);
            let moves = poll_fn(|cx| Poll::Ready((moved.as_mut().poll(cx).is_pending(), inside())));
            assert_eq!(CancelScope::new().run(moves).await.ok(), Some((true, (1, 0))));
        })
        .await;
    }

    #[tokio::test]
    async fn what_moves_out_of_what_waits_or_into_it_gets_a_node() {
        for inwards in [false, true] {
            in_a_task(async move {
                let inner = Arc::new(Mutex::new(Box::pin(CancelScope::new().run(pending::<()>()))));
                let (lent, is_lent) = (Arc::clone(&inner), Arc::new(Mutex::new(!inwards)));
                let lends = Arc::clone(&is_lent);
                let mut outer = Box::pin(CancelScope::new().run(poll_fn(move |cx| {
                    assert!(!*lock(&lends) || lock(&lent).as_mut().poll(cx).is_pending());
                    Poll::<()>::Pending
                })));
                for lent in [!inwards, inwards] {
                    *lock(&is_lent) = lent;
                    assert!(poll_once(outer.as_mut()).await);
                    let poll = poll_fn(|cx| Poll::Ready(lent || lock(&inner).as_mut().poll(cx).is_pending()));
                    assert!(poll.await);
                    let is_first = lent != inwards;
                    let expected = if inwards { (1, 0) } else { (2, 0) };
                    assert_eq!(inside(), if is_first { (0, 2) } else { expected }, "{inwards} {lent}");
                }
            })
            .await;
        }
    }

    #[tokio::test]
    async fn all_that_wait_in_a_task_get_nodes_however_many() {
        in_a_task(async {
            let mut scopes: Vec<_> = (0..150).map(|_| Box::pin(CancelScope::new().run(pending::<()>()))).collect();
            for scope in &mut scopes {
                assert!(poll_once(scope.as_mut()).await);
            }
            assert_eq!(inside(), (0, 150));
            current::made_node().grow_buds();
            assert_eq!(inside(), (150, 0));
            scopes.truncate(75);
            assert_eq!(inside(), (75, 0));
        })
        .await;
    }

    #[tokio::test]
    async fn only_shields_are_counted_in_a_task_of_nobodys() {
        in_a_plain_task(async {
            let alive = || crate::host::root().live().map_or(0, Live::len);
            let before = alive();
            let (scope, held) = (CancelScope::new(), shield_scoped(pending::<()>()));
            let handle = scope.handle();
            let mut scope = Box::pin(scope.run(pending::<()>()));
            assert!(poll_once(scope.as_mut()).await);
            assert_eq!(alive(), before);
            let mut held = Box::pin(held);
            for _ in 0..2 {
                assert!(poll_once(held.as_mut()).await);
                assert_eq!(alive(), before + 1);
                drop(current::frame());
            }
            drop((handle, held));
            assert_eq!(alive(), before);
        })
        .await;
    }
}
