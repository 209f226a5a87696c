//! The reference: what a program means, as a pure machine with a clock of its own.
//!
//! It is to be read as the specification. A *node* is cancelled if it was asked to stop, or if it is not shielded and the node
//! around it is cancelled. A task is a stack of frames. At a leaf (a sleep, a yield) it looks at its node; cancelled, it unwinds
//! frame by frame, to whoever takes the cancel. Dropped, its frames go at once, and what is protected goes on elsewhere.

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

#[derive(Debug)]
enum Kind {
    Plain,
    Shield {
        dropped: bool,
    },
    /// Open: it sees what is outside of this shield.
    Expose(Option<usize>),
}

#[derive(Debug)]
struct Node {
    parent: Option<usize>,
    kind: Kind,
    asked: bool,
}

#[derive(Debug)]
enum Frame {
    Seq(Vec<P>),
    Scope(Id, usize),
    Catch(Id, usize),
    Shield(Id, usize),
    Nursery(Id),
    /// A finalizer that has not begun: its body is inside.
    Clean {
        id: Id,
        fin: P,
        always: bool,
    },
    /// A finalizer that runs, and what comes after it.
    Fin(Id, usize, Flow),
    /// It has not said yet that it runs.
    Begins(Id),
    DropAfter(Id),
}

#[derive(Debug)]
struct Nursery {
    node: usize,
    /// Children, and what was adopted.
    live: usize,
    /// How the body has ended.
    body: Option<Flow>,
    failed: bool,
    panicked: bool,
    /// A cancel from outside has cut off the body or a child.
    unwinds: bool,
    at: At,
}

/// Who waits for a nursery.
#[derive(Clone, Copy, Debug)]
enum At {
    Task(usize),
    /// Dropped, adopted.
    Owner(Owner),
    Over,
}

/// Who waits for a task or what is left of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Root,
    Nursery(Id),
    /// The finalizer outside of it.
    Fin(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready(Flow),
    /// In the queue, at a place where it can be cut off when its turn comes.
    Yielded,
    /// At a leaf, where it can be cut off.
    Leaf,
    Joining,
    /// A finalizer that waits for so many others.
    Behind(usize),
    Over,
}

#[derive(Debug)]
struct Task {
    /// The child that this is, or is left of.
    label: Id,
    base: usize,
    stack: Vec<Frame>,
    state: State,
    owner: Owner,
    /// How it has ended.
    end: Flow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Sleep(usize),
    Scope(Id),
    Drop(usize, Id),
    Inject(usize),
}

#[derive(Default)]
struct Model {
    now: u64,
    nodes: Vec<Node>,
    tasks: Vec<Task>,
    ready: VecDeque<usize>,
    timers: BTreeSet<(u64, Timer)>,
    /// The nodes of scopes and nurseries; a cancel may come before.
    scopes: BTreeMap<Id, usize>,
    asked_early: BTreeSet<Id>,
    shields: BTreeMap<Id, usize>,
    children: BTreeMap<Id, usize>,
    nurseries: BTreeMap<Id, Nursery>,
    live_at_root: usize,
    trace: Vec<Event>,
    outcome: Option<(Outcome, u64)>,
    raced: bool,
}

const MAIN: usize = 0;

/// Runs a program with cuts from outside. None if two things are due at the same moment: then the order is nobody's promise.
pub(crate) fn run(p: &P, cuts: &[(u64, Cut)]) -> Option<Obs> {
    let mut model = Model::default();
    let base = model.node(None, Kind::Plain);
    let root = P::Scope(ROOT, None, Box::new(p.clone()));
    model.live_at_root = 1;
    model.task(ROOT, base, vec![Frame::Seq(vec![root])], State::Ready(Flow::Go), Owner::Root);
    model.timers.extend(cuts.iter().enumerate().map(|(n, (at, _))| (*at, Timer::Inject(n))));
    loop {
        while let Some(task) = model.ready.pop_front() {
            model.run(task);
        }
        let Some((at, timer)) = model.timers.pop_first() else { break };
        if model.live_at_root == 0 {
            break; // A cut that comes too late.
        }
        model.raced |= model.timers.first().is_some_and(|(next, _)| *next == at);
        model.now = at;
        model.fire(timer, cuts);
    }
    let idle = (model.live_at_root == 0).then_some(model.now);
    let (outcome, ended) = model.outcome.unwrap_or((Outcome::Never, 0));
    (!model.raced).then(|| Obs::new(outcome, ended, idle, model.trace))
}

