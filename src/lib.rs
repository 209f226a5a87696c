//! Task shielding, structured concurrency and graceful shutdown for Tokio.
//!
//! Cancelling in Rust is dropping, and it can happen at every `.await`. This crate adds the other half:
//! work that must not be cut off is covered by a [`shield`], everything else stops at once when it is
//! told to, every task has an owner that waits for it, and a program leaves in order when it is asked to.
//!
//! | You want | You use |
//! |---|---|
//! | work that runs to its end, whatever happens to its caller | [`shield`] |
//! | a stretch of code with a deadline, or that can be cancelled by hand | [`CancelScope`], [`move_on_after`], [`fail_after`] |
//! | tasks that do not outlive the function that begins them | [`nursery`], [`nursery_local`] |
//! | clean-up that may await | [`FinalizeExt`], [`bracket`] |
//! | a program that obeys Ctrl-C | [`main`](macro@crate::main), [`run`], [`Runner`] |
//! | to finish what was begun before it ends | [`shutdown_requested`], [`Stages`] |
//! | to see what is alive | [`dump`](crate::dump()), SIGUSR1 |
//! | to know how a task has ended | [`Outcome`], [`Cause`] |
//! | a proof that a future may be cut off anywhere | [`testing`] |
//!
//! # A first program
//!
//! ```
//! use std::time::Duration;
//! use testudo::{CancelScope, nursery, shield};
//! use tokio::time::{Instant, sleep};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let began = Instant::now();
//! let shop = nursery(|n| async move {
//!     // A payment must not be cut in half: it is carried to its end.
//!     n.spawn(shield(sleep(Duration::from_secs(90))));
//!     // A cache may stop anywhere.
//!     n.spawn(sleep(Duration::from_secs(3600)));
//! });
//! let day = CancelScope::new().timeout(Duration::from_secs(60)).run(shop);
//! // After 60 s the cache is cancelled. The nursery waits for the payment; only then the scope ends.
//! assert!(day.await.is_err());
//! assert_eq!(began.elapsed(), Duration::from_secs(90));
//! # }
//! ```
//!
//! # How a cancel arrives
//!
//! A *cancel* is a request to stop, with a [`Cause`]. It is made of a scope, a nursery, a task or a run,
//! and is seen by everything inside, down to the next shield.
//!
//! 1. The task is woken and polled **once more**. An operation that has just finished is not lost: the
//!    code gets its value and runs on, up to its next suspension.
//! 2. If that poll ends pending, and nothing *holds* the code, it is dropped there. A shield, a finalizer
//!    that runs, a nursery that waits for its children, a scope inside, [`catch_cancelled`] and a pending
//!    [`cancelled`] hold the code around them until they have ended. So unwinding goes from the inside
//!    outwards, as an exception would.
//! 3. The outermost cancelled scope with no shield in between absorbs the cancel: its
//!    [`run`](CancelScope::run) gives `Err(Cancelled)`. The ones inside just unwind.
//!
//! A cancel stays (it is *level-triggered*): every further suspension that nothing holds is the end. Code
//! inside one task that is polled by `join!` or `FuturesUnordered` is one piece in this: a hold in one
//! branch keeps the other branches alive as well. A branch that must stop at once is a task or a scope;
//! and a shield must not wait for something that a sibling branch owns.
//!
//! # Cancel safety
//!
//! Dropping is not cancelling. Somebody outside of this crate can always drop a future (`select!`,
//! `tokio::time::timeout`, a client that disconnects, `JoinHandle::abort`), and a dropped future can not
//! clean up by awaiting.
//!
//! A future is *cancel safe* if it is a no-op to drop it before it is done and to make it again. Few
//! futures that do something are, so each public future of this crate has a section **Cancel safety**
//! that says not "yes" or "no" but what is lost when it is dropped. In short:
//!
//! | Dropped | What happens |
//! |---|---|
//! | [`Shield`], started | The rest goes on as a task of the nearest open nursery upwards, or of the run. Lost is only the value. |
//! | a finalizer ([`Finalized`]) | It runs there. Lost is the value of the future that it belongs to. |
//! | [`NurseryRun`] | The children are cancelled; the same owner adopts them and waits for them. The body is lost. |
//! | [`Scoped`], [`CatchCancelled`] | The body is dropped where it stands. |
//! | [`ScopedShield`], [`LocalNurseryRun`] | They borrow, so the rest is lost; for the shield that is reported. |
//! | [`Task`] | Nothing: the nursery owns the task. |
//!
//! Whatever is dropped before its first poll has done nothing, and is only dropped.
//!
//! What is rescued lives as long as its runtime. [`main`](macro@crate::main) and [`Runner`] wait for all of it before
//! the runtime goes; a program without them calls [`drain`] at its end.
//!
//! # Coming from trio
//!
//! The words are trio's, and so are the rules, unless the right column says otherwise. The greatest
//! difference: code that is cancelled is dropped, it does not see an exception. Code that has to run then
//! stands behind [`catch_cancelled`] or in a finalizer.
//!
//! | trio | testudo |
//! |---|---|
//! | `trio.run(main)` | [`run`]; tasks begun with [`spawn`](crate::spawn()) are cancelled when main has ended, unless [`Runner::wait_for_tasks`] |
//! | `async with trio.open_nursery() as n` | [`nursery`]; with children that borrow, [`nursery_local`] |
//! | `n.start_soon(f)` | [`Nursery::spawn`] |
//! | `await n.start(f)`, `task_status.started(v)` | [`Nursery::start`], [`Started::started`] |
//! | `n.cancel_scope.cancel()` | [`Nursery::cancel`], [`Nursery::scope`] |
//! | `ExceptionGroup` | [`Failures`], in [`NurseryError::Failed`] |
//! | `with trio.CancelScope(deadline=…)` | [`CancelScope::deadline`], [`CancelScope::run`] |
//! | `scope.shield = True` | [`ScopeHandle::set_shielded`]; against drops as well, [`shield`] |
//! | `scope.cancel(reason=…)` | [`ScopeHandle::cancel`] |
//! | `scope.cancel_called` | [`ScopeHandle::cancel_requested`] |
//! | `scope.cancelled_caught` | the `Err` of [`CancelScope::run`] |
//! | `trio.move_on_after(s)` | [`move_on_after`] |
//! | `trio.fail_after(s)`, `TooSlowError` | [`fail_after`], [`Elapsed`] |
//! | `trio.current_effective_deadline()` | [`current_deadline`] |
//! | `await trio.lowlevel.checkpoint()` | [`checkpoint`] |
//! | `except trio.Cancelled: …; raise` | [`catch_cancelled`], then [`checkpoint`] in place of `raise` |
//! | `finally:` with a shielded scope in it | [`FinalizeExt::finally`] |
//! | `trio.to_thread.run_sync(f, abandon_on_cancel=True)` | [`TaskBuilder::spawn_blocking`], [`TaskBuilder::abandon`] |
//! | `trio.from_thread.check_cancelled()` | [`BlockingCx::is_cancelled`] |
//!
//! ```
//! use std::time::Duration;
//! use testudo::{
//!     BlockingCx, CancelScope, EffectiveDeadline, Elapsed, Failures, FinalizeExt, NurseryError, Runner,
//!     catch_cancelled, checkpoint, current_deadline, fail_after, move_on_after, nursery, nursery_local,
//!     run, shield, spawn,
//! };
//! use tokio::time::{Instant, sleep};
//!
//! const S: Duration = Duration::from_secs(1);
//!
//! async fn main_task() {
//!     tokio::time::pause();
//!     let ended = nursery(|n| async move {
//!         let port = n.start(|started| async move {
//!             started.started(8080);
//!             sleep(60 * S).await;
//!         });
//!         assert_eq!(port.await.unwrap(), 8080);
//!         n.spawn(async { Err::<(), _>("boom") });
//!         sleep(60 * S).await; // cut off, because a child has failed
//!         Ok(())
//!     });
//!     let Err(NurseryError::Failed(failures)) = ended.await else { unreachable!() };
//!     let failures: Failures<&str> = failures;
//!     assert_eq!(failures.len(), 1);
//!
//!     let scope = CancelScope::new().deadline(Instant::now() + 9 * S);
//!     let handle = scope.handle();
//!     let body = scope.run(async {
//!         assert_eq!(current_deadline(), EffectiveDeadline::At(Instant::now() + 9 * S));
//!         handle.cancel("enough");
//!         handle.set_shielded(true); // holds off what is outside, not its own cancel
//!         if catch_cancelled(sleep(S)).await.is_err() {
//!             shield(sleep(S)).await; // the clean-up
//!             checkpoint().await; // trio's `raise`
//!         }
//!         unreachable!()
//!     });
//!     let error = body.finally(sleep(S)).await.unwrap_err();
//!     assert_eq!(error.cause().reason(), Some("enough"));
//!     assert!(handle.cancel_requested());
//!
//!     assert_eq!(move_on_after(S, sleep(2 * S)).await, None);
//!     let late: Result<(), Elapsed> = fail_after(S, sleep(2 * S)).await;
//!     assert_eq!(late.unwrap_err().timeout(), S);
//!
//!     let stopped = nursery(|n| async move {
//!         let look = |cx: &BlockingCx| while !cx.is_cancelled() { std::thread::yield_now() };
//!         n.task().name("thread").abandon().spawn_blocking(look);
//!         assert!(n.cancel("enough"));
//!         assert!(n.scope().is_cancelled());
//!         checkpoint().await;
//!     });
//!     assert!(stopped.await.unwrap_err().is_cancelled());
//!
//!     let words = ["to", "be"];
//!     let local = nursery_local(|n| {
//!         words.iter().for_each(|word| drop(n.spawn(async move { assert_eq!(word.len(), 2) })));
//!         async {}
//!     });
//!     local.await.unwrap();
//!     spawn(sleep(S));
//! }
//!
//! run(async {}).unwrap();
//! Runner::new().current_thread().wait_for_tasks(true).run(main_task()).outcome.unwrap();
//! ```
//!
//! # Coming from asyncio and aiorun
//!
//! Here a cancel covers everything that is inside a task, also the tasks that it has opened in a nursery,
//! and so does a shield: `asyncio.shield` and aiorun's `shutdown_waits_for` cover one coroutine, and what
//! that begins is cancelled. A cancel is not an exception that can be swallowed by accident.
//!
//! | asyncio, aiorun | testudo |
//! |---|---|
//! | `asyncio.run(main())`, `aiorun.run(main())` | [`run`], [`main`](macro@crate::main), [`Runner::run`] |
//! | `asyncio.run(asyncio.shield(main()))`, a `ValueError` there | `run(shield(main()))`, or [`Runner::shield_main`] for any number of cancels |
//! | `asyncio.create_task(c)` | [`spawn`](crate::spawn()); it never needs a strong reference |
//! | `asyncio.shield(c)`, `aiorun.shutdown_waits_for(c)` | [`shield`] |
//! | `asyncio.TaskGroup()` | [`nursery`] |
//! | `asyncio.gather(…, return_exceptions=True)` | [`Policy::Collect`] |
//! | `asyncio.timeout(s)`, `asyncio.wait_for(c, s)` | [`fail_after`] |
//! | `task.cancel(msg)` | [`Task::cancel`], [`TaskRef::cancel`]; by name or number, [`cancel`](crate::cancel()) |
//! | `task.cancel()`, then `await task` | [`Task::cancel_and_wait`] |
//! | `except asyncio.CancelledError` | [`catch_cancelled`] |
//! | `task.uncancel()` | none: a request is never taken back |
//! | `asyncio.all_tasks()`, `asyncio.current_task()` | [`all_tasks`], [`current_task`] |
//! | `task.get_name()`, `task.get_coro()` | [`TaskRef::name`], [`TaskRef::place`] |
//! | `task.result()`, `task.exception()`, `task.cancelled()` | [`Outcome`] |
//! | `asyncio.to_thread(f)` | [`Nursery::spawn_blocking`] |
//! | `loop.add_signal_handler(…)` | [`Runner::on_signal`] |
//! | aiorun's `shutdown_callback` | [`Runner::on_stop`] |
//! | `contextvars`, which a shield keeps | a task-local, which a rescue loses unless [`Shield::with_local`] carries it |
//!
//! ```
//! use std::convert::Infallible;
//! use std::time::Duration;
//! use testudo::{
//!     Outcome, Policy, Runner, Signal, all_tasks, cancel, catch_cancelled, current_task, fail_after,
//!     nursery, root_nursery, run, shield, spawn,
//! };
//! use tokio::time::sleep;
//!
//! const S: Duration = Duration::from_secs(1);
//!
//! tokio::task_local! {
//!     static REQUEST: u32;
//! }
//!
//! async fn main_task() {
//!     tokio::time::pause();
//!     let main = current_task().unwrap();
//!     assert_eq!(&*main.name(), "main");
//!     assert!(main.place().file().ends_with(".rs"));
//!
//!     let answer = spawn(async {
//!         sleep(S).await;
//!         Ok::<_, Infallible>(42)
//!     });
//!     let other = spawn(sleep(60 * S));
//!     root_nursery::<Infallible>().task().name("lazy").spawn(sleep(60 * S));
//!     assert_eq!(all_tasks().len(), 4);
//!     assert_eq!(cancel("lazy", "nobody needs it").unwrap(), true);
//!     assert!(other.cancel("nor this"));
//!     assert!(matches!(other.cancel_and_wait("and wait").await, Outcome::Cancelled(_)));
//!     assert_eq!(answer.await, Outcome::Ok(42));
//!
//!     let all = nursery(|n| async move {
//!         n.spawn(async { Err::<(), _>("one") });
//!         n.spawn(async { Err::<(), _>("two") });
//!         n.spawn_blocking(|_| Ok(()));
//!         Ok(())
//!     });
//!     assert_eq!(all.policy(Policy::Collect).await.unwrap_err().failures().unwrap().len(), 2);
//!
//!     assert!(fail_after(S, catch_cancelled(sleep(2 * S))).await.unwrap().is_err());
//!     REQUEST.scope(7, shield(async { REQUEST.get() }).with_local(&REQUEST)).await;
//!     assert!(main.cancel("it does not mind")); // shielded
//!     sleep(S).await;
//! }
//!
//! run(shield(async {})).unwrap();
//! let finished = Runner::new()
//!     .current_thread()
//!     .shield_main(true)
//!     .on_stop(|cause| println!("stopping: {cause}"))
//!     .on_signal(Signal::Hangup, |stop| println!("reloading on {}", stop.signal()))
//!     .run(main_task());
//! finished.outcome.unwrap();
//!
//! #[testudo::main]
//! async fn program() {} // `main` in a program of your own
//! program();
//! ```
//!
//! # Coming from `JoinSet` and `CancellationToken`
//!
//! A token is a flag that code has to look at; a [`CancelScope`] ends what is inside it without its help, and has
//! a deadline, a cause and a shield of its own. A `JoinSet` aborts its tasks when it is dropped and waits
//! for none; a [`nursery`] waits, and what is left when it is dropped finds another owner.
//!
//! | Tokio | testudo |
//! |---|---|
//! | `JoinSet::spawn` | [`nursery`], [`Nursery::spawn`] |
//! | `while let Some(r) = set.join_next().await` | the end of the [`nursery`]; each [`Task`] is the future of its [`Outcome`] |
//! | `set.abort_all()` | [`Nursery::cancel`] |
//! | dropping a `JoinSet` | dropping a [`NurseryRun`]: the children are cancelled and awaited by the next owner |
//! | `JoinHandle::abort` | [`Task::cancel`] |
//! | `JoinError::is_cancelled`, `JoinError::is_panic` | [`Outcome::Cancelled`], [`Outcome::Panicked`], and [`Outcome::Lost`] where the runtime was shut down |
//! | `TaskTracker::close`, `TaskTracker::wait` | the end of the [`nursery`]; without a run, [`drain`] at the end of the program |
//! | `CancellationToken::new` | [`CancelScope::new`], [`CancelScope::handle`] |
//! | `token.child_token()` | a scope inside a scope |
//! | `token.cancel()` | [`ScopeHandle::cancel`], with a reason |
//! | `token.is_cancelled()` | [`is_cancelled`] inside, [`ScopeHandle::is_cancelled`] from anywhere |
//! | `token.cancelled().await` | [`cancelled`] inside, [`ScopeHandle::cancelled`] from anywhere |
//! | `token.run_until_cancelled(f)` | [`CancelScope::run`] |
//! | `tokio::time::timeout(d, f)` | [`move_on_after`] or [`fail_after`]; both wait for shields inside |
//! | `tokio::task::spawn_blocking` | [`Nursery::spawn_blocking`] |
//! | `tokio::signal::ctrl_c()` | [`Runner`] |
//! | a token that somebody else cancels | [`run_until_token`] (feature `interop`) |
//! | a library that wants a token | [`ScopeHandle::to_token`] (feature `interop`) |
//! | a `JoinHandle` or `JoinSet` of somebody else | [`adopt`] |
//!
//! ```
//! use std::time::Duration;
//! use testudo::{
//!     CancelScope, CauseKind, NurseryRun, Outcome, Runner, Task, adopt, cancelled, drain, fail_after,
//!     is_cancelled, move_on_after, nursery, shield,
//! };
//! use tokio::time::{sleep, timeout};
//!
//! const S: Duration = Duration::from_secs(1);
//!
//! /// A plain Tokio program: nothing here needs the runner.
//! #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn plain() {
//!     let sum = nursery(|n| async move {
//!         let one: Task<i32, std::io::Error> = n.spawn(async { Ok(1) });
//!         let two = n.spawn_blocking(|_| Ok(2));
//!         let endless = n.spawn(async { Ok(sleep(60 * S).await) });
//!         endless.cancel("not needed");
//!         match endless.await {
//!             Outcome::Cancelled(cause) => assert_eq!(cause.reason(), Some("not needed")),
//!             Outcome::Panicked(panic) => panic.resume(),
//!             Outcome::Ok(_) | Outcome::Err(_) | Outcome::Lost => unreachable!(),
//!         }
//!         Ok(one.await.unwrap() + two.await.unwrap())
//!     });
//!     assert_eq!(sum.await.unwrap(), 3);
//!
//!     let scope = CancelScope::new();
//!     let handle = scope.handle();
//!     let inner = scope.run(async {
//!         assert!(!is_cancelled());
//!         handle.cancel("enough");
//!         cancelled().await // the cause; the first suspension after it is the end
//!     });
//!     assert_eq!(inner.await.unwrap().kind(), CauseKind::Requested);
//!     assert!(handle.is_cancelled());
//!     assert_eq!(handle.cancelled().await.reason(), Some("enough"));
//!
//!     // A timeout that waits for what must not be cut off, and one that does not.
//!     assert_eq!(move_on_after(S, shield(sleep(2 * S))).await, Some(()));
//!     assert!(fail_after(S, sleep(2 * S)).await.is_err());
//!     assert!(timeout(S, shield(sleep(2 * S))).await.is_err()); // its rest runs on
//!
//!     #[expect(clippy::disallowed_methods, reason = "a task of somebody else")]
//!     let theirs = tokio::spawn(sleep(60 * S));
//!     let children: NurseryRun<_, _> = nursery(|n| async move {
//!         n.spawn(async { adopt(theirs).await.map_err(|error| error.to_string()) });
//!         n.cancel("aborts it and waits for its end");
//!         Ok::<_, String>(())
//!     });
//!     children.await.unwrap();
//!
//!     # #[cfg(feature = "interop")] {
//!     let scope = CancelScope::new();
//!     let token = scope.handle().to_token(); // for a library that wants one
//!     scope.handle().cancel("both at once");
//!     token.cancelled().await;
//!     assert!(testudo::run_until_token(token, sleep(S)).await.is_err());
//!     # }
//!
//!     assert!(drain(60 * S).await.is_clean());
//! }
//!
//! plain();
//! // The same program, with signals, and everything drained before the runtime goes:
//! Runner::new().current_thread().run(async {}).outcome.unwrap();
//! ```
//!
//! # Leaving in order
//!
//! A run that is asked to stop (by a signal, or by [`shutdown`](crate::shutdown())) goes through [phases](Phase), within one
//! [budget](Runner::budget). A phase that nobody takes part in takes no time; so a program that knows nothing of all this is cancelled at
//! once.
//!
//! | Phase | What happens | Who takes part |
//! |---|---|---|
//! | initiated | [`ready`] turns false | |
//! | draining | everything goes on until the world has heard | who asks [`ready`] or [accepts](Participant::accept), for the [delay](Runner::drain_delay); [hooks](Runner::pre_stop) |
//! | not accepting, in flight | [`shutdown_requested`] completes; what was begun is finished | tasks that have waited for it, [`take_part`], [`Stages`] |
//! | cancelling, shielded | what is not shielded is cancelled; shields run to their ends | |
//! | finalizing | when all but the [reserve](Runner::reserve) is used up, shields are cut off, finalizers go on; [hooks of the end](Runner::at_end) | |
//! | exit | [`Report::stop`] tells how it went; the [`ExitPolicy`] picks the status | |
//!
//! Where the first press did not cancel, the second does; else it says what is waited for. A third ends the process. [`dump`](crate::dump()) and SIGUSR1 show what is alive; see
//! [`Runner`](Runner#shutdown) for all signals.
//!
//! ```
//! use std::time::Duration;
//! use testudo::{Runner, shutdown, shutdown_requested, spawn};
//! use tokio::time::sleep;
//!
//! let finished = Runner::new().current_thread().budget(Duration::from_secs(20)).run(async {
//!     tokio::time::pause();
//!     let worker = spawn(async {
//!         let mut jobs = 0;
//!         loop {
//!             tokio::select! {
//!                 _ = shutdown_requested() => break Ok::<_, std::io::Error>(jobs),
//!                 () = sleep(Duration::from_secs(1)) => jobs += 1, // never cut off in the middle by a graceful stop
//!             }
//!         }
//!     });
//!     sleep(Duration::from_millis(2500)).await;
//!     shutdown("enough");
//!     worker.await.unwrap();
//! });
//! println!("{}", finished.report.stop().unwrap());
//! ```
//!
//! # Crate features
//!
//! - `signal` (default): [`run`] and [`Runner`]: they build the runtime, listen to signals, and drain
//!   everything before the runtime goes. Takes Tokio's multi-thread runtime and its signals along.
//! - `progress` (default): a line at the terminal while a run that was told to stop takes long. Takes `indicatif` along.
//! - `macros` (default): [`main`](macro@crate::main). Implies `signal`.
//! - `testing`: [`test`](macro@crate::test), with paused time and a check for tasks that were left behind, and the module
//!   [`testing`]: cancel or drop a future at each of its suspensions, order the steps of several tasks, press Ctrl-C
//!   without a signal. Implies `macros`; for `[dev-dependencies]`.
//! - `tracing`: a span for each task, which a rescue keeps, and what happens as events (target `testudo`).
//! - `systemd`: a run under systemd (`Type=notify`) sends `WATCHDOG=1`, `STOPPING=1`, `STATUS=` and `EXTEND_TIMEOUT_USEC=`, and
//!   `READY=1` by [`Readiness::set`].
//! - `json`: [`Dump::to_json`], [`Report::to_json`].
//! - `interop`: [`run_until_token`] and [`ScopeHandle::to_token`], for `tokio_util`'s `CancellationToken`.
//!
//! Without default features the crate is scopes, shields, nurseries and finalizers for a program that has
//! its own runtime and its own signals.
//!
//! # Further reading
//!
//! - [`_documentation::design`]: why it is as it is, and what was rejected.
//! - [`_documentation::changelog`]: what has changed.

