//! The reference: what a program means, as a pure machine with a clock of its own.
//!
//! It is to be read as the specification. A *node* is cancelled if it was asked to stop, or if it is not shielded and the node
//! around it is cancelled. A task is a stack of frames. At a leaf (a sleep, a yield) it looks at its node; cancelled, it unwinds
//! frame by frame, to whoever takes the cancel. Dropped, its frames are gone, but for what is owed: what is protected goes on,
//! finalizers run, and nurseries wait for their children, in a task of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::exec::{Cut, Event, Obs, Outcome, What};
use crate::program::{Id, P, ROOT};

/// Where a sequence of parts goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Go,
    Err,
    Panic,
    /// Unwinding, because of a cancel.
    Cut,
}

enum Kind {
    Plain,
    Shield,
    /// It sees what is outside of this shield.
    Expose(usize),
}

struct Node {
    parent: Option<usize>,
    kind: Kind,
    asked: bool,
}

/// What a task is inside of.
#[derive(PartialEq)]
enum Frame {
    /// What is left of a sequence.
    Seq(Vec<P>),
    Scope(Id),
    Catch(Id),
    Shield(Id),
    Nursery(Id),
    /// Finalizers that have not begun: their body is inside.
    OnCancel(Id, P),
    Finally(Id, P),
    /// A finalizer that runs, and what comes after it.
    Fin(Id, Flow),
    DropAfter(Id),
    /// The outermost of what is left of a dropped task: how that has ended is nobody's business.
    Rest,
}

/// How a nursery ends; what comes later here outweighs what comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Done,
    /// The body was cut off.
    Cut,
    Failed,
    /// A cancel from outside has cut off the body or a child.
    Unwinds,
    Panicked,
    /// Nobody is there to be told.
    Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready(Flow),
    /// Where it can be cut off: in a sleep or a yield, by name, or for ever.
    Leaf(Option<Id>),
    /// Waits for what lives in the nursery that it is in.
    Joining,
    Over,
}

struct Task {
    /// The child that this is, or is left of.
    label: Id,
    /// The nursery that waits for it, or the runner.
    owner: Option<Id>,
    /// Each frame with the node that judges what is inside.
    stack: Vec<(Frame, usize)>,
    state: State,
}

/// One that comes too late finds nobody with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Sleep(Id),
    Scope(Id),
    Drop(Id),
    Cut(Cut),
}

#[derive(Default)]
struct Model {
    now: u64,
    nodes: Vec<Node>,
    tasks: Vec<Task>,
    ready: VecDeque<usize>,
    timers: BTreeSet<(u64, Timer)>,
    /// The nodes of scopes, nurseries, shields and children.
    named: BTreeMap<Id, usize>,
    /// Scopes that were cancelled before their run.
    asked_early: BTreeSet<Id>,
    ends: BTreeMap<Id, End>,
    trace: Vec<Event>,
    outcome: Option<(Outcome, u64)>,
    /// Two timers were due at once, or something gave way while others could run: who comes first is nobody's promise.
    raced: bool,
}

const MAIN: usize = 0;
/// The node around whatever was dropped: it is cancelled.
const GONE: usize = 0;

/// Runs a program with cuts from outside. None if two things are due at the same moment: then the order is nobody's promise.
pub(crate) fn run(p: &P, cuts: &[(u64, Cut)]) -> Option<Obs> {
    let mut model = Model::default();
    model.nodes.push(Node { parent: None, kind: Kind::Plain, asked: true });
    let base = model.node(None, Kind::Plain);
    let root = P::Scope(ROOT, None, Box::new(p.clone()));
    model.task(ROOT, None, vec![(Frame::Seq(vec![root]), base)], State::Ready(Flow::Go));
    model.timers.extend(cuts.iter().map(|(at, cut)| (*at, Timer::Cut(*cut))));
    loop {
        while let Some(task) = model.ready.pop_front() {
            model.run(task);
        }
        let Some((at, timer)) = model.timers.pop_first().filter(|_| !model.is_over()) else { break };
        model.raced |= model.timers.first().is_some_and(|(next, _)| *next == at);
        model.now = at;
        model.fire(timer);
    }
    let idle = model.is_over().then_some(model.now);
    let (outcome, ended) = model.outcome.unwrap_or((Outcome::Never, 0));
    (!model.raced).then(|| Obs::new(outcome, ended, idle, model.trace))
}

