//! Random programs: what they are, how one follows from a number, how one is shown.

use std::fmt;
use std::sync::Arc;

use testudo::Policy;

/// SplitMix64: a seed names the same programs on every machine.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True in `percent` of all cases.
    fn one_in(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn maybe(&mut self, percent: u64, end: u64) -> Option<u64> {
        self.one_in(percent).then(|| self.below(end))
    }
}

/// A program, with what the checks after it have to know.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) root: Root,
    pub(crate) block: Arc<Block>,
    /// How many blocks there are; they are numbered from 0.
    pub(crate) blocks: usize,
    /// All blocks that nothing may cut off once they have begun.
    pub(crate) sure: Vec<usize>,
    /// The shields of the scopes when they are made.
    pub(crate) scopes: Vec<ScopeSpec>,
    pub(crate) nurseries: usize,
    pub(crate) rules: Vec<Rule>,
    /// What the thread outside does, in the order of time.
    pub(crate) actions: Vec<(u64, Action)>,
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// In `block_on`.
    Here,
    /// In a plain task, which may be aborted.
    Task { aborted: bool },
    /// As main of a `Runner`.
    Run,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ScopeSpec {
    pub(crate) timeout: Option<u64>,
    pub(crate) shielded: bool,
}

/// What has to be true of two blocks at the end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// `then` has begun iff `first` has begun.
    Finally { first: usize, then: usize },
    /// `then` has begun iff `first` has begun and was cut off.
    OnCancel { first: usize, then: usize },
    /// `then` has begun iff `first` has run to its end.
    Follows { first: usize, then: usize },
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) id: usize,
    /// Nothing may cut it off, and no cancel may be visible directly inside it.
    pub(crate) sure: bool,
    pub(crate) ops: Vec<Op>,
}

type Part = Arc<Block>;

#[derive(Debug)]
pub(crate) enum Op {
    Sleep(u64),
    Yield(u64),
    Checkpoint,
    /// Waits for ever; only where a cancel or a drop is certain to come.
    Park,
    /// Waits for the cancel, which is certain to come.
    AwaitCancel,
    Act(Action),
    Scope(usize, Part),
    Nursery(NurserySpec, Part),
    Spawn {
        up: usize,
        child: Child,
    },
    Start {
        before: Part,
        after: Part,
    },
    SpawnAtRoot(Part),
    Shield(Part),
    ShieldWith {
        before: Part,
        exposed: Part,
        after: Part,
    },
    Finally {
        body: Part,
        then: Part,
    },
    OnCancel {
        body: Part,
        then: Part,
    },
    Bracket {
        wait: Part,
        acquire: Part,
        body: Part,
        release: Part,
    },
    Catch(Part),
    Join {
        a: Part,
        b: Part,
        unordered: bool,
    },
    Select {
        a: Part,
        b: Part,
    },
    Timeout(u64, Part),
    /// Polls `held` for a while, then keeps it unpolled while `then` runs.
    Stall {
        ms: u64,
        held: Part,
        then: Part,
        fate: Fate,
    },
    Tokio {
        part: Part,
        abort: Option<u64>,
    },
}

/// What becomes of a future that was kept unpolled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Drop,
    Resume,
    /// Goes on inside another scope of the same task.
    InScope,
    /// Goes on inside a plain task.
    InTask,
    /// Is dropped by a thread that has no runtime.
    Elsewhere,
}

#[derive(Debug)]
pub(crate) struct NurserySpec {
    pub(crate) id: usize,
    pub(crate) policy: Policy,
    pub(crate) shielded: bool,
    pub(crate) timeout: Option<u64>,
    pub(crate) end: Ending,
}

#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) part: Part,
    pub(crate) end: Ending,
    pub(crate) daemon: bool,
    pub(crate) shielded: bool,
    pub(crate) joined: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Ok,
    Err,
    Panic,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Cancel(usize),
    SetShielded(usize, bool),
    SetDeadline(usize, u64),
    CancelNursery(usize),
    ShieldNursery(usize, bool),
    CancelTask(usize),
    AbortRoot,
}

/// What is known of the place where code is generated.
#[derive(Clone, Default)]
struct At {
    /// Nothing can cut off what is here.
    sure: bool,
    /// Something is certain to cut off what is here, so it may wait for ever.
    mortal: bool,
    depth: u32,
    /// The nurseries around, innermost last.
    open: Vec<Open>,
}

#[derive(Clone)]
struct Open {
    id: usize,
    calm: bool,
    /// For its children.
    sure: bool,
    mortal: bool,
}

impl At {
    fn with(&self, sure: bool, mortal: bool) -> Self {
        Self { sure, mortal, depth: self.depth + 1, open: self.open.clone() }
    }

    fn inner(&self) -> Self {
        self.with(self.sure, self.mortal)
    }

