//! Spawn, close, join, adopt: races on the live count.

use std::task::{Context, Poll, Waker};

use super::super::live::{Live, Weight};
use super::super::sync::{Arc, model};
use super::{Bell, Node, join, nursery, root, scope, spawn};

fn is_idle(live: &Live, waker: &Waker) -> bool {
    live.poll_idle(&mut Context::from_waker(waker)) == Poll::Ready(())
}

#[test]
fn a_spawn_wins_iff_it_comes_before_the_last_release() {
    model(|| {
        let live = Arc::new(Live::new());
        let close = spawn(&live, |live| {
            assert!(!live.release(Weight::Regular), "there are no daemons");
            is_idle(live, Waker::noop())
        });
        let spawned = live.try_acquire(Weight::Regular);
        assert_eq!(spawned, !join(close), "open to the one side and closed to the other");
        assert_eq!(live.try_acquire(Weight::Regular), spawned);
    });
}

#[test]
fn a_child_that_spawns_while_its_last_sibling_ends_keeps_the_nursery_open() {
    model(|| {
        let live = Arc::new(Live::new());
        assert!(live.try_acquire(Weight::Regular));
        let sibling = spawn(&live, |live| live.release(Weight::Regular));
        // Its own part is the proof that the nursery is open: this never fails.
        assert!(live.try_acquire(Weight::Regular));
        assert!(!live.release(Weight::Regular));
        assert!(!join(sibling));
        assert!(!is_idle(&live, Waker::noop()));
        assert_eq!(live.len(), 1);
    });
}

#[test]
fn the_last_child_wakes_the_joiner_or_is_seen_by_it() {
    model(|| {
        let live = Arc::new(Live::new());
        assert!(live.try_acquire(Weight::Regular));
        let child = spawn(&live, |live| live.release(Weight::Regular));
        assert!(!live.release(Weight::Regular));
        let (bell, waker) = Bell::new();
        let seen = is_idle(&live, &waker);
        assert!(!join(child));
        assert!(seen || bell.take(), "a wake was lost");
        assert!(is_idle(&live, &waker));
    });
}

#[test]
fn two_last_children_leave_no_joiner_asleep() {
    model(|| {
        let live = Arc::new(Live::new());
        assert!(live.try_acquire(Weight::Regular));
        let children = [
            spawn(&live, |live| live.release(Weight::Regular)),
            spawn(&live, |live| {
                let more = live.try_acquire(Weight::Regular);
                more && live.release(Weight::Regular)
            }),
        ];
        let (bell, waker) = Bell::new();
        let seen = is_idle(&live, &waker);
        assert!(!seen, "the body is still there");
        assert!(!live.release(Weight::Regular));
        assert!(children.into_iter().all(|child| !join(child)));
        assert!(bell.take(), "a wake was lost");
    });
}

#[test]
fn a_rescue_is_taken_in_by_the_root_iff_that_has_not_closed() {
    model(|| {
        let live = Arc::new(Live::new_root());
        assert!(live.try_acquire(Weight::Regular));
        let last = spawn(&live, |live| live.release(Weight::Regular));
        let rescue = spawn(&live, |live| live.try_acquire(Weight::Regular));
        let (bell, waker) = Bell::new();
        let mut closed = is_idle(&live, &waker) && live.close_if_idle();
        assert!(!join(last));
        let rescued = join(rescue);
        if !closed && !rescued {
            assert!(bell.take() || is_idle(&live, &waker), "a wake was lost");
            closed = live.close_if_idle();
        }
        assert_ne!(closed, rescued, "both, or neither");
    });
}

#[test]
fn a_daemon_is_told_to_end_or_refused() {
    model(|| {
        let live = Arc::new(Live::new());
        let last = spawn(&live, |live| live.release(Weight::Regular));
        let spawned = live.try_acquire(Weight::Daemon);
        let told = join(last);
        assert_eq!(told, spawned);
        assert_eq!(live.len(), usize::from(spawned));
    });
}

#[test]
fn exactly_one_of_the_last_regular_parts_tells_the_daemons() {
    model(|| {
        let live = Arc::new(Live::new());
        assert!(live.try_acquire(Weight::Regular));
        assert!(live.try_acquire(Weight::Daemon));
        let child = spawn(&live, |live| live.release(Weight::Regular));
        let body = live.release(Weight::Regular);
        assert_ne!(join(child), body);
        assert!(!live.release(Weight::Daemon), "nobody is left to be told");
    });
}

#[test]
fn a_daemon_that_ends_last_wakes_the_joiner() {
    model(|| {
        let live = Arc::new(Live::new());
        assert!(live.try_acquire(Weight::Daemon));
        let daemon = spawn(&live, |live| live.release(Weight::Daemon));
        let body = spawn(&live, |live| live.release(Weight::Regular));
        let (bell, waker) = Bell::new();
        let seen = is_idle(&live, &waker);
        join(body);
        assert!(!join(daemon), "it is told, it does not tell");
        assert!(seen || bell.take(), "a wake was lost");
    });
}

