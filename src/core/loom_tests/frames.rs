//! Races between the poller of a frame, those who hold it, and those who cancel it.

use super::super::frame::{Track, Verdict};
use super::super::sync::{Arc, model};
use super::{Bell, Frame, Hold, Poller, cause, frame_of, join, root, scope, shield, spawn};

#[test]
fn a_cancel_wakes_a_frame_or_is_seen_by_it() {
    model(|| {
        let top = root();
        let mut poller = Poller::new(frame_of(&scope(&top)));
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let first = poller.poll(&mut []);
        join(cancel);
        assert_eq!(poller.settle(first, &mut []), Some(Verdict::Cut), "a wake was lost");
    });
}

#[test]
fn a_frame_that_polls_again_is_armed_again() {
    model(|| {
        let top = root();
        let mut poller = Poller::new(frame_of(&top));
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let mut last = None;
        for _ in 0..2 {
            if last != Some(Verdict::Cut) {
                last = poller.poll(&mut []);
            }
        }
        join(cancel);
        assert_eq!(poller.settle(last, &mut []), Some(Verdict::Cut), "a wake was lost");
    });
}

#[test]
fn a_hold_that_is_polled_keeps_its_frame_whenever_the_cancel_comes() {
    model(|| {
        let top = root();
        let mut poller = Poller::new(frame_of(&top));
        let mut holds = [Hold::default()];
        let cancel = spawn(&top, |top| top.cancel(cause()));
        for _ in 0..2 {
            assert_ne!(poller.poll(&mut holds), Some(Verdict::Cut));
        }
        join(cancel);
        let last = poller.poll(&mut holds);
        assert_eq!(last, Some(Verdict::Held));
        drop(holds);
        assert_eq!(poller.settle(last, &mut []), Some(Verdict::Cut), "the last hold wakes the frame");
    });
}

#[test]
fn a_shield_is_never_cancelled_by_a_cancel_that_comes_after_its_first_poll_began() {
    model(|| {
        let top = root();
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let shield = shield(&top);
        let inner = frame_of(&scope(&shield));
        assert!(!inner.is_cancelled());
        join(cancel);
        assert!(!inner.is_cancelled() && !shield.is_cancelled());
    });
}

/// The budget of a shield runs from there, so its poller must not sleep through it.
#[test]
fn a_shield_that_begins_to_hold_something_off_is_woken_or_sees_it() {
    model(|| {
        let top = root();
        let shield = shield(&top);
        let inside = frame_of(&shield);
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let (bell, waker) = Bell::new();
        inside.arm(&waker);
        let seen = top.is_cancelled();
        join(cancel);
        assert!(seen || bell.take(), "a wake was lost");
    });
}

#[test]
fn the_release_of_the_last_hold_wakes_a_frame_that_found_it_held() {
    model(|| {
        let top = root();
        top.cancel(cause());
        let mut poller = Poller::new(frame_of(&top));
        let mut holds = [Hold::default()];
        assert_eq!(poller.poll(&mut holds), Some(Verdict::Held));
        let [hold] = holds;
        let release = spawn(&Arc::new(()), |_| drop(hold));
        let last = poller.poll(&mut []);
        join(release);
        assert_eq!(poller.settle(last, &mut []), Some(Verdict::Cut), "a wake was lost");
    });
}

/// The hold was polled in this very poll, and goes before, while or after the frame is judged.
#[test]
fn a_hold_that_is_released_while_its_frame_is_judged_leaves_it_awake_or_cut() {
    model(|| {
        let top = root();
        top.cancel(cause());
        let frame = frame_of(&top);
        let (bell, waker) = Bell::new();
        frame.begin(true);
        let mut hold = Hold::default();
        hold.renew(Arc::clone(&frame), super::WakerId::of(&waker), &waker);
        let release = spawn(&Arc::new(()), |_| drop(hold));
        frame.arm(&waker);
        let verdict = frame.judge(false);
        join(release);
        assert!(verdict == Verdict::Cut || bell.take(), "a wake was lost");
        assert!(!frame.is_held());
    });
}

/// One poll in which nothing holds the frame: it is cut, or goes on because the cancel was taken back, before it is armed. True if it is cut.
fn poll_unheld(poller: &mut Poller) -> bool {
    if poller.frame.is_cancelled() {
        poller.frame.begin(true);
        if poller.frame.latch().is_some() {
            return true;
        }
    }
    poller.arm(false);
    false
}

#[test]
fn a_frame_that_is_cancelled_again_after_a_shield_was_raised_is_woken_or_cut() {
    model(|| {
        let outer = scope(&root());
        let inner = scope(&outer);
        outer.cancel(cause());
        let mut poller = Poller::new(frame_of(&inner));
        let raise = spawn(&inner, |inner| inner.set_shielded(true));
        let lower = spawn(&inner, |inner| inner.set_shielded(false));
        let mut is_cut = poll_unheld(&mut poller);
        join(raise);
        join(lower);
        while !is_cut && poller.bell.take() {
            is_cut = poll_unheld(&mut poller);
        }
        assert!(is_cut || !inner.is_cancelled(), "a wake was lost");
    });
}