impl Model {
    fn node(&mut self, parent: Option<usize>, kind: Kind) -> usize {
        self.nodes.push(Node { parent, kind, asked: false });
        self.nodes.len() - 1
    }

    fn task(&mut self, label: Id, base: usize, stack: Vec<Frame>, state: State, owner: Owner) -> usize {
        self.tasks.push(Task { label, base, stack, state, owner, end: Flow::Go });
        let task = self.tasks.len() - 1;
        if matches!(state, State::Ready(_) | State::Yielded) {
            self.ready.push_back(task);
        }
        task
    }

    fn log(&mut self, task: usize, id: Id, what: What) {
        let label = self.tasks[task].label;
        self.trace.push(Event { at: self.now, task: label, id, what });
    }

    // ---------------------------------------------------------------------------- what is cancelled

    fn is_cancelled(&self, node: usize) -> bool {
        let Node { parent, kind, asked } = &self.nodes[node];
        let above = || parent.is_some_and(|parent| self.is_cancelled(parent));
        *asked
            || match kind {
                Kind::Plain | Kind::Expose(None) => above(),
                Kind::Shield { .. } => false,
                Kind::Expose(Some(shield)) => above() || self.is_cancelled_outside(*shield),
            }
    }

    fn is_cancelled_outside(&self, node: usize) -> bool {
        let dropped = matches!(self.nodes[node].kind, Kind::Shield { dropped: true });
        dropped || self.nodes[node].parent.is_some_and(|parent| self.is_cancelled(parent))
    }

    /// The shields that are closed around a node, the innermost last.
    fn closed_around(&self, node: usize) -> Vec<usize> {
        let Node { parent, kind, .. } = &self.nodes[node];
        let mut closed = parent.map(|parent| self.closed_around(parent)).unwrap_or_default();
        match kind {
            Kind::Shield { .. } => closed.push(node),
            Kind::Expose(Some(_)) => drop(closed.pop()),
            Kind::Plain | Kind::Expose(None) => {}
        }
        closed
    }

    fn ask(&mut self, node: usize) {
        self.nodes[node].asked = true;
        self.cut_leaves();
    }

    fn cut_leaves(&mut self) {
        for task in 0..self.tasks.len() {
            if self.tasks[task].state == State::Leaf && self.is_cancelled(self.here(task)) {
                self.timers.remove(&self.sleep_of(task));
                self.wake(task, Flow::Cut);
            }
        }
    }

    fn sleep_of(&self, task: usize) -> (u64, Timer) {
        let found = self.timers.iter().find(|(_, timer)| *timer == Timer::Sleep(task));
        found.copied().unwrap_or((u64::MAX, Timer::Sleep(task)))
    }

    fn wake(&mut self, task: usize, flow: Flow) {
        self.tasks[task].state = State::Ready(flow);
        self.ready.push_back(task);
    }

    /// The node that judges the innermost frame of a task.
    fn here(&self, task: usize) -> usize {
        self.node_at(task, self.tasks[task].stack.len())
    }

    fn node_at(&self, task: usize, depth: usize) -> usize {
        let node = self.tasks[task].stack[..depth].iter().rev().find_map(|frame| match frame {
            Frame::Scope(_, node) | Frame::Catch(_, node) | Frame::Shield(_, node) | Frame::Fin(_, node, _) => {
                Some(*node)
            }
            Frame::Nursery(id) => Some(self.nurseries[id].node),
            Frame::Seq(_) | Frame::Begins(_) | Frame::Clean { .. } | Frame::DropAfter(_) => None,
        });
        node.unwrap_or(self.tasks[task].base)
    }

    // ---------------------------------------------------------------------------- running

    fn fire(&mut self, timer: Timer, cuts: &[(u64, Cut)]) {
        match timer {
            Timer::Sleep(task) => self.wake(task, Flow::Go),
            Timer::Scope(id) => self.ask(self.scopes[&id]),
            Timer::Drop(task, id) => {
                let is_it = |frame: &Frame| matches!(frame, Frame::DropAfter(other) if *other == id);
                let Some(depth) = self.tasks[task].stack.iter().position(is_it) else { return };
                self.drop_from(task, depth);
                self.log(task, id, What::Dropped);
                self.tasks[task].state = State::Ready(Flow::Go);
                // It runs on in the poll that drops; the others have been woken by it.
                self.ready.push_front(task);
            }
            Timer::Inject(_) if self.tasks[MAIN].state == State::Over => {}
            Timer::Inject(n) => match cuts[n].1 {
                Cut::Cancel => self.ask(self.scopes[&ROOT]),
                Cut::Drop => {
                    self.drop_from(MAIN, 0);
                    self.outcome = Some((Outcome::Dropped, self.now));
                    self.end(MAIN, Flow::Go);
                }
            },
        }
    }

