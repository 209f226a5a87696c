//! Races on the flags of the tree and on its links.

use super::super::frame::Verdict;
use super::super::node::Kind;
use super::super::sync::{Arc, model};
use super::{Bell, Node, Poller, cause, check_flags, frame_of, info, join, root, scope, shield, spawn};

/// A listener that waits for `node` with a waker of its own. Returns its key, or none if the node was cancelled.
fn listen(node: &Arc<Node>, waker: &std::task::Waker) -> Option<usize> {
    let mut key = None;
    if node.listen(waker, &mut key) { key } else { None }
}

#[test]
fn a_cancel_wakes_a_listener_or_is_seen_by_it() {
    model(|| {
        let (top, node) = pair(scope);
        let cancel = spawn(&top, |top| assert!(top.cancel(cause())));
        let (bell, waker) = Bell::new();
        let seen = listen(&node, &waker).is_none();
        join(cancel);
        assert!(seen || bell.take(), "a wake was lost");
        assert!(node.is_cancelled());
    });
}

#[test]
fn a_listener_that_goes_takes_no_other_with_it() {
    model(|| {
        let node = root();
        let (_, leaver) = Bell::new();
        let key = listen(&node, &leaver).expect("nothing is cancelled");
        let cancel = spawn(&node, |node| assert!(node.cancel(cause())));
        let stayer = spawn(&node, |node| {
            let (bell, waker) = Bell::new();
            (listen(node, &waker).is_none(), bell)
        });
        node.unlisten(key);
        join(cancel);
        let (seen, bell) = join(stayer);
        assert!(seen || bell.take(), "a wake was lost");
    });
}

/// A shield that begins to hold a cancel off wakes its listeners, though it is not cancelled itself. Whoever waits again then must
/// not take the place of another.
#[test]
fn two_listeners_that_are_woken_for_nothing_wait_on() {
    model(|| {
        let (top, node) = pair(shield);
        let (_, waker) = Bell::new();
        let mut key = listen(&node, &waker);
        let cancel = spawn(&top, |top| assert!(top.cancel(cause())));
        let other = spawn(&node, |node| {
            let (bell, waker) = Bell::new();
            (listen(node, &waker), bell)
        });
        node.listen(&waker, &mut key);
        let (_, other) = join(other);
        join(cancel);
        node.listen(&waker, &mut key);
        let woken_before = other.take();
        assert!(node.cancel(cause()));
        assert!(woken_before || other.take(), "its place was taken");
    });
}

/// A node below a root.
fn pair(below: fn(&Arc<Node>) -> Arc<Node>) -> (Arc<Node>, Arc<Node>) {
    let top = root();
    let node = below(&top);
    (top, node)
}

#[test]
fn raising_a_shield_races_with_a_cancel_above_and_both_agree() {
    model(|| {
        let (top, middle) = pair(scope);
        let leaf = scope(&middle);
        let cancel = spawn(&top, |top| top.cancel(cause()));
        middle.set_shielded(true);
        assert!(join(cancel), "it was the first");
        check_flags(&[&top, &middle, &leaf]);
        assert!(!leaf.is_cancelled(), "the shield is up");
    });
}

#[test]
fn lowering_a_shield_races_with_a_cancel_above_and_both_agree() {
    model(|| {
        let (top, middle) = pair(shield);
        let leaf = scope(&middle);
        let cancel = spawn(&top, |top| top.cancel(cause()));
        middle.set_shielded(false);
        assert!(join(cancel), "it was the first");
        check_flags(&[&top, &middle, &leaf]);
        assert!(leaf.is_cancelled(), "no shield is left");
    });
}

#[test]
fn raising_lowering_and_cancelling_leave_the_flags_of_the_last_state() {
    model(|| {
        let (top, middle) = pair(scope);
        let leaf = scope(&middle);
        let raise = spawn(&middle, |middle| middle.set_shielded(true));
        let lower = spawn(&middle, |middle| middle.set_shielded(false));
        top.cancel(cause());
        join(raise);
        join(lower);
        check_flags(&[&top, &middle, &leaf]);
    });
}

#[test]
fn two_shields_on_one_path_and_a_cancel_leave_the_flags_of_the_last_state() {
    model(|| {
        let (top, upper) = pair(scope);
        let lower = shield(&upper);
        let leaf = scope(&lower);
        let raise = spawn(&upper, |upper| upper.set_shielded(true));
        let lowering = spawn(&lower, |lower| lower.set_shielded(false));
        top.cancel(cause());
        join(raise);
        join(lowering);
        check_flags(&[&top, &upper, &lower, &leaf]);
    });
}

