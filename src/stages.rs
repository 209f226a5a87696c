//! Services in order: stages that need each other start in that order, and stop in reverse.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::core::order::{Action, Event, Plan};
use crate::current;
use crate::error::NurseryError;
use crate::host;
use crate::nursery::{Nursery, nursery};
use crate::policy::Policy;
use crate::report::{Event as Told, Subject};
use crate::scope::{CancelScope, ScopeHandle};
use crate::shutdown::shutdown_requested;

/// Services that need each other: each starts when all that it needs are ready, and is told to stop when all that need it have ended.
/// What is independent starts and stops side by side.
///
/// They stop when the run is asked to stop (whoever awaits [`run`](Self::run) takes part in the graceful phase), and when one of them
/// fails; if that happens while they start, only those are stopped that were started. A stage that ends early, and well, changes nothing for the
/// others: so a migration can be a stage. If the run is cancelled, all of them are, at once.
///
/// # Examples
///
/// ```
/// # use testudo::{Runner, Stage, Stages, shutdown};
/// # use std::time::Duration;
/// # use std::convert::Infallible;
/// let stages = Stages::new()
///     .with(Stage::new("db", |cx| async move {
///         // … open the pool …
///         cx.ready();
///         cx.stop_requested().await;
///         // … nobody uses it any more: close it …
///         Ok::<_, Infallible>(())
///     }))
///     .with(Stage::new("http", |cx| async move {
///         cx.ready();
///         # shutdown("enough");
///         cx.stop_requested().await; // … and serve meanwhile …
///         Ok(())
///     }).needs("db").budget(Duration::from_secs(5)));
/// Runner::new().current_thread().run(stages.run()).outcome.unwrap();
/// ```
#[must_use = "nothing starts until `run`"]
pub struct Stages<E> {
    stages: Vec<Stage<E>>,
}

/// One service of [`Stages`].
#[must_use = "give it to `Stages`"]
pub struct Stage<E> {
    name: Arc<str>,
    needs: Vec<Arc<str>>,
    budget: Option<Duration>,
    place: &'static Location<'static>,
    make: Make<E>,
}

type Make<E> = Box<dyn FnOnce(StageCx) -> Pin<Box<dyn Future<Output = Result<(), E>> + Send>> + Send>;

/// What a stage says, and hears; given to it at its start.
#[derive(Clone)]
pub struct StageCx {
    index: usize,
    events: mpsc::UnboundedSender<Event>,
    stop: watch::Receiver<bool>,
}

impl StageCx {
    /// Says that the stage is ready: those that need it may start.
    pub fn ready(&self) {
        self.tell(Event::Started(self.index));
    }

    /// Waits until this stage is to stop: all that need it have ended.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop and to call again: nothing is lost.
    pub async fn stop_requested(&self) {
        // Nobody is left to tell it otherwise if the sender is gone.
        drop(self.stop.clone().wait_for(|stop| *stop).await);
    }

    fn tell(&self, event: Event) {
        // If nobody listens any more, all stages are being cancelled.
        self.events.send(event).unwrap_or_default();
    }
}

impl fmt::Debug for StageCx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageCx").field("stops", &*self.stop.borrow()).finish_non_exhaustive()
    }
}

impl<E> Stage<E> {
    /// A stage of that name. Its future says [`ready`](StageCx::ready), runs until it is [told to stop](StageCx::stop_requested), cleans up,
    /// and ends.
    #[track_caller]
    pub fn new<F>(name: impl Into<Arc<str>>, make: impl FnOnce(StageCx) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        Self {
            name: name.into(),
            needs: Vec::new(),
            budget: None,
            place: Location::caller(),
            make: Box::new(|cx| Box::pin(make(cx))),
        }
    }

    /// Starts it after that one, and stops it before.
    pub fn needs(mut self, other: impl Into<Arc<str>>) -> Self {
        self.needs.push(other.into());
        self
    }

    /// Sets how long it may take to end when it is told to; then it is cancelled, and that is reported. Its shields hold as ever.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = Some(budget);
        self
    }
}

impl<E> Default for Stages<E> {
    fn default() -> Self {
        Self { stages: Vec::new() }
    }
}

