//! The one switch between the locks and atomics of std and those of loom.

#[cfg(testudo_stress)]
mod chance;

pub(crate) use imp::atomic::Ordering;
#[cfg(not(any(testudo_loom, testudo_stress)))]
pub(crate) use imp::atomic::{AtomicBool, AtomicUsize};
#[cfg(any(testudo_loom, testudo_stress))]
pub(crate) use stepped::{AtomicBool, AtomicUsize};

// loom's `Arc` has no `Weak`; counting references is not what its models look at.
pub(crate) use std::sync::Arc;

#[cfg(testudo_loom)]
pub(crate) use modelled::OnceLock;
#[cfg(not(testudo_loom))]
pub(crate) use std::sync::OnceLock;

#[cfg(testudo_loom)]
pub(crate) use loom::thread::yield_now;
#[cfg(not(testudo_loom))]
pub(crate) use std::thread::yield_now;

#[cfg(all(test, testudo_loom))]
pub(crate) use loom::{model, thread};

#[cfg(testudo_loom)]
use loom::sync as imp;
#[cfg(not(testudo_loom))]
use std::sync as imp;

/// Names the thread that asks, among those that live.
pub(crate) fn this_thread() -> usize {
    #[cfg(testudo_loom)]
    loom::thread_local! { static HERE: u8 = 0; }
    #[cfg(not(testudo_loom))]
    std::thread_local! { static HERE: u8 = const { 0 } }
    HERE.with(|here| std::ptr::from_ref(here) as usize)
}

/// A mutex that outlives panics: what it guards is changed by code that can not panic half-way.
#[derive(Debug)]
pub(crate) struct Mutex<T>(imp::Mutex<T>);

pub(crate) type MutexGuard<'a, T> = imp::MutexGuard<'a, T>;

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(testudo_stress)]
        chance::step();
        match self.0.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    /// What it guards, without a lock: nobody else knows the mutex.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        match self.0.get_mut() {
            Ok(value) => value,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}

#[cfg(any(testudo_loom, testudo_stress))]
mod stepped {
    use super::Ordering;
    use super::imp::atomic as real;

    /// What happens before each access of an atomic.
    ///
    /// loom remembers the last access only. A thread that loads and then stores hides its store from those who loaded before, so
    /// loom would never let the store come first; so each access is made a step that races with every other. The relaxed change
    /// orders nothing: a load may still be stale.
    #[cfg(testudo_loom)]
    #[derive(Debug)]
    struct Step(real::AtomicUsize);

    #[cfg(not(testudo_loom))]
    #[derive(Debug)]
    struct Step;

    impl Step {
        #[cfg(testudo_loom)]
        fn new() -> Self {
            Self(real::AtomicUsize::new(0))
        }

        #[cfg(testudo_loom)]
        fn take(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        #[cfg(not(testudo_loom))]
        fn new() -> Self {
            Self
        }

        #[cfg(not(testudo_loom))]
        #[expect(clippy::unused_self, reason = "the same surface as for loom")]
        fn take(&self) {
            super::chance::step();
        }
    }

    macro_rules! atomic {
        ($name:ident, $value:ty, $($rmw:ident)*) => {
            #[derive(Debug)]
            pub(crate) struct $name {
                step: Step,
                value: real::$name,
            }

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self { step: Step::new(), value: real::$name::new(value) }
                }

                fn touch(&self) -> &real::$name {
                    self.step.take();
                    &self.value
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    self.touch().load(order)
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    self.touch().store(value, order);
                }

                $(#[cfg_attr(not(test), allow(dead_code, reason = "one is for tests only"))]
                pub(crate) fn $rmw(&self, value: $value, order: Ordering) -> $value {
                    self.touch().$rmw(value, order)
                })*
            }
        };
    }

    atomic!(AtomicBool, bool, swap);
    atomic!(AtomicUsize, usize, fetch_add fetch_sub fetch_and fetch_or swap);

    impl AtomicUsize {
        pub(crate) fn compare_exchange_weak(
            &self,
            old: usize,
            new: usize,
            ok: Ordering,
            not: Ordering,
        ) -> Result<usize, usize> {
            self.touch().compare_exchange_weak(old, new, ok, not)
        }
    }
}

#[cfg(testudo_loom)]
mod modelled {
    use super::{AtomicBool, Mutex, Ordering};

    /// The `OnceLock` of std with steps that loom can see.
    ///
    /// All threads of a model are one thread of the system: one that waited inside std's for another's `init` would stop
    /// them all, and a read that loom does not see is never reordered.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        is_set: AtomicBool,
        init: Mutex<()>,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self { is_set: AtomicBool::new(false), init: Mutex::new(()), value: std::sync::OnceLock::new() }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            let mut value = Some(value);
            self.get_or_init(|| value.take().expect("`init` is called once"));
            value.map_or(Ok(()), Err)
        }

        pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
            if let Some(value) = self.get() {
                return value;
            }
            let guard = self.init.lock();
            let value = self.value.get_or_init(init);
            self.is_set.store(true, Ordering::Release);
            drop(guard);
            value
        }
    }

    impl<T> From<T> for OnceLock<T> {
        fn from(value: T) -> Self {
            let cell = Self::new();
            let _ = cell.set(value);
            cell
        }
    }

    impl<T: Clone> Clone for OnceLock<T> {
        fn clone(&self) -> Self {
            self.get().cloned().map_or_else(Self::new, Self::from)
        }
    }
}