    fn run(&mut self, task: usize) {
        let mut flow = match self.tasks[task].state {
            State::Ready(flow) => flow,
            State::Yielded if self.is_cancelled(self.here(task)) => Flow::Cut,
            State::Yielded => Flow::Go,
            State::Leaf | State::Joining | State::Behind(_) | State::Over => return,
        };
        loop {
            let next = match self.tasks[task].stack.last_mut() {
                None => return self.end(task, flow),
                Some(Frame::Seq(rest)) if flow == Flow::Go && !rest.is_empty() => {
                    let p = rest.remove(0);
                    self.begin(task, p)
                }
                Some(_) => self.leave(task, flow),
            };
            match next {
                Some(next) => flow = next,
                None => return,
            }
        }
    }

    /// Waits at a leaf, or is cut off there.
    fn suspend(&mut self, task: usize, state: State) -> Option<Flow> {
        if self.is_cancelled(self.here(task)) {
            self.races(task);
            return Some(Flow::Cut);
        }
        self.tasks[task].state = state;
        None
    }

    /// It gives way, perhaps, at a moment at which others can run: who does so first, and how often, is nobody's promise.
    fn races(&mut self, task: usize) {
        let waits = |other: &usize| matches!(self.tasks[*other].state, State::Ready(_) | State::Yielded);
        self.raced |= self.ready.iter().any(|other| *other != task && waits(other));
    }

    /// Begins one part. None if the task waits now.
    fn begin(&mut self, task: usize, p: P) -> Option<Flow> {
        let here = self.here(task);
        match p {
            P::Emit(id) => self.log(task, id, What::Emit),
            P::Fail => return Some(Flow::Err),
            P::Panic => return Some(Flow::Panic),
            P::Never => return self.suspend(task, State::Leaf),
            P::Sleep(id, ms) => {
                self.tasks[task].stack.push(Frame::Seq(vec![P::Emit(id)]));
                let suspended = self.suspend(task, State::Leaf);
                if suspended.is_none() {
                    self.timers.insert((self.now + ms, Timer::Sleep(task)));
                }
                return suspended;
            }
            P::Yield(id) => {
                self.tasks[task].stack.push(Frame::Seq(vec![P::Emit(id)]));
                self.races(task);
                self.ready.push_back(task);
                return self.suspend(task, State::Yielded);
            }
            P::Seq(parts) => self.tasks[task].stack.push(Frame::Seq(parts)),
            P::Cancel(id) => match self.scopes.get(&id) {
                Some(&node) => self.ask(node),
                None => drop(self.asked_early.insert(id)),
            },
            P::CancelChild(id) => {
                if let Some(&child) = self.children.get(&id) {
                    self.ask(self.tasks[child].base);
                }
            }
            P::Spawn(id, nursery, p) => self.spawn(task, id, nursery, *p),
            region => self.enter(task, here, region),
        }
        Some(Flow::Go)
    }

