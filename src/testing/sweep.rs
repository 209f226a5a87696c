//! A future that is cut off at each of its suspensions in turn, with an invariant that has to hold after each.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::time::{Instant, timeout};

use super::cuts::{self, Cut, How, shown};
use super::place::{Search, Searched};
use crate::clock;
use crate::core::cause::{Cause, CauseKind};
use crate::core::node::{Info, Kind};
use crate::host::{self, Host, Node};
use crate::main_task;
use crate::outcome::Panic;
use crate::region::End;
use crate::registry;
use crate::report::{Event, Report, Subject};
use crate::scope::{CancelScope, ScopeHandle};
use crate::shutdown::{Budget, Run, Shutdown};

/// Asserts that an invariant holds wherever `run` is cancelled or dropped: [`Sweep::check`] with the defaults.
///
/// # Panics
///
/// If it does not; the message says where. See [`Sweep::check`].
#[track_caller]
pub fn assert_cancel_safe<S, T, H: Holds>(
    setup: impl Fn() -> S,
    run: impl AsyncFn(&S) -> T,
    invariant: impl Fn(&S) -> H,
) -> Swept {
    Sweep::new().check(setup, run, invariant)
}

/// Cancels, and drops, a future at each of its suspensions in turn, and checks an invariant after each.
///
/// A *suspension* is a poll that ends pending, counted from 1; `cancel@0` is a cancel before the first poll. Each run has a runtime
/// and a world of its own, with paused time, so a run that waits for minutes takes no time, and the same cut gives the same run.
///
/// After a cut the run waits until all that goes on has ended: shields and finalizers, rescued or in place, and tasks that were
/// begun with [`testudo::spawn`](crate::spawn()). Tasks of `tokio::spawn` are not waited for. Then the invariant is asked. It is a flaw,
/// too, if something does not end, is lost, or panics.
#[derive(Clone, Debug)]
#[must_use = "a sweep does nothing until `check`"]
pub struct Sweep {
    only: Option<Vec<Cut>>,
    pairs: bool,
    patience: Duration,
}

impl Default for Sweep {
    fn default() -> Self {
        Self::new()
    }
}

impl Sweep {
    /// Returns a sweep with one cut in each run.
    pub fn new() -> Self {
        Self { only: None, pairs: false, patience: Duration::from_secs(3600) }
    }

    /// Adds runs with two cuts: a cancel, and a drop at each suspension that follows it. Clean-up is cut off like that.
    pub fn pairs(mut self) -> Self {
        self.pairs = true;
        self
    }

    /// Makes one run only, with these cuts: `cancel@1`, or `cancel@1,drop@2`. The environment's `TESTUDO_SWEEP` does the same.
    ///
    /// # Panics
    ///
    /// If `cuts` is not of that form.
    #[track_caller]
    pub fn only(mut self, cuts: &str) -> Self {
        self.only = Some(cuts::parse("", cuts));
        self
    }

    /// Sets for how long, on paused time, a run may wait for its end; the default is an hour.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Makes all the runs: `setup` makes the world of each, `run` is what is cut off, `invariant` looks at the world at the end.
    ///
    /// # Panics
    ///
    /// If the invariant does not hold after a cut; the message is that of the [`Flaw`]. Also if it does not hold without
    /// one, inside of a Tokio runtime, and if `TESTUDO_SWEEP` names no cuts.
    #[track_caller]
    pub fn check<S, T, H: Holds>(
        self,
        setup: impl Fn() -> S,
        run: impl AsyncFn(&S) -> T,
        invariant: impl Fn(&S) -> H,
    ) -> Swept {
        self.try_check(setup, run, invariant).unwrap_or_else(|flaw| panic!("{flaw}"))
    }