#[test]
fn one_of_two_cancels_is_the_first_and_its_cause_wins() {
    model(|| {
        let (node, leaf) = pair(scope);
        let (one, two) = (cause(), cause());
        let other = {
            let one = one.clone();
            spawn(&node, move |node| node.cancel(one))
        };
        let won = node.cancel(two.clone());
        assert_ne!(join(other), won);
        assert_eq!(node.cause(), Some(if won { two } else { one }));
        assert_eq!(leaf.cause(), node.cause());
        assert_eq!(node.causes().len(), 2, "the loser is kept behind it");
    });
}

#[test]
fn force_reaches_a_shield_that_is_raised_meanwhile() {
    model(|| {
        let (top, middle) = pair(scope);
        let leaf = scope(&middle);
        let raise = spawn(&middle, |middle| middle.set_shielded(true));
        top.pierce(cause());
        join(raise);
        assert!(middle.is_cancelled() && leaf.is_cancelled());
    });
}

#[test]
fn a_node_that_is_attached_while_its_parent_is_cancelled_is_cancelled() {
    model(|| {
        let (top, middle) = pair(scope);
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let leaf = scope(&middle);
        join(cancel);
        check_flags(&[&top, &middle, &leaf]);
    });
}

#[test]
fn a_node_that_moves_is_judged_by_its_new_parent() {
    model(|| {
        let top = root();
        let (old, new) = (scope(&top), scope(&top));
        let node = scope(&old);
        let leaf = scope(&node);
        let cancel_old = spawn(&old, |old| old.cancel(cause()));
        node.reparent(&new);
        join(cancel_old);
        check_flags(&[&old, &new, &node, &leaf]);
        assert!(!leaf.is_cancelled(), "what is cancelled is not around it any more");
    });
}

#[test]
fn a_node_that_moves_below_a_parent_that_is_being_cancelled_is_cancelled() {
    model(|| {
        let top = root();
        let (old, new) = (scope(&top), scope(&top));
        let node = scope(&old);
        let leaf = scope(&node);
        let cancel_old = spawn(&old, |old| old.cancel(cause()));
        let cancel_new = spawn(&new, |new| new.cancel(cause()));
        node.reparent(&new);
        join(cancel_old);
        join(cancel_new);
        check_flags(&[&old, &new, &node, &leaf]);
        assert!(leaf.is_cancelled());
    });
}

#[test]
fn a_shield_that_is_raised_on_a_node_that_moves_is_up_in_its_new_place() {
    model(|| {
        let top = root();
        let (old, new) = (scope(&top), scope(&top));
        let node = scope(&old);
        let leaf = scope(&node);
        old.cancel(cause());
        let raise = spawn(&node, |node| node.set_shielded(true));
        let cancel = spawn(&new, |new| new.cancel(cause()));
        node.reparent(&new);
        join(raise);
        join(cancel);
        check_flags(&[&node, &leaf]);
        assert!(!leaf.is_cancelled());
    });
}

#[test]
fn a_node_that_ends_during_a_cancel_leaves_nothing_behind() {
    model(|| {
        let (top, node) = pair(scope);
        let cancel = spawn(&top, |top| top.cancel(cause()));
        node.detach();
        join(cancel);
        assert!(top.inside().nodes.is_empty());
        assert!(node.parent().is_none());
    });
}

#[test]
fn what_was_forgotten_inside_a_node_that_ends_is_still_cancelled_from_above() {
    model(|| {
        let (top, node) = pair(scope);
        let forgotten = scope(&node);
        let cancel = spawn(&top, |top| top.cancel(cause()));
        node.detach();
        join(cancel);
        assert!(forgotten.parent().is_some_and(|parent| Arc::ptr_eq(&parent, &top)));
        check_flags(&[&top, &forgotten]);
        assert!(forgotten.is_cancelled());
    });
}

#[test]
fn an_exposed_node_is_cancelled_from_either_side() {
    model(|| {
        let (outside, shield) = pair(shield);
        let exposed = Node::unbound(info(Kind::Exposed), None, false);
        exposed.reparent(&shield);
        let inner = scope(&exposed);
        let above = spawn(&outside, |outside| outside.cancel(cause()));
        let own = spawn(&shield, |shield| shield.cancel(cause()));
        exposed.expose(&outside);
        assert!(join(above) && join(own));
        assert!(exposed.is_cancelled() && inner.is_cancelled());
        assert!(exposed.cause().is_some());
    });
}

