//! Races of nodes that move, end or are opened with those that cancel, shield, latch or listen around them.

use super::super::frame::Verdict;
use super::super::node::Kind;
use super::super::sync::{Arc, model};
use super::super::task::{TaskInfo, Traits};
use super::{Bell, Frame, Node, Poller, cause, check_flags, frame_of, info, join, nursery, root, scope, shield, spawn};

/// Two nodes below a root, and a node below the first of them.
fn three() -> (Arc<Node>, Arc<Node>, Arc<Node>) {
    let top = root();
    let (old, new) = (scope(&top), scope(&top));
    let node = scope(&old);
    (old, new, node)
}

#[test]
fn a_latch_races_with_a_move_out_of_what_is_cancelled_and_both_agree() {
    model(|| {
        let (old, new, middle) = three();
        let leaf = scope(&middle);
        old.cancel(cause());
        let latch = spawn(&leaf, |leaf| leaf.latch());
        middle.reparent(&new);
        let absorber = join(latch);
        assert_eq!(leaf.unwinds(), absorber.is_some());
        assert_eq!(middle.unwinds(), absorber.is_some());
        match absorber {
            Some(absorber) => assert!(Arc::ptr_eq(&absorber, &old) && leaf.is_cancelled() && middle.is_cancelled()),
            None => check_flags(&[&old, &new, &middle, &leaf]),
        }
    });
}

#[test]
fn a_latch_races_with_a_move_into_what_is_cancelled_and_the_absorber_is_around_it_then() {
    model(|| {
        let (old, new, middle) = three();
        let leaf = scope(&middle);
        leaf.cancel(cause());
        new.cancel(cause());
        let latch = spawn(&leaf, |leaf| leaf.latch().expect("it was cancelled before"));
        middle.reparent(&new);
        let absorber = join(latch);
        assert!(Arc::ptr_eq(&absorber, &leaf) || Arc::ptr_eq(&absorber, &new));
        assert_eq!(leaf.unwinds(), Arc::ptr_eq(&absorber, &new));
        check_flags(&[&old, &new, &middle, &leaf]);
    });
}

#[test]
fn two_that_are_cut_at_once_agree_on_who_absorbs() {
    model(|| {
        let top = root();
        let middle = scope(&top);
        let (one, two) = (scope(&middle), scope(&middle));
        top.cancel(cause());
        let raise = spawn(&middle, |middle| middle.set_shielded(true));
        let other = spawn(&one, |one| one.latch());
        let mine = two.latch();
        let other = join(other);
        join(raise);
        for (node, absorber) in [(&one, &other), (&two, &mine)] {
            assert_eq!(node.unwinds(), absorber.is_some());
            assert!(absorber.as_ref().is_none_or(|absorber| Arc::ptr_eq(absorber, &top)));
        }
        assert_eq!(middle.is_cancelled(), mine.is_some() || other.is_some(), "a shield came too late, or was ignored");
        assert_eq!(middle.unwinds(), middle.is_cancelled());
    });
}

/// A nursery unwinds, and its future is carried out of what is cancelled before its last task is cut.
#[test]
fn a_task_that_is_cut_while_its_nursery_moves_out_of_its_unwinding_is_absorbed_on_either_side() {
    model(|| {
        let (top, other) = (root(), root());
        let home = nursery(&top);
        top.cancel(cause());
        assert!(home.latch().is_some_and(|absorber| Arc::ptr_eq(&absorber, &top)));
        let carry = spawn(&home, move |home| home.reparent(&other));
        let absorber = home.latch().expect("it unwinds");
        assert!(Arc::ptr_eq(&absorber, &top) || Arc::ptr_eq(&absorber, &home));
        join(carry);
        let last = home.latch().expect("it unwinds");
        assert!(Arc::ptr_eq(&last, &home), "it is absorbed where it is not any more");
    });
}

/// A scope unwinds, and its future is carried out of what is cancelled before its second finalizer has ended.
#[test]
fn a_cut_that_goes_on_with_an_unwinding_is_absorbed_where_it_has_moved_to() {
    model(|| {
        let (top, other) = (root(), root());
        let leaf = scope(&top);
        let region = Frame::of_frame(frame_of(&leaf));
        top.cancel(cause());
        let first = region.latch().expect("it is cancelled");
        assert!(Arc::ptr_eq(&first, &top));
        let carry = spawn(&leaf, move |leaf| leaf.reparent(&other));
        let second = region.latch().expect("it has been cut");
        assert!(second.is_cancelled(), "nobody absorbs");
        join(carry);
        let last = region.latch().expect("it has been cut");
        assert!(Arc::ptr_eq(&last, &leaf));
    });
}

/// A future that was polled in a scope and kept is cut elsewhere while that scope ends.
#[test]
fn a_latch_finds_its_absorber_while_a_node_on_the_way_ends() {
    model(|| {
        let top = root();
        let middle = scope(&top);
        let leaf = scope(&middle);
        top.cancel(cause());
        let end = spawn(&middle, |middle| middle.detach());
        let absorber = leaf.latch().expect("it is cancelled throughout");
        join(end);
        assert!(Arc::ptr_eq(&absorber, &top) && leaf.unwinds());
        assert!(leaf.parent().is_some_and(|parent| Arc::ptr_eq(&parent, &top)));
    });
}

