//! A run with a server in it, and clients that speak bytes.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use testudo::{Finished, Outcome, Runner, shutdown};
use testudo_http::{Served, Server, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long anything may take that should not take long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What is left of a run.
pub(crate) struct Ran {
    /// What the server has returned; none if it was cancelled from outside.
    pub(crate) served: Option<Served>,
    /// From the request to stop on.
    pub(crate) took: Duration,
    pub(crate) report: testudo::Report,
}

impl Ran {
    /// The tasks that were cut off, as the report names them.
    pub(crate) fn cancelled(&self) -> Vec<String> {
        let stop = self.report.stop().expect("the run was stopped");
        stop.cancelled().iter().map(ToString::to_string).collect()
    }

    pub(crate) fn assert_named(&self, part: &str) {
        let cancelled = self.cancelled();
        assert!(cancelled.iter().any(|who| who.contains(part)), "no {part} in {cancelled:#?}\n{}", self.report);
    }
}

/// A runner whose graceful phase takes 300 ms at most.
pub(crate) fn runner() -> Runner {
    let graceful = Duration::from_millis(300);
    Runner::new().worker_threads(2).reporter(None).budget(Duration::from_secs(10)).graceful_budget(graceful)
}

/// Serves `app`, lets `client` come, and asks for a stop when that has returned. What it returns lives until the end.
pub(crate) fn run<C, F>(
    runner: Runner,
    app: Router,
    set: impl FnOnce(Server<TcpListener, Router>) -> Server<TcpListener, Router>,
    client: C,
) -> Ran
where
    C: FnOnce(SocketAddr) -> F,
    F: Future,
{
    // The client outlives the run: a connection that it closes is not cut off.
    let (mut asked, mut served, mut kept) = (None, None, None);
    let finished: Finished<(), std::io::Error> = runner.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = set(serve(listener, app));
        let task = testudo::spawn(async move { Ok::<_, std::io::Error>(server.await) });
        kept = Some(client(address).await);
        asked = Some(Instant::now());
        shutdown("the test is over");
        if let Outcome::Ok(done) = task.await {
            served = Some(done);
        }
        Ok(())
    });
    assert!(!matches!(finished.outcome, Outcome::Err(_) | Outcome::Panicked(_)), "{:?}", finished.outcome);
    drop(kept);
    Ran { served, took: asked.expect("the client has come").elapsed(), report: finished.report }
}

/// Waits until the tree says `part`.
pub(crate) async fn wait_dump(part: &str) {
    let began = Instant::now();
    while !testudo::dump().to_string().contains(part) {
        assert!(began.elapsed() < PATIENCE, "no {part} in\n{}", testudo::dump());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Connects and sends.
pub(crate) async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Reads until `part` has come.
pub(crate) async fn read_until(stream: &mut TcpStream, part: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(part) {
        let mut buffer = [0; 1024];
        let n = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("in time").unwrap();
        assert!(n > 0, "the end came before {part}: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads to the end, whatever that is.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("in time"));
    String::from_utf8_lossy(&text).into_owned()
}

/// Looks at the answer when it is dropped, at the end of the test.
pub(crate) struct Answer {
    text: Option<std::thread::JoinHandle<String>>,
    parts: &'static [&'static str],
}

impl Answer {
    /// What is yet to come has these parts. It is read on a thread of its own, which the run does not cancel.
    pub(crate) fn with(stream: TcpStream, parts: &'static [&'static str]) -> Self {
        let stream = stream.into_std().unwrap();
        let read = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { read_to_end(&mut TcpStream::from_std(stream).unwrap()).await })
        };
        Self { text: Some(std::thread::spawn(read)), parts }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let text = self.text.take().map(|text| text.join().unwrap()).unwrap_or_default();
        assert!(self.parts.iter().all(|part| text.contains(part)), "not all of {:?} in {text:?}", self.parts);
    }
}
