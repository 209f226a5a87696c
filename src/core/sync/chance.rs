//! Delays by chance before each step that threads can see of each other, so that a stress test meets more of their orders.
//!
//! They exist only under `--cfg testudo_stress`. `TESTUDO_CHANCE` says before how many steps of a thousand there is one, 20 by default.

use std::cell::Cell;
use std::hint::spin_loop;

use super::{OnceLock, imp, yield_now};

thread_local! {
    /// 0 before the first step.
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Of so many steps [`chance`] are delayed.
const OF: u64 = 1000;

/// Perhaps lets other threads go first.
pub(super) fn step() {
    STATE.with(|state| {
        if state.get() == 0 {
            state.set(seed());
        }
        let number = next(state);
        if number % OF < chance() {
            delay(number / OF);
        }
    });
}

/// Mostly short, so that two threads come into the same few instructions; sometimes for some turns of the others.
fn delay(number: u64) {
    let length = number / 8;
    match number % 8 {
        0 => (0..length % 64).for_each(|_| yield_now()),
        1..4 => yield_now(),
        4..7 => (0..length % 1024).for_each(|_| spin_loop()),
        _ => (0..length % 65536).for_each(|_| spin_loop()),
    }
}

fn chance() -> u64 {
    static CHANCE: OnceLock<u64> = OnceLock::new();
    *CHANCE.get_or_init(|| number("TESTUDO_CHANCE").unwrap_or(20))
}

fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    static THREADS: imp::atomic::AtomicU64 = imp::atomic::AtomicU64::new(1);
    let thread = THREADS.fetch_add(1, imp::atomic::Ordering::Relaxed);
    (*SEED.get_or_init(|| number("TESTUDO_SEED").unwrap_or(1)) << 20) + thread
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// SplitMix64, as in the stress test.
fn next(state: &Cell<u64>) -> u64 {
    state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mut z = state.get();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