#[test]
fn a_latch_races_with_force_and_stays_with_whom_it_has_found() {
    model(|| {
        let top = root();
        let middle = shield(&top);
        let leaf = scope(&middle);
        leaf.cancel(cause());
        let force = spawn(&top, |top| top.pierce(cause()));
        let absorber = leaf.latch().expect("it was cancelled before");
        join(force);
        assert_eq!(leaf.unwinds(), Arc::ptr_eq(&absorber, &top));
        assert!(Arc::ptr_eq(&absorber, &top) || Arc::ptr_eq(&absorber, &leaf));
        assert!(middle.is_cancelled(), "force came through no shield");
    });
}

#[test]
fn a_latch_inside_an_exposed_part_stops_there() {
    model(|| {
        let outside = root();
        let shield = shield(&outside);
        let exposed = Node::unbound(info(Kind::Exposed), None, false);
        exposed.reparent(&shield);
        let inner = scope(&exposed);
        outside.cancel(cause());
        let expose = spawn(&exposed, {
            let outside = Arc::clone(&outside);
            move |exposed| exposed.expose(&outside)
        });
        let absorber = inner.latch();
        join(expose);
        assert!(absorber.as_ref().is_none_or(|absorber| Arc::ptr_eq(absorber, &exposed)));
        assert_eq!(inner.unwinds(), absorber.is_some());
        assert!(inner.is_cancelled() && !exposed.unwinds() && !shield.is_cancelled());
    });
}

#[test]
fn a_node_that_moves_below_a_shield_that_is_lowered_is_cancelled_by_what_is_above() {
    model(|| {
        let top = root();
        let new = shield(&top);
        let node = scope(&root());
        let leaf = scope(&node);
        top.cancel(cause());
        let lower = spawn(&new, |new| new.set_shielded(false));
        node.reparent(&new);
        join(lower);
        check_flags(&[&top, &new, &node, &leaf]);
        assert!(leaf.is_cancelled());
    });
}

#[test]
fn force_reaches_a_node_that_moves_or_finds_it_gone() {
    model(|| {
        let (old, new, node) = three();
        let held = shield(&node);
        let force = spawn(&old, |old| old.pierce(cause()));
        node.reparent(&new);
        join(force);
        assert_eq!(node.is_cancelled(), held.is_cancelled(), "half of it was reached");
        assert_eq!(node.is_cancelled(), !node.causes().is_empty());
        assert!(!new.is_cancelled());
    });
}

#[test]
fn force_reaches_what_is_opened_meanwhile() {
    model(|| {
        let top = root();
        let middle = shield(&top);
        let force = spawn(&top, |top| top.pierce(cause()));
        let leaf = scope(&middle);
        join(force);
        assert!(middle.is_cancelled() && leaf.is_cancelled() && leaf.cause().is_some());
    });
}

/// Of a request and a request with force, one is the first; the force is not lost with it.
#[test]
fn force_that_comes_with_a_cancel_is_not_lost() {
    model(|| {
        let top = root();
        let middle = shield(&top);
        let leaf = scope(&middle);
        let force = spawn(&top, |top| top.pierce(cause()));
        let won = top.cancel(cause());
        assert_ne!(join(force), won);
        assert!(middle.is_cancelled() && leaf.is_cancelled());
        assert_eq!((top.causes().len(), leaf.cause()), (2, top.cause()));
    });
}

#[test]
fn a_node_that_is_opened_while_a_shield_above_it_goes_has_the_flag_of_the_last_state() {
    model(|| {
        let top = root();
        let middle = shield(&top);
        top.cancel(cause());
        let toggle = spawn(&middle, |middle| {
            middle.set_shielded(false);
            middle.set_shielded(true);
        });
        let leaf = scope(&middle);
        join(toggle);
        check_flags(&[&top, &middle, &leaf]);
        assert!(!leaf.is_cancelled());
    });
}

#[test]
fn a_listener_is_woken_by_a_shield_that_goes_or_sees_it() {
    model(|| {
        let top = root();
        let node = shield(&top);
        top.cancel(cause());
        let lower = spawn(&node, |node| node.set_shielded(false));
        let (bell, waker) = Bell::new();
        let seen = !node.listen(&waker, &mut None);
        join(lower);
        assert!(seen || bell.take(), "a wake was lost");
    });
}

#[test]
fn a_listener_is_woken_by_a_move_into_what_is_cancelled_or_sees_it() {
    model(|| {
        let (_, new, node) = three();
        let leaf = scope(&node);
        new.cancel(cause());
        let listen = spawn(&leaf, |leaf| {
            let (bell, waker) = Bell::new();
            (!leaf.listen(&waker, &mut None), bell)
        });
        node.reparent(&new);
        let (seen, bell) = join(listen);
        assert!(seen || bell.take(), "a wake was lost");
    });
}

