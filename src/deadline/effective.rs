//! The deadline that applies to the code that asks.

use std::sync::Arc;

use tokio::time::Instant;

use super::check;
use crate::clock::{self, Ticks};
use crate::core::node::Kind;
use crate::current;
use crate::host::Node;

/// The time by which the code that asks will have been cancelled, as far as deadlines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectiveDeadline {
    /// No deadline applies.
    None,
    /// The earliest deadline that applies.
    At(Instant),
    /// It is cancelled already.
    Cancelled,
}

/// Returns the earliest deadline of the scopes around this code, up to and including the innermost shield.
///
/// To hand on to peers, as in a request's timeout header. "Already cancelled" and "none" are values of their own (trio's
/// `current_effective_deadline`).
pub fn current_deadline() -> EffectiveDeadline {
    let node = current::timed_node();
    if node.is_cancelled() {
        return EffectiveDeadline::Cancelled;
    }
    match effective(&node) {
        None => EffectiveDeadline::None,
        Some(at) => EffectiveDeadline::At(clock::instant(at)),
    }
}

fn effective(node: &Arc<Node>) -> Option<Ticks> {
    visible(node).filter_map(|node| node.deadline()).min()
}

/// This node and those around it, up to and including the innermost shield that is not open here.
fn visible(node: &Arc<Node>) -> impl Iterator<Item = Arc<Node>> {
    let mut opened = None;
    std::iter::successors(Some(Arc::clone(node)), move |node| {
        if node.info.kind == Kind::Exposed {
            opened = node.outside().or(opened.take());
        }
        // The view from outside a shield is what is next around it.
        let is_open = |parent: &_| !node.is_shielded() || opened.as_ref().is_some_and(|open| Arc::ptr_eq(open, parent));
        node.parent().filter(is_open)
    })
}

/// Fires the deadlines around this code that have passed but were not looked at yet (T15).
pub(crate) fn check_current() {
    let node = current::timed_node();
    if visible(&node).any(|node| node.deadline().is_some()) {
        let now = clock::now();
        visible(&node).for_each(|node| check(&node, now));
    }
}
