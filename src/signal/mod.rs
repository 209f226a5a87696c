//! Signals of the process as events on a thread of their own.
//!
//! The thread has its own small runtime, so a signal arrives also while every worker of the
//! program's runtime is wedged. Callbacks run on it outside of that runtime; they may block, but
//! delay the signals after them.
//!
//! Tokio never uninstalls a handler. So when nobody is subscribed to a signal that was at its
//! default before us, the thread itself carries out that default.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as channel};
use std::thread::{self, ThreadId};

use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as platform;
#[cfg(windows)]
use windows as platform;

/// A request to the process from outside: a Unix signal or a Windows console event.
///
/// All variants exist on all platforms, so that one list serves everywhere; one that the platform
/// does not have never arrives.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// The user's Ctrl-C. Unix: `SIGINT`. Windows: `CTRL_C_EVENT`.
    Interrupt,
    /// A polite stop, by `kill` or a service manager. Unix: `SIGTERM`. Windows: none.
    Terminate,
    /// The user's Ctrl-\\. Unix: `SIGQUIT`. Windows: none.
    Quit,
    /// The terminal went away, or "reload". Unix: `SIGHUP`. Windows: none.
    Hangup,
    /// Says what is alive, unless the program [takes it](crate::Runner::on_signal). Unix: `SIGUSR1`. Windows: none.
    User1,
    /// Free for the program. Unix: `SIGUSR2`. Windows: none.
    User2,
    /// The user's Ctrl-Break. Unix: none. Windows: `CTRL_BREAK_EVENT`.
    Break,
    /// The console window is closed; Windows ends the process after 5 s. Unix: none. Windows:
    /// `CTRL_CLOSE_EVENT`.
    Close,
    /// A user logs off; only services see it, for 5 s. Unix: none. Windows: `CTRL_LOGOFF_EVENT`.
    Logoff,
    /// The machine goes down; only services see it, for 20 s. Unix: none. Windows:
    /// `CTRL_SHUTDOWN_EVENT`.
    Shutdown,
}

impl Signal {
    /// Returns the number `n` of the exit code `128 + n` for an end by this signal.
    ///
    /// On Unix it is the number of the signal. On Windows, which has none, it is 2 (`SIGINT`) for
    /// Ctrl-C or Ctrl-Break, 15 (`SIGTERM`) for close, logoff or shutdown. `None` means that the
    /// signal does not exist on this platform.
    pub fn number(self) -> Option<i32> {
        platform::number(self)
    }
}

/// Writes the platform's name: `SIGINT` on Unix, `CTRL_C` on Windows.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Interrupt => platform::INTERRUPT,
            Self::Terminate => "SIGTERM",
            Self::Quit => "SIGQUIT",
            Self::Hangup => "SIGHUP",
            Self::User1 => "SIGUSR1",
            Self::User2 => "SIGUSR2",
            Self::Break => "CTRL_BREAK",
            Self::Close => "CTRL_CLOSE",
            Self::Logoff => "CTRL_LOGOFF",
            Self::Shutdown => "CTRL_SHUTDOWN",
        })
    }
}

/// Calls `on_signal` for each of `signals` that arrives while the returned subscription lives.
///
/// On return the handlers are installed: a signal sent from now on is not lost. Signals that the
/// platform does not have, or that were ignored when the process was started, are left alone.
/// `on_signal` runs on the signal thread; when it panics, the panic hook has reported it, and the
/// thread goes on. Signals of one kind that arrive faster than they are served may be one call.
///
/// # Errors
///
/// The thread could not be started, or the system refused a handler. Nobody is subscribed then.
pub(crate) fn subscribe(
    signals: &[Signal],
    on_signal: impl Fn(Signal) + Send + Sync + 'static,
) -> io::Result<Subscription> {
    let mut state = lock(&STATE);
    let watcher = state.watcher()?;
    for &signal in signals {
        state.install(signal, &watcher)?;
    }
    let listener = Arc::new(Listener {
        signals: signals.to_vec(),
        open: AtomicBool::new(true),
        turn: Mutex::new(()),
        on_signal: Box::new(on_signal),
    });
    state.listeners.push(Arc::clone(&listener));
    Ok(Subscription { listener, watcher: watcher.thread })
}

/// Ends the process as the default action of `signal` does: on Unix, by the signal itself.
pub(crate) fn die_by(signal: Signal) -> ! {
    platform::die_by(signal)
}

/// Keeps a callback subscribed.
///
/// # Drop
///
/// Ends the subscription. When the drop returns, the callback does not run any more: it waits for
/// a call that is under way, unless it happens on the signal thread, that is, within a callback.
/// A signal that has arrived but is not served by then is nobody's: its default action follows, so
/// whoever ends with the process had better keep the subscription to the end.
#[must_use = "dropping a subscription ends it"]
pub(crate) struct Subscription {
    listener: Arc<Listener>,
    watcher: ThreadId,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("signals", &self.listener.signals).finish_non_exhaustive()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&STATE).listeners.retain(|other| !Arc::ptr_eq(other, &self.listener));
        self.listener.open.store(false, Ordering::Relaxed);
        if thread::current().id() != self.watcher {
            drop(lock(&self.listener.turn));
        }
    }
}