    /// Enters a region: its frame, and its body above that.
    fn enter(&mut self, task: usize, here: usize, p: P) {
        let push = |model: &mut Self, frame, inner| model.tasks[task].stack.extend([frame, Frame::Seq(vec![inner])]);
        match p {
            P::Mask(id, p) => {
                let node = self.node(Some(here), Kind::Shield { dropped: false });
                self.shields.insert(id, node);
                self.log(task, id, What::Begun);
                push(self, Frame::Shield(id, node), *p);
            }
            P::Expose(id, shield, p) => {
                let shield = self.shields.get(&shield).copied();
                let open = shield.filter(|shield| self.closed_around(here).last() == Some(shield));
                let node = self.node(Some(here), Kind::Expose(open));
                push(self, Frame::Catch(id, node), *p);
            }
            P::Catch(id, p) => {
                let node = self.node(Some(here), Kind::Plain);
                push(self, Frame::Catch(id, node), *p);
            }
            P::Scope(id, timeout, p) => {
                let node = self.node(Some(here), Kind::Plain);
                self.nodes[node].asked = self.asked_early.contains(&id);
                self.scopes.insert(id, node);
                self.timers.extend(timeout.map(|ms| (self.now + ms, Timer::Scope(id))));
                push(self, Frame::Scope(id, node), *p);
            }
            P::OnCancel(id, p, fin) => {
                self.log(task, id, What::Begun);
                push(self, Frame::Clean { id, fin: *fin, always: false }, *p);
            }
            P::Finally(id, p, fin) => {
                self.log(task, id, What::Begun);
                push(self, Frame::Clean { id, fin: *fin, always: true }, *p);
            }
            P::DropAfter(id, ms, p) => {
                self.timers.insert((self.now + ms, Timer::Drop(task, id)));
                push(self, Frame::DropAfter(id), *p);
            }
            P::Nursery(id, p) => {
                let node = self.node(Some(here), Kind::Plain);
                self.scopes.insert(id, node);
                let (failed, panicked, unwinds) = (false, false, false);
                let nursery = Nursery { node, live: 0, body: None, failed, panicked, unwinds, at: At::Task(task) };
                self.nurseries.insert(id, nursery);
                push(self, Frame::Nursery(id), *p);
            }
            other => unreachable!("not a region: {other:?}"),
        }
    }

    fn spawn(&mut self, task: usize, id: Id, nursery: Id, p: P) {
        let open = self.nurseries.get_mut(&nursery).filter(|nursery| !matches!(nursery.at, At::Over));
        let Some(open) = open else { return self.log(task, id, What::Refused) };
        open.live += 1;
        let home = open.node;
        let base = self.node(Some(home), Kind::Plain);
        let child = self.task(id, base, vec![Frame::Seq(vec![p])], State::Ready(Flow::Go), Owner::Nursery(nursery));
        self.children.insert(id, child);
    }

    /// Leaves the innermost frame. None if something has to be waited for first.
    fn leave(&mut self, task: usize, flow: Flow) -> Option<Flow> {
        let frame = self.tasks[task].stack.pop().expect("there is one");
        match frame {
            Frame::Seq(_) => return Some(flow),
            Frame::Scope(id, node) => {
                self.timers.retain(|(_, timer)| *timer != Timer::Scope(id));
                if flow == Flow::Cut && self.is_cancelled_outside(node) {
                    return Some(flow);
                }
                return Some(self.result(task, id, flow));
            }
            Frame::Catch(id, _) => return Some(self.result(task, id, flow)),
            Frame::Shield(id, _) => {
                assert_ne!(flow, Flow::Cut, "whatever is cancelled inside a shield is taken there");
                return Some(self.result(task, id, flow));
            }
            Frame::DropAfter(id) => {
                self.timers.retain(|(_, timer)| *timer != Timer::Drop(task, id));
                if flow == Flow::Cut {
                    return Some(flow);
                }
                return Some(self.result(task, id, flow));
            }
            Frame::Clean { id, fin, always } if always || flow == Flow::Cut => self.finalize(task, id, fin, flow),
            Frame::Clean { .. } => return Some(flow),
            Frame::Begins(id) => self.log(task, id, What::Finalizing),
            Frame::Fin(id, _, then) => {
                self.log(task, id, What::Finalized);
                return Some(then);
            }
            Frame::Nursery(id) => {
                self.end_body(id, flow);
                self.tasks[task].stack.push(Frame::Nursery(id));
                self.tasks[task].state = State::Joining;
                return self.settle(id);
            }
        }
        Some(Flow::Go)
    }

    /// What a region says of its body. A cancel ends here.
    fn result(&mut self, task: usize, id: Id, flow: Flow) -> Flow {
        match flow {
            Flow::Panic => return flow,
            Flow::Cut => self.log(task, id, What::Cut),
            Flow::Go | Flow::Err => self.log(task, id, What::Done),
        }
        if flow == Flow::Cut { Flow::Go } else { flow }
    }

    fn finalize(&mut self, task: usize, id: Id, fin: P, then: Flow) {
        let node = self.node(Some(self.here(task)), Kind::Shield { dropped: false });
        self.tasks[task].stack.extend([Frame::Fin(id, node, then), Frame::Seq(vec![fin]), Frame::Begins(id)]);
    }

