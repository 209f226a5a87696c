//! Races around a region that waits without a node: who looks into it, who cancels what is around it, how it ends.

use super::super::frame::Verdict;
use super::super::node::{self, Bud, BudKey, Chain, Kind, Outer};
use super::super::sync::{Arc, model, thread};
use super::{Bell, Frame, Node, Poller, cause, check_flags, frame_of, info, join, root, scope, spawn};

type BudSeat = node::BudSeat<()>;

/// A region that is polled as `Placed` does: as a bud until it finds that it has a node.
struct Region {
    seat: Option<BudSeat>,
    bell: Arc<Bell>,
    waker: std::task::Waker,
    /// From the poll on that has found the node.
    framed: Option<Poller>,
}

impl Region {
    /// None if it has to be a node from the start.
    fn planted(home: &Arc<Node>) -> Option<Self> {
        Self::planted_by(0, home)
    }

    /// By the thread with this number, in the bed that has it.
    fn planted_by(thread: u32, home: &Arc<Node>) -> Option<Self> {
        let (bell, waker) = Bell::new();
        let bud = bud(Some(waker.clone()));
        let seat = BudSeat::plant(Arc::clone(home), Outer::Task(thread), Chain::default(), bud)?;
        Some(Self { seat: Some(seat), bell, waker, framed: None })
    }

    fn node(&self) -> &Arc<Node> {
        self.framed.as_ref().expect("it has a node").frame.node()
    }

    fn claim(&mut self) {
        if let Some(seat) = self.seat.take() {
            let (bell, waker) = (Arc::clone(&self.bell), self.waker.clone());
            let (frame, _) = seat.claim();
            self.framed = Some(Poller { frame, bell, waker, armed: false, saw_it: false });
        }
    }

    /// One poll in which nothing holds it. True if it is cut by that.
    fn poll(&mut self) -> bool {
        if self.seat.as_ref().is_some_and(|seat| !seat.is_over()) {
            return false;
        }
        self.claim();
        self.framed.as_mut().is_some_and(|poller| poller.poll(&mut []) == Some(Verdict::Cut))
    }

    /// Polls as often as it is woken; true if it has been cut.
    fn settle(&mut self, mut is_cut: bool) -> bool {
        while !is_cut && self.bell.take() {
            is_cut = self.poll();
        }
        is_cut
    }

    /// Its end, as its owner makes it. Gives the frame if it has become a node.
    fn end(self) -> Option<Arc<Frame>> {
        match self.framed {
            Some(poller) => {
                drop(poller.frame.node().detach());
                Some(poller.frame)
            }
            None => self.seat?.end().map(|(frame, _)| frame),
        }
    }
}

fn bud(waker: Option<std::task::Waker>) -> Bud<()> {
    Bud {
        info: info(Kind::Scope),
        shielded: false,
        finalizer: false,
        held_off: None,
        deadline: None,
        owned: false,
        waker,
    }
}

/// A bud inside of another.
fn planted_in(outer: &BudSeat) -> Option<BudSeat> {
    BudSeat::plant(Arc::clone(outer.home()), outer.as_outer(), Chain::default(), bud(None))
}

/// The nodes in a node, with those of all buds.
fn nodes_in(node: &Arc<Node>) -> Vec<Arc<Node>> {
    node.grow_buds();
    node.inside().nodes
}

/// What is listed below a node has `frame` as its region.
fn is_region_in(node: &Arc<Node>, frame: &Arc<Frame>) -> bool {
    nodes_in(node).iter().any(|inner| Arc::ptr_eq(inner, frame.node()))
}

#[test]
fn a_bud_whose_home_is_cancelled_is_refused_or_woken() {
    model(|| {
        let home = scope(&root());
        let cancel = spawn(&home, |home| home.cancel(cause()));
        let planted = Region::planted(&home);
        join(cancel);
        match planted {
            None => assert!(home.is_cancelled()),
            Some(mut region) => {
                assert!(region.settle(false), "a wake was lost");
                check_flags(&[&home, region.node()]);
            }
        }
    });
}

#[test]
fn a_bud_that_is_polled_while_what_is_around_it_is_cancelled_is_woken_or_sees_it() {
    model(|| {
        let top = root();
        let home = scope(&top);
        let mut region = Region::planted(&home).expect("nothing is cancelled");
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let first = region.poll();
        join(cancel);
        assert!(region.settle(first), "a wake was lost");
        check_flags(&[&top, &home, region.node()]);
    });
}

#[test]
fn a_bud_that_ends_while_its_home_is_cancelled_leaves_nothing_behind() {
    model(|| {
        let home = scope(&root());
        let region = Region::planted(&home).expect("nothing is cancelled");
        let cancel = spawn(&home, |home| home.cancel(cause()));
        region.end();
        join(cancel);
        assert!(nodes_in(&home).is_empty());
    });
}