    /// Inside something that is dropped if it does not end in time.
    fn dropped(&self) -> Self {
        self.with(false, true)
    }

    fn shielded(&self) -> Self {
        self.with(true, false)
    }
}

const DEPTH_MAX: u32 = 7;
/// From the begin of a program to its last action outside, in microseconds.
const ACTIONS_END: u64 = 4_000;

struct Gen {
    rng: Rng,
    fuel: u32,
    is_run: bool,
    blocks: usize,
    sure: Vec<usize>,
    scopes: Vec<ScopeSpec>,
    /// Scopes that may be cancelled and nurseries that are not calm.
    targets: Vec<usize>,
    nurseries: usize,
    rules: Vec<Rule>,
    actions: Vec<(u64, Action)>,
}

impl Program {
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        let mut rng = Rng::new(seed ^ Rng::new(index).next());
        let root = match rng.below(10) {
            0..=4 => Root::Here,
            5..=6 => Root::Task { aborted: false },
            7..=8 => Root::Task { aborted: true },
            _ => Root::Run,
        };
        let fuel = 10 + u32::try_from(rng.below(50)).expect("it is small");
        let mut generator = Gen {
            rng,
            fuel,
            is_run: root == Root::Run,
            blocks: 0,
            sure: Vec::new(),
            scopes: Vec::new(),
            targets: Vec::new(),
            nurseries: 0,
            rules: Vec::new(),
            actions: Vec::new(),
        };
        let aborted = root == Root::Task { aborted: true };
        let at = At { sure: !aborted, mortal: aborted, ..At::default() };
        let block = generator.block(&at);
        if aborted {
            generator.outside(Action::AbortRoot);
        }
        let mut actions = generator.actions;
        actions.sort_by_key(|(at, _)| *at);
        Self {
            root,
            block,
            blocks: generator.blocks,
            sure: generator.sure,
            scopes: generator.scopes,
            nurseries: generator.nurseries,
            rules: generator.rules,
            actions,
        }
    }
}

impl Gen {
    fn block(&mut self, at: &At) -> Part {
        let id = self.blocks;
        self.blocks += 1;
        if at.sure {
            self.sure.push(id);
        }
        let count = 1 + self.rng.below(if at.depth < 2 { 6 } else { 4 });
        let ops = (0..count).map(|_| self.op(at)).collect();
        Arc::new(Block { id, sure: at.sure, ops })
    }

    fn outside(&mut self, action: Action) {
        let at = self.rng.below(ACTIONS_END);
        self.actions.push((at, action));
    }

    fn op(&mut self, at: &At) -> Op {
        self.fuel = self.fuel.saturating_sub(1);
        if self.fuel == 0 || at.depth >= DEPTH_MAX || self.rng.one_in(30) {
            return self.leaf(at);
        }
        match self.rng.below(20) {
            0..=2 => self.scope(at),
            3..=5 => self.nursery(at),
            6..=9 if !at.open.is_empty() => self.spawn(at),
            10..=12 => self.shield(at),
            13..=14 => self.finalizer(at),
            15 => Op::Catch(self.block(&at.inner())),
            16 => Op::Join { a: self.block(&at.inner()), b: self.block(&at.inner()), unordered: self.rng.one_in(50) },
            17 => Op::Select { a: self.block(&at.with(false, at.mortal)), b: self.block(&at.dropped()) },
            18 => Op::Timeout(self.rng.below(4), self.block(&at.dropped())),
            _ => self.odd(at),
        }
    }

    fn leaf(&mut self, at: &At) -> Op {
        match self.rng.below(12) {
            0..=2 => Op::Sleep(self.rng.below(3)),
            3..=5 => Op::Yield(1 + self.rng.below(5)),
            6 => Op::Checkpoint,
            7..=8 if at.mortal => Op::Park,
            9 if at.mortal => Op::AwaitCancel,
            10..=11 => self.act(at).map_or(Op::Yield(1), Op::Act),
            _ => Op::Yield(1),
        }
    }

    /// A cancel from inside. Shields are only lowered, so that no cancel that has to come is held off for ever.
    fn act(&mut self, at: &At) -> Option<Action> {
        let nursery = at.open.last().filter(|open| !open.calm).map(|open| open.id);
        if let (Some(nursery), true) = (nursery, self.rng.one_in(30)) {
            return Some(Action::CancelNursery(nursery));
        }
        let count = self.targets.len() as u64;
        let target = self.targets.get(usize::try_from(self.rng.next() % count.max(1)).ok()?)?;
        Some(match self.rng.below(3) {
            0 => Action::Cancel(*target),
            1 => Action::SetShielded(*target, false),
            _ => Action::SetDeadline(*target, self.rng.below(3)),
        })
    }

