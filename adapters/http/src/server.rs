//! The server: its settings, its life, and what it says at its end.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use testudo::{Nursery, Phase, Policy, ShutdownHandle, nursery, take_part, warn};
use testudo_tower::Owner;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tower_service::Service;

use crate::BoxError;
use crate::accept::{Accepted, Accepting};
use crate::body::RequestBody;
use crate::connection::{Connection, Ending};
use crate::doing::Doing;
use crate::executor::Executor;
use crate::io::Watched;
use crate::listener::Listener;
use crate::service::Noted;

/// Serves `service` to whoever connects, until the run is asked to stop. See the [crate](crate).
///
/// What is returned is awaited, in main or in a task of its own. In a run the server takes part in the graceful phase. Outside of a run it
/// serves until it is cancelled, or [told to stop](Server::stop_when).
///
/// # Examples
///
/// ```no_run
/// // It would serve until somebody stops it.
/// # use axum::Router;
/// # use std::time::Duration;
/// # async fn serve_it(listener: tokio::net::TcpListener, app: Router) {
/// let served = testudo_http::serve(listener, app).name("api").budget(Duration::from_secs(10)).await;
/// println!("{served}");
/// # }
/// ```
pub fn serve<L, S>(listener: L, service: S) -> Server<L, S> {
    Server { listener, service, settings: Settings::default(), stop: None }
}

/// A server that has not begun; made by [`serve`].
///
/// # Cancel safety
///
/// Dropping its future closes the listener and cancels the connections; the owner of the code around adopts them and waits for them.
#[must_use = "a server does nothing until it is awaited"]
pub struct Server<L, S> {
    listener: L,
    service: S,
    settings: Settings,
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

#[derive(Clone, Debug)]
struct Settings {
    name: Arc<str>,
    head_timeout: Duration,
    ping_interval: Duration,
    ping_timeout: Duration,
    budget: Option<Duration>,
    linger: Duration,
    connections_max: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "http".into(),
            head_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(20),
            budget: None,
            linger: Duration::from_secs(1),
            connections_max: None,
        }
    }
}

impl<L, S> Server<L, S> {
    /// Gives the server a name, for reports and dumps; without one it is `http`.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Sets how long the head of an HTTP/1 request may take to arrive, and the preface of HTTP/2; then the connection is closed. The
    /// default is 30 s. It counts from the end of the request before, so it is also how long an idle connection is kept.
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.settings.head_timeout = timeout;
        self
    }

    /// Sets how often an HTTP/2 peer is asked whether it is there, and how long its answer may take; then the connection is closed. The
    /// default is 20 s for both.
    pub fn ping(mut self, interval: Duration, timeout: Duration) -> Self {
        (self.settings.ping_interval, self.settings.ping_timeout) = (interval, timeout);
        self
    }

    /// Sets how long connections have, from the end of accepting on, until they are cancelled; the default is as long as the shutdown of
    /// the run lets them. What was cut off is said as a warning, and in what the server [returns](Served::cut).
    pub fn budget(mut self, budget: Duration) -> Self {
        self.settings.budget = Some(budget);
        self
    }

    /// Sets how long a connection without a request is kept when accepting has ended, if one may be on its way: half of a head has come,
    /// an HTTP/2 peer has not acknowledged the goodbye, or the connection is not older than this and has had no request. The default is 1 s.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Sets how many connections there may be; the next one waits in the queue of the listener until one has ended. The default is no limit.
    /// Those that wait there when accepting ends are served all the same.
    ///
    /// # Panics
    ///
    /// With zero: nobody would be served.
    pub fn connections_max(mut self, max: usize) -> Self {
        assert!(max > 0, "a server without a single connection serves nobody: give `connections_max` at least 1");
        self.settings.connections_max = Some(max);
        self
    }

    /// Stops the server when `stop` is ready, too: a [stage](testudo::StageCx::stop_requested) is told so, for instance.
    pub fn stop_when(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stop = Some(Box::pin(stop));
        self
    }
}

impl<L, S> fmt::Debug for Server<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<L, S, R> IntoFuture for Server<L, S>
where
    L: Listener,
    S: Service<Request<RequestBody>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    R: Body + Send + 'static,
    R::Data: Send,
    R::Error: Into<BoxError>,
{
    type Output = Served;
    type IntoFuture = Pin<Box<dyn Future<Output = Served> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<L, S, R> Server<L, S>
where
    L: Listener,
    S: Service<Request<RequestBody>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    R: Body + Send + 'static,
    R::Data: Send,
    R::Error: Into<BoxError>,
{
    async fn run(self) -> Served {
        let Self { listener, service, settings, stop } = self;
        let shutdown = ShutdownHandle::current();
        let part = shutdown.is_some().then(take_part);
        let gate = Arc::new(Gate { shutdown, stop: watch::Sender::new(false) });
        let tally = Arc::<Tally>::default();
        let name = Arc::clone(&settings.name);
        let connections = {
            let (settings, part, tally) = (settings, &part, Arc::clone(&tally));
            nursery(move |n| async move {
                let room =
                    settings.connections_max.map(|max| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))));
                let (part, name) = (part.as_ref(), Arc::clone(&settings.name));
                let mut accepting = Accepting { listener, part, stop, room, name, pause: Duration::ZERO, warned: None };
                let hall = Hall { nursery: n, service, settings, gate, tally };
                while let Some(accepted) = accepting.next().await {
                    hall.seat::<L, R>(accepted);
                }
                hall.gate.stop.send_replace(true);
                while let Some(accepted) = accepting.left().await {
                    hall.seat::<L, R>(accepted);
                }
                drop(accepting);
                if let Some(budget) = hall.settings.budget {
                    hall.nursery.scope().set_deadline(Instant::now().checked_add(budget));
                }
                Ok::<_, BoxError>(())
            })
            .name(Arc::clone(&name))
            .policy(Policy::Supervise)
        };
        // Nothing in it fails: connections give no errors, and who spawns into it has the handle.
        drop(connections.await);
        let served = tally.served();
        if !served.cut.is_empty() {
            warn(format!("server `{}` has cut off {}", name, served.cut.join(", ")));
        }
        served
    }
}