impl Model {
    fn node(&mut self, parent: Option<usize>, kind: Kind) -> usize {
        self.nodes.push(Node { parent, kind, asked: false });
        self.nodes.len() - 1
    }

    fn task(&mut self, label: Id, owner: Option<Id>, stack: Vec<(Frame, usize)>, state: State) {
        if matches!(state, State::Ready(_)) {
            self.ready.push_back(self.tasks.len());
        }
        self.tasks.push(Task { label, owner, stack, state });
    }

    fn name(&mut self, id: Id, parent: usize, kind: Kind) -> usize {
        let node = self.node(Some(parent), kind);
        self.named.insert(id, node);
        node
    }

    fn log(&mut self, task: usize, id: Id, what: What) {
        self.trace.push(Event { at: self.now, task: self.tasks[task].label, id, what });
    }

    fn is_over(&self) -> bool {
        self.tasks.iter().all(|task| task.state == State::Over)
    }

    // ---------------------------------------------------------------------------- what is cancelled

    fn is_cancelled(&self, node: usize) -> bool {
        let Node { parent, kind, asked } = &self.nodes[node];
        let above = || parent.is_some_and(|parent| self.is_cancelled(parent));
        match kind {
            _ if *asked => true,
            Kind::Plain => above(),
            Kind::Shield => false,
            Kind::Expose(shield) => above() || self.is_cancelled_outside(*shield),
        }
    }

    fn is_cancelled_outside(&self, node: usize) -> bool {
        self.nodes[node].parent.is_some_and(|parent| self.is_cancelled(parent))
    }

    /// The shields that are closed around a node, the innermost last.
    fn closed_around(&self, node: usize) -> Vec<usize> {
        let Node { parent, kind, .. } = &self.nodes[node];
        let mut closed = parent.map(|parent| self.closed_around(parent)).unwrap_or_default();
        match kind {
            Kind::Shield => closed.push(node),
            Kind::Expose(_) => drop(closed.pop()),
            Kind::Plain => {}
        }
        closed
    }

    /// The node that judges where a task is.
    fn here(&self, task: usize) -> usize {
        self.tasks[task].stack.last().expect("it is inside of something").1
    }

    fn push(&mut self, task: usize, frame: Frame, node: usize) {
        self.tasks[task].stack.push((frame, node));
    }

    fn ask(&mut self, node: usize) {
        self.nodes[node].asked = true;
        self.cut_leaves();
    }

    fn cut_leaves(&mut self) {
        for task in 0..self.tasks.len() {
            if matches!(self.tasks[task].state, State::Leaf(_)) && self.is_cancelled(self.here(task)) {
                self.wake(task, Flow::Cut);
            }
        }
    }

    fn wake(&mut self, task: usize, flow: Flow) {
        self.tasks[task].state = State::Ready(flow);
        self.ready.push_back(task);
    }

