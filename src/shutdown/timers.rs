//! What of a shutdown runs on the runtime: the timers of its phases, and the hooks that await.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{join_all, select};

use super::{Run, Shutdown};
use crate::clock;
use crate::core::cause::{Cause, CauseKind};
use crate::core::phase::{Event as Happened, Phase};
use crate::host::{Node, lock};
use crate::scope::CancelScope;
use crate::shield::cut_shields;

/// A hook of the program that awaits. It runs at most once.
pub(crate) struct Hook(Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>);

impl Hook {
    pub(crate) fn new<F>(make: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(Box::new(|| Box::pin(make())))
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// Runs hooks side by side. One that panics has ended; the panic hook has said it.
async fn run_hooks(hooks: Vec<Hook>) {
    let caught = |hook: Hook| async move {
        drop(AssertUnwindSafe(async move { (hook.0)().await }).catch_unwind().await);
    };
    drop(join_all(hooks.into_iter().map(caught)).await);
}

/// Begins the timers and the hooks.
pub(super) fn begin(shutdown: &Arc<Shutdown>) {
    let Some(run) = shutdown.run.get() else { return };
    let Some(host) = run.root.host() else { return };
    host.spawn(keep(Arc::clone(shutdown)));
    host.spawn(drain(Arc::clone(shutdown), std::mem::take(&mut lock(&run.hooks))));
}

/// Says of each phase when its time is up.
async fn keep(shutdown: Arc<Shutdown>) {
    let mut phases = shutdown.phase.subscribe();
    loop {
        let phase = *phases.borrow_and_update();
        if phase == Phase::Exit {
            return;
        }
        let changed = pin!(phases.changed());
        match shutdown.clock.until(phase) {
            Some(until) => {
                let sleep = pin!(tokio::time::sleep_until(clock::instant(until)));
                if let futures_util::future::Either::Left(_) = select(sleep, changed).await {
                    shutdown.happened(Happened::Elapsed(phase));
                    wait_beyond(&shutdown, phase).await;
                }
            }
            None => drop(changed.await),
        }
    }
}

/// Waits until a phase is over whose time is up.
async fn wait_beyond(shutdown: &Shutdown, phase: Phase) {
    drop(shutdown.phase.subscribe().wait_for(|now| *now > phase).await);
}

/// The two halves of the gate before the end of accepting.
async fn drain(shutdown: Arc<Shutdown>, hooks: Vec<Hook>) {
    let delay = async {
        tokio::time::sleep(shutdown.clock.delay()).await;
        shutdown.happened(Happened::DelayOver);
    };
    let hooks = async {
        run_hooks(hooks).await;
        shutdown.happened(Happened::HooksOver);
    };
    futures_util::future::join(delay, hooks).await;
}

impl Shutdown {
    /// Main has ended, and the root owns nothing any more: the last hooks run, within the reserve. Then it is closed, when what has begun
    /// meanwhile in plain tasks has ended. True if the hooks have ended.
    pub(crate) async fn flush(self: &Arc<Self>, hooks: Vec<Hook>) -> bool {
        let Some(run) = self.run.get() else { return true };
        self.end_graceful(run).await;
        self.happened(Happened::Empty);
        let length = self.clock.left().map_or(run.budget.reserve, |left| left.min(run.budget.reserve));
        // All else is cancelled by now, and that is the place of hooks, too.
        let covered = |hooks| CancelScope::new().name("hooks of the end").shielded(true).run(run_hooks(hooks));
        let in_time = hooks.is_empty() || tokio::time::timeout(length, covered(hooks)).await.is_ok();
        self.close(run, in_time, length.max(LAST_GRACE)).await;
        self.happened(Happened::Flushed);
        in_time
    }

    /// What no owner counts may still take part, or be a hook before the stop: the phases for those go on without main.
    async fn end_graceful(self: &Arc<Self>, run: &Run) {
        if run.budget.is_graceful() {
            self.parts.leave();
        }
        self.happened(Happened::DelayOver);
        self.look_at_parts();
        self.wait(Phase::Shielded).await;
        if let Some(live) = run.root.live() {
            poll_fn(|cx| live.poll_idle(cx)).await;
        }
    }

    /// Closes the root, when the time of what is still in it is up at the latest.
    async fn close(self: &Arc<Self>, run: &Run, in_time: bool, grace: Duration) {
        match self.clock.left() {
            None if in_time => return close(&run.root).await,
            Some(left) if in_time => {
                if tokio::time::timeout(left, close(&run.root)).await.is_ok() {
                    return;
                }
                self.out_of_time(run);
            }
            // First the shields, of which each is reported.
            Some(_) | None => cut_shields(&run.root),
        }
        // Finalizers begin when what they are of is dropped, and have as long each time.
        loop {
            run.root.pierce(Cause::new(CauseKind::Budget));
            if tokio::time::timeout(grace, close(&run.root)).await.is_ok() {
                return;
            }
        }
    }
}

/// What finalizers have that begin when all time is up, and no stop was asked for.
const LAST_GRACE: Duration = Duration::from_millis(100);

/// Waits until the root owns nothing any more, and closes it.
async fn close(root: &Node) {
    let Some(live) = root.live() else { return };
    while !live.close_if_idle() {
        poll_fn(|cx| live.poll_idle(cx)).await;
    }
}
