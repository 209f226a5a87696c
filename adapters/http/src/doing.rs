//! What a connection is doing, for those who look at it and for its end.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Shared by the task of a connection, what it reads and writes, its requests and its streams.
#[derive(Default)]
pub(crate) struct Doing {
    /// Those that have begun and whose answer has not been written.
    requests: Mutex<Requests>,
    /// By its first bytes: see [`UNKNOWN`].
    protocol: AtomicU8,
    /// Bytes of a head have come.
    in_head: AtomicBool,
    /// Bytes wait for a peer that does not read.
    write_blocked: AtomicBool,
    /// The tasks of HTTP/2 streams that are alive.
    streams: AtomicUsize,
    is_upgraded: AtomicBool,
    /// Told of each change that the end of the connection may wait for.
    pub(crate) changed: watch::Sender<()>,
    /// What it was doing when a cancel came; its destructors say otherwise.
    at_cancel: Mutex<Option<String>>,
}

#[derive(Default)]
struct Requests {
    active: Vec<Arc<Request>>,
    /// The latest, for what comes of it: the stream of HTTP/2, or the upgrade.
    latest: Option<Arc<Request>>,
}

/// One request of a connection.
pub(crate) struct Request {
    name: Arc<str>,
    part: AtomicU8,
}

/// What a request is at.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Reading = 0,
    Working = 1,
    Answering = 2,
}

impl Request {
    pub(crate) fn rise(&self, part: Part) {
        self.part.fetch_max(part as u8, Ordering::Relaxed);
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(crate) fn part(&self) -> &'static str {
        match self.part.load(Ordering::Relaxed) {
            part if part == Part::Reading as u8 => "reading its body",
            part if part == Part::Working as u8 => "working",
            _ => "writing its answer",
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.name, self.part())
    }
}

/// What each HTTP/2 connection begins with. As long as only a part of it has come, nobody knows the protocol.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol is not known, and so many bytes of the preface have come.
const UNKNOWN: std::ops::Range<u8> = 0..PREFACE.len() as u8;
const HTTP1: u8 = u8::MAX;
const HTTP2: u8 = PREFACE.len() as u8;

/// What is known after `known` and the next byte.
fn protocol(known: u8, byte: &u8) -> u8 {
    match PREFACE.get(usize::from(known)) {
        Some(next) if next == byte => known + 1,
        Some(_) => HTTP1,
        None => known,
    }
}

impl Doing {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head of a request is complete.
    pub(crate) fn begin(self: &Arc<Self>, name: Arc<str>) -> Active {
        let request = Arc::new(Request { name, part: AtomicU8::new(Part::Reading as u8) });
        self.in_head.store(false, Ordering::Relaxed);
        let mut requests = self.requests();
        requests.latest = Some(Arc::clone(&request));
        requests.active.push(Arc::clone(&request));
        drop(requests);
        self.changed.send_replace(());
        Active { doing: Arc::clone(self), request }
    }

    /// True if a request has ever begun.
    fn has_begun(&self) -> bool {
        self.requests().latest.is_some()
    }

    /// Waits for the first request.
    pub(crate) async fn wait_begun(&self) {
        let mut changes = self.changed.subscribe();
        while !self.has_begun() {
            // The sender is ours.
            drop(changes.changed().await);
        }
    }

    pub(crate) fn latest(&self) -> Option<Arc<Request>> {
        self.requests().latest.clone()
    }

    /// Bytes were read.
    pub(crate) fn read(&self, bytes: &[u8]) {
        let known = self.protocol.load(Ordering::Relaxed);
        if UNKNOWN.contains(&known) {
            self.protocol.store(bytes.iter().fold(known, protocol), Ordering::Relaxed);
        }
        let in_head = !self.is_http2() && self.requests().active.is_empty();
        self.in_head.store(in_head, Ordering::Relaxed);
    }

    /// True if its peer has begun something and not ended it: a head, or the life of an HTTP/2 connection.
    pub(crate) fn is_in_the_middle(&self) -> bool {
        self.in_head.load(Ordering::Relaxed) || self.is_http2()
    }

    /// True if it could be of either protocol.
    pub(crate) fn is_unknown(&self) -> bool {
        UNKNOWN.contains(&self.protocol.load(Ordering::Relaxed))
    }

    pub(crate) fn set_write_blocked(&self, blocked: bool) {
        if self.write_blocked.swap(blocked, Ordering::Relaxed) && !blocked {
            self.changed.send_replace(());
        }
    }

    pub(crate) fn set_upgraded(&self) {
        self.is_upgraded.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.protocol.load(Ordering::Relaxed) == HTTP2
    }

    pub(crate) fn has_streams(&self) -> bool {
        self.streams.load(Ordering::Acquire) > 0
    }

    /// True if nobody would miss the connection: no request has begun and not ended, and nothing is left to write.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.has_streams() && !self.write_blocked.load(Ordering::Relaxed) && self.requests().active.is_empty()
    }

    pub(crate) fn begin_stream(self: &Arc<Self>) -> Stream {
        self.streams.fetch_add(1, Ordering::AcqRel);
        Stream(Arc::clone(self))
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.at_cancel.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(then) => f.write_str(then),
            None => self.fmt_now(f),
        }
    }
}

impl Doing {
    /// A cancel is visible: what is said from now on is what is done now.
    pub(crate) fn freeze(&self) {
        let now = Now(self).to_string();
        *self.at_cancel.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    fn fmt_now(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests();
        if self.is_upgraded.load(Ordering::Relaxed) {
            let name = requests.latest.as_ref().map_or("a connection", |request| &*request.name);
            return write!(f, "{name}, upgraded");
        }
        match requests.active.as_slice() {
            [] if self.in_head.load(Ordering::Relaxed) => f.write_str("reading the head of a request"),
            [] if self.is_http2() => f.write_str("HTTP/2, idle"),
            [] => f.write_str("idle"),
            [one] => write!(f, "{one}"),
            [one, more @ ..] => write!(f, "{one}, and {} more", more.len()),
        }?;
        if self.write_blocked.load(Ordering::Relaxed) { f.write_str(", which its peer does not read") } else { Ok(()) }
    }
}

struct Now<'a>(&'a Doing);

impl fmt::Display for Now<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_now(f)
    }
}

/// Counts a request until its answer was written, or dropped.
pub(crate) struct Active {
    doing: Arc<Doing>,
    pub(crate) request: Arc<Request>,
}

impl Drop for Active {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.doing.is_http2() {
            // Its connection ends with it, and the report of that says what it was doing.
            self.doing.freeze();
        }
        let mut requests = self.doing.requests();
        requests.active.retain(|request| !Arc::ptr_eq(request, &self.request));
        drop(requests);
        self.doing.changed.send_replace(());
    }
}

/// Counts the task of an HTTP/2 stream.
pub(crate) struct Stream(Arc<Doing>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.send_replace(());
    }
}
