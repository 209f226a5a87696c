//! The end of all shields of a run at once, when its time is up.

use std::sync::Arc;

use crate::core::cause::{Cause, CauseKind};
use crate::host::{self, Node};
use crate::report::{Event, Subject};

/// Cuts off whatever is shielded inside `root`, as if its budget were used up: shields, and scopes, nurseries and tasks that were raised
/// to one. Finalizers go on, with everything inside them: the time that
/// is left is theirs. The root is cancelled by then, or the shields would hold nothing off.
pub(crate) fn cut_shields(root: &Arc<Node>) {
    let mut next = vec![Arc::clone(root)];
    while let Some(node) = next.pop() {
        if node.is_finalizer() {
            continue;
        }
        if node.is_shielded() && !node.is_requested() {
            cut(&node);
        }
        node.grow_buds();
        next.extend(node.inside().nodes);
    }
}

fn cut(node: &Arc<Node>) {
    // The absorber outside is fixed first: the caller gets no value, and must not be un-cancelled later (M3).
    let holds_off = node.is_rescued() || node.parent().is_some_and(|outside| outside.latch().is_some());
    if holds_off {
        host::report(node, Event::Overran(Subject::of_shield(node)));
        host::cancel(node, Cause::new(CauseKind::Budget));
    }
}
