//! A place in the tree that is not made yet: most regions end in their first poll, and need none.

use std::fmt;
use std::num::NonZero;
use std::panic::Location;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::{self, Ticks};
use crate::core::node::{Info, Kind, Node as CoreNode};
use crate::counted::{Counted, Number};
use crate::current::{self, Draft};
use crate::deadline::{self, BudTimer};
use crate::host::{Bud, Frame, Node};
use crate::seat::{Branch, View};
use crate::shield::Budget;
use crate::ticket::Ticket;

/// What a region that was not polled yet will be.
pub(crate) struct Plan {
    sketch: Sketch,
    /// Made early for those that hold a handle on it; then it has the rest of what the sketch says about it.
    node: OnceLock<Arc<Node>>,
    /// Until the first poll.
    timeout: Option<Duration>,
    view: View,
    /// Of a shield in a task that nobody waits for, from its first poll on.
    counted: Option<Box<Counted>>,
}

/// What it takes to make the node of a region and the frame for what is inside. That is done when the first poll ends pending, or
/// when something inside asks for the frame: a handle, a nursery, a scope that suspends.
pub(crate) struct Sketch {
    kind: Kind,
    place: &'static Location<'static>,
    name: Option<Arc<str>>,
    shielded: bool,
    finalizer: bool,
    /// That of a shield.
    budget: Budget,
    /// The first tick is as good as the second.
    deadline: Option<NonZero<Ticks>>,
    /// By which it is named until it has a node, if it is counted before.
    unmade: Option<Number>,
}

impl Plan {
    #[track_caller]
    pub(crate) fn new(kind: Kind) -> Self {
        Self::at(Location::caller(), kind)
    }

    /// A region that reports name another place than the one that makes it.
    pub(crate) fn at(place: &'static Location<'static>, kind: Kind) -> Self {
        let shielded = kind == Kind::Shield;
        let (budget, deadline, unmade) = (Budget::DEFAULT, None, None);
        let sketch = Sketch { kind, place, name: None, shielded, finalizer: false, budget, deadline, unmade };
        Self { sketch, node: OnceLock::new(), timeout: None, view: View::None, counted: None }
    }

    /// A part that sees through a shield.
    pub(crate) fn with_view(mut self, view: View) -> Self {
        self.view = view;
        self
    }

    /// A region whose node is known to others.
    pub(crate) fn with_node(mut self, node: Arc<Node>) -> Self {
        self.node = OnceLock::from(node);
        self
    }

    /// Gives it a name; the first one stays.
    pub(crate) fn set_name(&mut self, name: Arc<str>) {
        match self.node.get() {
            Some(node) => node.info.set_name(name),
            None => drop(self.sketch.name.get_or_insert(name)),
        }
    }

    pub(crate) fn set_shielded(&mut self, shielded: bool) {
        match self.node.get() {
            Some(node) => node.set_shielded(shielded),
            None => self.sketch.shielded = shielded,
        }
    }

    pub(crate) fn set_deadline(&mut self, at: Ticks) {
        match self.node.get() {
            Some(node) => node.set_deadline(Some(at)),
            None => self.sketch.deadline = NonZero::new(at.max(1)),
        }
    }

    pub(crate) fn set_timeout(&mut self, length: Duration) {
        self.timeout = Some(length);
    }

    /// A shield that goes on when the time of the other shields of a run is up.
    pub(crate) fn set_finalizer(&mut self) {
        self.sketch.finalizer = true;
    }

    /// Takes the budget away, to be [begun](crate::shield::Body::begin_budget) later.
    pub(crate) fn take_budget(&mut self) -> Budget {
        std::mem::replace(&mut self.sketch.budget, Budget::NONE)
    }

    pub(crate) fn set_budget(&mut self, budget: Budget) {
        self.sketch.budget = budget;
    }

    /// The node, made now if it was not: somebody wants a handle on it.
    pub(crate) fn node(&self) -> &Arc<Node> {
        self.node.get_or_init(|| self.sketch.new_node(None, clock::now()))
    }

