//! Races around a task without a frame: who looks into it, who cancels it, how it ends.

use std::panic::Location;
use std::task::Waker;

use super::super::frame::Verdict;
use super::super::node::{self, Leaf, TaskKey};
use super::super::sync::{Arc, model};
use super::{Bell, Frame, Hold, Node, Poller, WakerId, cause, join, nursery, root, scope, spawn};

type LeafSeat<'a> = node::LeafSeat<'a, ()>;
type Member = node::Member<()>;

/// A task that is polled as `Child` does: as a leaf until it finds that it has a frame.
struct Task {
    home: Arc<Node>,
    key: TaskKey,
    bell: Arc<Bell>,
    waker: Waker,
    armed: bool,
    /// From the poll on that has found the frame.
    framed: Option<Poller>,
}

impl Task {
    /// A task in the list of `home`, as a spawn leaves it.
    fn listed(home: &Arc<Node>) -> (Self, Arc<Member>) {
        let (key, member) = home.add_leaf(Leaf::new(1, Location::caller(), 0));
        let (bell, waker) = Bell::new();
        let home = Arc::clone(home);
        (Self { home, key, bell, waker, armed: false, framed: None }, Arc::new(member))
    }

    /// One poll in which nothing holds the task. True if it is cut by that.
    fn poll(&mut self) -> bool {
        if let Some(frame) = self.home.made_frame(self.key) {
            return self.poll_framed(frame);
        }
        let saw_cancel = self.home.is_cancelled();
        if saw_cancel && self.home.cut().is_some() {
            return true;
        }
        if self.armed {
            return false;
        }
        if let Some(frame) = self.home.arm_leaf(self.key, &self.waker) {
            // It goes on as a frame at the end of this poll.
            return self.poll_framed(frame);
        }
        self.armed = true;
        // It was not when it was to be cut, or has not been since the poll began.
        if self.home.is_cancelled() {
            self.waker.wake_by_ref();
        }
        false
    }

    fn poll_framed(&mut self, frame: Arc<Frame>) -> bool {
        let (bell, waker) = (Arc::clone(&self.bell), self.waker.clone());
        let poller = self.framed.insert(Poller { frame, bell, waker, armed: false, saw_it: false });
        poller.poll(&mut []) == Some(Verdict::Cut)
    }

    /// Polls as often as it is woken; true if it has been cut.
    fn settle(&mut self, mut is_cut: bool) -> bool {
        while !is_cut && self.bell.take() {
            is_cut = match &mut self.framed {
                Some(poller) => poller.poll(&mut []) == Some(Verdict::Cut),
                None => self.poll(),
            };
        }
        is_cut
    }

    /// Its end, as its nursery sees it.
    fn end(&self, home: &Node) {
        if let Some(frame) = home.remove_task(self.key, || None) {
            frame.end_task();
        }
    }
}

fn cancel_alone(member: &Arc<Member>) -> bool {
    member.frame().is_some_and(|frame| frame.cancel_task(cause))
}

#[test]
fn a_leaf_whose_nursery_is_cancelled_is_woken_or_sees_it() {
    model(|| {
        let home = nursery(&root());
        let (mut task, _) = Task::listed(&home);
        let cancel = spawn(&home, |home| home.cancel(cause()));
        let first = task.poll();
        join(cancel);
        assert!(task.settle(first), "a wake was lost");
    });
}

#[test]
fn a_leaf_that_is_cancelled_alone_is_woken_or_sees_it() {
    model(|| {
        let home = nursery(&root());
        let (mut task, member) = Task::listed(&home);
        let cancel = spawn(&member, cancel_alone);
        let first = task.poll();
        let second = first || task.poll();
        assert!(join(cancel), "it has not ended");
        assert!(task.settle(second), "a wake was lost");
        assert!(!home.is_cancelled());
    });
}

#[test]
fn a_leaf_that_becomes_a_frame_while_its_nursery_is_cancelled_is_woken_or_sees_it() {
    model(|| {
        let home = nursery(&root());
        let (mut task, member) = Task::listed(&home);
        let first = task.poll();
        let cancel = spawn(&home, |home| home.cancel(cause()));
        let look = spawn(&member, |member| member.frame());
        join(cancel);
        assert!(join(look).is_some_and(|frame| frame.is_cancelled()));
        assert!(task.settle(first), "a wake was lost");
    });
}

