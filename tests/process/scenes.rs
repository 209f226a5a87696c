//! The scenes: small programs that this binary plays as a child of its own tests.

use std::future::pending;
use std::io::{BufRead, Write};
use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal as Sig, kill};
use nix::unistd::getpid;
use testudo::{
    ExitPolicy, FinalizeExt, Outcome, Reporter, Runner, Signal, catch_cancelled, checkpoint, is_cancelled, nursery,
    root_nursery, shield, spawn,
};
use tokio::time::sleep;

use crate::child::MARK;

/// Plays the scene that the environment names; without one there is nothing to do.
#[test]
fn actor() {
    let Ok(scene) = std::env::var("TESTUDO_SCENE") else { return };
    match scene.as_str() {
        "value" => value(),
        "stopped" => stopped(),
        "wait_for" => wait_for(runner()),
        "burst" => burst(),
        "blockers" => blockers(),
        "at_once" => at_once(),
        "before_main" => before_main(),
        "first_poll" => first_poll(),
        "wedged" => wedged(runner().worker_threads(2)),
        "wedged_current_thread" => wedged(runner().current_thread()),
        "busy" => busy(),
        "after" => after(),
        "after_exit" => after_exit(),
        "before_exit" => before_exit(),
        "twice" => twice(),
        "caught" => caught(),
        "beside" => beside(),
        "no_signals" => no_signals(),
        "main_fails" => leave(runner().run_and_exit(async { Err::<(), _>("no luck") })),
        "main_panics" => leave(runner().run_and_exit(async { unlucky() })),
        "main_is_cancelled" => main_is_cancelled(),
        "main_returns_ok" => leave(runner().run_and_exit(async { Ok::<_, String>(7) })),
        "own_handler" => own_handler(),
        "own_ladder" => own_ladder(),
        "bad_handler" => bad_handler(),
        "bad_hook" => wait_for(runner().on_stop(|_| panic!("the hook panics"))),
        "bad_reporter" => wait_for(runner().reporter(Reporter::new(|_| panic!("the reporter panics")))),
        "full_stderr" => full_stderr(),
        "two_runs" => two_runs(),
        "finalizer" => finalizer(),
        "drained" => drained(),
        "tasks_fail" => tasks_fail(),
        "main_panics_late" => main_panics_late(),
        "full_stdout" => full_stdout(),
        "root_daemon" => root_daemon(),
        "silent" => wait_for(runner().reporter(None)),
        "same_signal_twice" => same_signal_twice(),
        "two_kinds" => two_kinds(),
        "cancelled_then_stopped" => cancelled_then_stopped(),
        "enduring" => enduring(),
        "hook" => hook(),
        "bad_hook_and_main" => bad_hook_and_main(),
        "last_word" => wait_for(runner().on_force(|| say("the last word"))),
        "stop_quiet" => crate::stop::quiet(),
        other => {
            crate::hangs::play(other);
            crate::stop::play(other);
            crate::storm::play(other);
            #[cfg(all(target_os = "linux", feature = "systemd"))]
            crate::systemd::play(other);
            panic!("no scene {other}, or it has ended");
        }
    }
}

pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // In one write: the harness around us prints as well. If nobody reads any more, the test is over.
    drop(out.write_all(format!("\n{MARK}{line}\n").as_bytes()).and_then(|()| out.flush()));
}

pub(crate) fn read_line() -> String {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("the test holds the other end");
    line
}

/// A runner that says all on stderr, also that it stops: the tests wait for it.
pub(crate) fn runner() -> Runner {
    Runner::new().reporter(Reporter::stderr())
}

fn unlucky() {
    panic!("no luck");
}

/// Ends the process as a program does that returns `code` from its main.
pub(crate) fn leave(code: ExitCode) -> ! {
    let code = format!("{code:?}");
    let number = (0..=255).find(|&number| format!("{:?}", ExitCode::from(number)) == code);
    exit(number.expect("a status is a byte").into())
}

/// Says what keeps a stop waiting for ever: a task by the name, and its place.
fn stuck(name: &'static str) {
    root_nursery::<String>().task().name(name).spawn(shield(pending::<()>()));
    say(&format!("{name} at {}:{}", file!(), line!() - 1));
}

fn value() {
    let finished = runner().run(async { Ok::<_, String>(6 * 7) });
    say(&format!("{:?}", finished.outcome));
}

fn stopped() {
    let finished = runner().run(async {
        say("ready");
        sleep(Duration::from_secs(3600)).await;
    });
    let Outcome::Cancelled(cause) = finished.outcome else { panic!("{:?}", finished.outcome) };
    say(&format!("{:?}: {:?}", cause.kind(), cause.reason()));
}