    /// The first poll: a relative timeout counts from here (S2). None if the place is needed for it already.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Option<(Poll<T>, Draft)> {
        // Through a handle the region is seen from outside.
        let is_known = self.node.get().is_some();
        let may_be_over = is_known || self.timeout.is_some() || self.sketch.deadline.is_some();
        let looked = if may_be_over { self.look()? } else { 0 };
        if is_known || !matches!(self.view, View::None) {
            return None;
        }
        if self.sketch.kind == Kind::Shield && !current::is_owned() {
            self.count();
        }
        current::in_plan(&self.sketch, looked, cx, poll)
    }

    /// Nobody but the root waits for a shield in this task.
    #[cold]
    fn count(&mut self) {
        let counted = Counted::at_root(&current::made_node(), self.sketch.info(current::born()));
        self.sketch.unmade = counted.as_ref().map(|counted| counted.number);
        self.counted = counted.map(Box::new);
    }

    /// Fixes its deadline by a look at the clock, and gives that; 0 if there is none. None if it has passed.
    fn look(&mut self) -> Option<Ticks> {
        let set = self.node.get().map_or(self.sketch.deadline(), |node| node.deadline());
        if set.is_none() && self.timeout.is_none() {
            return Some(0);
        }
        let now = clock::now();
        let relative = self.timeout.take().and_then(|length| clock::after(now, length));
        let Some(at) = set.into_iter().chain(relative).min() else { return Some(0) };
        self.set_deadline(at);
        (at > now).then_some(now)
    }

    /// Makes the place inside `outer`.
    pub(crate) fn make(&mut self, outer: Option<&Arc<Frame>>) -> (Branch, Arc<Frame>) {
        let mut parent = current::branch(outer);
        if let View::Outside(outside) = &self.view {
            outside.reparent(&parent);
            parent = Arc::clone(outside);
        }
        let now = clock::now();
        let node = self.node.take().unwrap_or_else(|| self.sketch.new_node(Some(&parent), now));
        let frame = enter(node, &parent, outer, now);
        (self.settle(&frame), frame)
    }

    /// The entry of the deadline of a bud that was planted just now, if it has one.
    pub(crate) fn timer(&self) -> Option<BudTimer> {
        self.sketch.deadline().map(BudTimer::of)
    }

    /// What keeps it counted, once it is in the tree.
    pub(crate) fn counted(&mut self) -> Option<Ticket> {
        self.counted.take().and_then(|counted| counted.into_ticket())
    }

    /// Gives a place that was made its seat, and lets the budget watch.
    pub(crate) fn settle(&mut self, frame: &Arc<Frame>) -> Branch {
        let view = std::mem::replace(&mut self.view, View::None);
        let branch = Branch::entered(frame, view, self.counted());
        if branch.node.info.kind == Kind::Shield {
            self.sketch.budget.attach(&branch);
        }
        branch
    }
}

impl Sketch {
    /// True if nothing asks for the place before the first poll. `is_cancelled`: what is around it is.
    pub(crate) fn may_wait(&self, is_cancelled: impl FnOnce() -> bool) -> bool {
        // A poll that begins with the cancel visible is judged as any other.
        self.shielded || !is_cancelled()
    }

    /// What is listed in `home` for it, until it needs a node.
    pub(crate) fn bud(&self, home: &Node, owned: bool, waker: Option<Waker>, now: Ticks) -> Bud {
        let info = self.info(now);
        let held_off = if self.kind == Kind::Shield { self.budget.held_off(home.host()) } else { None };
        let Self { shielded, finalizer, .. } = *self;
        Bud { info, shielded, finalizer, held_off, deadline: self.deadline(), owned, waker }
    }

    /// It is in the tree, and needs no name beside that. After the link: who looks meanwhile finds it twice rather than nowhere.
    pub(crate) fn forget_unmade(&self, parent: &Node) {
        if let (Some(number), Some(host)) = (self.unmade, parent.host()) {
            host.unmade.remove(number);
        }
    }

    #[inline]
    fn info(&self, born: Ticks) -> Info {
        let info = Info::new(self.kind, self.place, born);
        self.name.iter().for_each(|name| info.set_name(Arc::clone(name)));
        info
    }

    fn new_node(&self, parent: Option<&Arc<Node>>, now: Ticks) -> Arc<Node> {
        let info = self.info(now);
        let node = match parent {
            Some(parent) => CoreNode::unbound_below(parent, info, None, self.shielded),
            None => CoreNode::unbound(info, None, self.shielded),
        };
        if self.deadline.is_some() {
            node.set_deadline(self.deadline());
        }
        if self.finalizer {
            node.set_finalizer();
        }
        node
    }

    /// Makes the place inside `outer`.
    pub(crate) fn make(&self, outer: Option<&Arc<Frame>>) -> Arc<Frame> {
        let now = if self.deadline.is_some() { clock::now() } else { current::born() };
        current::in_branch(outer, |parent| {
            let frame = enter(self.new_node(Some(parent), now), parent, outer, now);
            self.forget_unmade(parent);
            frame
        })
    }

    /// True if what is inside is not cancelled, whatever is around it.
    pub(crate) fn is_shielded(&self) -> bool {
        self.shielded
    }

    pub(crate) fn deadline(&self) -> Option<Ticks> {
        self.deadline.map(NonZero::get)
    }
}

/// Links a node below `parent`, with the frame of its region.
fn enter(node: Arc<Node>, parent: &Arc<Node>, outer: Option<&Arc<Frame>>, now: Ticks) -> Arc<Frame> {
    if node.deadline().is_some() {
        // A panic after the link would leave the node in the tree, with nobody who takes it out.
        parent.host().into_iter().for_each(|host| deadline::demand_timer(host));
    }
    let frame = Frame::of_node(node, outer.is_some_and(|outer| outer.is_owned()));
    frame.node().enter(parent, &frame);
    deadline::begin(frame.node(), now);
    frame
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sketch { kind, name, .. } = &self.sketch;
        let name = self.node.get().map_or(name.as_ref(), |node| node.info.name.get());
        f.debug_struct("Plan").field("kind", kind).field("name", &name).finish_non_exhaustive()
    }
}