    fn scope(&mut self, at: &At) -> Op {
        let id = self.scopes.len();
        let timeout = self.rng.maybe(30, 4);
        let targeted = self.rng.one_in(40);
        let shielded = self.rng.one_in(20);
        let toggled = !shielded && self.rng.one_in(25);
        self.scopes.push(ScopeSpec { timeout, shielded });
        let dies = timeout.is_some() || targeted;
        if targeted {
            self.outside(Action::Cancel(id));
        }
        if dies {
            self.targets.push(id);
            if self.rng.one_in(20) {
                let ms = self.rng.below(3);
                self.outside(Action::SetDeadline(id, ms));
            }
        }
        if toggled {
            self.toggle(|on| Action::SetShielded(id, on));
        }
        let inner = at.with(at.sure && !dies, dies || (at.mortal && !shielded));
        Op::Scope(id, self.block(&inner))
    }

    /// Raises and lowers a shield a few times; it is down in the end.
    fn toggle(&mut self, action: impl Fn(bool) -> Action) {
        for _ in 0..=self.rng.below(3) {
            self.outside(action(true));
            self.outside(action(false));
        }
        self.actions.push((ACTIONS_END, action(false)));
    }

    fn nursery(&mut self, at: &At) -> Op {
        let id = self.nurseries;
        self.nurseries += 1;
        let calm = self.rng.one_in(50);
        let policy = match self.rng.below(5) {
            0 => Policy::Supervise,
            1 => Policy::Collect,
            2 if !calm => Policy::FirstSuccess,
            _ => Policy::FailFast,
        };
        let timeout = if calm { None } else { self.rng.maybe(30, 4) };
        let shielded = self.rng.one_in(20);
        let sure = at.sure && calm;
        let mortal = timeout.is_some() || (at.mortal && !shielded);
        let mut inner = at.with(sure, mortal);
        inner.open.push(Open { id, calm, sure, mortal });
        if !calm && self.rng.one_in(20) {
            self.outside(Action::CancelNursery(id));
        }
        if !shielded && self.rng.one_in(15) {
            self.toggle(|on| Action::ShieldNursery(id, on));
        }
        let end = if calm { Ending::Ok } else { self.ending() };
        Op::Nursery(NurserySpec { id, policy, shielded, timeout, end }, self.block(&inner))
    }

    fn ending(&mut self) -> Ending {
        match self.rng.below(12) {
            0 => Ending::Err,
            1 => Ending::Panic,
            _ => Ending::Ok,
        }
    }

    fn spawn(&mut self, at: &At) -> Op {
        let up = usize::from(at.open.len() > 1 && self.rng.one_in(25));
        let mut open = at.open.clone();
        open.truncate(at.open.len() - up);
        let Some(nursery) = open.last().cloned() else {
            return Op::Checkpoint;
        };
        let mut inner = At { open, ..at.with(nursery.sure, nursery.mortal) };
        if up == 0 && self.rng.one_in(15) {
            // Until it has started it is under the scopes of its caller, too.
            (inner.sure, inner.mortal) = (at.sure && inner.sure, at.mortal && inner.mortal);
            let before = self.block(&inner);
            let after = self.block(&inner);
            return Op::Start { before, after };
        }
        let daemon = !nursery.calm && self.rng.one_in(10);
        let shielded = !daemon && self.rng.one_in(10);
        let targeted = !nursery.calm && self.rng.one_in(10);
        if daemon {
            (inner.sure, inner.mortal) = (false, true);
        }
        if shielded {
            (inner.sure, inner.mortal) = (!targeted, false);
        }
        let part = self.block(&inner);
        if targeted {
            self.outside(Action::CancelTask(part.id));
        }
        let end = if nursery.calm { Ending::Ok } else { self.ending() };
        let joined = !daemon && self.rng.one_in(25);
        Op::Spawn { up, child: Child { part, end, daemon, shielded, joined } }
    }

    fn shield(&mut self, at: &At) -> Op {
        let inside = at.shielded();
        if self.rng.one_in(60) {
            return Op::Shield(self.block(&inside));
        }
        let before = self.block(&inside);
        let exposed = self.block(&at.with(false, at.mortal));
        let after = self.block(&inside);
        self.rules.push(Rule::Follows { first: before.id, then: after.id });
        Op::ShieldWith { before, exposed, after }
    }

    fn finalizer(&mut self, at: &At) -> Op {
        if self.rng.one_in(25) {
            return self.bracket(at);
        }
        let (body, then) = (self.block(&at.inner()), self.block(&at.shielded()));
        let (first, last) = (body.id, then.id);
        if self.rng.one_in(50) {
            self.rules.push(Rule::Finally { first, then: last });
            Op::Finally { body, then }
        } else {
            self.rules.push(Rule::OnCancel { first, then: last });
            Op::OnCancel { body, then }
        }
    }