/// What a signal did before we touched it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(windows, allow(dead_code, reason = "Windows does not tell"))]
enum Before {
    Default,
    Ignored,
    /// Another part of the program handles it, so it is not ours to end the process.
    Caught,
}

/// One subscribed callback.
struct Listener {
    signals: Vec<Signal>,
    /// True until the subscription is dropped. `Relaxed` suffices: a reader holds `turn`, and the
    /// writer takes `turn` after it, or is the reader's own thread.
    open: AtomicBool,
    /// Held while `on_signal` runs, so that a drop can wait for its end.
    turn: Mutex<()>,
    on_signal: Box<dyn Fn(Signal) + Send + Sync>,
}

impl Listener {
    /// Runs the callback and returns true, unless the subscription has ended meanwhile.
    ///
    /// It takes the `Arc`, because the drop of what the callback captured may panic just as well.
    fn call(self: Arc<Self>, signal: Signal) -> bool {
        let called = catch_unwind(AssertUnwindSafe(move || {
            let _turn = lock(&self.turn);
            let open = self.open.load(Ordering::Relaxed);
            if open {
                (self.on_signal)(signal);
            }
            open
        }));
        called.unwrap_or(true)
    }
}

/// Everything the process has set up for signals.
struct State {
    /// Set by the first subscription; its thread lives as long as the process.
    watcher: Option<Watcher>,
    /// Each signal looked at so far; written at the first look, never changed.
    before: Vec<(Signal, Before)>,
    /// The signals that reach the watcher; it only grows.
    installed: Vec<Signal>,
    /// Exactly the live subscriptions.
    listeners: Vec<Arc<Listener>>,
}

/// Never held while a callback or a `turn` is.
static STATE: Mutex<State> =
    Mutex::new(State { watcher: None, before: Vec::new(), installed: Vec::new(), listeners: Vec::new() });

impl State {
    fn watcher(&mut self) -> io::Result<Watcher> {
        if let Some(watcher) = &self.watcher {
            return Ok(watcher.clone());
        }
        let watcher = Watcher::start()?;
        Ok(self.watcher.insert(watcher).clone())
    }

    fn before(&mut self, signal: Signal) -> Before {
        if let Some(&(_, before)) = self.before.iter().find(|(known, _)| *known == signal) {
            return before;
        }
        let before = platform::before(signal);
        self.before.push((signal, before));
        before
    }

    fn install(&mut self, signal: Signal, watcher: &Watcher) -> io::Result<()> {
        // Must look before the first handler: afterwards every signal is caught.
        if self.before(signal) == Before::Ignored || self.installed.contains(&signal) {
            return Ok(());
        }
        if watcher.watch(signal)? {
            self.installed.push(signal);
        }
        Ok(())
    }

    fn interested_in(&self, signal: Signal) -> Vec<Arc<Listener>> {
        let interested = |listener: &&Arc<Listener>| listener.signals.contains(&signal);
        self.listeners.iter().filter(interested).cloned().collect()
    }
}

/// The way to the signal thread.
#[derive(Clone)]
struct Watcher {
    runtime: Handle,
    events: mpsc::UnboundedSender<Signal>,
    thread: ThreadId,
}

impl Watcher {
    fn start() -> io::Result<Self> {
        let (events, arriving) = mpsc::unbounded_channel();
        let (starting, started) = channel::channel();
        let thread = thread::Builder::new().name("testudo-signals".into()).spawn(move || serve(&starting, arriving))?;
        // No answer: the thread panicked, as tokio does when the process is out of descriptors.
        let runtime = started.recv().map_err(io::Error::other)??;
        Ok(Self { runtime, events, thread: thread.thread().id() })
    }

    /// Installs the handler of `signal` if the platform has this signal, and returns whether it has.
    fn watch(&self, signal: Signal) -> io::Result<bool> {
        // The stream belongs to the watcher's runtime; the caller may be within another one.
        let _within = self.runtime.enter();
        let Some(stream) = platform::listen(signal)? else {
            return Ok(false);
        };
        self.runtime.spawn(forward(signal, stream, self.events.clone()));
        Ok(true)
    }
}

async fn forward(signal: Signal, mut stream: platform::Stream, events: mpsc::UnboundedSender<Signal>) {
    while stream.recv().await.is_some() && events.send(signal).is_ok() {}
}

/// The signal thread.
///
/// The runtime is built and kept here, not by the caller: that one may be within another runtime,
/// where none may be dropped.
fn serve(starting: &channel::Sender<io::Result<Handle>>, mut events: mpsc::UnboundedReceiver<Signal>) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(starting.send(Err(error))),
    };
    drop(starting.send(Ok(runtime.handle().clone())));
    while let Some(signal) = runtime.block_on(events.recv()) {
        dispatch(signal);
    }
}

/// Gives `signal` to everybody interested; to nobody means its default action.
fn dispatch(signal: Signal) {
    let interested = lock(&STATE).interested_in(signal);
    let served = interested.into_iter().fold(false, |served, listener| listener.call(signal) | served);
    if !served && lock(&STATE).before(signal) == Before::Default {
        die_by(signal);
    }
}

/// Locks also a poisoned mutex: no code of ours leaves these half-written when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