    // ---------------------------------------------------------------------------- running

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Sleep(id) => {
                let sleeper = self.tasks.iter().position(|task| task.state == State::Leaf(Some(id)));
                sleeper.into_iter().for_each(|task| self.wake(task, Flow::Go));
            }
            Timer::Scope(id) => self.ask(self.named[&id]),
            Timer::Drop(id) => {
                let Some((task, depth)) = self.find(&Frame::DropAfter(id)) else { return };
                self.log(task, id, What::Dropped);
                self.drop_from(task, depth);
                // It runs on in the poll that drops; the others have been woken by it.
                self.ready.push_front(task);
            }
            Timer::Cut(_) if self.tasks[MAIN].state == State::Over => {}
            Timer::Cut(Cut::Cancel) => self.ask(self.named[&ROOT]),
            Timer::Cut(Cut::Drop) => {
                self.drop_from(MAIN, 0);
                self.end(MAIN, Flow::Cut);
            }
        }
    }

    /// The task that has a frame, and where.
    fn find(&self, frame: &Frame) -> Option<(usize, usize)> {
        let depth = |task: &Task| task.stack.iter().position(|(other, _)| other == frame);
        self.tasks.iter().enumerate().find_map(|(number, task)| Some((number, depth(task)?)))
    }

    fn run(&mut self, task: usize) {
        let State::Ready(mut flow) = self.tasks[task].state else { unreachable!("it is in the queue") };
        loop {
            let next = match self.tasks[task].stack.last_mut() {
                None => return self.end(task, flow),
                Some((Frame::Seq(rest), _)) if flow == Flow::Go && !rest.is_empty() => {
                    let p = rest.remove(0);
                    self.begin(task, p)
                }
                Some(_) => self.leave(task, flow),
            };
            let Some(next) = next else { return };
            flow = next;
        }
    }

    /// Waits at a leaf, or is cut off there.
    fn suspend(&mut self, task: usize, id: Option<Id>) -> Option<Flow> {
        if self.is_cancelled(self.here(task)) {
            self.raced |= !self.ready.is_empty();
            return Some(Flow::Cut);
        }
        self.tasks[task].state = State::Leaf(id);
        None
    }

    /// Begins one part. None if the task waits now.
    fn begin(&mut self, task: usize, p: P) -> Option<Flow> {
        let here = self.here(task);
        match p {
            P::Emit(id) => self.log(task, id, What::Emit),
            P::Fail => return Some(Flow::Err),
            P::Panic => return Some(Flow::Panic),
            P::Never => return self.suspend(task, None),
            P::Sleep(id, ms) => return self.wait(task, id, ms),
            P::Yield(id) => {
                self.raced |= !self.ready.is_empty();
                return self.wait(task, id, 0);
            }
            P::Seq(parts) => self.push(task, Frame::Seq(parts), here),
            P::Cancel(id) | P::CancelChild(id) => match self.named.get(&id) {
                Some(&node) => self.ask(node),
                None => drop(self.asked_early.insert(id)),
            },
            P::Spawn(id, nursery, p) => self.spawn(task, id, nursery, *p),
            region => self.enter(task, here, region),
        }
        Some(Flow::Go)
    }

    fn wait(&mut self, task: usize, id: Id, ms: u64) -> Option<Flow> {
        self.push(task, Frame::Seq(vec![P::Emit(id)]), self.here(task));
        self.timers.insert((self.now + ms, Timer::Sleep(id)));
        self.suspend(task, Some(id))
    }

    /// Enters a region: its frame, and its body above that.
    fn enter(&mut self, task: usize, here: usize, p: P) {
        let (frame, node, body) = match p {
            P::Mask(id, p) => (Frame::Shield(id), self.name(id, here, Kind::Shield), p),
            P::Expose(id, shield, p) => {
                let shield = self.named.get(&shield).filter(|shield| self.closed_around(here).last() == Some(shield));
                let kind = shield.map_or(Kind::Plain, |shield| Kind::Expose(*shield));
                (Frame::Catch(id), self.node(Some(here), kind), p)
            }
            P::Catch(id, p) => (Frame::Catch(id), here, p),
            P::Scope(id, timeout, p) => {
                self.timers.extend(timeout.map(|ms| (self.now + ms, Timer::Scope(id))));
                let node = self.name(id, here, Kind::Plain);
                self.nodes[node].asked = self.asked_early.contains(&id);
                (Frame::Scope(id), node, p)
            }
            P::OnCancel(id, p, fin) => (Frame::OnCancel(id, *fin), here, p),
            P::Finally(id, p, fin) => (Frame::Finally(id, *fin), here, p),
            P::DropAfter(id, ms, p) => {
                self.timers.insert((self.now + ms, Timer::Drop(id)));
                (Frame::DropAfter(id), here, p)
            }
            P::Nursery(id, p) => {
                self.ends.insert(id, End::Done);
                (Frame::Nursery(id), self.name(id, here, Kind::Plain), p)
            }
            other => unreachable!("not a region: {other:?}"),
        };
        if let Frame::Shield(id) | Frame::OnCancel(id, _) | Frame::Finally(id, _) = frame {
            self.log(task, id, What::Begun);
        }
        self.push(task, frame, node);
        self.push(task, Frame::Seq(vec![*body]), node);
    }

    /// Leaves the innermost frame. None if something has to be waited for first.
    fn leave(&mut self, task: usize, flow: Flow) -> Option<Flow> {
        let (frame, node) = self.tasks[task].stack.pop().expect("there is one");
        match frame {
            Frame::Scope(_) if flow == Flow::Cut && self.is_cancelled_outside(node) => Some(flow),
            Frame::DropAfter(_) if flow == Flow::Cut => Some(flow),
            Frame::Shield(_) if flow == Flow::Cut => unreachable!("what is cancelled inside a shield is taken there"),
            Frame::Scope(id) | Frame::Catch(id) | Frame::Shield(id) | Frame::DropAfter(id) => {
                Some(self.result(task, id, flow))
            }
            Frame::OnCancel(..) if flow != Flow::Cut => Some(flow),
            Frame::OnCancel(id, fin) | Frame::Finally(id, fin) => {
                self.log(task, id, What::Finalizing);
                let shield = self.node(Some(node), Kind::Shield);
                self.push(task, Frame::Fin(id, flow), shield);
                self.push(task, Frame::Seq(vec![fin]), shield);
                Some(Flow::Go)
            }
            Frame::Fin(id, then) => {
                self.log(task, id, What::Finalized);
                Some(then)
            }
            Frame::Seq(_) => Some(flow),
            Frame::Rest => Some(Flow::Go),
            Frame::Nursery(id) => {
                self.note(id, flow, End::Cut);
                if self.lives_in(id) {
                    self.push(task, Frame::Nursery(id), node);
                    self.tasks[task].state = State::Joining;
                    return None;
                }
                Some(self.conclude(task, id))
            }
        }
    }

    /// What a region says of its body. A cancel ends here.
    fn result(&mut self, task: usize, id: Id, flow: Flow) -> Flow {
        if flow != Flow::Panic {
            self.log(task, id, if flow == Flow::Cut { What::Cut } else { What::Done });
        }
        if flow == Flow::Cut { Flow::Go } else { flow }
    }

    // ---------------------------------------------------------------------------- nurseries

    fn lives_in(&self, nursery: Id) -> bool {
        self.tasks.iter().any(|task| task.owner == Some(nursery) && task.state != State::Over)
    }

    /// A nursery is open for as long as its body runs, or something in it lives.
    fn spawn(&mut self, task: usize, id: Id, nursery: Id, p: P) {
        let runs = |(task, depth): (usize, usize)| self.tasks[task].stack.len() > depth + 1;
        if !self.find(&Frame::Nursery(nursery)).is_some_and(runs) && !self.lives_in(nursery) {
            return self.log(task, id, What::Refused);
        }
        let node = self.name(id, self.named[&nursery], Kind::Plain);
        self.task(id, Some(nursery), vec![(Frame::Seq(vec![p]), node)], State::Ready(Flow::Go));
    }

    /// The body or a child has ended; `cut` is what it means that it was cut off from inside.
    fn note(&mut self, id: Id, flow: Flow, cut: End) {
        let node = self.named[&id];
        let end = match flow {
            Flow::Go => End::Done,
            Flow::Cut if self.is_cancelled_outside(node) => End::Unwinds,
            Flow::Cut => cut,
            Flow::Err => End::Failed,
            Flow::Panic => End::Panicked,
        };
        let worst = self.ends[&id].max(end);
        self.ends.insert(id, worst);
        if matches!(flow, Flow::Err | Flow::Panic) {
            self.ask(node);
        }
    }

    /// Nothing is left in a nursery.
    fn conclude(&mut self, task: usize, id: Id) -> Flow {
        match self.ends[&id] {
            End::Dropped => {}
            End::Panicked => return Flow::Panic,
            End::Unwinds => return Flow::Cut,
            End::Failed => self.log(task, id, What::Failed),
            End::Cut => self.log(task, id, What::Cut),
            End::Done => self.log(task, id, What::Done),
        }
        Flow::Go
    }

    /// A task has ended.
    fn end(&mut self, task: usize, flow: Flow) {
        self.tasks[task].state = State::Over;
        if task == MAIN {
            let outcome = match flow {
                Flow::Go => Outcome::Ok,
                Flow::Err => Outcome::Err,
                Flow::Panic => Outcome::Panicked,
                // A cancel is taken by the scope around it.
                Flow::Cut => Outcome::Dropped,
            };
            self.outcome = Some((outcome, self.now));
        }
        let Some(id) = self.tasks[task].owner else { return };
        self.note(id, flow, End::Done);
        let (joiner, depth) = self.find(&Frame::Nursery(id)).expect("it waits");
        let Task { stack, state, .. } = &self.tasks[joiner];
        if *state == State::Joining && stack.len() == depth + 1 && !self.lives_in(id) {
            self.wake(joiner, Flow::Go);
        }
    }

    // ---------------------------------------------------------------------------- drops

    /// Drops the frames of a task from `depth` on. What is owed goes on in a task of its own: a shield, or a finalizer that runs, with
    /// all that is inside it; then the finalizers around it, from the inside outwards; and the nurseries, cancelled.
    fn drop_from(&mut self, task: usize, depth: usize) {
        let Task { label, owner, state, .. } = self.tasks[task];
        self.tasks[task].state = State::Ready(Flow::Go);
        let mut frames = self.tasks[task].stack.split_off(depth);
        let is_protected = |(frame, _): &(Frame, usize)| matches!(frame, Frame::Shield(_) | Frame::Fin(..));
        let protected = frames.split_off(frames.iter().position(is_protected).unwrap_or(frames.len()));
        if let Some((_, shield)) = protected.first() {
            self.nodes[*shield].parent = Some(GONE);
        }
        let state = if protected.is_empty() { State::Ready(Flow::Go) } else { state };
        let mut rest = vec![(Frame::Rest, GONE)];
        for (frame, node) in frames {
            match frame {
                Frame::OnCancel(id, fin) | Frame::Finally(id, fin) => rest.push((Frame::Finally(id, fin), node)),
                Frame::Nursery(id) => {
                    self.ends.insert(id, End::Dropped);
                    self.nodes[node].asked = true;
                    rest.push((frame, node));
                }
                Frame::Seq(_) | Frame::Scope(_) | Frame::Catch(_) | Frame::DropAfter(_) | Frame::Rest => {}
                Frame::Shield(_) | Frame::Fin(..) => unreachable!("they are in the protected part"),
            }
        }
        rest.extend(protected);
        if rest.len() > 1 {
            let nursery = |(frame, _): &(Frame, usize)| if let Frame::Nursery(id) = frame { Some(*id) } else { None };
            let nearest = self.tasks[task].stack.iter().rev().find_map(nursery);
            self.task(label, nearest.or(owner), rest, state);
        }
        self.cut_leaves();
    }
}
