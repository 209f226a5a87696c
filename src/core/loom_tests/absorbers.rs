//! Races around an absorber that an earlier cut has fixed, and that the next cut of the same nursery takes without a look at the way.

use super::super::sync::{Arc, model};
use super::{Node, cause, join, nursery, root, scope, shield, spawn};

/// A nursery below two scopes, which has unwound to the outer one of these.
fn unwound() -> (Arc<Node>, Arc<Node>, Arc<Node>, Arc<Node>) {
    let top = root();
    let outer = scope(&top);
    let middle = scope(&outer);
    let home = nursery(&middle);
    outer.cancel(cause());
    assert!(home.latch().is_some_and(|absorber| Arc::ptr_eq(&absorber, &outer)));
    (top, outer, middle, home)
}

#[test]
fn what_is_known_of_an_absorber_is_forgotten_when_a_node_on_the_way_is_carried_off() {
    model(|| {
        let ((_, outer, middle, home), other) = (unwound(), root());
        let carry = spawn(&middle, move |middle| middle.reparent(&other));
        let absorber = home.latch().expect("it unwinds");
        assert!(Arc::ptr_eq(&absorber, &outer) || Arc::ptr_eq(&absorber, &middle));
        join(carry);
        let last = home.latch().expect("it unwinds");
        assert!(Arc::ptr_eq(&last, &middle), "it is absorbed where it is not any more");
    });
}

#[test]
fn what_is_known_of_an_absorber_gives_way_to_a_cancel_around_it() {
    model(|| {
        let (top, outer, _, home) = unwound();
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let absorber = home.latch().expect("it unwinds");
        assert!(Arc::ptr_eq(&absorber, &outer) || Arc::ptr_eq(&absorber, &top));
        assert_eq!(outer.unwinds(), Arc::ptr_eq(&absorber, &top), "the scope returns and unwinds");
        join(cancel);
        let last = home.latch().expect("it unwinds");
        assert!(Arc::ptr_eq(&last, &top) && outer.unwinds(), "who was cut after the cancel has not seen it");
    });
}

#[test]
fn what_is_known_of_an_absorber_outlives_the_end_of_a_node_on_the_way() {
    model(|| {
        let (_, outer, middle, home) = unwound();
        let end = spawn(&middle, |middle| middle.detach());
        let absorber = home.latch().expect("it unwinds");
        assert!(Arc::ptr_eq(&absorber, &outer));
        join(end);
        let last = home.latch().expect("it unwinds");
        assert!(Arc::ptr_eq(&last, &outer));
    });
}

/// A second nursery, whose way out ends at the first one: that knows the rest.
#[test]
fn what_a_node_on_the_way_knows_is_taken_from_it_and_forgotten_with_it() {
    model(|| {
        let ((_, outer, middle, home), other) = (unwound(), root());
        let inner = nursery(&home);
        let carry = spawn(&middle, move |middle| middle.reparent(&other));
        let absorber = inner.latch().expect("it is cancelled throughout");
        assert!(Arc::ptr_eq(&absorber, &outer) || Arc::ptr_eq(&absorber, &middle));
        join(carry);
        assert!(inner.unwinds());
        for node in [&inner, &home] {
            let last = node.latch().expect("it unwinds");
            assert!(Arc::ptr_eq(&last, &middle), "it is absorbed where it is not any more");
        }
    });
}

#[test]
fn what_a_node_on_the_way_knows_gives_way_to_a_cancel_around_the_absorber() {
    model(|| {
        let (top, outer, _, home) = unwound();
        let inner = nursery(&home);
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let absorber = inner.latch().expect("it is cancelled throughout");
        assert!(Arc::ptr_eq(&absorber, &outer) || Arc::ptr_eq(&absorber, &top));
        assert_eq!(outer.unwinds(), Arc::ptr_eq(&absorber, &top), "the scope returns and unwinds");
        join(cancel);
        let last = inner.latch().expect("it is cancelled throughout");
        assert!(Arc::ptr_eq(&last, &top) && outer.unwinds());
    });
}

/// The absorber is a shield with a cancel of its own, so that it does not care for those around it until it is lowered.
#[test]
fn what_is_known_of_a_shield_that_absorbs_gives_way_when_that_is_lowered() {
    model(|| {
        let top = root();
        let outer = shield(&top);
        let home = nursery(&outer);
        outer.cancel(cause());
        top.cancel(cause());
        assert!(home.latch().is_some_and(|absorber| Arc::ptr_eq(&absorber, &outer)));
        let lower = spawn(&outer, |outer| outer.set_shielded(false));
        let absorber = home.latch().expect("it unwinds");
        assert!(Arc::ptr_eq(&absorber, &outer) || Arc::ptr_eq(&absorber, &top));
        join(lower);
        assert!(home.latch().is_some_and(|absorber| Arc::ptr_eq(&absorber, &top)));
    });
}

#[test]
fn what_is_known_of_an_absorber_that_ends_is_forgotten() {
    model(|| {
        let (_, outer, middle, home) = unwound();
        let end = spawn(&outer, |outer| outer.detach());
        let absorber = home.latch().expect("it unwinds");
        assert!(Arc::ptr_eq(&absorber, &outer) || Arc::ptr_eq(&absorber, &middle));
        join(end);
        assert!(home.latch().is_some_and(|absorber| Arc::ptr_eq(&absorber, &middle)));
    });
}

/// A node that got below one that had ended, which was cancelled by what was around it.
#[test]
fn a_latch_below_what_has_ended_comes_to_an_end() {
    model(|| {
        let top = root();
        let middle = scope(&top);
        top.cancel(cause());
        middle.detach();
        let leaf = scope(&middle);
        assert!(leaf.latch().is_some_and(|absorber| Arc::ptr_eq(&absorber, &middle)));
    });
}

#[test]
fn tasks_that_are_cut_while_their_nursery_is_cancelled_again_have_the_cause_that_came_first() {
    model(|| {
        let (home, first) = (nursery(&root()), cause());
        home.cancel(first.clone());
        let other = spawn(&home, Node::cut);
        let cancel = spawn(&home, |home| home.cancel(cause()));
        let own = home.cut();
        join(cancel);
        for cut in [own, join(other), home.cut()] {
            assert_eq!(cut, Some((false, first.clone())));
        }
    });
}
