//! Signal storms: random signals at random times, and each process ends in its budget with the status that the policy says.

use std::env;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use testudo::{FinalizeExt, root_nursery, shutdown_requested, spawn};
use tokio::time::sleep;

use crate::child::{End, Proc};
use crate::scenes::{leave, runner, say};

/// In the gate; `TESTUDO_STORMS` asks for more.
const STORMS: u64 = 50;

/// splitmix64: a seed gives the same storm on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: `{text}`")))
}

/// What a process of a storm does, by its seed.
pub(crate) fn play(scene: &str) {
    if scene != "storm" {
        return;
    }
    let mut random = Random(number("TESTUDO_SEED").expect("the test says it"));
    let mut length = move || Duration::from_millis(random.below(600));
    let mut runner = runner().budget(budget(length())).drain_delay(length() / 8).press_window(length() / 10);
    let hook = length() / 8;
    if hook.as_millis() % 2 == 0 {
        runner = runner.pre_stop(move || sleep(hook));
    }
    let lengths: Vec<Duration> = (0..4).map(|_| length()).collect();
    leave(runner.run_and_exit(async move {
        let n = root_nursery::<String>();
        n.task().name("shielded").shielded(true).spawn(sleep(lengths[0]));
        n.task().name("cleaned").spawn(pending::<()>().on_cancel(sleep(lengths[1])));
        if lengths[2].as_millis() % 2 == 0 {
            let rest = lengths[2];
            n.task().name("graceful").spawn(async move {
                shutdown_requested().await;
                sleep(rest).await;
            });
        }
        if lengths[3].as_millis() % 8 == 0 {
            n.task().name("stuck").spawn_blocking(|_| thread::sleep(Duration::from_secs(3600)));
        }
        spawn(pending::<()>());
        tokio::task::yield_now().await;
        say("ready");
        pending::<()>().await;
    }))
}

fn budget(length: Duration) -> Duration {
    Duration::from_millis(100) + length * 2 / 3
}

/// One storm. Gives how the process ended, and how long after the first request.
fn storm(seed: u64) -> (End, Duration) {
    let seed_text = seed.to_string();
    let mut proc = Proc::scene_with("storm", &[("TESTUDO_SEED", &seed_text)]);
    proc.expect("ready");
    let mut random = Random(!seed);
    let mut asked = None;
    for n in 0..1 + random.below(8) {
        let signal = match random.below(8) {
            0 | 1 => SIGUSR1,
            2 if n > 2 => SIGQUIT,
            2..5 => SIGINT,
            _ => SIGTERM,
        };
        thread::sleep(Duration::from_millis(random.below(60)));
        if signal != SIGUSR1 {
            asked.get_or_insert_with(Instant::now);
        }
        if !proc.try_signal(signal) {
            break;
        }
    }
    let asked = asked.unwrap_or_else(|| {
        proc.try_signal(SIGTERM);
        Instant::now()
    });
    (proc.exit(), asked.elapsed())
}

/// The statuses that what the process has said allows.
fn allowed(err: &str) -> Vec<i32> {
    let code = |who: &str| match who {
        "out of time" => 124,
        "SIGINT" => 130,
        "SIGQUIT" => 131,
        "SIGTERM" => 143,
        other => panic!("forced by {other}"),
    };
    let said = err.lines().filter_map(|line| line.split_once("ending the process now (")?.1.split_once(')'));
    let codes: Vec<i32> = said.map(|(who, _)| code(who)).collect();
    if codes.is_empty() { vec![0] } else { codes }
}

#[test]
fn l41_every_storm_of_signals_ends_in_the_budget_with_the_status_of_the_policy() {
    let first = number("TESTUDO_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20);
    let count = number("TESTUDO_STORMS").unwrap_or(STORMS);
    println!("{count} storms from TESTUDO_SEED={first}");
    let (next, slowest) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(seed) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < count).map(|n| first + n)
                {
                    let (end, took) = storm(seed);
                    let allowed = allowed(&end.err);
                    let code = end.status.code();
                    assert!(
                        code.is_some_and(|code| allowed.contains(&code)),
                        "TESTUDO_SEED={seed}: {allowed:?}, {end:#?}"
                    );
                    assert!(
                        took < budget(Duration::from_millis(600)) + Duration::from_secs(1),
                        "TESTUDO_SEED={seed}: {took:?}, {end:#?}"
                    );
                    slowest.fetch_max(took.as_millis().try_into().expect("short"), Ordering::Relaxed);
                }
            });
        }
    });
    println!("the slowest took {} ms", slowest.into_inner());
}