    // ---------------------------------------------------------------------------- nurseries

    fn end_body(&mut self, id: Id, flow: Flow) {
        let node = self.nurseries[&id].node;
        self.nurseries.get_mut(&id).expect("it is open").body = Some(flow);
        self.note(id, flow, self.is_cancelled_outside(node));
    }

    /// The body or a child has ended.
    fn note(&mut self, id: Id, flow: Flow, outside: bool) {
        let nursery = self.nurseries.get_mut(&id).expect("it is open");
        match flow {
            Flow::Go => {}
            Flow::Cut => nursery.unwinds |= outside,
            Flow::Err | Flow::Panic => {
                nursery.failed = true;
                nursery.panicked |= flow == Flow::Panic;
                let node = nursery.node;
                self.ask(node);
            }
        }
    }

    /// If nothing is left in it, the nursery ends. Gives the flow of the task that waits in it.
    fn settle(&mut self, id: Id) -> Option<Flow> {
        let nursery = self.nurseries.get_mut(&id).expect("it is known");
        let (Some(body), 0) = (nursery.body, nursery.live) else { return None };
        let at = std::mem::replace(&mut nursery.at, At::Over);
        let (panicked, unwinds, failed) = (nursery.panicked, nursery.unwinds, nursery.failed);
        match at {
            At::Over => None,
            At::Owner(owner) => {
                self.release(owner);
                None
            }
            At::Task(task) => {
                self.tasks[task].stack.pop();
                let what = match (panicked, unwinds) {
                    (true, _) => return Some(Flow::Panic),
                    (false, true) => return Some(Flow::Cut),
                    (false, false) if failed => What::Failed,
                    (false, false) if body == Flow::Cut => What::Cut,
                    (false, false) => What::Done,
                };
                self.log(task, id, what);
                Some(Flow::Go)
            }
        }
    }

    /// A task has ended.
    fn end(&mut self, task: usize, flow: Flow) {
        let Task { owner, base, .. } = self.tasks[task];
        self.tasks[task].state = State::Over;
        self.tasks[task].end = flow;
        if task == MAIN && self.outcome.is_none() {
            let outcome = match flow {
                Flow::Go => Outcome::Ok,
                Flow::Err => Outcome::Err,
                Flow::Panic => Outcome::Panicked,
                Flow::Cut => unreachable!("the scope around it takes the cancel"),
            };
            self.outcome = Some((outcome, self.now));
        }
        if let (Owner::Nursery(id), true) = (owner, self.children.values().any(|child| *child == task)) {
            let home = self.nurseries[&id].node;
            let outside = self.is_cancelled(home) && self.is_cancelled_outside(home);
            debug_assert!(flow != Flow::Cut || self.is_cancelled(base), "nobody cuts off what is not cancelled");
            self.note(id, flow, outside);
        }
        self.release(owner);
    }

    /// Something that an owner waits for is over.
    fn release(&mut self, owner: Owner) {
        match owner {
            Owner::Root => self.live_at_root -= 1,
            Owner::Nursery(id) => {
                let nursery = self.nurseries.get_mut(&id).expect("it is open");
                nursery.live -= 1;
                let at = nursery.at;
                if let (Some(flow), At::Task(task)) = (self.settle(id), at) {
                    self.wake(task, flow);
                }
            }
            Owner::Fin(task) => {
                let State::Behind(count) = self.tasks[task].state else { unreachable!("it waits") };
                match count {
                    1 => self.wake(task, Flow::Go),
                    _ => self.tasks[task].state = State::Behind(count - 1),
                }
            }
        }
    }

    // ---------------------------------------------------------------------------- drops

