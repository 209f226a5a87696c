//! P6: what it costs to cover work.

use std::future::{Future, ready};
use std::time::Duration;

use testudo::{Shield, shield, shield_scoped};

use super::{OURS, pass, turns};
use crate::case::Case;

/// Work that survives the drop of its caller, and is ready at once.
pub const READY: &str = "shield, ready";
/// Work that survives the drop of its caller, with one suspension.
pub const YIELD: &str = "shield, one yield";
/// Work that borrows, and is ready at once.
pub const BORROWED: &str = "borrowed shield, ready";
/// A task for the work.
pub const SPAWN: &str = "spawn(f).await";

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        turns(READY, OURS, |_| covered(ready(()))),
        turns(READY, SPAWN, |_| tokio::spawn(ready(()))),
        turns(YIELD, OURS, |_| covered(pass())),
        turns(YIELD, SPAWN, |_| tokio::spawn(pass())),
        turns(BORROWED, OURS, |_| shield_scoped(ready(()))),
    ]
}

/// With a name and a budget, as in a program.
fn covered<F>(fut: F) -> Shield<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    shield(fut).name("payment").budget(Duration::from_secs(20))
}