mod blocking;
mod clock;
mod core;
mod counted;
mod current;
mod deadline;
mod delivery;
mod dump;
mod error;
#[cfg(feature = "signal")]
mod exit;
mod finalize;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzed;
mod host;
mod interop;
#[cfg(feature = "signal")]
mod main_task;
mod numbers;
mod nursery;
mod outcome;
mod placed;
mod plan;
mod policy;
mod region;
mod registry;
mod report;
mod rest;
#[cfg(feature = "signal")]
mod runner;
mod scope;
mod seat;
mod shield;
#[cfg(feature = "signal")]
mod shutdown;
#[cfg(feature = "signal")]
mod signal;
#[cfg(feature = "signal")]
mod stages;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod ticket;
mod trace;

pub use crate::core::cause::{Cause, CauseKind};
#[cfg(feature = "signal")]
pub use crate::core::phase::Phase;
pub use blocking::BlockingCx;
pub use deadline::{EffectiveDeadline, current_deadline};
pub use delivery::{CatchCancelled, Checkpoint, WaitCancelled, cancelled, catch_cancelled, checkpoint, is_cancelled};
pub use dump::{Dump, Entry, dump};
pub use error::{AbsorbCancel, Cancelled, Elapsed, Failed, Failure, Failures, NurseryError, SpawnError, StartError};
#[cfg(feature = "signal")]
pub use exit::Exit;
pub use finalize::{FinalizeExt, Finalized, bracket};
#[cfg(feature = "interop")]
pub use interop::run_until_token;
pub use interop::{Adoptable, adopt};
pub use nursery::{
    LocalNursery, LocalNurseryRun, LocalTask, Nursery, NurseryRun, Start, Started, TaskBuilder, nursery, nursery_local,
};
pub use outcome::{ChildOutput, Outcome, Panic, TaskOutput};
pub use policy::Policy;
pub use registry::{FindError, Which, all_tasks, cancel, current_task, drain, find, root_nursery, spawn, warn};
pub use report::{Event, Report, Reporter, Subject};
#[cfg(feature = "signal")]
pub use runner::{Finished, Runner, run};
pub use scope::{CancelScope, ScopeCancelled, ScopeHandle, Scoped, fail_after, move_on_after};
pub use shield::{
    Exposed, ExposedRun, LocalShield, ScopedShield, Shield, shield, shield_local, shield_scoped, shield_with,
};
#[cfg(feature = "signal")]
pub use shutdown::{
    ExitPolicy, Participant, Readiness, Reason, ShutdownHandle, Stop, StopReport, ready, shutdown, shutdown_requested,
    take_part,
};
#[cfg(feature = "signal")]
pub use signal::Signal;
#[cfg(feature = "signal")]
pub use stages::{Stage, StageCx, Stages};
pub use task::{Task, TaskId, TaskRef};
/// Makes `async fn main` the main task of a [`Runner`].
///
/// The function becomes a plain `fn main` that returns an exit code. Handlers are installed before the
/// body starts, everything is drained before the runtime goes, and the runner's [`ExitPolicy`] picks
/// the code. The body may return `()` or a `Result` with an error that is `Debug`.
///
/// # Examples
///
/// ```
/// use std::io;
///
/// #[testudo::main(flavor = "current_thread", shield_main = true)]
/// async fn main() -> io::Result<()> {
///     testudo::shield(async { Ok(()) }).await
/// }
/// ```
///
/// It is the same as this:
///
/// ```
/// use std::io;
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     testudo::Runner::new().current_thread().shield_main(true).run_and_exit(async {
///         testudo::shield(async { Ok::<_, io::Error>(()) }).await
///     })
/// }
/// ```
#[cfg(feature = "macros")]
#[doc(inline)]
pub use testudo_macros::main;
/// Makes an `async fn` a test that runs as the main task of a run.
///
/// The test has a current-thread runtime of its own; no signals are listened to. It fails if tasks or
/// rescued shields are still alive when its body returns, and lists them by name and place: await
/// them, open a [`nursery`] around them, or call [`drain`].
///
/// # Examples
///
/// With `start_paused = true` Tokio's clock stands still while anything can run, so a test that waits
/// for minutes takes no time and its durations are exact:
///
/// ```
/// # use std::time::Duration;
/// #[testudo::test(start_paused = true)]
/// async fn a_scope_ends_at_its_deadline() {
///     let began = tokio::time::Instant::now();
///     let minute = Duration::from_secs(60);
///     assert!(testudo::move_on_after(minute, std::future::pending::<()>()).await.is_none());
///     assert_eq!(began.elapsed(), minute);
/// }
/// ```
#[cfg(feature = "testing")]
#[doc(inline)]
pub use testudo_macros::test;

/// The long documents of the repository, compiled so that their programs are tests.
pub mod _documentation {
    #[doc = include_str!("../README.md")]
    pub mod readme {}
    #[doc = include_str!("../DESIGN.md")]
    pub mod design {}
    #[doc = include_str!("../CHANGELOG.md")]
    pub mod changelog {}
}

#[doc(hidden)]
#[cfg(feature = "testing")]
pub mod __private {
    pub use crate::testing::{TestOptions, run_test};
}
