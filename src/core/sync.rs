//! The one switch between the locks and atomics of std and those of loom.

#[cfg(not(testudo_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(testudo_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

// loom's `Arc` has no `Weak`; counting references is not what its models look at.
pub(crate) use std::sync::{Arc, OnceLock};

#[cfg(testudo_loom)]
pub(crate) use loom::thread::yield_now;
#[cfg(not(testudo_loom))]
pub(crate) use std::thread::yield_now;

#[cfg(testudo_loom)]
use loom::sync as imp;
#[cfg(not(testudo_loom))]
use std::sync as imp;

/// A mutex that outlives panics: what it guards is changed by code that can not panic half-way.
#[derive(Debug)]
pub(crate) struct Mutex<T>(imp::Mutex<T>);

pub(crate) type MutexGuard<'a, T> = imp::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        match self.0.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}
