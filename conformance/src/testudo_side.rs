//! The interpreter on Testudo, on paused time; `interpret.py` is its counterpart.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use send_wrapper::SendWrapper;
use testudo::{
    CancelScope, EffectiveDeadline, Event, FinalizeExt, Nursery, NurseryError, StartError, bracket, catch_cancelled,
    checkpoint, current_deadline, drain, fail_after, move_on_after, nursery, nursery_local, shield, shield_local,
    shield_scoped, shield_with,
};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use crate::program::{Block, Op, Program, ShieldKind, Trace, What};
use crate::world::{AnyNursery, AnyTask, END, Errs, Watch, World, length};

type Done = Result<(), Errs>;

/// Runs a program once. Under another seed than 0, whoever is woken steps aside a few times before it goes on.
pub(crate) fn run(program: &Program, seed: u64) -> Trace {
    catch_unwind(AssertUnwindSafe(|| run_once(program, seed))).unwrap_or_else(|_| {
        let events = vec![(0, 0, "panics".into())];
        Trace { events, reported: Vec::new() }
    })
}

fn run_once(program: &Program, seed: u64) -> Trace {
    let mut program = program.clone();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("it needs nothing");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let world = Arc::new(World::new(&mut program, seed));
        let mut main = main(&world, program.body);
        let report = tokio::select! {
            () = &mut main => drain(length(END)).await,
            () = sleep(length(END)) => {
                world.close();
                // What has been reported until now.
                drain(length(0)).await
            }
        };
        let mut reported = Vec::new();
        for event in report.events() {
            if let Event::Failed(_, error) = event {
                reported.extend(numbers(error));
            } else if !world.is_over() {
                world.odd(0, event);
            }
        }
        reported.sort_unstable();
        world.trace(reported)
    })
}

fn numbers(error: &str) -> Vec<u32> {
    error.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

fn main(world: &Arc<World>, body: Block) -> BoxFuture<'static, ()> {
    let world = Arc::clone(world);
    Box::pin(async move {
        match block(&world, 0, body).await {
            Ok(()) => world.emit(0, "end ok"),
            Err(failed) => world.emit(0, format!("end failed {failed}")),
        }
    })
}

fn block(world: &Arc<World>, task: u32, ops: Block) -> BoxFuture<'static, Done> {
    let world = Arc::clone(world);
    Box::pin(async move {
        for op in ops {
            run_op(&world, task, op).await?;
        }
        Ok(())
    })
}

fn run_op(world: &Arc<World>, task: u32, Op { id, what }: Op) -> BoxFuture<'static, Done> {
    let at = At { world: Arc::clone(world), task, id };
    match what {
        What::Sleep { ms } => Box::pin(at.sleep(ms)),
        What::Checkpoint => Box::pin(async move { at.suspend(checkpoint()).await }),
        What::Wait { event } => Box::pin(async move { at.suspend(at.world.event(event).wait()).await }),
        What::Join { task } => Box::pin(async move { at.suspend(at.join(task)).await }),
        What::Park => Box::pin(async move { at.suspend(at.world.end().wait()).await }),
        What::Yield | What::Cancelled => Box::pin(at.goes_on(what)),
        What::Set { .. }
        | What::Cancel { .. }
        | What::Shield { .. }
        | What::Deadline { .. }
        | What::Look
        | What::Peek { .. }
        | What::Fail => {
            let done = at.act(&what);
            Box::pin(async { done })
        }
        What::Scope { timeout, body, .. } => Box::pin(at.scope(timeout, body)),
        What::FailAfter { timeout, body } => Box::pin(at.fail_after(timeout, body)),
        What::MoveOnAfter { timeout, body } => Box::pin(at.move_on_after(timeout, body)),
        What::Shielded { kind, body } => Box::pin(at.shielded(kind, body)),
        What::ShieldWith { before, exposed, after } => Box::pin(at.shield_with(before, exposed, after)),
        What::Try { body } => Box::pin(at.forgive(body)),
        What::Catch { body } => Box::pin(at.catch(body)),
        What::Finally { body, then } => {
            let then = at.contained("then", then);
            Box::pin(at.block(body).finally(then))
        }
        What::OnCancel { body, then } => {
            let then = at.contained("then", then);
            Box::pin(at.block(body).on_cancel(then))
        }
        What::Bracket { before, body, after } => {
            let (before, body, after) = (at.contained("before", before), at.block(body), at.contained("after", after));
            Box::pin(bracket(move |_| before, move |()| body, move |()| after))
        }
        What::Nursery { timeout, shield, local: false, body } => Box::pin(at.nursery(timeout, shield, body)),
        What::Nursery { timeout, shield, local: true, body } => {
            Box::pin(SendWrapper::new(at.nursery_local(timeout, shield, body)))
        }
        What::Spawn { nursery, shield, body } => {
            at.spawn(nursery, shield, body);
            Box::pin(async { Ok(()) })
        }
        What::Start { nursery, starts, before, after } => Box::pin(at.start(nursery, starts, before, after)),
    }
}