#[test]
fn a_frame_that_loses_its_hold_and_is_cancelled_meanwhile_is_cut_in_the_end() {
    model(|| {
        let top = root();
        let mut poller = Poller::new(frame_of(&top));
        let mut holds = [Hold::default()];
        assert_eq!(poller.poll(&mut holds), None);
        let [hold] = holds;
        let release = spawn(&Arc::new(()), |_| drop(hold));
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let last = poller.poll(&mut []);
        join(release);
        join(cancel);
        assert_eq!(poller.settle(last, &mut []), Some(Verdict::Cut), "a wake was lost");
    });
}

/// The last of two holds is that which goes last, on whatever thread.
#[test]
fn two_holds_that_go_at_once_leave_no_frame_asleep() {
    model(|| {
        let top = root();
        top.cancel(cause());
        let mut poller = Poller::new(frame_of(&top));
        let mut holds = [Hold::default(), Hold::default()];
        let first = poller.poll(&mut holds);
        assert_eq!(first, Some(Verdict::Held));
        let [one, two] = holds;
        let one = spawn(&Arc::new(()), |_| drop(one));
        let two = spawn(&Arc::new(()), |_| drop(two));
        let last = if poller.bell.take() { poller.poll(&mut []) } else { first };
        join(one);
        join(two);
        assert_eq!(poller.settle(last, &mut []), Some(Verdict::Cut), "a wake was lost");
    });
}

#[test]
fn a_catch_point_is_let_go_by_a_hold_inside_it() {
    model(|| {
        let top = root();
        top.cancel(cause());
        let mut poller = Poller::new(Frame::of_frame(frame_of(&top)));
        let mut holds = [Hold::default()];
        let first = poller.poll(&mut holds);
        assert_eq!(first, Some(Verdict::Held));
        let [hold] = holds;
        let release = spawn(&Arc::new(()), |_| drop(hold));
        let last = poller.poll(&mut []);
        join(release);
        assert_eq!(poller.settle(last, &mut []), Some(Verdict::Cut), "a wake was lost");
    });
}

#[test]
fn a_frame_that_is_uncancelled_meanwhile_is_cut_only_while_it_is_cancelled() {
    model(|| {
        let top = root();
        let node = scope(&top);
        top.cancel(cause());
        let mut poller = Poller::new(frame_of(&node));
        let raise = spawn(&node, |node| node.set_shielded(true));
        let mut last = poller.poll(&mut []);
        let mut cut = last == Some(Verdict::Cut) && node.latch().is_some();
        join(raise);
        while !cut && poller.bell.take() {
            last = poller.poll(&mut []);
            cut = last == Some(Verdict::Cut) && node.latch().is_some();
        }
        assert_eq!(cut, node.is_cancelled());
        if !cut {
            node.set_shielded(false);
            assert!(poller.bell.take(), "a wake was lost");
        }
    });
}

/// One finalizer around the other, in a scope that was cancelled: the second cut goes on with what the first has begun.
#[test]
fn a_cut_that_an_unwinding_passes_keeps_who_absorbs_while_the_outside_is_cancelled() {
    model(|| {
        let top = root();
        let frame = frame_of(&scope(&top));
        let outer = Frame::of_frame(Arc::clone(&frame));
        let inner = Frame::of_frame(Arc::clone(&outer));
        frame.node().cancel(cause());
        let cancel = spawn(&top, |top| top.cancel(cause()));
        let first = inner.latch().expect("it is cancelled throughout");
        let second = outer.latch().expect("it is cancelled throughout");
        assert!(Arc::ptr_eq(&first, &second), "it was moved on the way");
        join(cancel);
        // Where the scope itself is cut, the outermost counts.
        let last = frame.latch().expect("it is cancelled throughout");
        assert!(Arc::ptr_eq(&last, &top) && frame.node().unwinds());
    });
}

/// What the judge takes for the echo of its own wake must be nothing else.
#[test]
fn a_wake_from_elsewhere_is_outstanding_or_disturbs_the_next_poll() {
    model(|| {
        let (bell, waker) = Bell::new();
        let track = Track::new(&waker);
        track.begin();
        let other = spawn(&track, |track| std::task::Waker::from(Arc::clone(track)).wake());
        std::task::Waker::from(Arc::clone(&track)).wake();
        let by_itself = bell.take();
        track.end();
        join(other);
        assert!(by_itself && track.is_woken());
        track.begin();
        assert!(track.is_disturbed() && !track.is_woken());
        track.end();
        track.begin();
        assert!(!track.is_disturbed(), "nothing was, since");
    });
}
