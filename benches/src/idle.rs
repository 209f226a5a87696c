//! P11: how often the threads of a runtime wake up while all its tasks wait.

use std::time::Duration;
use std::{fs, process, thread};

use testudo::{CancelScope, nursery};
use tokio::time::sleep;

use crate::case::two_workers;

const HOUR: Duration = Duration::from_secs(3600);

/// Wake-ups a second of the runtime's threads while `n` children have an hour to wait, each inside a scope with a deadline; seen by
/// the kernel, so that nothing that wakes can be left out.
pub fn wakeups(n: usize, seconds: u64) -> f64 {
    let rt = two_workers();
    rt.spawn(async move {
        let run = nursery(|nursery| async move {
            for _ in 0..n {
                nursery.spawn(async { drop(CancelScope::new().timeout(HOUR).run(sleep(HOUR)).await) });
            }
        });
        run.await.expect("no child fails");
    });
    thread_sleep(Duration::from_secs(1));
    let before = voluntary_switches();
    thread_sleep(Duration::from_secs(seconds));
    let after = voluntary_switches();
    rt.shutdown_background();
    (after - before) as f64 / seconds as f64
}

#[expect(clippy::disallowed_methods, reason = "this thread is outside of the runtime, and is the one that looks on")]
fn thread_sleep(time: Duration) {
    thread::sleep(time);
}

/// A thread that wakes up has to go to sleep again, which is a voluntary switch. Without those of the main thread, which looks on.
fn voluntary_switches() -> u64 {
    let threads = fs::read_dir("/proc/self/task").expect("Linux lists the threads of a process");
    let others = threads
        .map(|entry| entry.expect("a thread is listed").path())
        .filter(|path| !path.ends_with(process::id().to_string()));
    others
        .filter_map(|path| fs::read_to_string(path.join("status")).ok())
        .filter_map(|status| {
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        })
        .sum()
}