    fn bracket(&mut self, at: &At) -> Op {
        let wait = self.block(&at.with(false, at.mortal));
        let acquire = self.block(&at.shielded());
        let body = self.block(&at.inner());
        let release = self.block(&at.shielded());
        self.rules.push(Rule::Follows { first: acquire.id, then: release.id });
        Op::Bracket { wait, acquire, body, release }
    }

    fn odd(&mut self, at: &At) -> Op {
        match self.rng.below(if self.is_run { 4 } else { 3 }) {
            0 | 1 => self.stall(at),
            2 => {
                let abort = self.rng.maybe(60, 3);
                // After the end of main, a run cancels what is not shielded in plain tasks, too.
                let inner = at.with(abort.is_none() && !self.is_run, abort.is_some());
                Op::Tokio { part: self.block(&inner), abort }
            }
            _ => {
                let at = At { open: Vec::new(), ..at.dropped() };
                Op::SpawnAtRoot(self.block(&at))
            }
        }
    }

    fn stall(&mut self, at: &At) -> Op {
        // What leaves its nursery, or its run, is not contained by it any more.
        let leaves = at.open.is_empty() && !self.is_run;
        let fate = match self.rng.below(6) {
            0 => Fate::Resume,
            1 => Fate::InScope,
            2 | 3 if leaves => Fate::InTask,
            4 if leaves => Fate::Elsewhere,
            _ => Fate::Drop,
        };
        Op::Stall { ms: self.rng.below(3), held: self.block(&at.dropped()), then: self.block(&at.inner()), fate }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "root {:?}", self.root)?;
        self.block.show(f, "body", 1)?;
        for (at, action) in &self.actions {
            writeln!(f, "after {at} us from outside: {action:?}")?;
        }
        for (id, scope) in self.scopes.iter().enumerate() {
            writeln!(f, "scope {id}: {scope:?}")?;
        }
        Ok(())
    }
}

impl Block {
    fn show(&self, f: &mut fmt::Formatter<'_>, role: &str, depth: usize) -> fmt::Result {
        let sure = if self.sure { " (sure)" } else { "" };
        writeln!(f, "{:1$}{role} #{2}{sure}", "", 2 * depth, self.id)?;
        self.ops.iter().try_for_each(|op| op.show(f, depth + 1))
    }
}

impl Op {
    /// What it is without its parts, and its parts.
    fn split(&self) -> (String, Vec<(&'static str, &Part)>) {
        match self {
            Self::Sleep(_) | Self::Yield(_) | Self::Checkpoint | Self::Park | Self::AwaitCancel | Self::Act(_) => {
                (format!("{self:?}"), Vec::new())
            }
            Self::Scope(id, part) => (format!("Scope {id}"), vec![("body", part)]),
            Self::Nursery(spec, part) => (format!("{spec:?}"), vec![("body", part)]),
            Self::Spawn { up, child } => {
                let Child { part, end, daemon, shielded, joined } = child;
                let text =
                    format!("Spawn {{ up: {up}, {end:?}, daemon: {daemon}, shielded: {shielded}, joined: {joined} }}");
                (text, vec![("child", part)])
            }
            Self::Start { before, after } => ("Start".into(), vec![("before", before), ("after", after)]),
            Self::SpawnAtRoot(part) => ("SpawnAtRoot".into(), vec![("task", part)]),
            Self::Shield(part) => ("Shield".into(), vec![("body", part)]),
            Self::ShieldWith { before, exposed, after } => {
                ("ShieldWith".into(), vec![("before", before), ("exposed", exposed), ("after", after)])
            }
            Self::Finally { body, then } => ("Finally".into(), vec![("body", body), ("then", then)]),
            Self::OnCancel { body, then } => ("OnCancel".into(), vec![("body", body), ("then", then)]),
            Self::Bracket { wait, acquire, body, release } => {
                ("Bracket".into(), vec![("wait", wait), ("acquire", acquire), ("use", body), ("release", release)])
            }
            Self::Catch(part) => ("Catch".into(), vec![("body", part)]),
            Self::Join { a, b, unordered } => (format!("Join {{ unordered: {unordered} }}"), vec![("a", a), ("b", b)]),
            Self::Select { a, b } => ("Select".into(), vec![("a", a), ("b", b)]),
            Self::Timeout(ms, part) => (format!("Timeout {ms} ms"), vec![("body", part)]),
            Self::Stall { ms, held, then, fate } => {
                (format!("Stall after {ms} ms, {fate:?}"), vec![("held", held), ("then", then)])
            }
            Self::Tokio { part, abort } => (format!("Tokio {{ abort: {abort:?} }}"), vec![("task", part)]),
        }
    }

    fn show(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let (what, parts) = self.split();
        writeln!(f, "{:1$}{what}", "", 2 * depth)?;
        parts.iter().try_for_each(|(role, part)| part.show(f, role, depth + 1))
    }
}