/// A nursery moves with the future that it is, to another task; its children are polled where they are.
#[test]
fn a_child_is_woken_by_the_move_of_its_nursery_into_what_is_cancelled_or_sees_it() {
    model(|| {
        let top = root();
        let (old, new) = (scope(&top), scope(&top));
        let home = nursery(&old);
        new.cancel(cause());
        let child = Frame::of_task(Arc::clone(&home), true, TaskInfo::new(1, info(Kind::Task), Traits::default()));
        home.add_task(&child);
        let mut poller = Poller::new(child);
        let moves = spawn(&home, move |home| home.reparent(&new));
        let first = poller.poll(&mut []);
        join(moves);
        assert_eq!(poller.settle(first, &mut []), Some(Verdict::Cut), "a wake was lost");
    });
}

#[test]
fn a_shield_that_is_lowered_on_a_node_that_ends_cancels_what_was_forgotten_in_it() {
    model(|| {
        let top = root();
        let node = shield(&top);
        let forgotten = scope(&node);
        top.cancel(cause());
        let lower = spawn(&node, |node| node.set_shielded(false));
        node.detach();
        join(lower);
        check_flags(&[&top, &forgotten]);
        assert!(forgotten.is_cancelled() && node.parent().is_none());
    });
}

#[test]
fn a_node_that_ends_while_what_is_around_it_ends_is_in_no_list() {
    model(|| {
        let top = root();
        let middle = scope(&top);
        let leaf = scope(&middle);
        let end = spawn(&middle, |middle| middle.detach());
        leaf.detach();
        join(end);
        assert!(top.inside().nodes.is_empty() && middle.inside().nodes.is_empty(), "{:?}", top.inside().nodes);
        assert!(leaf.parent().is_none());
    });
}

#[test]
fn an_exposed_part_that_ends_is_told_nothing_more_and_leaves_both_lists() {
    model(|| {
        let outside = root();
        let shield = shield(&outside);
        let exposed = scope(&shield);
        exposed.expose(&outside);
        let cancel = spawn(&outside, |outside| outside.cancel(cause()));
        exposed.detach();
        join(cancel);
        assert!(shield.inside().nodes.is_empty());
        assert_eq!(outside.inside().nodes.len(), 1, "only the shield is left");
        assert!(exposed.outside().is_none());
    });
}

/// A shield that goes to another task takes along what its exposed parts see.
#[test]
fn an_exposed_part_sees_the_outside_that_moves() {
    model(|| {
        let (old, new, outside) = three();
        let shield = shield(&outside);
        let exposed = scope(&shield);
        old.cancel(cause());
        let moves = spawn(&outside, move |outside| outside.reparent(&new));
        exposed.expose(&outside);
        join(moves);
        assert!(!outside.is_cancelled() && !exposed.is_cancelled(), "a flag was left behind");
    });
}

#[test]
fn a_task_that_gets_its_node_while_its_nursery_is_shielded_has_the_flag_of_the_last_state() {
    model(|| {
        let top = root();
        let home = nursery(&top);
        top.cancel(cause());
        let frame = Frame::of_task(Arc::clone(&home), true, TaskInfo::new(1, info(Kind::Task), Traits::default()));
        home.add_task(&frame);
        let raise = spawn(&home, |home| home.set_shielded(true));
        let own = frame.branch();
        join(raise);
        check_flags(&[&top, &home, &own]);
        assert!(!frame.is_cancelled());
    });
}

/// M4: a future with a hold is polled by another task from now on.
#[test]
fn a_hold_that_moves_to_another_frame_wakes_the_one_that_it_leaves() {
    model(|| {
        let top = root();
        top.cancel(cause());
        let mut poller = Poller::new(frame_of(&scope(&top)));
        let mut holds = [super::Hold::default()];
        let first = poller.poll(&mut holds);
        assert_eq!(first, Some(Verdict::Held));
        let [hold] = holds;
        let moves = spawn(&scope(&top), |there| {
            let mut other = Poller::new(frame_of(there));
            let mut holds = [hold];
            (other.poll(&mut holds), holds)
        });
        let last = if poller.bell.take() { poller.poll(&mut []) } else { first };
        let (there, holds) = join(moves);
        assert_eq!(there, Some(Verdict::Held));
        assert!(holds[0].frame().is_some_and(|frame| !Arc::ptr_eq(frame, &poller.frame)));
        assert_eq!(poller.settle(last, &mut []), Some(Verdict::Cut), "a wake was lost");
    });
}

/// The judge wakes holds by wakers of their own; one of them goes meanwhile.
#[test]
fn a_hold_with_a_waker_of_its_own_is_told_or_gone() {
    model(|| {
        let top = root();
        top.cancel(cause());
        let mut poller = Poller::new(frame_of(&top));
        let (own, waker) = Bell::new();
        let mut hold = super::Hold::default();
        hold.renew(Arc::clone(&poller.frame), super::WakerId::of(&poller.waker), &waker);
        let release = spawn(&Arc::new(()), |_| drop(hold));
        let first = poller.poll(&mut []);
        assert!(first != Some(Verdict::Probe) || own.take(), "it was not told");
        join(release);
        assert_eq!(poller.settle(first, &mut []), Some(Verdict::Cut), "a wake was lost");
    });
}