    /// Drops the frames of a task from `depth` on. What is protected goes on: a shield, or a finalizer that runs, with all that is
    /// inside it; then the finalizers around it, from the inside outwards; and the children of nurseries, cancelled.
    fn drop_from(&mut self, task: usize, depth: usize) {
        let owner = self.owner_at(task, depth);
        let (label, base) = (self.tasks[task].label, self.tasks[task].base);
        let mut frames = self.tasks[task].stack.split_off(depth);
        let protected = frames.iter().position(|frame| matches!(frame, Frame::Shield(..) | Frame::Fin(..)));
        // Each is a task or a nursery, and has nobody yet who waits for it.
        let mut rests: Vec<Rest> = Vec::new();
        if let Some(at) = protected {
            let inner = frames.split_off(at);
            rests.push(Rest::Task(self.go_on(task, label, inner)));
        }
        for frame in &frames {
            let (Frame::Scope(id, _) | Frame::DropAfter(id)) = frame else { continue };
            self.timers.retain(|(_, timer)| *timer != Timer::Scope(*id) && *timer != Timer::Drop(task, *id));
        }
        self.timers.retain(|(_, timer)| *timer != Timer::Sleep(task));
        for frame in frames.into_iter().rev() {
            match frame {
                Frame::Clean { id, fin, .. } => {
                    let node = self.node(Some(base), Kind::Shield { dropped: true });
                    let stack = vec![Frame::Fin(id, node, Flow::Go), Frame::Seq(vec![fin]), Frame::Begins(id)];
                    let finalizer = self.task(label, base, stack, State::Behind(rests.len()), Owner::Root);
                    rests.iter().for_each(|rest| self.owned(*rest, Owner::Fin(finalizer)));
                    if rests.is_empty() {
                        self.wake(finalizer, Flow::Go);
                    }
                    rests = vec![Rest::Task(finalizer)];
                }
                Frame::Nursery(id) => {
                    rests.iter().for_each(|rest| self.owned(*rest, Owner::Nursery(id)));
                    let nursery = self.nurseries.get_mut(&id).expect("it is open");
                    nursery.body = Some(Flow::Cut);
                    let (node, empty) = (nursery.node, nursery.live == 0);
                    if empty {
                        nursery.at = At::Over;
                        rests = vec![];
                    } else {
                        rests = vec![Rest::Nursery(id)];
                    }
                    self.ask(node);
                }
                Frame::Seq(_) | Frame::Begins(_) | Frame::Scope(..) | Frame::Catch(..) | Frame::DropAfter(_) => {}
                Frame::Shield(..) | Frame::Fin(..) => unreachable!("they are in the protected part"),
            }
        }
        rests.iter().for_each(|rest| self.owned(*rest, owner));
        self.cut_leaves();
    }

    /// The protected part of a dropped task, as a task of its own.
    fn go_on(&mut self, task: usize, label: Id, inner: Vec<Frame>) -> usize {
        let Task { base, state, .. } = self.tasks[task];
        let rescued = self.task(label, base, inner, state, Owner::Root);
        let mut moved = vec![(Timer::Sleep(task), Timer::Sleep(rescued))];
        for frame in &self.tasks[rescued].stack {
            match frame {
                Frame::DropAfter(id) => moved.push((Timer::Drop(task, *id), Timer::Drop(rescued, *id))),
                Frame::Nursery(id) => self.nurseries.get_mut(id).expect("it is open").at = At::Task(rescued),
                _ => {}
            }
        }
        if let Some(Frame::Shield(_, node) | Frame::Fin(_, node, _)) = self.tasks[rescued].stack.first() {
            self.nodes[*node].kind = Kind::Shield { dropped: true };
        }
        let renamed = |timer| moved.iter().find(|(old, _)| *old == timer).map_or(timer, |(_, new)| *new);
        self.timers = self.timers.iter().map(|(at, timer)| (*at, renamed(*timer))).collect();
        rescued
    }

    fn owned(&mut self, rest: Rest, owner: Owner) {
        match rest {
            Rest::Task(task) => self.tasks[task].owner = owner,
            Rest::Nursery(id) => {
                self.nurseries.get_mut(&id).expect("it is open").at = At::Owner(owner);
            }
        }
        match owner {
            Owner::Root => self.live_at_root += 1,
            Owner::Nursery(id) => self.nurseries.get_mut(&id).expect("it is open").live += 1,
            Owner::Fin(_) => {}
        }
    }

    /// The nearest nursery around a place.
    fn owner_at(&self, task: usize, depth: usize) -> Owner {
        let around = self.tasks[task].stack[..depth].iter().rev().find_map(|frame| match frame {
            Frame::Nursery(id) => Some(Owner::Nursery(*id)),
            _ => None,
        });
        let outer = |mut owner| {
            while let Owner::Fin(task) = owner {
                owner = self.tasks[task].owner;
            }
            owner
        };
        around.unwrap_or_else(|| outer(self.tasks[task].owner))
    }
}

#[derive(Clone, Copy)]
enum Rest {
    Task(usize),
    Nursery(Id),
}
