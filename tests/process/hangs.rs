//! Twelve ways to hang: each ends within the budget, and is named.

use std::future::pending;
use std::mem::forget;
use std::process::exit;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGQUIT, SIGTERM};
use testudo::{Event, FinalizeExt, Reporter, Runner, nursery, root_nursery, shield, spawn};
use tokio::io::AsyncReadExt;

use crate::child::Proc;
use crate::scenes::{leave, runner, say};

const BUDGET: Duration = Duration::from_millis(400);

/// What a busy machine may take longer, besides the half second that the last rung waits.
const SLACK: Duration = Duration::from_millis(1500);

/// Plays a scene of this file, if it is one.
pub(crate) fn play(scene: &str) {
    let runner = || runner().worker_threads(2).budget(BUDGET);
    hang_a_thread(scene, runner);
    hang_a_future(scene, runner);
}

/// What only the end of the process ends.
fn hang_a_thread(scene: &str, runner: impl Fn() -> Runner) {
    match scene {
        "hang_blocking" => hang(runner(), async {
            root_nursery::<String>().task().name("culprit").spawn_blocking(|_| sleep_for_ever());
        }),
        "hang_never_yields" => hang(runner(), async {
            root_nursery::<String>().task().name("culprit").spawn(async {
                loop {
                    std::hint::black_box(());
                }
            });
        }),
        "hang_mutex" => hang(runner(), async {
            static DEADLOCK: Mutex<()> = Mutex::new(());
            forget(DEADLOCK.lock());
            root_nursery::<String>().task().name("culprit").spawn(async { drop(DEADLOCK.lock()) });
        }),
        "hang_second_runtime" => hang(runner(), async {
            root_nursery::<String>().task().name("culprit").spawn_blocking(|_| {
                let second = tokio::runtime::Builder::new_current_thread().build().expect("can build");
                second.block_on(pending::<()>());
            });
        }),
        "hang_after_the_request" => hang_after_the_request(runner().budget(2 * BUDGET)),
        "hang_reporter_panics" => hang(runner().reporter(Reporter::new(|_| panic!("the reporter panics"))), wedge()),
        "hang_reporter_hangs" => hang(runner().reporter(Reporter::new(|_| sleep_for_ever())), wedge()),
        "hang_panic_hook_hangs" => {
            std::panic::set_hook(Box::new(|_| sleep_for_ever()));
            hang(runner().reporter(Reporter::new(|_| panic!("the reporter panics"))), wedge());
        }
        #[cfg(feature = "tracing")]
        "hang_subscriber_hangs" => {
            tracing::subscriber::set_global_default(Stuck).expect("it is the first");
            hang(runner().budget(Duration::from_secs(20)), wedge());
        }
        "hang_hook_hangs" => hang(runner().on_stop(|_| sleep_for_ever()), wedge()),
        "force_is_slow" => force_is_slow(runner()),
        "run_panics" => run_panics(runner()),
        "hang_wedged" => hang(runner(), wedge()),
        "hang_wedged_current_thread" => hang(runner().current_thread(), wedge()),
        _ => {}
    }
}

/// What ends when it is cut off, but for a finalizer, which takes all of the budget.
fn hang_a_future(scene: &str, runner: impl Fn() -> Runner) {
    match scene {
        "hang_stdin" => hang(runner(), async {
            spawn(shield(async { drop(tokio::io::stdin().read_u8().await) }).name("culprit"));
        }),
        "hang_shield" => hang(runner(), async {
            spawn(shield(pending::<()>()).name("culprit"));
        }),
        "hang_finalizer" => hang(runner(), async {
            root_nursery::<String>().task().name("culprit").spawn(pending::<()>().on_cancel(pending()));
        }),
        "hang_panic_in_drop" => hang(runner(), async {
            root_nursery::<String>().task().name("culprit").spawn(async {
                let _bad = PanicsInDrop;
                pending::<()>().await;
            });
        }),
        "hang_async_mutex" => hang(runner(), async {
            let deadlock = || async {
                let mutex = tokio::sync::Mutex::new(());
                let _first = mutex.lock().await;
                drop(mutex.lock().await);
            };
            spawn(shield(deadlock()).name("culprit"));
        }),
        "hang_leaked_handle" => hang(runner(), async {
            root_nursery::<String>().task().name("owner").spawn(async {
                let leaky = nursery(|n| async move {
                    forget(n.clone());
                    n.task().name("culprit").shielded(true).spawn(pending::<()>());
                });
                leaky.await.map_err(|error| error.to_string())
            });
        }),
        "hang_full_channel" => hang(runner(), async {
            let fill = || async {
                let (send, _jobs) = tokio::sync::mpsc::channel(1);
                while send.send(()).await.is_ok() {}
            };
            spawn(shield(fill()).name("culprit"));
        }),
        "hang_futurelock" => hang(runner(), async {
            spawn(async {
                let mut kept = Box::pin(shield(pending::<()>()).name("culprit"));
                drop(tokio::time::timeout(Duration::from_millis(1), &mut kept).await);
                pending::<()>().await;
                kept.await;
            });
        }),
        _ => {}
    }
}

/// Every thread of the runtime is taken, main's too.
async fn wedge() {
    for name in ["culprit", "other"] {
        root_nursery::<String>().task().name(name).spawn(async { sleep_for_ever() });
    }
    thread::sleep(Duration::from_millis(100));
    say("ready");
    sleep_for_ever();
}