/// The way of a ticket: upwards from `node` to the nearest owner that is open. Returns how many were tried.
fn adopt(node: &Arc<Node>) -> Option<Arc<Node>> {
    Node::around(node).find(|owner| owner.live().is_some_and(|live| live.try_acquire(Weight::Regular)))
}

#[test]
fn a_rescue_finds_an_open_owner_while_the_nearest_one_ends() {
    model(|| {
        let root = root();
        let nursery = nursery(&root);
        let shield = scope(&nursery);
        let end = spawn(&nursery, |nursery| {
            let live = nursery.live().expect("a nursery has one");
            assert!(!live.release(Weight::Regular));
            if is_idle(live, Waker::noop()) {
                nursery.detach();
                true
            } else {
                false
            }
        });
        let owner = adopt(&shield).expect("the root is open");
        let ended = join(end);
        assert_eq!(Arc::ptr_eq(&owner, &nursery), !ended, "the nursery wins iff it had not ended");
        assert_eq!(owner.live().map(Live::len), Some(if ended { 2 } else { 1 }), "counted once");
    });
}

#[test]
fn a_rescue_that_moves_its_node_survives_the_end_of_the_nursery_around_it() {
    model(|| {
        let root = root();
        let nursery = nursery(&root);
        let shield = scope(&nursery);
        let end = spawn(&nursery, |nursery| nursery.detach());
        shield.reparent(&root);
        join(end);
        let inside = root.inside().nodes;
        assert_eq!(inside.len(), 1, "linked twice, or lost: {inside:?}");
        assert!(shield.parent().is_some_and(|parent| Arc::ptr_eq(&parent, &root)));
        shield.detach();
        assert!(root.inside().nodes.is_empty());
    });
}

/// Adopted work counts in like a child while the nursery has one, like a daemon after, and never into what has ended.
#[test]
fn what_is_adopted_while_the_last_child_ends_is_counted_as_what_is_left() {
    model(|| {
        let live = Arc::new(Live::new());
        assert!(live.try_acquire(Weight::Daemon));
        let last = spawn(&live, |live| live.release(Weight::Regular));
        let adopted = live.try_adopt().expect("a daemon is left");
        let told = join(last);
        assert_eq!(adopted == Weight::Daemon, live.is_closed());
        assert_eq!(told, live.is_closed());
        let told_later = live.release(adopted);
        assert_eq!(told_later, adopted == Weight::Regular, "the last regular part leaves a daemon");
        assert!(!live.release(Weight::Daemon));
        assert_eq!(live.len(), 0);
        assert_eq!(live.try_adopt(), None);
    });
}

#[test]
fn what_is_adopted_while_the_last_daemon_ends_keeps_the_owner_or_is_refused() {
    model(|| {
        let live = Arc::new(Live::new());
        assert!(live.try_acquire(Weight::Daemon));
        assert!(live.release(Weight::Regular));
        let last = spawn(&live, |live| live.release(Weight::Daemon));
        let (bell, waker) = Bell::new();
        let seen = is_idle(&live, &waker);
        let adopted = live.try_adopt();
        assert!(!join(last));
        assert_eq!(live.len(), usize::from(adopted.is_some()));
        assert!(!seen || adopted.is_none(), "it had ended");
        if let Some(weight) = adopted {
            assert!(!live.release(weight));
        }
        assert!(seen || bell.take(), "a wake was lost");
    });
}

#[test]
fn what_is_adopted_by_the_root_comes_before_its_close_or_is_refused() {
    model(|| {
        let live = Arc::new(Live::new_root());
        let close = spawn(&live, |live| live.close_if_idle());
        let adopted = live.try_adopt();
        assert_ne!(join(close), adopted.is_some(), "both, or neither");
        assert_eq!(live.is_closed(), adopted.is_none());
    });
}

#[test]
fn who_waits_for_all_but_daemons_is_woken_or_sees_it() {
    model(|| {
        let live = Arc::new(Live::new_root());
        assert!(live.try_acquire(Weight::Daemon) && live.try_acquire(Weight::Regular));
        let child = spawn(&live, |live| live.release(Weight::Regular));
        let daemon = spawn(&live, |live| live.release(Weight::Daemon));
        let (bell, waker) = Bell::new();
        let seen = live.poll_daemons_only(&mut Context::from_waker(&waker)).is_ready();
        assert!(!join(child) && !join(daemon));
        assert!(seen || bell.take(), "a wake was lost");
    });
}

#[test]
fn two_that_wait_for_one_end_are_both_woken() {
    model(|| {
        let live = Arc::new(Live::new());
        let other = spawn(&live, |live| {
            let (bell, waker) = Bell::new();
            (is_idle(live, &waker), bell)
        });
        let last = spawn(&live, |live| live.release(Weight::Regular));
        let (bell, waker) = Bell::new();
        let seen = is_idle(&live, &waker);
        let (seen_there, bell_there) = join(other);
        join(last);
        assert!(seen || bell.take(), "a wake was lost");
        assert!(seen_there || bell_there.take(), "a wake was lost");
    });
}
