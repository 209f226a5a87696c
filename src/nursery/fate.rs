//! What has become of the children of a nursery, and what that does to the others.

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::sync::{Arc, Mutex};

use crate::core::cause::{Cause, CauseKind};
use crate::core::owner::{Erased, Owner};
use crate::error::{Failed, Failure};
use crate::host::{self, Node};
use crate::outcome::Panic;
use crate::policy::Policy;
use crate::report::{Event, Subject};

/// Stands for the failures that the node of a nursery keeps: whoever has a handle on it can do with them what they allow.
pub(super) type Errors<E> = PhantomData<Mutex<Vec<Failure<E>>>>;

/// What the node of a nursery, or of a root, has as such.
pub(super) fn owner(node: &Node) -> &Owner {
    node.owner.as_ref().expect("a nursery owns its children")
}

pub(super) fn policy(node: &Node) -> Policy {
    Policy::from_number(owner(node).policy())
}

/// Before the first poll.
pub(super) fn set_policy(node: &Node, policy: Policy) {
    owner(node).set_policy(policy as usize);
}

/// A child has ended well. True if that cancels the others; [`cancel_losers`] follows when nothing of the child is in their way.
pub(super) fn succeed(node: &Node) -> bool {
    policy(node) == Policy::FirstSuccess && owner(node).succeed()
}

pub(super) fn cancel_losers(node: &Arc<Node>, winner: Arc<str>) {
    host::cancel(node, Cause::by(CauseKind::Succeeded, winner));
}

/// A child has failed, and its failure is the nursery's.
pub(super) fn fail<E: fmt::Display + Send + Sync + 'static>(node: &Arc<Node>, task: Arc<str>, what: Failed<E>) {
    let kind = match &what {
        Failed::Error(_) => CauseKind::Failed,
        Failed::Panic(_) => CauseKind::Panicked,
    };
    keep(node, Failure { task: Arc::clone(&task), what });
    let policy = policy(node);
    let cancels = if kind == CauseKind::Failed { policy.error_cancels() } else { policy.panic_goes_on() };
    if cancels {
        host::cancel(node, Cause::by(kind, task));
    }
}

/// Keeps a failure for the end. One that comes after it is reported: its child was in a last poll while the runtime went down.
fn keep<E: fmt::Display + Send + Sync + 'static>(node: &Node, failure: Failure<E>) {
    let mut failures = owner(node).failures.lock();
    if !failures.is_over {
        typed(&mut failures.all).push(failure);
        return;
    }
    drop(failures);
    report_all(node, &[failure]);
}

/// Takes the failures out, at the end.
pub(super) fn take<E: Send + Sync + 'static>(node: &Node) -> Vec<Failure<E>> {
    let mut failures = owner(node).failures.lock();
    failures.is_over = true;
    let mut all = failures.all.take();
    drop(failures);
    if all.is_some() { mem::take(typed(&mut all)) } else { Vec::new() }
}

/// The failures as what they are, made if there were none. Handles on a root differ in their type, but under its policy it has none.
fn typed<E: Send + Sync + 'static>(failures: &mut Option<Erased>) -> &mut Vec<Failure<E>> {
    let failures = failures.get_or_insert_with(|| Box::new(Vec::<Failure<E>>::new()));
    failures.downcast_mut().expect("the children of a nursery fail with one type of error")
}

/// Reports failures that the nursery can not return, because its caller is gone or unwinds (L31).
pub(super) fn report_all<E: fmt::Display>(node: &Node, failures: &[Failure<E>]) {
    // Where the first success counts, the errors of the others do not.
    let is_won = policy(node) == Policy::FirstSuccess && owner(node).has_succeeded();
    for failure in failures.iter().filter(|failure| !is_won || matches!(failure.what, Failed::Panic(_))) {
        let who = Subject::child_of(node, &failure.task);
        let event = match &failure.what {
            Failed::Error(error) => Event::Failed(who, error.to_string().into()),
            Failed::Panic(panic) => Event::Panicked(who, panic.message().into()),
        };
        host::report(node, event);
    }
}

/// The first panic among failures, if the policy says that it goes on.
pub(super) fn panic_of<E>(failures: &[Failure<E>]) -> Option<Panic> {
    failures.iter().find_map(|failure| match &failure.what {
        Failed::Panic(panic) => Some(panic.clone()),
        Failed::Error(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;
    use crate::core::node::{Info, Kind, Node as CoreNode};

    #[tokio::test]
    async fn what_fails_after_the_end_is_reported_and_not_kept() {
        let (root, info) = (host::root(), Info::new(Kind::Nursery, Location::caller(), 0));
        let node = CoreNode::child(&root, info, false, Some(Owner::new(0)));
        let reported = || root.host().expect("a root has one").claim().0.len();
        let fail = |task: &str| fail(&node, task.into(), Failed::Error(Arc::new("boom")));
        fail("in time");
        assert_eq!((reported(), take::<&str>(&node).len()), (0, 1));
        fail("late");
        assert_eq!((reported(), take::<&str>(&node).len()), (1, 0));
    }
}