/// As long as a shield may un-cancel its nursery.
#[test]
fn a_leaf_that_was_woken_by_a_cancel_that_is_taken_back_is_woken_by_the_next() {
    model(|| {
        let outer = scope(&root());
        let home = nursery(&outer);
        let (mut task, _) = Task::listed(&home);
        let first = task.poll();
        let cancel = spawn(&outer, |outer| outer.cancel(cause()));
        home.set_shielded(true);
        join(cancel);
        let second = task.settle(first);
        home.cancel(cause());
        assert!(task.settle(second), "a wake was lost");
    });
}

/// It is cancelled when its first poll begins, goes on because it is not when it would be cut, and is cancelled again before it is armed.
#[test]
fn a_leaf_that_is_cancelled_again_after_a_shield_was_raised_is_woken_or_cut() {
    model(|| {
        let outer = scope(&root());
        let home = nursery(&outer);
        outer.cancel(cause());
        let (mut task, _) = Task::listed(&home);
        let raise = spawn(&home, |home| home.set_shielded(true));
        let lower = spawn(&home, |home| home.set_shielded(false));
        let first = task.poll();
        join(raise);
        join(lower);
        assert!(task.settle(first) || !home.is_cancelled(), "a wake was lost");
    });
}

#[test]
fn a_leaf_whose_waker_another_cancel_has_taken_is_woken_by_that() {
    model(|| {
        let outer = scope(&root());
        let home = nursery(&outer);
        let (mut task, member) = Task::listed(&home);
        let first = task.poll();
        let above = spawn(&outer, |outer| outer.cancel(cause()));
        let alone = spawn(&member, cancel_alone);
        home.cancel(cause());
        let second = task.settle(first);
        join(above);
        join(alone);
        assert!(task.settle(second), "a wake was lost");
    });
}

#[test]
fn two_that_look_into_a_leaf_and_the_leaf_itself_get_one_frame() {
    model(|| {
        let home = nursery(&root());
        let (task, member) = Task::listed(&home);
        let one = spawn(&member, |member| member.frame().expect("it has not ended"));
        let two = spawn(&member, |member| member.frame().expect("it has not ended"));
        let own = task.home.grow_leaf(task.key, false).expect("it has not ended");
        assert!(Arc::ptr_eq(&own, &join(one)) && Arc::ptr_eq(&own, &join(two)));
    });
}

#[test]
fn a_leaf_that_ends_while_it_is_cancelled_alone_leaves_nothing_behind() {
    model(|| {
        let home = nursery(&root());
        let (task, member) = Task::listed(&home);
        let cancel = spawn(&member, cancel_alone);
        task.end(&home);
        join(cancel);
        let node::Inside { nodes, members, .. } = home.inside();
        assert!(nodes.is_empty() && members.is_empty(), "{nodes:?}");
        assert!(member.has_ended() && !cancel_alone(&member), "it has ended");
    });
}

/// The place of one that has ended is given to the next.
#[test]
fn who_knows_a_leaf_that_has_ended_does_not_cancel_the_next_in_its_place() {
    model(|| {
        let home = nursery(&root());
        let (task, member) = Task::listed(&home);
        let cancel = spawn(&member, cancel_alone);
        task.end(&home);
        let (key, known) = home.add_leaf(Leaf::new(2, Location::caller(), 0));
        assert_eq!(key, task.key);
        join(cancel);
        let next = LeafSeat::new(&home, key, false);
        assert!(!next.is_cancelled() && !known.has_ended());
        assert!(member.has_ended());
    });
}

#[test]
fn a_leaf_that_is_looked_into_in_a_cancelled_poll_counts_what_holds_it_from_there_on() {
    model(|| {
        let home = nursery(&root());
        let (task, member) = Task::listed(&home);
        home.cancel(cause());
        let other = spawn(&member, |member| member.frame());
        let frame = task.home.grow_leaf(task.key, true).expect("it has not ended");
        let mut hold = Hold::default();
        hold.renew(Arc::clone(&frame), WakerId::of(&task.waker), &task.waker);
        assert!(frame.is_held_in_this_poll());
        assert_eq!(frame.judge(false), Verdict::Held);
        drop(hold);
        assert_eq!(frame.judge(false), Verdict::Cut);
        join(other);
    });
}
