//! What all shields share: the shielded region, its budget, and its place in the tree.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::clock::{self, Ticks};
use crate::core::cause::{Cause, CauseKind};
use crate::core::node::HeldOff;
use crate::deadline;
use crate::host::{self, Frame, Host, Node};
use crate::placed::Placed;
use crate::plan::Plan;
use crate::region::{Cutting, End, Payload};
use crate::report::{Event, Subject};
use crate::seat::Branch;

pin_project! {
    /// A shielded future with its node.
    ///
    /// # Invariants
    ///
    /// 1. The budget runs from the first moment at which the shield holds something off (S14): a cancel becomes visible outside, or
    ///    the caller is dropped. Until then there is no timer (M6).
    /// 2. A shield that is cut off by its budget never returns: its caller is cancelled, and unwinds.
    pub(crate) struct Body<F> {
        #[pin]
        placed: Placed<F>,
    }
}

/// How long the shield may hold something off, in ticks of the host. That it runs is said by the deadline of the node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget(Ticks);

/// How a shielded future has ended.
pub(crate) enum ShieldEnd<T> {
    Done(T),
    Panicked(Payload),
    /// Cut off by its own budget or that of a shield around it.
    Cut,
}

impl<F> Body<F> {
    pub(crate) fn new(plan: Plan, fut: F) -> Self {
        Self { placed: Placed::new(plan, fut, Cutting::Unwinds) }
    }

    /// The plan, as long as there was no poll.
    pub(crate) fn plan(&mut self) -> Option<&mut Plan> {
        self.placed.plan()
    }

    pub(crate) fn plan_pinned(self: Pin<&mut Self>) -> Option<&mut Plan> {
        self.project().placed.plan_pinned()
    }

    /// True until the first poll.
    pub(crate) fn is_new(&self) -> bool {
        self.placed.is_new()
    }

    /// The node, if it has one by now.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.placed.node()
    }

    /// The node, from the end of the first poll to the end of the shield: dropping it then would lose work.
    pub(crate) fn node_if_begun(self: Pin<&mut Self>) -> Option<Arc<Node>> {
        let mut placed = self.project().placed;
        placed.as_mut().grow();
        placed.node().map(Arc::clone)
    }

    /// Links the node as a first poll inside `frame` would, without a poll.
    pub(crate) fn enter_at(self: Pin<&mut Self>, frame: Option<&Arc<Frame>>) {
        self.project().placed.enter(frame);
    }

    /// The caller was dropped: the node moves to `owner`.
    pub(crate) fn rescued_by(self: Pin<&mut Self>, owner: &Arc<Node>) {
        if let Some(branch) = self.project().placed.branch_pinned() {
            branch.node.set_rescued();
            branch.move_to(owner);
        }
    }

    /// Gives it the budget that it was made without.
    pub(crate) fn give_budget(&self, budget: Budget) {
        if let Some(node) = self.node() {
            if let Some(held_off) = budget.held_off(node.host()) {
                node.on_held_off.get_or_init(|| held_off);
            }
        }
    }

    /// Lets the budget run, if it does not yet.
    pub(crate) fn start_budget(&self) {
        self.node().into_iter().for_each(start);
    }
}

impl<F: Future> Body<F> {
    pub(crate) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ShieldEnd<F::Output>> {
        let placed = self.project().placed;
        placed.branch().into_iter().for_each(watch);
        Poll::Ready(match ready!(placed.poll(cx)) {
            End::Done(value) => ShieldEnd::Done(value),
            End::Panicked(payload) => ShieldEnd::Panicked(payload),
            End::Cut(_) => ShieldEnd::Cut,
        })
    }
}

impl Budget {
    /// The runner's, none outside of a run. No other is zero.
    pub(crate) const DEFAULT: Self = Self(0);
    pub(crate) const NONE: Self = Self(Ticks::MAX);

    /// # Panics
    ///
    /// If the budget is zero.
    #[track_caller]
    pub(crate) fn new(own: Option<Duration>) -> Self {
        check_budget(own).map_or(Self::NONE, |own| Self(Ticks::try_from(own.as_nanos()).unwrap_or(Ticks::MAX)))
    }

    /// Has the node begin its budget with the first cancel that it holds off, polled or not (M6). That may have come before it.
    pub(crate) fn attach(self, branch: &Branch) {
        if let Some(held_off) = self.held_off(branch.node.host()) {
            branch.node.on_held_off.get_or_init(|| held_off);
            watch(branch);
        }
    }

    /// What begins then, on the runtime of `host`.
    pub(crate) fn held_off(self, host: Option<&Arc<Host>>) -> Option<HeldOff<Host>> {
        let budget = if self == Self::DEFAULT { Self::new(host.and_then(|host| host.budget)) } else { self };
        (budget != Self::NONE).then_some(HeldOff { budget: budget.0, begin })
    }
}

/// Lets the budget run from now on, unless it does. Without a timer it never ends, and it is not whoever cancels who is wrong.
fn begin(node: &Arc<Node>, budget: Ticks) {
    if node.deadline().is_none() && node.host().is_some_and(|host| deadline::has_timer(host)) {
        deadline::set(node, clock::now().checked_add(budget));
    }
}

pub(crate) fn start(node: &Arc<Node>) {
    if let Some(held_off) = node.on_held_off.get() {
        begin(node, held_off.budget);
    }
}

/// Starts the budget if the shield holds something off that was there before it, and stops it when that is taken back (S5).
pub(crate) fn watch(branch: &Branch) {
    if branch.node.is_rescued() {
        return;
    }
    if branch.is_cancelled_outside() {
        start(&branch.node);
    } else if branch.node.deadline().is_some() {
        deadline::set(&branch.node, None);
    }
}

/// Gives the budget back.
///
/// # Panics
///
/// If it is zero.
#[track_caller]
pub(crate) fn check_budget(budget: Option<Duration>) -> Option<Duration> {
    assert!(
        budget != Some(Duration::ZERO),
        "a shield with a budget of zero holds nothing off: give it the time that the work needs, or leave the shield out"
    );
    budget
}

/// The budget of a shield has run out. It is cut off with all shields inside it, and its caller unwinds: the absorber outside is
/// fixed first, so that the caller, who gets no value, is not un-cancelled behind our back (M3).
pub(crate) fn out_of_budget(node: &Arc<Node>) {
    let holds_off = node.is_rescued() || node.parent().is_some_and(|outside| outside.latch().is_some());
    if !holds_off {
        // Un-cancelled in time. The next cancel begins the budget anew, polled or not.
        deadline::set(node, None);
        return;
    }
    host::report(node, Event::Overran(Subject::of_shield(node)));
    node.pierce(Cause::new(CauseKind::Budget));
}