/// Two shields without end, and a task that stops.
fn wait_for(runner: Runner) -> ! {
    leave(runner.run_and_exit(async {
        spawn(async {
            drop(catch_cancelled(pending::<()>()).await);
            say("stopped");
        });
        stuck("payment");
        stuck("journal");
        tokio::task::yield_now().await;
        say("ready");
        pending::<()>().await;
    }))
}

/// A shield that ends when the test says so.
fn burst() -> ! {
    leave(runner().run_and_exit(async {
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        thread::spawn(move || {
            read_line();
            go.send(()).expect("the shield waits");
        });
        spawn(shield(async {
            say("ready");
            gone.await.expect("sent");
            say("done");
        }));
        pending::<()>().await;
    }))
}

/// All kinds of what can be waited for.
fn blockers() -> ! {
    leave(runner().run_and_exit(async {
        let n = root_nursery::<String>();
        let place = |what: &str, line: u32| say(&format!("{what} at {}:{line}", file!()));
        n.task().name("copying").spawn_blocking(|_| thread::sleep(Duration::from_secs(3600)));
        place("copying", line!() - 1);
        n.task().name("holder").shielded(true).spawn(pending::<()>());
        place("holder", line!() - 1);
        let named = shield(pending::<()>()).name("write");
        place("write", line!() - 1);
        drop(tokio::time::timeout(Duration::from_millis(1), named).await);
        n.spawn(async {
            nursery(|inner| async move {
                inner.task().name("grandchild").spawn(shield(pending::<()>()));
            })
            .await
            .map_err(|error| error.to_string())
        });
        place("grandchild", line!() - 5);
        tokio::task::yield_now().await;
        say("ready");
        pending::<()>().await;
    }))
}

fn at_once() -> ! {
    wait_for(runner().press_window(Duration::ZERO))
}

/// A thread sends SIGINT as soon as it sees the handler, while the run is still on its way to main.
fn before_main() {
    thread::spawn(|| {
        let caught = || {
            let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
            u64::from_str_radix(mask.trim(), 16).expect("a mask") & 2 != 0
        };
        while !caught() {}
        // To the process, not to this thread.
        kill(getpid(), Sig::SIGINT).expect("it is us");
    });
    let finished = runner().run(async {
        say("main is polled");
        pending::<()>().await;
    });
    let Outcome::Cancelled(cause) = finished.outcome else { panic!("{:?}", finished.outcome) };
    say(&format!("{:?}", cause.kind()));
}

/// The signal comes while main is in its first poll: it has that poll to its end, and one of its own to see the cancel.
fn first_poll() {
    let finished = runner().run(async {
        say("main is polled");
        read_line();
        while !is_cancelled() {
            thread::yield_now();
        }
        say("cancelled in its first poll");
        let kept = shield(async { tokio::task::yield_now().await });
        kept.await;
        say("the shield held");
        checkpoint().await;
        say("not reached");
    });
    assert!(finished.outcome.is_cancelled(), "{:?}", finished.outcome);
    say("over");
}

/// Every thread of the runtime blocks, main's too.
fn wedged(runner: Runner) -> ! {
    leave(runner.run_and_exit(async {
        for name in ["wedge-1", "wedge-2"] {
            root_nursery::<String>().task().name(name).spawn(async {
                thread::sleep(Duration::from_secs(3600));
            });
        }
        // Both workers take one, unless main has the only thread.
        thread::sleep(Duration::from_millis(100));
        say("ready");
        thread::sleep(Duration::from_secs(3600));
    }))
}

/// Every thread of the runtime is busy inside of the tree's own calls.
fn busy() -> ! {
    leave(runner().worker_threads(2).run_and_exit(async {
        for _ in 0..3 {
            spawn(async {
                loop {
                    drop(testudo::all_tasks());
                    drop(testudo::cancel("nobody", "busy"));
                    std::hint::black_box(is_cancelled());
                }
            });
        }
        say("ready");
        loop {
            drop(testudo::find("nobody"));
        }
    }))
}

fn after() -> ! {
    let finished = runner().run(async {});
    assert!(finished.outcome.is_ok());
    say("ready");
    thread::sleep(Duration::from_secs(3600));
    exit(99)
}

fn after_exit() -> ! {
    let code = runner().run_and_exit(async {});
    say("ready");
    read_line();
    leave(code)
}

