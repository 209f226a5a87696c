//! Races around a task: who cancels it alone, when it gets a node of its own, who reports its end.

use std::task::{Wake, Waker};

use super::super::frame::Verdict;
use super::super::node::{Kind, TaskKey};
use super::super::sync::{Arc, AtomicUsize, Ordering, model};
use super::super::task::{TaskInfo, Traits};
use super::{Frame, Node, Poller, cause, info, join, nursery, root, spawn};

fn task_info() -> TaskInfo {
    TaskInfo::new(1, info(Kind::Task), Traits::default())
}

/// A task in the list of `home`, as a spawn leaves it.
fn task(home: &Arc<Node>) -> (Arc<Frame>, TaskKey) {
    let frame = Frame::of_task(Arc::clone(home), true, task_info());
    let key = home.add_task(&frame);
    (frame, key)
}

#[test]
fn two_that_branch_a_task_get_one_node() {
    model(|| {
        let home = nursery(&root());
        let (frame, _) = task(&home);
        let other = spawn(&frame, Frame::branch);
        let mine = frame.branch();
        assert!(Arc::ptr_eq(&mine, &join(other)));
        assert_eq!(home.inside().nodes.len(), 1);
    });
}

#[test]
fn a_task_that_is_cancelled_alone_is_woken_or_sees_it() {
    model(|| {
        let home = nursery(&root());
        let (frame, _) = task(&home);
        let mut poller = Poller::new(Arc::clone(&frame));
        let cancel = spawn(&frame, |frame| assert!(frame.cancel_task(cause)));
        let first = poller.poll(&mut []);
        join(cancel);
        assert_eq!(poller.settle(first, &mut []), Some(Verdict::Cut), "a wake was lost");
        assert!(!home.is_cancelled());
    });
}

#[test]
fn a_task_that_gets_its_node_while_its_nursery_is_cancelled_is_cancelled() {
    model(|| {
        let home = nursery(&root());
        let (frame, _) = task(&home);
        let mut poller = Poller::new(Arc::clone(&frame));
        let cancel = spawn(&home, |home| assert!(home.cancel(cause())));
        let branch = spawn(&frame, Frame::branch);
        let first = poller.poll(&mut []);
        join(cancel);
        assert!(join(branch).is_cancelled());
        assert_eq!(poller.settle(first, &mut []), Some(Verdict::Cut), "a wake was lost");
    });
}

/// The first task that was cut has made the nursery the absorber, so the others take the short way to it, for as long as nothing
/// around it is cancelled.
#[test]
fn tasks_that_are_cut_while_the_outside_is_cancelled_agree_that_the_outermost_absorbs() {
    model(|| {
        let top = root();
        let home = nursery(&top);
        let ((one, _), (two, _), (three, _)) = (task(&home), task(&home), task(&home));
        home.cancel(cause());
        let first = one.latch().expect("it is cancelled");
        assert!(Arc::ptr_eq(&first, &home));
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let other = spawn(&two, |two| two.latch().expect("it is cancelled throughout"));
        let mine = three.latch().expect("it is cancelled throughout");
        let other = join(other);
        let goes_on = |absorber: &Arc<Node>| Arc::ptr_eq(absorber, &top);
        assert!([&other, &mine].into_iter().all(|absorber| goes_on(absorber) || Arc::ptr_eq(absorber, &home)));
        assert_eq!(home.unwinds(), goes_on(&other) || goes_on(&mine), "the nursery returns and unwinds");
        join(cancel);
        let last = one.latch().expect("it is cancelled throughout");
        assert!(goes_on(&last) && home.unwinds(), "who was cut after the cancel has not seen it");
    });
}

#[test]
fn a_task_that_ends_while_it_is_cancelled_alone_leaves_nothing_behind() {
    model(|| {
        let home = nursery(&root());
        let (frame, key) = task(&home);
        let cancel = spawn(&frame, |frame| frame.cancel_task(cause));
        frame.end_task();
        drop(home.remove_task(key, || None));
        join(cancel);
        let super::node::Inside { nodes, members, .. } = home.inside();
        assert!(nodes.is_empty() && members.is_empty(), "{nodes:?}");
        assert!(!frame.cancel_task(cause), "it has ended");
    });
}

/// What was begun in it may be polled by another task.
#[test]
fn a_task_that_ends_while_something_is_opened_in_it_leaves_nothing_behind() {
    model(|| {
        let home = nursery(&root());
        let (frame, key) = task(&home);
        let open = spawn(&frame, |frame| drop(Node::child(&frame.branch(), info(Kind::Scope), false, None).detach()));
        frame.end_task();
        drop(home.remove_task(key, || None));
        join(open);
        let super::node::Inside { nodes, members, .. } = home.inside();
        assert!(nodes.is_empty() && members.is_empty(), "{nodes:?}");
        let (ended, _) = task(&home);
        ended.end_task();
        assert!(Arc::ptr_eq(&ended.branch(), &home), "there is nobody who would take a node out");
    });
}

#[test]
fn a_task_that_has_not_ended_is_cancelled_once_by_each_that_asks() {
    model(|| {
        let home = nursery(&root());
        let (frame, _) = task(&home);
        let other = spawn(&frame, |frame| frame.cancel_task(cause));
        assert!(frame.cancel_task(cause));
        assert!(join(other));
        assert!(frame.is_cancelled() && !home.is_cancelled());
        assert_eq!(frame.node().causes().len(), 2);
    });
}

#[test]
fn exactly_one_of_a_task_and_its_handle_reports() {
    model(|| {
        let info = Arc::new(task_info());
        let handle = spawn(&info, |info| info.abandon());
        // At its end, or, for a handle that goes while the end is announced, as the last thing before it returns.
        let task_reports = info.end() || info.settle();
        assert_ne!(task_reports, join(handle));
    });
}

struct Told(AtomicUsize);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn who_asks_to_be_told_of_the_end_is_told_once_or_refused() {
    model(|| {
        let info = Arc::new(task_info());
        let told = Arc::new(Told(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&told));
        let watch = spawn(&info, move |info| info.watch(|| waker));
        info.end();
        let watched = join(watch);
        assert_eq!(told.0.load(Ordering::Acquire), usize::from(watched));
    });
}