    /// The same, with the flaw as a value.
    ///
    /// # Panics
    ///
    /// Inside of a Tokio runtime, and if `TESTUDO_SWEEP` names no cuts.
    ///
    /// # Errors
    ///
    /// The first cut after which the invariant does not hold.
    #[track_caller]
    pub fn try_check<S, T, H: Holds>(
        self,
        setup: impl Fn() -> S,
        run: impl AsyncFn(&S) -> T,
        invariant: impl Fn(&S) -> H,
    ) -> Result<Swept, Flaw> {
        assert!(
            Handle::try_current().is_err(),
            "a sweep makes runtimes of its own: call it in a plain `#[test]`, not inside of a Tokio runtime"
        );
        let only = self.only.or_else(cuts::of_environment);
        let trial = Trial { setup, run, invariant, patience: self.patience, makes_all_cuts: only.is_some() };
        let mut tally = Tally::default();
        if let Some(cuts) = only {
            tally.run(&trial, cuts);
            return tally.end(&trial);
        }
        tally.run(&trial, Vec::new());
        let suspensions = tally.suspensions;
        if tally.flaws.is_empty() {
            // The one before the first poll last: where it fails, the one after it mostly does, and says more.
            for at in (1..=suspensions).chain([0]) {
                let after = tally.run(&trial, vec![Cut { how: How::Cancel, at }]);
                if at > 0 {
                    tally.run(&trial, vec![Cut { how: How::Drop, at }]);
                }
                for then in (at.max(1)..=after).filter(|_| self.pairs) {
                    tally.run(&trial, vec![Cut { how: How::Cancel, at }, Cut { how: How::Drop, at: then }]);
                }
            }
        }
        tally.suspensions = suspensions;
        tally.end(&trial)
    }
}

/// What a check of an invariant may return: nothing (it panics), a `bool`, or a `Result`.
pub trait Holds {
    /// Gives what is wrong, if something is.
    ///
    /// # Errors
    ///
    /// If the invariant does not hold.
    fn holds(self) -> Result<(), String>;
}

impl Holds for () {
    fn holds(self) -> Result<(), String> {
        Ok(())
    }
}

impl Holds for bool {
    fn holds(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("it does not hold".into()) }
    }
}

impl<E: fmt::Display> Holds for Result<(), E> {
    fn holds(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

/// A sweep that has found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    suspensions: usize,
    runs: usize,
}

impl Swept {
    /// Returns how often the future was suspended in the run without a cut. With 0 the sweep has shown nothing.
    pub fn suspensions(&self) -> usize {
        self.suspensions
    }

    /// Returns how many runs were made.
    pub fn runs(&self) -> usize {
        self.runs
    }
}

/// A cut after which the invariant does not hold.
#[derive(Clone, Debug)]
pub struct Flaw {
    cuts: String,
    text: String,
}

impl Flaw {
    /// Returns the cuts of the run, for [`Sweep::only`]; empty if it fails without one.
    pub fn cuts(&self) -> &str {
        &self.cuts
    }
}

/// Writes where it was cut off, what was wrong then, and how to see only that.
impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Flaw {}

/// What all runs have in common.
struct Trial<Setup, Run, Invariant> {
    setup: Setup,
    run: Run,
    invariant: Invariant,
    patience: Duration,
    /// Somebody has named the cuts: one that is not made shows nothing.
    makes_all_cuts: bool,
}

/// What the runs so far have shown.
#[derive(Default)]
struct Tally {
    runs: usize,
    suspensions: usize,
    flaws: Vec<(Vec<Cut>, Ran)>,
}

/// What one run has shown.
#[derive(Default)]
struct Ran {
    suspensions: usize,
    /// At the last cut: how long after the beginning, and what was open.
    cut: Option<(Duration, Vec<Subject>)>,
    /// The first of the cuts that was not made, where each has to be.
    missed: Option<Cut>,
    wrong: Vec<String>,
    events: Vec<Event>,
}

impl Tally {
    /// Gives the number of suspensions.
    fn run<S, T, H: Holds>(
        &mut self,
        trial: &Trial<impl Fn() -> S, impl AsyncFn(&S) -> T, impl Fn(&S) -> H>,
        cuts: Vec<Cut>,
    ) -> usize {
        let ran = trial.run(&cuts);
        self.runs += 1;
        self.suspensions = ran.suspensions;
        let suspensions = ran.suspensions;
        if !ran.wrong.is_empty() || ran.missed.is_some() {
            self.flaws.push((cuts, ran));
        }
        suspensions
    }

