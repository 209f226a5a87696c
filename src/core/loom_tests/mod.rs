//! Every race of the core, each with its winner, in all interleavings that loom finds.
//!
//! A model ends when its threads have: what is asserted then is the state that they leave behind. A wake is lost if a poller
//! saw nothing, is not woken, and would have to be.

mod absorbers;
mod buds;
mod frames;
mod leaves;
mod live;
mod moves;
mod tasks;
mod tree;

use std::panic::Location;
use std::task::{Wake, Waker};

use super::cause::{Cause, CauseKind};
use super::frame::{self, Verdict, WakerId};
use super::node::{self, Info, Kind};
use super::owner::Owner;
use super::sync::{Arc, AtomicUsize, Ordering, thread};

type Node = node::Node<()>;
type Frame = frame::Frame<()>;
type Hold = frame::Hold<()>;

fn cause() -> Cause {
    Cause::new(CauseKind::Requested)
}

fn info(kind: Kind) -> Info {
    Info::new(kind, Location::caller(), 0)
}

fn root() -> Arc<Node> {
    Node::root(info(Kind::Root), Arc::new(()), Owner::root(0))
}

fn scope(parent: &Arc<Node>) -> Arc<Node> {
    Node::child(parent, info(Kind::Scope), false, None)
}

fn shield(parent: &Arc<Node>) -> Arc<Node> {
    Node::child(parent, info(Kind::Shield), true, None)
}

fn nursery(parent: &Arc<Node>) -> Arc<Node> {
    Node::child(parent, info(Kind::Nursery), false, Some(Owner::new(0)))
}

/// A frame that `node` judges.
fn frame_of(node: &Arc<Node>) -> Arc<Frame> {
    let frame = Frame::of_node(Arc::clone(node), true);
    node.set_region(&frame);
    frame
}

/// Runs `step` on a thread of its own with a handle on `on`.
fn spawn<T: Send + Sync + 'static, R: 'static>(
    on: &Arc<T>,
    step: impl FnOnce(&Arc<T>) -> R + 'static,
) -> thread::JoinHandle<R> {
    let on = Arc::clone(on);
    thread::spawn(move || step(&on))
}

/// Waits for a thread of the model.
fn join<R>(thread: thread::JoinHandle<R>) -> R {
    thread.join().expect("it does not panic")
}

/// Invariant 1 of [`Node`], from scratch and from the top.
fn must_be_cancelled(node: &Arc<Node>) -> bool {
    let above = || node.parent().is_some_and(|parent| must_be_cancelled(&parent));
    node.is_requested() || (!node.is_shielded() && above())
}

/// Checks invariant 1 for nodes that were neither latched nor pierced.
#[track_caller]
fn check_flags(nodes: &[&Arc<Node>]) {
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(node.is_cancelled(), must_be_cancelled(node), "node {index} of {nodes:?}");
        assert_eq!(node.is_cancelled(), !node.causes().is_empty(), "cause of node {index}");
    }
}

/// A waker that counts.
struct Bell(AtomicUsize);

impl Bell {
    fn new() -> (Arc<Self>, Waker) {
        let bell = Arc::new(Self(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&bell));
        (bell, waker)
    }

    /// True if it was rung since the last look; as the runtime does before it polls.
    fn take(&self) -> bool {
        self.0.swap(0, Ordering::AcqRel) != 0
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// The task around one frame: polls it as `Region` does, with a future inside that stays pending.
struct Poller {
    frame: Arc<Frame>,
    bell: Arc<Bell>,
    waker: Waker,
    armed: bool,
    /// True if the poll before began with the cancel visible.
    saw_it: bool,
}

impl Poller {
    fn new(frame: Arc<Frame>) -> Self {
        let (bell, waker) = Bell::new();
        Self { frame, bell, waker, armed: false, saw_it: false }
    }

    /// One poll, in which each of `holds` is polled. Returns the verdict, if the cancel was visible.
    fn poll(&mut self, holds: &mut [Hold]) -> Option<Verdict> {
        let visible = self.frame.is_cancelled();
        if visible {
            self.frame.begin(!self.saw_it);
        }
        self.saw_it = visible;
        holds.iter_mut().for_each(|hold| hold.renew(Arc::clone(&self.frame), WakerId::of(&self.waker), &self.waker));
        self.arm(visible);
        let verdict = visible.then(|| self.frame.judge(false));
        if verdict == Some(Verdict::Probe) {
            self.waker.wake_by_ref();
        }
        verdict
    }

    fn arm(&mut self, visible: bool) {
        if std::mem::replace(&mut self.armed, true) && self.frame.is_armed() {
            return;
        }
        self.frame.arm(&self.waker);
        if self.frame.is_cancelled() != visible {
            self.waker.wake_by_ref();
        }
    }

    /// Polls as often as it is woken, beginning with `last`; returns the verdict with which it came to rest.
    fn settle(&mut self, mut last: Option<Verdict>, holds: &mut [Hold]) -> Option<Verdict> {
        while last != Some(Verdict::Cut) && self.bell.take() {
            last = self.poll(holds);
        }
        last
    }
}