fn before_exit() -> ! {
    let runner = runner().exit_policy(ExitPolicy::Signal);
    let (finished, exit) = runner.run_to_exit(async {
        say("ready");
        std::future::pending::<()>().await;
    });
    assert!(finished.outcome.is_cancelled());
    say("over");
    if read_line() == "leave\n" {
        say("the last line");
        leave(exit.leave())
    }
    drop(exit);
    say("dropped");
    thread::sleep(Duration::from_secs(3600));
    std::process::exit(99)
}

fn twice() {
    for _ in 0..2 {
        let finished = runner().run(async {
            say("ready");
            pending::<()>().await;
        });
        assert!(finished.outcome.is_cancelled());
        say("over");
    }
}

/// The program listened before the run, so after it a signal is still the program's.
fn caught() {
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("can build");
    let listen = || tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
    let mut interrupt = own.block_on(async { listen() }).expect("can listen");
    assert!(runner().run(async {}).outcome.is_ok());
    say("ready");
    own.block_on(interrupt.recv());
    say("caught");
}

/// The program listens beside the runner; both get each signal.
fn beside() -> ! {
    leave(runner().run_and_exit(async {
        let heard = shield(async {
            let mut interrupt =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).expect("can listen");
            say("ready");
            interrupt.recv().await;
            say("heard it");
        });
        heard.await;
        testudo::cancelled().await;
        say("cancelled as well");
    }))
}

fn no_signals() -> ! {
    leave(runner().signals(false).run_and_exit(async {
        say("ready");
        pending::<()>().await;
    }))
}

fn main_is_cancelled() -> ! {
    leave(runner().run_and_exit(async {
        spawn(async { assert!(testudo::cancel("main", "no more need").expect("one main")) });
        pending::<()>().await;
    }))
}

/// No rung unless the handler asks.
fn own_handler() -> ! {
    let (send, mut presses) = tokio::sync::mpsc::unbounded_channel();
    let runner = runner()
        .press_window(Duration::ZERO)
        .on_signal(Signal::Interrupt, move |stop| send.send(stop.signal()).expect("main listens"));
    leave(runner.run_and_exit(async move {
        say("ready");
        for _ in 0..4 {
            let signal = presses.recv().await;
            say(&format!("{signal:?}, cancelled: {}", is_cancelled()));
        }
    }))
}

fn own_ladder() -> ! {
    wait_for(runner().press_window(Duration::ZERO).on_signal(Signal::User1, |stop| stop.escalate()))
}

fn bad_handler() -> ! {
    static FIRST: AtomicBool = AtomicBool::new(true);
    wait_for(runner().on_signal(Signal::Interrupt, |stop| {
        if FIRST.swap(false, Ordering::Relaxed) {
            panic!("the handler panics");
        }
        stop.escalate();
    }))
}

/// A thread hangs in a write to stderr, and has its lock.
fn full_stderr() -> ! {
    thread::spawn(|| {
        loop {
            eprintln!("more than anybody reads");
        }
    });
    thread::sleep(Duration::from_millis(200));
    wait_for(runner())
}

/// A daemon that never ends, in a run that waits for all tasks.
fn root_daemon() {
    let finished = runner().wait_for_tasks(true).run(async {
        root_nursery::<String>().task().daemon().spawn(pending::<()>());
        spawn(async {
            sleep(Duration::from_millis(20)).await;
            say("task ends");
        });
    });
    assert!(finished.outcome.is_ok());
}

/// Two threads, each with a run: a signal stops both.
fn two_runs() {
    let one = || {
        let finished = runner().current_thread().run(async {
            say("ready");
            pending::<()>().await;
        });
        assert!(finished.outcome.is_cancelled());
        say("over");
    };
    thread::scope(|scope| {
        scope.spawn(one);
        scope.spawn(one);
    });
}

/// The clean-up of main awaits.
fn finalizer() -> ! {
    let main = async {
        say("ready");
        pending::<()>().await;
    };
    leave(runner().run_and_exit(main.on_cancel(async {
        sleep(Duration::from_millis(100)).await;
        say("cleaned up");
    })))
}

/// Main returns while shields run, one of them in a task that only Tokio knows.
fn drained() {
    let finished = runner().run(async {
        let (started, has_started) = tokio::sync::oneshot::channel();
        let plain = shield(async {
            started.send(()).expect("main waits");
            sleep(Duration::from_millis(300)).await;
            say("plain task is done");
        });
        drop(tokio::runtime::Handle::current().spawn(plain));
        has_started.await.expect("sent");
        let rescued = shield(async {
            sleep(Duration::from_millis(100)).await;
            say("rescued shield is done");
        });
        assert!(tokio::time::timeout(Duration::from_millis(10), rescued).await.is_err());
        say("main is done");
    });
    say("run has returned");
    assert!(finished.report.is_clean(), "{}", finished.report);
}