    fn end<S, T, H: Holds>(
        self,
        trial: &Trial<impl Fn() -> S, impl AsyncFn(&S) -> T, impl Fn(&S) -> H>,
    ) -> Result<Swept, Flaw> {
        let mut flaws = self.flaws.into_iter();
        let Some((cuts, ran)) = flaws.next() else {
            return Ok(Swept { suspensions: self.suspensions, runs: self.runs });
        };
        let place = cuts.last().and_then(|cut| trial.place_of(&cuts, cut.at.max(1)));
        let also: Vec<String> = flaws.map(|(cuts, _)| shown(&cuts)).collect();
        let text = describe(&cuts, &ran, self.suspensions, place, &also);
        Err(Flaw { cuts: shown(&cuts), text })
    }
}

fn describe(cuts: &[Cut], ran: &Ran, suspensions: usize, place: Option<String>, also: &[String]) -> String {
    let mut lines = vec![match (cuts, ran.missed) {
        ([], _) => "fails without any cut".to_owned(),
        (_, Some(cut)) => format!("`{cut}` has cut nothing off: of suspensions there are {suspensions}"),
        (cuts, None) => {
            let each = cuts.iter().map(|cut| match cut.how {
                How::Cancel => format!("a cancel at suspension {}", cut.at),
                How::Drop => format!("a drop at suspension {}", cut.at),
            });
            let each = each.collect::<Vec<_>>().join(", then ");
            format!("not cancel safe: {each} of {suspensions} ({})", shown(cuts))
        }
    }];
    if let Some((since, open)) = &ran.cut {
        let place = place.unwrap_or_else(|| "not known".into());
        lines.push(format!("  where:     {place}, {since:?} after the beginning"));
        lines.extend(open.iter().map(|subject| format!("  inside:    {subject}")));
    }
    lines.extend(ran.wrong.iter().map(|wrong| format!("  invariant: {wrong}")));
    lines.extend(ran.events.iter().map(|event| format!("  reported:  {event}")));
    if !cuts.is_empty() {
        let cuts = shown(cuts);
        lines.push(format!("  again:     Sweep::only(\"{cuts}\"), or TESTUDO_SWEEP={cuts} in the environment"));
    }
    if !also.is_empty() {
        lines.push(format!("  also:      {}", also.join(" ")));
    }
    lines.join("\n")
}

impl<S, T, H, Setup, Run, Invariant> Trial<Setup, Run, Invariant>
where
    H: Holds,
    Setup: Fn() -> S,
    Run: AsyncFn(&S) -> T,
    Invariant: Fn(&S) -> H,
{
    /// One run on a runtime of its own.
    fn run(&self, cuts: &[Cut]) -> Ran {
        let mut ran = Ran::default();
        let result = in_a_run(async |root| {
            let world = (self.setup)();
            let ended = timeout(self.patience, self.cut_off(&world, cuts, &mut ran)).await;
            let mut report = registry::drain(self.patience).await;
            if ended.is_ok() && !report.left().is_empty() {
                // Tasks that only main's end can end.
                host::cancel(root, Cause::new(CauseKind::MainEnded));
                let earlier = report.events;
                report = registry::drain(self.patience).await;
                report.events.splice(0..0, earlier);
            }
            ran.judge(ended.is_ok(), &report, self.patience);
            let holds = catch_unwind(AssertUnwindSafe(|| (self.invariant)(&world).holds()));
            let holds = holds.unwrap_or_else(|payload| Err(Panic::new(payload).message().to_owned()));
            ran.wrong.extend(holds.err());
        });
        ran.wrong.extend(result.err());
        ran
    }

    /// Polls the future, cuts it off where it has to be, and waits for its end.
    async fn cut_off(&self, world: &S, cuts: &[Cut], ran: &mut Ran) {
        let scope = CancelScope::new();
        let handle = scope.handle();
        let mut fut = Some(Box::pin(scope.run((self.run)(world))));
        let (began, mut due) = (Instant::now(), cuts.iter().peekable());
        poll_fn(|cx| {
            let mut polled = Poll::Pending;
            if ran.suspensions > 0 || due.peek().is_none_or(|cut| cut.at > 0) {
                polled = poll(&mut fut, cx);
                ran.suspensions += usize::from(polled.is_pending());
            }
            while let (Poll::Pending, Some(cut)) = (polled, due.next_if(|cut| cut.at <= ran.suspensions)) {
                ran.cut = Some((began.elapsed(), open_in(&handle)));
                match cut.how {
                    How::Cancel if cut.at == 0 => {
                        handle.cancel("sweep");
                        polled = poll(&mut fut, cx);
                        ran.suspensions += usize::from(polled.is_pending());
                    }
                    How::Cancel => drop(handle.cancel("sweep")),
                    How::Drop => {
                        fut = None;
                        polled = Poll::Ready(());
                    }
                }
            }
            polled
        })
        .await;
        ran.missed = due.next().filter(|_| self.makes_all_cuts).copied();
    }

    /// Where the run with these cuts is suspended for the time number `at`.
    fn place_of(&self, cuts: &[Cut], at: usize) -> Option<String> {
        let before: Vec<Cut> = cuts.iter().copied().filter(|cut| cut.at < at).collect();
        let search = Search::default();
        let result = in_a_run(async |_| {
            let world = (self.setup)();
            let scope = CancelScope::new();
            let handle = scope.handle();
            let searched = Searched { fut: Box::pin((self.run)(&world)), search: &search };
            let mut fut = Some(Box::pin(scope.run(searched)));
            let (mut suspensions, mut due) = (0, before.iter().peekable());
            let look = poll_fn(|cx| {
                while due.next_if(|cut| cut.at <= suspensions).is_some() {
                    handle.cancel("sweep");
                }
                suspensions += 1;
                search.look.set(suspensions >= at);
                let polled = poll(&mut fut, cx);
                if search.look.get() { Poll::Ready(()) } else { polled }
            });
            timeout(self.patience, look).await.unwrap_or_default();
        });
        result.ok().and(search.found.into_inner()).flatten()
    }
}

impl Ran {
    fn judge(&mut self, ended: bool, report: &Report, patience: Duration) {
        if !ended {
            self.wrong.push(format!("it has not ended after {patience:?}"));
        }
        self.wrong.extend(report.left().iter().map(|left| format!("still alive after {patience:?}: {left}")));
        self.events = report.events().to_vec();
        let is_flaw = |event: &&Event| matches!(event, Event::Lost(_) | Event::Panicked(..));
        self.wrong.extend(self.events.iter().filter(is_flaw).map(ToString::to_string));
        self.events.retain(|event| !is_flaw(&event));
    }
}

/// Polls it unless it has been dropped.
fn poll<F: Future>(fut: &mut Option<Pin<Box<F>>>, cx: &mut Context<'_>) -> Poll<()> {
    fut.as_mut().map_or(Poll::Ready(()), |fut| fut.as_mut().poll(cx).map(drop))
}

/// What is open inside a scope, from the outside inwards.
fn open_in(scope: &ScopeHandle) -> Vec<Subject> {
    let nodes_in = |node: &Arc<Node>| {
        node.grow_buds();
        node.inside().nodes
    };
    let mut nodes = nodes_in(scope.node());
    let mut next = 0;
    while let Some(node) = nodes.get(next) {
        let inner = nodes_in(node);
        nodes.extend(inner);
        next += 1;
    }
    nodes.iter().map(|node| Subject::of_node(node)).collect()
}

/// Runs something as main of a run on paused time, without signals. Its panic is the error.
fn in_a_run(main: impl AsyncFnOnce(&Arc<Node>)) -> Result<(), String> {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.unwrap_or_else(|error| panic!("the runtime could not be built: {error}"));
    let shutdown = Shutdown::new();
    let host = Host::of_run(runtime.handle().clone(), None, None, Arc::clone(&shutdown));
    let root = host::install(runtime.handle(), host::new_root(host));
    let _over = shutdown.over_at_drop();
    shutdown.attach(Run::new(Arc::clone(&root), Budget::default()));
    let info = Info::new(Kind::Task, Location::caller(), clock::now());
    info.set_name("sweep".into());
    let end = runtime.block_on(main_task::run(&root, info, main(&root)));
    // What its tasks do when they are dropped is of this run.
    drop(runtime);
    match end {
        End::Done(()) => Ok(()),
        End::Cut(_) => Err("the run was cancelled".into()),
        End::Panicked(payload) => Err(format!("it panicked: {}", Panic::new(payload).message())),
    }
}
