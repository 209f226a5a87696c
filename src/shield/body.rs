//! What all shields share: the shielded region, its budget, and its place in the tree.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::clock::{self, Ticks};
use crate::core::cause::{Cause, CauseKind};
use crate::core::node::{HeldOff, Info, Kind, Node as CoreNode};
use crate::deadline;
use crate::host::{self, Frame, Node};
use crate::nursery::Ticket;
use crate::region::{Cutting, End, Payload, Region};
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
        region: Region<F>,
        pub(crate) branch: Branch,
        budget: Budget,
        // Counted in at the root, if nobody waits for the task that polls this shield.
        ticket: Option<Ticket>,
        ended: bool,
    }
}

/// How long the shield may hold something off. That it runs is said by the deadline of the node.
#[derive(Clone, Copy)]
enum Budget {
    Own(Option<Duration>),
    /// The runner's, none outside of a run.
    Default,
}

/// How a shielded future has ended.
pub(crate) enum ShieldEnd<T> {
    Done(T),
    Panicked(Payload),
    /// Cut off by its own budget or that of a shield around it.
    Cut,
}

impl<F> Body<F> {
    #[track_caller]
    pub(crate) fn new(fut: F) -> Self {
        Self::at(Location::caller(), fut)
    }

    /// A shield that reports name another place than the one that makes it.
    pub(crate) fn at(place: &'static Location<'static>, fut: F) -> Self {
        let info = Info::new(Kind::Shield, place, clock::now());
        Self {
            region: Region::new(fut, Cutting::Unwinds),
            branch: Branch::new(CoreNode::unbound(info, None, true)),
            budget: Budget::Default,
            ticket: None,
            ended: false,
        }
    }

    /// A shield that parts inside it can open.
    #[track_caller]
    pub(crate) fn with_outside(outside: Arc<Node>, node: Arc<Node>, fut: F) -> Self {
        let mut body = Self::new(fut);
        body.branch = Branch::new(node).below(outside);
        body
    }

    pub(crate) fn set_name(&self, name: Arc<str>) {
        self.branch.node.info.set_name(name);
    }

    /// # Panics
    ///
    /// If the budget is zero.
    #[track_caller]
    pub(crate) fn change_budget(self: Pin<&mut Self>, budget: Option<Duration>) {
        *self.project().budget = Budget::new(budget);
    }

    /// # Panics
    ///
    /// If the budget is zero.
    #[track_caller]
    pub(crate) fn set_budget(&mut self, budget: Option<Duration>) {
        self.budget = Budget::new(budget);
    }

    /// True from the first poll to the end: dropping it now would lose work.
    pub(crate) fn is_running(&self) -> bool {
        self.region.is_entered() && !self.ended
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.branch.node
    }

    /// Links the node as a first poll inside `frame` would, without a poll.
    pub(crate) fn enter_at(self: Pin<&mut Self>, frame: Option<&Arc<Frame>>) {
        let this = self.project();
        this.region.enter(this.branch.enter_at(frame));
        this.budget.attach(&this.branch.node);
    }

    /// The caller was dropped: the node moves to `owner`.
    pub(crate) fn rescued_by(self: Pin<&mut Self>, owner: &Arc<Node>) {
        let this = self.project();
        this.branch.node.set_rescued();
        this.branch.move_to(owner);
    }

    /// Lets the budget run, if it does not yet.
    pub(crate) fn start_budget(&self) {
        start(&self.branch.node);
    }
}

impl<F: Future> Body<F> {
    pub(crate) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ShieldEnd<F::Output>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Pending;
        }
        let rescued = this.branch.node.is_rescued();
        if !this.region.is_entered() {
            this.region.as_mut().enter(this.branch.enter());
            this.budget.attach(&this.branch.node);
        } else if !rescued {
            this.branch.follow();
        }
        if !rescued {
            watch(this.branch);
            // Before the poll: what is seen of a shield in its first poll must find it counted.
            count_in(this.ticket, this.branch);
        }
        let Poll::Ready(end) = this.region.poll(cx) else {
            if !rescued {
                return this.branch.stay(cx);
            }
            return Poll::Pending;
        };
        *this.ended = true;
        this.branch.leave();
        *this.ticket = None;
        Poll::Ready(match end {
            End::Done(value) => ShieldEnd::Done(value),
            End::Panicked(payload) => ShieldEnd::Panicked(payload),
            End::Cut(_) => ShieldEnd::Cut,
        })
    }
}

/// A shield in a task that nobody waits for is waited for by the root (S32).
fn count_in(ticket: &mut Option<Ticket>, branch: &Branch) {
    if ticket.is_none() && !branch.is_owned() {
        *ticket = Ticket::at_root(&branch.node);
    }
}

impl Budget {
    #[track_caller]
    fn new(own: Option<Duration>) -> Self {
        Self::Own(check_budget(own))
    }

    /// Has the node begin its budget with the first cancel that it holds off, polled or not (M6).
    fn attach(self, node: &Node) {
        let budget = match self {
            Self::Own(own) => own,
            Self::Default => node.host().and_then(|host| host.budget),
        };
        if let Some(budget) = budget.and_then(|budget| Ticks::try_from(budget.as_nanos()).ok()) {
            node.on_held_off.get_or_init(|| HeldOff { budget, begin });
        }
    }
}

/// Lets the budget run from now on, unless it does.
fn begin(node: &Arc<Node>, budget: Ticks) {
    if node.deadline().is_none() {
        deadline::set(node, clock::now().checked_add(budget));
    }
}

fn start(node: &Arc<Node>) {
    if let Some(held_off) = node.on_held_off.get() {
        begin(node, held_off.budget);
    }
}

/// Starts the budget if the shield holds something off that was there before it, and stops it when that is taken back (S5).
fn watch(branch: &Branch) {
    if branch.is_cancelled_outside() {
        start(&branch.node);
    } else if branch.node.on_held_off.get().is_some() && branch.node.deadline().is_some() {
        branch.node.set_deadline(None);
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
        node.set_deadline(None);
        return;
    }
    host::report(node, Event::Overran(Subject::of_node(node)));
    node.pierce(Cause::new(CauseKind::Budget));
}