/// The thread that asks for the stop blocks then, and what it has woken last can not go to another.
fn hang_after_the_request(runner: Runner) -> ! {
    hang(runner, async {
        let work = async {
            say("working");
            pending::<()>().await;
        };
        spawn(shield(work).name("work").on_cancel(async { say("cleaned up") }));
        root_nursery::<String>().task().name("culprit").spawn(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            testudo::shutdown("enough");
            sleep_for_ever();
        });
    })
}

/// Everything ends while it is being said that it is cut off.
fn force_is_slow(runner: Runner) -> ! {
    let (go, gone) = tokio::sync::watch::channel(false);
    let reporter = move |event: &Event| {
        if matches!(event, Event::Forced { .. }) {
            go.send_replace(true);
            thread::sleep(Duration::from_millis(300));
        }
    };
    hang(runner.budget(Duration::from_secs(20)).reporter(Reporter::new(reporter)), async move {
        let mut gone = gone;
        spawn(shield(async move { drop(gone.wait_for(|gone| *gone).await) }));
    })
}

/// A panic ends the run itself, when the clock of its stop runs already.
fn run_panics(runner: Runner) -> ! {
    let hook = async {
        let _cut_off = PanicsInDrop;
        pending::<()>().await;
    };
    let runner = runner.reserve(Duration::from_millis(10)).at_end(|| hook);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runner.run(async { testudo::shutdown("enough") });
    }));
    assert!(ended.is_err());
    say("the run has panicked");
    // Longer than the last rung waits.
    thread::sleep(BUDGET + Duration::from_millis(900));
    say("the process lives");
    exit(0)
}

fn sleep_for_ever() {
    thread::sleep(Duration::from_secs(3600));
}

/// Writes what happens to a pipe that nobody reads.
#[cfg(feature = "tracing")]
struct Stuck;

#[cfg(feature = "tracing")]
impl tracing::Subscriber for Stuck {
    fn enabled(&self, about: &tracing::Metadata<'_>) -> bool {
        about.is_event()
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        sleep_for_ever();
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("in a drop");
    }
}

fn hang(runner: Runner, begin: impl Future<Output = ()>) -> ! {
    leave(runner.run_and_exit(async {
        begin.await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        say("ready");
        pending::<()>().await;
    }))
}

#[test]
fn l46_each_way_to_hang_ends_in_the_budget_and_is_named() {
    let ways = [
        ("hang_blocking", 124),
        ("hang_stdin", 0),
        ("hang_never_yields", 124),
        ("hang_shield", 0),
        ("hang_finalizer", 124),
        ("hang_panic_in_drop", 0),
        ("hang_mutex", 124),
        ("hang_async_mutex", 0),
        ("hang_second_runtime", 124),
        ("hang_leaked_handle", 0),
        ("hang_full_channel", 0),
        ("hang_futurelock", 0),
        ("hang_wedged", 124),
        ("hang_wedged_current_thread", 124),
    ];
    for (way, code) in ways {
        let mut proc = Proc::scene(way);
        proc.expect("ready");
        let asked = Instant::now();
        let end = proc.signal(SIGTERM).exit();
        let took = asked.elapsed();
        assert!(took < BUDGET + Duration::from_millis(500) + SLACK, "{way} took {took:?}: {end:#?}");
        assert_eq!(end.status.code(), Some(code), "{way}: {end:#?}");
        assert!(end.err.contains("`culprit`") && end.err.contains("tests/process/hangs.rs:"), "{way}: {end:#?}");
    }
}

#[test]
fn a_task_that_asks_for_the_stop_and_blocks_takes_no_time_from_the_clean_up() {
    let mut proc = Proc::scene("hang_after_the_request");
    proc.expect_all(["working", "ready"]).expect("cleaned up");
    proc.exit().code(124).said("`culprit`");
}

#[test]
fn the_last_rung_comes_in_time_whatever_becomes_of_those_that_it_tells() {
    for scene in ["hang_reporter_panics", "hang_reporter_hangs", "hang_panic_hook_hangs", "hang_hook_hangs"] {
        let mut proc = Proc::scene(scene);
        proc.expect("ready");
        let asked = Instant::now();
        let end = proc.signal(SIGTERM).exit();
        let took = asked.elapsed();
        assert!(took < BUDGET + Duration::from_millis(500) + SLACK, "{scene} took {took:?}: {end:#?}");
        end.code(124);
    }
}

#[test]
#[cfg(feature = "tracing")]
fn each_press_is_heard_whatever_becomes_of_the_subscriber() {
    let mut proc = Proc::scene("hang_subscriber_hangs");
    proc.expect("ready");
    // Each may be made to wait for a while, and the next is the same press meanwhile.
    for _ in 0..50 {
        if !proc.try_signal(SIGTERM) {
            break;
        }
        thread::sleep(Duration::from_millis(300));
    }
    proc.exit().code(143);
}

#[test]
fn a_run_that_panics_leaves_nobody_behind_who_ends_the_process() {
    let mut proc = Proc::scene("run_panics");
    proc.expect("the run has panicked").expect("the process lives").end().code(0).did_not_say("ending the process");
}

#[test]
fn a_run_that_ends_while_it_is_forced_has_the_status_of_the_force() {
    let mut proc = Proc::scene("force_is_slow");
    proc.expect("ready").signal(SIGQUIT).exit().code(131);
}