/// An operation in its place.
#[derive(Clone)]
struct At {
    world: Arc<World>,
    task: u32,
    id: u32,
}

impl At {
    fn emit(&self, what: &str) {
        self.world.emit(self.task, format!("{} {what}", self.id));
    }

    fn block(&self, ops: Block) -> BoxFuture<'static, Done> {
        block(&self.world, self.task, ops)
    }

    fn watch(&self, what: &'static str) -> Watch {
        let id = self.id;
        Watch::new(&self.world, self.task, move || format!("{id} {what}"))
    }

    async fn step_aside(&self) {
        for _ in 0..self.world.steps_aside() {
            shield_scoped(tokio::task::yield_now()).await;
        }
    }

    // ------------------------------------------------------------------------------------ suspensions

    async fn suspend(&self, wait: impl Future<Output = ()>) -> Done {
        self.step_aside().await;
        let watch = self.watch("cut");
        let blocked = self.world.block_on(self.id);
        wait.await;
        drop(blocked);
        watch.what_follows();
        self.step_aside().await;
        self.emit("done");
        Ok(())
    }

    async fn sleep(self, ms: u64) -> Done {
        self.suspend(sleep(length(ms))).await
    }

    async fn join(&self, task: u32) {
        let wait = async {
            let Some(handle) = self.world.task(task) else { return self.world.done(task).wait().await };
            let mut handle = handle.lock().await;
            if handle.is_finished() { checkpoint().await } else { drop(handle.outcome().await) }
        };
        tokio::select! {
            biased;
            () = wait => {}
            () = self.world.end().wait() => {}
        }
    }

    async fn goes_on(self, what: What) -> Done {
        if what == What::Yield {
            shield_scoped(tokio::task::yield_now()).await;
            self.step_aside().await;
            self.emit("yielded");
            return Ok(());
        }
        tokio::select! {
            biased;
            _ = testudo::cancelled() => {
                self.step_aside().await;
                self.emit("told");
            }
            () = self.world.end().wait() => {}
        }
        Ok(())
    }

    // ------------------------------------------------------------------------------------ requests

    fn act(&self, what: &What) -> Done {
        let world = &self.world;
        if let What::Set { event } = what {
            world.event(*event).set();
            self.emit("set");
        }
        if let What::Cancel { target } = what {
            world.cancel(*target);
            self.emit("cancels");
        }
        if let What::Shield { target, on } = what {
            world.scope(*target).into_iter().for_each(|scope| scope.set_shielded(*on));
            self.emit(if *on { "raises" } else { "lowers" });
        }
        if let What::Deadline { target, ms } = what {
            let at = ms.map(|ms| Instant::now() + length(ms));
            let active = world.movable_scope(*target);
            self.emit(if active.is_some() { "moves" } else { "moves nothing" });
            active.into_iter().for_each(|scope| scope.set_deadline(at));
        }
        if *what == What::Look {
            let text = match current_deadline() {
                EffectiveDeadline::At(at) => world.ms(at).to_string(),
                EffectiveDeadline::Cancelled => "cancelled".into(),
                EffectiveDeadline::None => "none".into(),
            };
            self.emit(&format!("sees {text}"));
        }
        if let What::Peek { target } = what {
            let asked = world.scope(*target).map(|scope| text_of(scope.cancel_requested()));
            asked.into_iter().for_each(|asked| self.emit(&format!("asks {asked}")));
        }
        if *what == What::Fail {
            self.emit("fails");
            return Err(Errs(vec![self.id]));
        }
        Ok(())
    }

    // ------------------------------------------------------------------------------------ regions

    async fn scope(self, timeout: Option<u64>, body: Block) -> Done {
        let mut scope = self.world.take_scope(self.id);
        let handle = scope.handle();
        if let Some(timeout) = timeout {
            scope = scope.timeout(length(timeout));
        }
        let (id, looked) = (self.id, handle.clone());
        let called = move || format!("called={}", text_of(looked.cancel_requested()));
        let look = called.clone();
        let watch = Watch::new(&self.world, self.task, move || format!("{id} unwinds {}", look()));
        let active = self.world.activate(self.id);
        let result = scope.run(self.block(body)).await;
        drop(active);
        let (how, done) = match result {
            Ok(Ok(())) => ("ok".to_owned(), Ok(())),
            Ok(Err(failed)) => (format!("failed {failed}"), Err(failed)),
            Err(_) => ("caught".to_owned(), Ok(())),
        };
        watch.ends(format!("{id} {how} {}", called()));
        done
    }

    async fn fail_after(self, timeout: u64, body: Block) -> Done {
        let id = self.id;
        // Trio's scope was called if it has caught, and nobody else can tell.
        let watch = self.watch("unwinds");
        match fail_after(length(timeout), self.block(body)).await {
            Ok(Ok(())) => watch.ends(format!("{id} ok")),
            Ok(Err(failed)) => {
                watch.ends(format!("{id} failed {failed}"));
                return Err(failed);
            }
            Err(_) => {
                watch.ends(format!("{id} caught"));
                return Err(Errs(vec![id]));
            }
        }
        Ok(())
    }

    async fn move_on_after(self, timeout: u64, body: Block) -> Done {
        let watch = self.watch("unwinds");
        let Some(done) = move_on_after(length(timeout), self.block(body)).await else {
            watch.ends(format!("{} caught", self.id));
            return Ok(());
        };
        self.end(watch, done)
    }

    async fn shielded(self, kind: ShieldKind, body: Block) -> Done {
        let body = self.block(body);
        let watch = self.watch("unwinds");
        let done = match kind {
            ShieldKind::Owned => shield(body).await,
            // It needs the `LocalSet`, which only main is in.
            ShieldKind::Local if self.task == 0 => SendWrapper::new(shield_local(body)).await,
            ShieldKind::Scoped | ShieldKind::Local => shield_scoped(body).await,
            ShieldKind::Scope => match CancelScope::new().shielded(true).run(body).await {
                Ok(done) => done,
                Err(cancelled) => {
                    self.world.odd(self.task, cancelled);
                    Ok(())
                }
            },
        };
        self.end(watch, done)
    }

    /// Says how a region has ended that no cancel ends.
    fn end(&self, watch: Watch, done: Done) -> Done {
        match &done {
            Ok(()) => watch.ends(format!("{} ok", self.id)),
            Err(failed) => watch.ends(format!("{} failed {failed}", self.id)),
        }
        done
    }

    async fn shield_with(self, before: Block, exposed: Block, after: Block) -> Done {
        let inside = self.clone();
        shield_with(|opened| async move {
            inside.block(before).await?;
            match opened.run(inside.block(exposed)).await {
                Ok(done) => {
                    done?;
                    inside.emit("island ok");
                }
                Err(_) => inside.emit("island cut"),
            }
            inside.block(after).await
        })
        .await
    }

    async fn forgive(self, body: Block) -> Done {
        if let Err(failed) = self.block(body).await {
            self.emit(&format!("forgives {failed}"));
        }
        Ok(())
    }

    async fn catch(self, body: Block) -> Done {
        match catch_cancelled(self.block(body)).await {
            Ok(done) => {
                done?;
                self.emit("ok");
            }
            Err(_) => self.emit("catches"),
        }
        Ok(())
    }

    /// A block of clean-up, whose failures end there.
    fn contained(&self, name: &'static str, ops: Block) -> impl Future<Output = ()> + Send + use<> {
        let at = self.clone();
        async move {
            match at.block(ops).await {
                Ok(()) => at.emit(&format!("{name} ok")),
                Err(failed) => at.emit(&format!("{name} failed {failed}")),
            }
        }
    }

    // ------------------------------------------------------------------------------------ nurseries

    async fn nursery(self, timeout: Option<u64>, shield: bool, body: Block) -> Done {
        let inside = self.clone();
        let mut run = nursery(|n| {
            inside.world.add_nursery(inside.id, AnyNursery::Regular(n.clone()), n.scope());
            inside.nursery_body(body)
        })
        .shielded(shield);
        if let Some(timeout) = timeout {
            run = run.timeout(length(timeout));
        }
        self.join_nursery(run).await
    }

    async fn nursery_local(self, timeout: Option<u64>, shield: bool, body: Block) -> Done {
        let inside = self.clone();
        let mut run = nursery_local(|n| {
            inside.world.add_nursery(inside.id, AnyNursery::Local(SendWrapper::new(n.clone())), n.scope());
            inside.nursery_body(body)
        })
        .shielded(shield);
        if let Some(timeout) = timeout {
            run = run.timeout(length(timeout));
        }
        let open = Open(self.clone());
        let done = self.join_nursery(run).await;
        drop(open);
        done
    }

    async fn nursery_body(self, body: Block) -> Done {
        let watch = self.watch("body cut");
        let done = self.block(body).await;
        match &done {
            Ok(()) => {
                watch.ends(format!("{} body ok", self.id));
                self.step_aside().await;
            }
            Err(failed) => watch.ends(format!("{} body failed {failed}", self.id)),
        }
        done
    }

    async fn join_nursery(&self, run: impl Future<Output = Result<(), NurseryError<Errs>>>) -> Done {
        let (id, world) = (self.id, Arc::clone(&self.world));
        let called = move || {
            let called = world.scope(id).is_some_and(|scope| scope.cancel_requested());
            format!("called={}", text_of(called))
        };
        let watch = self.watch("unwinds");
        let active = self.world.activate(id);
        let result = run.await;
        drop(active);
        self.step_aside().await;
        match result {
            Ok(()) | Err(NurseryError::Cancelled(_)) => watch.ends(format!("{id} ok {}", called())),
            Err(NurseryError::Failed(failures)) => {
                let mut all = Vec::new();
                for failure in failures.iter() {
                    match failure.what() {
                        testudo::Failed::Error(errs) => all.extend(&errs.0),
                        testudo::Failed::Panic(panic) => self.world.odd(self.task, panic),
                    }
                }
                all.sort_unstable();
                let failed = Errs(all);
                watch.ends(format!("{id} failed {failed} {}", called()));
                return Err(failed);
            }
        }
        Ok(())
    }

    fn spawn(&self, nursery: u32, shield: bool, body: Block) {
        let child = Self { task: self.id, ..self.clone() };
        let task = self.world.with_nursery(nursery, |nursery| match nursery? {
            AnyNursery::Regular(n) => {
                let task = n.task().shielded(shield).try_spawn(child.child(body)).ok()?;
                let named = task.as_ref();
                Some(AnyTask::Regular(Arc::new(tokio::sync::Mutex::new(task)), named))
            }
            AnyNursery::Local(n) => {
                // One that is closed panics, and there is no way to ask.
                let task = catch_unwind(AssertUnwindSafe(|| n.spawn(child.child(body)))).ok()?;
                Some(AnyTask::Local(SendWrapper::new(task)))
            }
        });
        match task {
            Some(task) => self.world.add_task(self.id, task),
            None => self.emit("refused"),
        }
    }

    async fn child(self, body: Block) -> Done {
        let done = Finished(self.clone());
        self.step_aside().await;
        self.world.emit(self.task, "begins");
        let watch = Watch::new(&self.world, self.task, || "end cut".into());
        let result = self.block(body).await;
        end_of_task(watch, &result);
        drop(done);
        result
    }

    async fn start(self, nursery: u32, starts: bool, before: Block, after: Block) -> Done {
        self.step_aside().await;
        let child = Self { task: self.id, ..self.clone() };
        let start = self.world.with_nursery(nursery, |nursery| match nursery {
            Some(AnyNursery::Regular(n)) => Some(child.start_in(n, starts, before, after)),
            Some(AnyNursery::Local(_)) | None => None,
        });
        let Some(start) = start else {
            self.emit("refused");
            return Ok(());
        };
        let watch = self.watch("unwinds");
        let how = match start.await {
            Err(StartError::Closed) => {
                watch.ends(format!("{} refused", self.id));
                return Ok(());
            }
            Err(StartError::Failed(failed)) => {
                watch.ends(format!("{} fails {failed}", self.id));
                return Err(failed);
            }
            Ok(()) => "ready",
            Err(StartError::NotStarted) => "not started",
            Err(odd @ (StartError::Cancelled(_) | StartError::Lost)) => {
                self.world.odd(self.task, odd);
                "odd"
            }
        };
        watch.what_follows();
        self.step_aside().await;
        self.emit(how);
        Ok(())
    }

    fn start_in(self, n: &Nursery<Errs>, starts: bool, before: Block, after: Block) -> testudo::Start<(), Errs> {
        n.start(move |started| async move {
            self.step_aside().await;
            self.world.emit(self.task, "begins");
            let watch = Watch::new(&self.world, self.task, || "end cut".into());
            let mut result = self.block(before).await;
            if result.is_ok() {
                if starts {
                    self.world.emit(self.task, "starts");
                    started.started(());
                }
                result = self.block(after).await;
            }
            end_of_task(watch, &result);
            result
        })
    }
}

fn end_of_task(watch: Watch, result: &Done) {
    match result {
        Ok(()) => watch.ends("end ok"),
        Err(failed) => watch.ends(format!("end failed {failed}")),
    }
}

/// As Python writes it.
fn text_of(truth: bool) -> &'static str {
    if truth { "True" } else { "False" }
}

/// A local nursery that can be spawned into.
struct Open(At);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.world.forget_nursery(self.0.id);
    }
}

/// Says that a task has ended, however that was.
struct Finished(At);

impl Drop for Finished {
    fn drop(&mut self) {
        self.0.world.done(self.0.task).set();
    }
}