#[test]
fn an_exposed_node_is_cancelled_iff_one_of_its_sides_is() {
    model(|| {
        let top = root();
        let outside = scope(&top);
        let shield = shield(&outside);
        let exposed = scope(&shield);
        let inner = scope(&exposed);
        top.cancel(cause());
        let raise = spawn(&outside, |outside| outside.set_shielded(true));
        let lower = spawn(&shield, |shield| shield.set_shielded(false));
        exposed.expose(&outside);
        join(raise);
        join(lower);
        assert!(!outside.is_cancelled() && !shield.is_cancelled());
        assert!(!exposed.is_cancelled() && !inner.is_cancelled(), "a flag was left behind");
    });
}

#[test]
fn a_latch_holds_against_a_shield_that_is_raised_meanwhile() {
    model(|| {
        let (top, middle) = pair(scope);
        let leaf = scope(&middle);
        top.cancel(cause());
        let raise = spawn(&middle, |middle| middle.set_shielded(true));
        let absorber = leaf.latch();
        join(raise);
        assert_eq!(leaf.unwinds(), absorber.is_some());
        match absorber {
            Some(absorber) => {
                assert!(Arc::ptr_eq(&absorber, &top), "the outermost absorbs");
                assert!(leaf.is_cancelled() && middle.is_cancelled() && middle.unwinds());
            }
            None => assert!(!leaf.is_cancelled() && !middle.is_cancelled() && !middle.unwinds()),
        }
    });
}

/// What is cancelled by itself stays so behind its shield, and absorbs the cut there.
#[test]
fn a_latch_does_not_pass_a_shield_that_was_raised_before_it() {
    model(|| {
        let (top, middle) = pair(scope);
        let leaf = scope(&middle);
        middle.cancel(cause());
        top.cancel(cause());
        let raise = spawn(&middle, |middle| {
            middle.set_shielded(true);
            middle.unwinds()
        });
        let absorber = leaf.latch().expect("it is cancelled throughout");
        let was_too_late = join(raise);
        assert_eq!(middle.unwinds(), was_too_late, "it was cut across the shield");
        assert!(Arc::ptr_eq(&absorber, if was_too_late { &top } else { &middle }));
    });
}

#[test]
fn a_latch_finds_a_cancel_that_is_on_its_way_down() {
    model(|| {
        let (top, middle) = pair(scope);
        let leaf = scope(&middle);
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let raise = spawn(&middle, |middle| {
            middle.set_shielded(true);
            middle.set_shielded(false);
        });
        let absorber = leaf.latch();
        join(cancel);
        join(raise);
        assert_eq!(leaf.unwinds(), absorber.is_some());
        assert!(absorber.is_none_or(|absorber| Arc::ptr_eq(&absorber, &top)));
        assert!(leaf.is_cancelled() && middle.is_cancelled());
    });
}

#[test]
fn a_latch_races_with_a_cancel_below_the_outermost_and_one_of_them_absorbs() {
    model(|| {
        let (top, leaf) = pair(scope);
        leaf.cancel(cause());
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let absorber = leaf.latch().expect("it was cancelled before");
        join(cancel);
        assert_eq!(leaf.unwinds(), Arc::ptr_eq(&absorber, &top));
        assert!(Arc::ptr_eq(&absorber, &top) || Arc::ptr_eq(&absorber, &leaf));
    });
}

/// A visit from the side that is not cancelled may find the flag of the other side before that has brought its cause; and what is latched
/// without one would never be cut.
#[test]
fn an_exposed_node_is_never_cancelled_without_a_cause() {
    model(|| {
        let outside = scope(&root());
        let shield = shield(&outside);
        let exposed = scope(&shield);
        exposed.expose(&outside);
        let cancel = spawn(&outside, |outside| outside.cancel(cause()));
        let visit = spawn(&shield, |shield| shield.set_shielded(true));
        assert!(!exposed.is_cancelled() || exposed.cause().is_some());
        join(cancel);
        join(visit);
        assert!(exposed.is_cancelled() && exposed.cause().is_some());
    });
}

/// A visit from the side that is not cancelled may find the flag of the other side before that has brought its cause.
#[test]
fn an_exposed_frame_is_woken_once_its_cause_is_known() {
    model(|| {
        let outside = scope(&root());
        let shield = shield(&outside);
        let exposed = scope(&shield);
        exposed.expose(&outside);
        let mut poller = Poller::new(frame_of(&exposed));
        let cancel = spawn(&outside, |outside| outside.cancel(cause()));
        let visit = spawn(&shield, |shield| shield.set_shielded(true));
        let mut cut = poller.poll(&mut []) == Some(Verdict::Cut) && exposed.cause().is_some();
        assert!(join(cancel));
        join(visit);
        while !cut && poller.bell.take() {
            cut = poller.poll(&mut []) == Some(Verdict::Cut) && exposed.cause().is_some();
        }
        assert!(cut, "a wake was lost");
    });
}
