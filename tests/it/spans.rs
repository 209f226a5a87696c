//! What the feature `tracing` writes.

use std::future::pending;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testudo::{CancelScope, drain, nursery, shield};
use tokio::time::{sleep, timeout};
use tracing::instrument::WithSubscriber;
use tracing::{Instrument, info, info_span};

const SECOND: Duration = Duration::from_secs(1);

/// Lines that were written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Everything that `program` writes, on its own thread and runtime, so that other tests write elsewhere.
    fn of(program: impl Future<Output = ()>) -> String {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(program.with_current_subscriber());
        });
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }
}

fn line<'a>(log: &'a str, with: &str) -> &'a str {
    log.lines().find(|line| line.contains(with)).unwrap_or_else(|| panic!("no line with {with:?} in:\n{log}"))
}

#[test]
fn a_child_runs_in_a_span_with_its_name_inside_that_of_its_spawner() {
    let log = Log::of(async {
        let run = nursery(|n| async move {
            n.task().name("writer").spawn(async { info!("in the child") });
        });
        run.instrument(info_span!("request")).await.unwrap();
    });
    let line = line(&log, "in the child");
    assert!(line.contains("request") && line.contains("name=\"writer\"") && line.contains("spans.rs:"), "{line}");
}

#[test]
fn a_rescued_shield_keeps_the_span_of_its_first_poll() {
    let log = Log::of(async {
        let write = shield(async {
            sleep(2 * SECOND).await;
            info!("written");
        });
        let caller = timeout(SECOND, write).instrument(info_span!("request", id = 7));
        assert!(caller.await.is_err());
        assert!(drain(10 * SECOND).await.is_clean());
    });
    assert!(line(&log, "written").contains("request{id=7}"), "{log}");
}

#[test]
fn a_cancel_and_an_overrun_are_events() {
    let log = Log::of(async {
        let run = CancelScope::new().timeout(SECOND).run(shield(pending::<()>()).name("stuck").budget(SECOND));
        assert!(run.await.is_err());
    });
    assert!(line(&log, "cancelled").contains("deadline passed"), "{log}");
    assert!(line(&log, "stuck").contains("WARN"), "{log}");
}