#[test]
fn two_that_look_into_a_bud_and_its_owner_get_one_node_and_no_mark_is_left() {
    model(|| {
        let home = scope(&root());
        let mut region = Region::planted(&home).expect("nothing is cancelled");
        let one = spawn(&home, nodes_in);
        let two = spawn(&home, nodes_in);
        region.claim();
        for seen in [join(one), join(two)] {
            assert!(seen.len() == 1 && Arc::ptr_eq(&seen[0], region.node()), "{seen:?}");
        }
        region.end();
        let next = Region::planted(&home).expect("nothing is cancelled");
        assert!(next.seat.is_some_and(|seat| !seat.is_over()), "the mark of the one before is left");
    });
}

#[test]
fn a_bud_that_ends_while_somebody_looks_into_it_gives_the_frame_of_what_was_found() {
    model(|| {
        let home = scope(&root());
        let region = Region::planted(&home).expect("nothing is cancelled");
        let look = spawn(&home, nodes_in);
        let ended = region.end();
        let seen = join(look);
        assert!(seen.iter().all(|node| ended.as_ref().is_some_and(|frame| Arc::ptr_eq(frame.node(), node))));
        assert!(nodes_in(&home).is_empty());
    });
}

#[test]
fn a_bud_that_is_looked_into_and_cancelled_at_once_is_woken() {
    model(|| {
        let home = scope(&root());
        let mut region = Region::planted(&home).expect("nothing is cancelled");
        let look = spawn(&home, nodes_in);
        let cancel = spawn(&home, |home| home.cancel(cause()));
        join(cancel);
        assert_eq!(join(look).len(), 1);
        assert!(region.settle(false), "a wake was lost");
        check_flags(&[&home, region.node()]);
    });
}

#[test]
fn a_bud_in_a_bud_is_found_through_that_whoever_looks_meanwhile() {
    model(|| {
        let home = scope(&root());
        let mut outer = Region::planted(&home).expect("nothing is cancelled");
        let look = spawn(&home, |home| nodes_in(home).len());
        let inner = outer.seat.as_ref().and_then(planted_in);
        assert_eq!(join(look), 1);
        let inner = inner.map(|seat| seat.claim());
        outer.claim();
        let outer = outer.framed.expect("it has a node").frame;
        assert!(is_region_in(&home, &outer));
        assert!(inner.is_none_or(|(inner, _)| is_region_in(outer.node(), &inner)));
    });
}

#[test]
fn buds_in_each_other_are_all_cancelled_and_the_outermost_is_woken() {
    model(|| {
        let home = scope(&root());
        let mut outer = Region::planted(&home).expect("nothing is cancelled");
        let inner = outer.seat.as_ref().and_then(planted_in).expect("nothing is cancelled");
        let cancel = spawn(&home, |home| home.cancel(cause()));
        let (frame, hold) = inner.claim();
        join(cancel);
        drop(hold);
        assert!(outer.settle(false), "a wake was lost");
        check_flags(&[&home, outer.node(), frame.node()]);
    });
}

/// The future in the inner one has moved to another thread, where it ends.
#[test]
fn a_bud_that_ends_together_with_the_one_around_it_leaves_nothing_behind() {
    model(|| {
        let home = scope(&root());
        let outer = Region::planted(&home).expect("nothing is cancelled");
        let inner = outer.seat.as_ref().and_then(planted_in).expect("nothing is cancelled");
        let moved = thread::spawn(move || drop(inner));
        outer.end();
        join(moved);
        assert!(nodes_in(&home).is_empty());
    });
}

/// The future in the inner one has moved out, and was not polled there yet.
#[test]
fn a_bud_in_one_that_ends_is_given_by_that_whoever_looks_meanwhile() {
    model(|| {
        let home = scope(&root());
        let outer = Region::planted(&home).expect("nothing is cancelled");
        let inner = outer.seat.as_ref().and_then(planted_in).expect("nothing is cancelled");
        let look = spawn(&home, nodes_in);
        let left = outer.seat.and_then(BudSeat::end).map(|(_, orphans)| orphans);
        join(look);
        let (frame, hold) = inner.claim();
        drop(hold);
        assert!(matches!(left.as_deref(), Some([orphan]) if Arc::ptr_eq(orphan, frame.node())), "{left:?}");
        assert!(is_region_in(&home, &frame));
    });
}