impl<E: fmt::Display + Send + Sync + 'static> Stages<E> {
    /// Returns an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a stage. The order in which they are added means nothing.
    pub fn with(mut self, stage: Stage<E>) -> Self {
        self.stages.push(stage);
        self
    }

    /// Starts all stages, and waits until all have ended.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the stages are cancelled, at once and in no order; the owner of the code around adopts them and waits for them.
    ///
    /// # Panics
    ///
    /// If two stages have one name, a stage needs one that is not there, or stages need each other in a circle. The future panics outside
    /// of a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Errors and panics of all stages that failed, by name.
    #[track_caller]
    pub fn run(self) -> impl Future<Output = Result<(), NurseryError<E>>> {
        let plan = self.plan();
        let stages = self.stages;
        nursery(|n| async move {
            Conductor::new(n, plan, stages).conduct().await;
            Ok(())
        })
        .name("stages")
        .policy(Policy::Collect)
    }

    #[track_caller]
    fn plan(&self) -> Plan {
        let place_of = |name: &Arc<str>| self.stages.iter().position(|stage| stage.name == *name);
        for (index, stage) in self.stages.iter().enumerate() {
            assert!(
                place_of(&stage.name) == Some(index),
                "two stages are named `{}`: give each a name of its own",
                stage.name
            );
        }
        let needs = |stage: &Stage<E>| {
            let index = |need| {
                place_of(need).unwrap_or_else(|| {
                    panic!("stage `{}` needs `{need}`, which is not there: add it with `Stages::with`", stage.name)
                })
            };
            stage.needs.iter().map(index).collect()
        };
        Plan::new(self.stages.iter().map(needs).collect()).unwrap_or_else(|cycle| {
            let names: Vec<&str> = cycle.iter().map(|stage| &*self.stages[*stage].name).collect();
            panic!("these stages need each other in a circle: {}", names.join(" needs "))
        })
    }
}

/// Carries out what the plan says.
struct Conductor<E> {
    nursery: Nursery<E>,
    plan: Plan,
    /// Those that were not started.
    waiting: Vec<Option<Stage<E>>>,
    started: Vec<Option<Running>>,
    events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
}

/// A stage that was started.
struct Running {
    stop: watch::Sender<bool>,
    scope: ScopeHandle,
    budget: Option<Duration>,
}

impl<E: fmt::Display + Send + Sync + 'static> Conductor<E> {
    fn new(nursery: Nursery<E>, plan: Plan, stages: Vec<Stage<E>>) -> Self {
        let started = stages.iter().map(|_| None).collect();
        let waiting = stages.into_iter().map(Some).collect();
        Self { nursery, plan, waiting, started, events: mpsc::unbounded_channel() }
    }

    async fn conduct(mut self) {
        let mut asked = pin!(shutdown_requested());
        let (mut event, mut stops) = (Event::Begin, false);
        loop {
            for action in self.plan.step(event) {
                match action {
                    Action::Start(index) => self.start(index),
                    Action::Stop(index) => self.stop(index),
                }
            }
            if self.plan.is_over() {
                return;
            }
            event = match self.next(asked.as_mut(), stops).await {
                Some(event) => event,
                None => {
                    stops = true;
                    Event::Stop
                }
            };
        }
    }

    /// The next event; none for the request to stop, which comes once.
    async fn next(&mut self, asked: Pin<&mut impl Future>, stops: bool) -> Option<Event> {
        let event = pin!(self.events.1.recv());
        if stops {
            return event.await;
        }
        match select(event, asked).await {
            Either::Left((event, _)) => event,
            Either::Right(_) => None,
        }
    }

    fn start(&mut self, index: usize) {
        let Some(stage) = self.waiting[index].take() else { return };
        let (stop, stops) = watch::channel(false);
        let cx = StageCx { index, events: self.events.0.clone(), stop: stops };
        let scope = CancelScope::at(stage.place).name(Arc::clone(&stage.name));
        self.started[index] = Some(Running { stop, scope: scope.handle(), budget: stage.budget });
        let end = End { cx: cx.clone(), event: Event::Failed(index) };
        let make = stage.make;
        let child = async move {
            let mut end = end;
            let result = match scope.run(async move { make(cx).await }).await {
                Ok(result) => result,
                Err(_) => {
                    overran();
                    Ok(())
                }
            };
            if result.is_ok() {
                end.event = Event::Ended(index);
            }
            result
        };
        self.nursery.task_at(stage.place).name(stage.name).spawn(child);
    }

    fn stop(&mut self, index: usize) {
        let Some(stage) = &self.started[index] else { return };
        stage.stop.send_replace(true);
        if let Some(budget) = stage.budget {
            stage.scope.set_deadline(Instant::now().checked_add(budget));
        }
    }
}

/// Says that the budget of the stage that this code is in was used up.
fn overran() {
    let task = current::task();
    if let Some(info) = task.as_ref().and_then(|task| task.task()) {
        host::report(&current::node(), Told::Overran(Subject::of_task(info)));
    }
}

/// Tells the end of a stage, whatever it was.
struct End {
    cx: StageCx,
    event: Event,
}

impl Drop for End {
    fn drop(&mut self) {
        self.cx.tell(self.event);
    }
}

impl<E> fmt::Debug for Stage<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, needs, budget, .. } = self;
        f.debug_struct("Stage")
            .field("name", name)
            .field("needs", needs)
            .field("budget", budget)
            .finish_non_exhaustive()
    }
}

impl<E> fmt::Debug for Stages<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.stages).finish()
    }
}