/// Where connections are served.
struct Hall<S> {
    nursery: Nursery<BoxError>,
    service: S,
    settings: Settings,
    gate: Arc<Gate>,
    tally: Arc<Tally>,
}

impl<S: Clone> Hall<S> {
    /// Begins the task of a connection.
    fn seat<L, R>(&self, (io, peer, room): Accepted<L>)
    where
        L: Listener,
        S: Service<Request<RequestBody>, Response = Response<R>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        R: Body + Send + 'static,
        R::Data: Send,
        R::Error: Into<BoxError>,
    {
        self.tally.connections.fetch_add(1, Ordering::Relaxed);
        let doing = Arc::<Doing>::default();
        let (io, leash) = Watched::new(io, &doing);
        let name = peer.name();
        let connection = Connection {
            http: self.http(&doing, &name),
            leash,
            gate: Arc::clone(&self.gate),
            head_timeout: self.settings.head_timeout,
            linger: self.settings.linger,
            born: Instant::now(),
            ending: Ending::new(&self.tally, &name, Arc::clone(&doing)),
            doing: Arc::clone(&doing),
        };
        let service = Noted {
            inner: TowerToHyperService::new(self.service.clone()),
            doing: Arc::clone(&doing),
            gate: Arc::clone(&self.gate),
            peer,
            owner: Owner::new(self.nursery.clone()),
        };
        let task = async move {
            let _room = room;
            connection.run(io, service).await;
        };
        self.nursery.task().name(name).status(move || doing.to_string()).spawn(task);
    }

    fn http(&self, doing: &Arc<Doing>, peer: &Arc<str>) -> auto::Builder<Executor> {
        let (nursery, doing) = (self.nursery.clone(), Arc::clone(doing));
        let (peer, tally) = (Arc::clone(peer), Arc::clone(&self.tally));
        let mut http = auto::Builder::new(Executor { nursery, doing, peer, tally });
        http.http1().timer(TokioTimer::new()).header_read_timeout(self.settings.head_timeout);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.settings.ping_interval)
            .keep_alive_timeout(self.settings.ping_timeout)
            .enable_connect_protocol();
        http
    }
}

/// Whether the server wants more.
pub(crate) struct Gate {
    shutdown: Option<ShutdownHandle>,
    /// True when accepting has ended.
    stop: watch::Sender<bool>,
}

impl Gate {
    /// True from the request to stop on: clients should look for another server.
    pub(crate) fn is_closing(&self) -> bool {
        *self.stop.borrow() || self.shutdown.as_ref().is_some_and(|run| run.phase() > Phase::Running)
    }

    /// Waits for the end of accepting.
    pub(crate) async fn wait_stop(&self) {
        // The sender is ours.
        drop(self.stop.subscribe().wait_for(|stop| *stop).await);
    }
}

/// Counts what is to be told at the end.
#[derive(Default)]
pub(crate) struct Tally {
    connections: AtomicU64,
    cut: Mutex<Vec<String>>,
}

impl Tally {
    pub(crate) fn note_cut(&self, who: String) {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).push(who);
    }

    fn served(&self) -> Served {
        let cut = std::mem::take(&mut *self.cut.lock().unwrap_or_else(PoisonError::into_inner));
        Served { connections: self.connections.load(Ordering::Relaxed), cut }
    }
}

/// What a server has done. A server that is cancelled from outside does not return it; the report of the run names its connections.
#[derive(Clone, Debug)]
pub struct Served {
    connections: u64,
    cut: Vec<String>,
}

impl Served {
    /// Returns how many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Returns the connections, and the streams of HTTP/2, that were cut off, by their peer and what they were doing: those in a request when the server's
    /// own [budget](Server::budget) was over, and those that its [linger](Server::linger) has closed in the middle of a head, or while
    /// an HTTP/2 peer owed its goodbye.
    pub fn cut(&self) -> &[String] {
        &self.cut
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections", self.connections)?;
        match self.cut.as_slice() {
            [] => Ok(()),
            cut => write!(f, ", cut off: {}", cut.join(", ")),
        }
    }
}
