//! A place in the tree that is not made yet: most regions end in their first poll, and need none.

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::{self, Ticks};
use crate::core::node::{Info, Kind, Node as CoreNode};
use crate::current;
use crate::deadline;
use crate::host::{Frame, Node};
use crate::seat::Branch;
use crate::shield::{Budget, Exposed};

/// What it takes to make the node of a region. That is done when its first poll ends pending, or when something inside asks for
/// its frame: a handle, a nursery, a scope that suspends.
pub(crate) struct Plan {
    /// Made early for those that hold a handle on it; then it has the rest of what is said here about it.
    node: OnceLock<Arc<Node>>,
    kind: Kind,
    place: &'static Location<'static>,
    name: Option<Arc<str>>,
    shielded: bool,
    deadline: Option<Ticks>,
    /// Until the first poll.
    timeout: Option<Duration>,
    /// That of a shield.
    budget: Budget,
    view: View,
}

/// What an `exposed` part sees through its shield.
pub(crate) enum View {
    None,
    /// This is a shield that can be opened: the view from outside it, a node between the two.
    Outside(Arc<Node>),
    /// This is a part that opens its shield.
    Opens(Exposed),
}

/// A place that was only planned when its region was polled first.
pub(crate) enum Planned {
    Not(Plan),
    /// Its plan is being carried out.
    Begun,
    Made(Branch, Arc<Frame>),
}

impl Plan {
    #[track_caller]
    pub(crate) fn new(kind: Kind) -> Self {
        Self::at(Location::caller(), kind)
    }

    /// A region that reports name another place than the one that makes it.
    pub(crate) fn at(place: &'static Location<'static>, kind: Kind) -> Self {
        let shielded = kind == Kind::Shield;
        Self {
            node: OnceLock::new(),
            kind,
            place,
            name: None,
            shielded,
            deadline: None,
            timeout: None,
            budget: Budget::Default,
            view: View::None,
        }
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
            None => drop(self.name.get_or_insert(name)),
        }
    }

    pub(crate) fn set_shielded(&mut self, shielded: bool) {
        match self.node.get() {
            Some(node) => node.set_shielded(shielded),
            None => self.shielded = shielded,
        }
    }

    pub(crate) fn set_deadline(&mut self, at: Ticks) {
        match self.node.get() {
            Some(node) => node.set_deadline(Some(at)),
            None => self.deadline = Some(at),
        }
    }

    pub(crate) fn set_timeout(&mut self, length: Duration) {
        self.timeout = Some(length);
    }

    pub(crate) fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// The node, made now if it was not: somebody wants a handle on it.
    pub(crate) fn node(&self) -> &Arc<Node> {
        self.node.get_or_init(|| self.new_node())
    }

    fn new_node(&self) -> Arc<Node> {
        let node = CoreNode::unbound(self.info(), None, self.shielded);
        if self.deadline.is_some() {
            node.set_deadline(self.deadline);
        }
        node
    }

    fn info(&self) -> Info {
        let info = Info::new(self.kind, self.place, clock::now());
        if let Some(name) = &self.name {
            info.set_name(Arc::clone(name));
        }
        info
    }

    /// Begins the first poll: a relative timeout counts from here (S2). True if the place is needed for this poll already.
    pub(crate) fn begin(&mut self) -> bool {
        if self.kind == Kind::Shield {
            // What it says to others in its first poll must find it counted in (S32).
            return !current::is_owned();
        }
        // A poll that begins with the cancel visible is judged as any other.
        let is_requested = self.node.get().is_some_and(|node| node.is_requested());
        self.is_over() || is_requested || (!self.is_shielded() && current::is_cancelled())
    }

    fn is_over(&mut self) -> bool {
        let set = self.node.get().map_or(self.deadline, |node| node.deadline());
        if set.is_none() && self.timeout.is_none() {
            return false;
        }
        let now = clock::now();
        let relative = self.timeout.take().and_then(|length| clock::after(now, length));
        let Some(at) = set.into_iter().chain(relative).min() else { return false };
        self.set_deadline(at);
        at <= now
    }

    /// Whether what is inside is cancelled, if that does not depend on what is around it.
    fn decides(&self) -> Option<bool> {
        if self.node.get().is_some_and(|node| node.is_requested()) {
            return Some(true);
        }
        self.is_shielded().then_some(false)
    }

    fn is_shielded(&self) -> bool {
        self.node.get().map_or(self.shielded, |node| node.is_shielded())
    }

    /// Makes the node below the frame around it, with the frame for what is inside.
    pub(crate) fn make(self, outer: Option<&Arc<Frame>>) -> (Branch, Arc<Frame>) {
        let node = self.node.get().map_or_else(|| self.new_node(), Arc::clone);
        let mut branch = Branch::new(node, self.view);
        let frame = branch.enter(outer);
        if self.kind == Kind::Shield {
            self.budget.attach(&branch);
        } else if let Some(at) = branch.node.deadline() {
            deadline::set(&branch.node, Some(at));
        }
        (branch, frame)
    }
}

impl Planned {
    pub(crate) fn take_plan(&mut self) -> Option<Plan> {
        match std::mem::replace(self, Self::Begun) {
            Self::Not(plan) => Some(plan),
            kept @ (Self::Begun | Self::Made(..)) => {
                *self = kept;
                None
            }
        }
    }

    /// Whether what is inside is cancelled, if that does not depend on what is around it.
    pub(crate) fn is_cancelled(&self) -> Option<bool> {
        match self {
            Self::Not(plan) => plan.decides(),
            Self::Begun => None,
            Self::Made(_, frame) => Some(frame.is_cancelled()),
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.node.get().map_or(self.name.as_ref(), |node| node.info.name.get());
        f.debug_struct("Plan").field("kind", &self.kind).field("name", &name).finish_non_exhaustive()
    }
}