#[test]
fn a_bud_holds_the_frame_around_it_in_each_poll_that_sees_the_cancel() {
    model(|| {
        let home = scope(&root());
        let mut outer = Poller::new(frame_of(&home));
        let seat =
            BudSeat::plant(Arc::clone(&home), Outer::Frame, Chain::default(), bud(None)).expect("nothing is cancelled");
        let cancel = spawn(&home, |home| home.cancel(cause()));
        let first = outer.poll(&mut []);
        assert!(matches!(first, None | Some(Verdict::Probe)), "{first:?}");
        join(cancel);
        let rest = match first {
            Some(_) => first,
            None => {
                assert!(outer.bell.take(), "a wake was lost");
                outer.poll(&mut [])
            }
        };
        assert_eq!(rest, Some(Verdict::Probe), "nobody has polled it yet");
        assert!(!outer.frame.may_have_buds(), "what waits in it now holds it at once");
        drop(seat);
        assert_eq!(outer.settle(rest, &mut []), Some(Verdict::Cut));
    });
}

/// A bud whose deadline is at 1.
fn timed(home: &Arc<Node>) -> Region {
    let (bell, waker) = Bell::new();
    let bud = Bud { deadline: Some(1), ..bud(Some(waker.clone())) };
    let seat = BudSeat::plant(Arc::clone(home), Outer::Frame, Chain::default(), bud);
    Region { seat: Some(seat.expect("nothing is cancelled")), bell, waker, framed: None }
}

/// What the queue of deadlines does, when it is time.
fn fire(home: &Arc<Node>) -> bool {
    home.bud_due(BudKey::FIRST, 1).is_some_and(|node| node.cancel(cause()))
}

#[test]
fn a_bud_whose_deadline_passes_is_woken_or_sees_it() {
    model(|| {
        let home = scope(&root());
        let mut region = timed(&home);
        let due = spawn(&home, fire);
        let first = region.poll();
        assert!(join(due), "it has not ended");
        assert!(region.settle(first), "a wake was lost");
        check_flags(&[&home, region.node()]);
        assert!(!home.is_cancelled());
    });
}

#[test]
fn a_bud_that_ends_while_its_deadline_passes_leaves_nothing_behind_and_the_next_is_not_meant() {
    model(|| {
        let home = scope(&root());
        let region = timed(&home);
        let due = spawn(&home, fire);
        region.end();
        let mut next = Region::planted(&home).expect("nothing is cancelled");
        join(due);
        next.claim();
        assert!(!next.node().is_cancelled());
        next.end();
        assert!(nodes_in(&home).is_empty());
    });
}

#[test]
fn a_bud_that_is_left_in_a_node_that_ends_is_cancelled_from_above() {
    model(|| {
        let top = root();
        let home = scope(&top);
        let mut region = Region::planted(&home).expect("nothing is cancelled");
        let cancel = spawn(&top, |top| top.cancel(cause()));
        home.detach();
        join(cancel);
        assert!(region.settle(false), "a wake was lost");
        region.end();
        assert!(nodes_in(&top).is_empty() && nodes_in(&home).is_empty());
    });
}

#[test]
fn a_bud_that_ends_while_its_home_does_leaves_nothing_behind() {
    model(|| {
        let top = root();
        let home = scope(&top);
        let region = Region::planted(&home).expect("nothing is cancelled");
        let end = spawn(&home, |home| home.detach());
        region.end();
        join(end);
        assert!(nodes_in(&top).is_empty() && nodes_in(&home).is_empty());
    });
}

#[test]
fn a_bud_that_is_planted_while_a_shield_is_raised_around_it_agrees_with_that() {
    model(|| {
        let top = root();
        let home = scope(&top);
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let raise = spawn(&home, |home| home.set_shielded(true));
        let planted = Region::planted(&home);
        join(cancel);
        join(raise);
        if let Some(mut region) = planted {
            assert!(!region.settle(false));
            region.claim();
            check_flags(&[&top, &home, region.node()]);
        }
    });
}

/// Those of two threads are in two beds of the root.
#[test]
fn buds_that_two_threads_plant_in_a_root_are_refused_or_woken_by_its_cancel() {
    model(|| {
        let root = root();
        let mut before = Region::planted_by(0, &root).expect("nothing is cancelled");
        let other = spawn(&root, |root| Region::planted_by(1, root));
        root.cancel(cause());
        assert!(before.settle(false), "a wake was lost");
        match join(other) {
            None => assert!(root.is_cancelled()),
            Some(mut region) => assert!(region.settle(false), "a wake was lost"),
        }
    });
}

#[test]
fn buds_in_two_beds_that_are_looked_into_and_end_leave_no_mark() {
    model(|| {
        let root = root();
        let [one, two] = [0, 1].map(|thread| Region::planted_by(thread, &root).expect("nothing is cancelled"));
        let look = spawn(&root, |root| nodes_in(root).len());
        let moved = thread::spawn(move || two.end());
        one.end();
        join(moved);
        join(look);
        assert!(nodes_in(&root).is_empty());
        let next = Region::planted_by(1, &root).expect("nothing is cancelled");
        assert!(next.seat.is_some_and(|seat| !seat.is_over()), "the mark of those before is left");
    });
}
