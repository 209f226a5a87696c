//! A line at the terminal while a stop takes long: what is being waited for, how long it may take, and what the next press does.

use std::fmt::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Shutdown;
use crate::host::lock;
use crate::registry;
use crate::report::OneLine;

/// What ends sooner needs no line.
const PATIENCE: Duration = Duration::from_secs(3);

const TICK: Duration = Duration::from_millis(200);

/// Shows the line from a thread of its own, until the run has ended.
pub(super) fn show(shutdown: &Arc<Shutdown>) {
    let shutdown = Arc::clone(shutdown);
    let showing = thread::Builder::new().name("testudo-progress".into()).spawn(move || {
        if shutdown.clock.wait(PATIENCE) {
            return;
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} testudo: {wide_msg}") {
            bar.set_style(style);
        }
        while !shutdown.clock.wait(TICK) {
            bar.set_message(shutdown.progress());
            bar.tick();
        }
        bar.finish_and_clear();
    });
    // Without a thread there is no line.
    drop(showing);
}

impl Shutdown {
    fn progress(&self) -> String {
        let alive = self.run.get().map(|run| registry::alive(&run.root)).unwrap_or_default();
        let names: Vec<&str> = alive.iter().map(|who| who.name().unwrap_or(who.what())).collect();
        let mut shown = OneLine(String::new());
        shown.write_str(&names.join(", ")).unwrap_or_default();
        let left = self.clock.left().map(|left| format!(", {left:.0?} left")).unwrap_or_default();
        let next = lock(&self.machine).next_press();
        // What the terminal has no room for is cut off at the end.
        format!("{}{left}, Ctrl-C {next}; {} alive: {}", self.phase(), names.len(), shown.0)
    }
}
