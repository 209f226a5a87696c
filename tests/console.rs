//! A program at a console: `cargo xtask windows` plays it under wine, types Ctrl-C, and looks at what it says and how it ends.

use std::future::pending;
use std::io::Write;
use std::pin::pin;
use std::process::{ExitCode, exit};
use std::thread;
use std::time::Duration;

use testudo::{Reporter, Runner, catch_cancelled, shield, shutdown_requested, spawn};

/// Plays the scene that the environment names; without one there is nothing to do.
#[test]
fn actor() {
    let Ok(scene) = std::env::var("TESTUDO_SCENE") else { return };
    let runner = Runner::new().reporter(Reporter::stderr());
    let code = match scene.as_str() {
        "finishes" => runner.run_and_exit(worker(true)),
        "is_cancelled" => runner.run_and_exit(worker(false)),
        "is_forced" => runner.run_and_exit(async {
            spawn(shield(pending::<()>()).name("payment"));
            worker(false).await;
        }),
        "is_wedged" => runner.current_thread().budget(Duration::from_secs(1)).run_and_exit(async {
            say("ready");
            loop {
                thread::park();
            }
        }),
        other => panic!("no scene {other}"),
    };
    leave(code);
}

/// Takes part in the graceful phase, and finishes then, or waits for ever.
async fn worker(finishes: bool) {
    let mut asked = pin!(shutdown_requested());
    tokio::select! {
        biased;
        _ = &mut asked => {}
        () = async { say("ready") } => {}
    }
    say(&format!("asked by {}", asked.await));
    if !finishes && catch_cancelled(pending::<()>()).await.is_err() {
        say("cancelled");
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // If nobody reads any more, the play is over.
    drop(out.write_all(format!("@ {line}\n").as_bytes()).and_then(|()| out.flush()));
}

/// Ends the process as a program does that returns `code` from its main.
fn leave(code: ExitCode) -> ! {
    let number = (0..=255).find(|&number| format!("{:?}", ExitCode::from(number)) == format!("{code:?}"));
    #[expect(clippy::disallowed_methods, reason = "a test harness is around this main")]
    exit(number.expect("a status is a byte").into())
}