/// Nobody holds the handles.
fn tasks_fail() -> ! {
    leave(runner().run_and_exit(async {
        let n = root_nursery::<String>();
        n.task().name("unlucky").spawn(async { unlucky() });
        n.task().name("failing").spawn(async { Err::<(), _>("no disk".to_owned()) });
        sleep(Duration::from_millis(50)).await;
        say("main goes on");
    }))
}

fn main_panics_late() -> ! {
    leave(runner().run_and_exit(async {
        spawn(shield(async {
            sleep(Duration::from_millis(200)).await;
            say("shield is done");
        }));
        tokio::task::yield_now().await;
        unlucky();
    }))
}

/// Every thread hangs in a write to stdout, and one has its lock.
fn full_stdout() -> ! {
    leave(runner().worker_threads(1).run_and_exit(async {
        say("ready");
        for _ in 0..2 {
            spawn(async {
                loop {
                    println!("more than anybody reads");
                }
            });
        }
        loop {
            println!("more than anybody reads");
        }
    }))
}

fn same_signal_twice() -> ! {
    let (send, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let runner = runner()
        .on_signal(Signal::User1, |_| say("first handler"))
        .on_signal(Signal::User1, move |_| send.send(()).expect("main listens"));
    let finished = runner.run(async {
        say("ready");
        heard.recv().await;
        say("second handler");
    });
    assert!(finished.outcome.is_ok());
    say("over");
    thread::sleep(Duration::from_secs(3600));
    exit(99)
}

/// Runs what is given when the test has typed a line.
fn when_told(then: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        read_line();
        then();
    });
}

/// A handler for each of two signals; ends when the test says so.
fn two_kinds() -> ! {
    let kinds = [Signal::User1, Signal::User2].into_iter();
    let runner = kinds.fold(runner().press_window(Duration::ZERO), |runner, kind| {
        runner.on_signal(kind, |stop| say(&format!("{:?}", stop.signal())))
    });
    leave(runner.run_and_exit(async {
        let (go, gone) = tokio::sync::oneshot::channel();
        when_told(|| go.send(()).unwrap_or_default()); // Main may have been stopped meanwhile.
        say("ready");
        gone.await.expect("sent");
    }))
}

/// Main cancels itself, and its clean-up ends when the test says so.
fn cancelled_then_stopped() {
    let (go, gone) = tokio::sync::oneshot::channel();
    when_told(|| go.send(()).expect("the clean-up waits"));
    let main = async {
        spawn(async {
            drop(catch_cancelled(pending::<()>()).await);
            say("stopped");
        });
        assert!(testudo::cancel("main", "no more need").expect("one main"));
        pending::<()>().await;
    };
    let finished = runner().run(main.on_cancel(async {
        say("cleaning up");
        gone.await.expect("sent");
    }));
    let Outcome::Cancelled(cause) = finished.outcome else { panic!("{:?}", finished.outcome) };
    say(&format!("{:?}", cause.kind()));
}

/// Shielded work, begun in each of the ways; ends when the test says so.
fn enduring() -> ! {
    leave(runner().run_and_exit(async {
        let (go, gone) = tokio::sync::watch::channel(false);
        when_told(move || go.send(true).expect("the works wait"));
        let work = |name: &'static str| {
            let mut gone = gone.clone();
            shield(async move {
                say(&format!("{name} begins"));
                gone.wait_for(|gone| *gone).await.expect("sent");
                say(&format!("{name} is done"));
            })
        };
        spawn(work("task"));
        drop(tokio::runtime::Handle::current().spawn(work("plain task")));
        work("awaited").await;
    }))
}

async fn told_of_the_stop() {
    say("ready");
    drop(catch_cancelled(pending::<()>()).await);
}

fn hook() -> ! {
    let runner = runner().on_stop(|cause| say(&format!("hook: {:?}", cause.reason())));
    leave(runner.run_and_exit(async {
        told_of_the_stop().await;
        say("main is cancelled");
    }))
}

fn bad_hook_and_main() -> ! {
    let runner = runner().on_stop(|_| panic!("the hook panics"));
    leave(runner.run_and_exit(async {
        told_of_the_stop().await;
        Err::<(), _>("main fails")
    }))
}
