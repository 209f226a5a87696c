//! What the settings of a server do.

use std::convert::Infallible;
use std::future::{Future, IntoFuture};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Extension;
use axum::routing::get;
use axum::{Router, body::Body};
use testudo::{Event, Reporter, Runner, Task};
use testudo_http::{Owner, Peer, Served, Server, serve};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::memory::{Clients, Queue, queue, read_all};
use crate::support::wait_dump;

const SECOND: Duration = Duration::from_secs(1);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

struct Running {
    task: Task<Served, Infallible>,
    stop: oneshot::Sender<()>,
}

impl Running {
    async fn stop(self) -> Served {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

/// Serves in the background, until told to stop.
fn begin(app: Router, set: impl FnOnce(Server<Queue, Router>) -> Server<Queue, Router>) -> (Clients, Running) {
    let (clients, listener) = queue();
    let (stop, stopped) = oneshot::channel();
    let server = set(serve(listener, app)).stop_when(async { drop(stopped.await) });
    (clients, Running { task: testudo::spawn(async { Ok(server.await) }), stop })
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

#[testudo::test(start_paused = true)]
async fn it_serves_until_it_is_told_to_stop() {
    let (clients, server) = begin(hello(), |s| s);
    for _ in 0..2 {
        assert!(read_all(clients.send(GET).await).await.ends_with("hello"));
    }
    assert_eq!(server.stop().await.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn outside_of_a_run_it_serves_as_well() {
    let (clients, listener) = queue();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve(listener, hello()).stop_when(async { drop(stopped.await) });
    let client = async {
        let answer = read_all(clients.send(GET).await).await;
        drop(stop);
        answer
    };
    let (served, answer) = tokio::join!(server.into_future(), client);
    assert!(answer.ends_with("hello") && served.cut().is_empty(), "{answer}");
}

#[testudo::test(start_paused = true)]
async fn a_head_that_does_not_come_is_waited_for_so_long() {
    let (clients, server) = begin(hello(), |s| s.head_timeout(5 * SECOND));
    for part in ["", "P", "PRI * HT", "GET / HTTP/1.1\r\nhos"] {
        let began = Instant::now();
        read_all(clients.send(part.as_bytes()).await).await;
        assert_eq!(began.elapsed().as_secs(), 5, "{part:?}");
    }
    let mut kept = clients.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut answer = [0; 12];
    kept.read_exact(&mut answer).await.unwrap();
    let began = Instant::now();
    read_all(kept).await;
    assert_eq!(began.elapsed().as_secs(), 5, "idle");
    server.stop().await;
}

#[testudo::test(start_paused = true)]
async fn an_http2_peer_that_does_not_answer_is_let_go() {
    let (clients, server) = begin(hello(), |s| s.ping(3 * SECOND, 2 * SECOND));
    let began = Instant::now();
    let silent = clients.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let (mut read, _write) = tokio::io::split(silent);
    let mut bytes = Vec::new();
    drop(read.read_to_end(&mut bytes).await);
    assert_eq!(began.elapsed().as_secs(), 5);
    server.stop().await;
}

#[testudo::test(start_paused = true)]
async fn no_more_connections_than_allowed_are_served_at_a_time() {
    let (clients, server) = begin(hello(), |s| s.connections_max(1));
    let first = clients.send(b"GET / HT").await;
    let second = clients.send(GET).await;
    let answer = testudo::spawn(async { Ok::<_, Infallible>(read_all(second).await) });
    sleep(SECOND).await;
    assert!(!answer.is_finished(), "the second was served beside the first");
    drop(first);
    assert!(answer.await.unwrap().ends_with("hello"));
    server.stop().await;
}

#[test]
fn an_error_of_the_listener_is_said_once_a_minute_and_accepting_goes_on() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&said);
    let reporter = Reporter::new(move |event| {
        if let Event::Warning(what) = event {
            hear.lock().unwrap().push(what.to_string());
        }
    });
    let finished = Runner::new().current_thread().reporter(reporter).run(async {
        tokio::time::pause();
        let (clients, server) = begin(hello(), |s| s.name("api"));
        let began = Instant::now();
        for _ in 0..10 {
            clients.fail(io::Error::from_raw_os_error(24)); // EMFILE
        }
        assert!(read_all(clients.send(GET).await).await.ends_with("hello"));
        // 10 ms, doubled each time, 1 s at most.
        assert!((4270..4300).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        for pause in [0, 60] {
            sleep(pause * SECOND).await;
            clients.fail(io::Error::from_raw_os_error(24));
            assert!(read_all(clients.send(GET).await).await.ends_with("hello"));
        }
        server.stop().await;
    });
    finished.outcome.unwrap();
    let said = said.lock().unwrap();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("server `api` can not accept connections"), "{said:?}");
}

#[test]
#[should_panic = "give `connections_max` at least 1"]
fn a_server_without_a_single_connection_is_refused() {
    let (_, listener) = queue();
    drop(serve(listener, hello()).connections_max(0));
}

#[test]
fn a_budget_of_its_own_cuts_off_what_is_left_and_says_what() {
    let mut taken = None;
    let finished = Runner::new().current_thread().reporter(None).run(async {
        tokio::time::pause();
        let app = Router::new().route("/stuck", get(std::future::pending::<()>));
        let (clients, server) = begin(app, |s| s.budget(3 * SECOND));
        let stuck = clients.send(b"GET /stuck HTTP/1.1\r\nhost: a\r\n\r\n").await;
        wait_dump("task pipe [GET /stuck, working]").await;
        let began = Instant::now();
        let served = server.stop().await;
        taken = Some((served, began.elapsed().as_secs()));
        drop(stuck);
    });
    finished.outcome.unwrap();
    let (served, secs) = taken.unwrap();
    assert_eq!((served.cut(), secs), (["pipe [GET /stuck, working]".to_owned()].as_slice(), 3));
    let said: Vec<String> = finished.report.events().iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|event| event.contains("has cut off pipe [GET /stuck, working]")), "{said:?}");
}

#[test]
fn a_handler_that_panics_is_reported_and_takes_nobody_along() {
    let finished = Runner::new().current_thread().reporter(None).run(async {
        tokio::time::pause();
        let app = hello().route("/broken", get(|| async { panic!("the handler is broken") as () }));
        let (clients, server) = begin(app, |s| s);
        assert_eq!(read_all(clients.send(b"GET /broken HTTP/1.1\r\nhost: a\r\n\r\n").await).await, "");
        assert!(read_all(clients.send(GET).await).await.ends_with("hello"));
        server.stop().await;
    });
    finished.outcome.unwrap();
    let said: Vec<String> = finished.report.events().iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|event| event.contains("`pipe`") && event.contains("the handler is broken")), "{said:?}");
}

#[testudo::test(start_paused = true)]
async fn what_a_handler_gives_to_the_server_is_waited_for() {
    let (send, done) = oneshot::channel();
    let send = Arc::new(Mutex::new(Some(send)));
    let app = Router::new().route(
        "/",
        get(move |Extension(owner): Extension<Owner>, Extension(peer): Extension<Peer>| async move {
            let send = send.lock().unwrap().take().unwrap();
            let mail = async move {
                sleep(10 * SECOND).await;
                send.send(peer.to_string()).unwrap();
            };
            owner.nursery().task().name("mail").spawn(mail);
            Body::empty()
        }),
    );
    let (clients, server) = begin(app, |s| s);
    read_all(clients.send(GET).await).await;
    let began = Instant::now();
    server.stop().await;
    assert_eq!((done.await.unwrap().as_str(), began.elapsed()), ("pipe", 10 * SECOND));
}

#[testudo::test(start_paused = true)]
async fn a_stage_is_told_to_stop_in_its_order() {
    use testudo::{Stage, Stages, shutdown};
    let order = Arc::new(Mutex::new(Vec::new()));
    let (first, second) = (Arc::clone(&order), Arc::clone(&order));
    let (clients, listener) = queue();
    let stages = Stages::new()
        .with(Stage::new("db", move |cx| async move {
            cx.ready();
            cx.stop_requested().await;
            first.lock().unwrap().push("db");
            Ok::<_, Infallible>(())
        }))
        .with(
            Stage::new("http", move |cx| async move {
                let told = cx.clone();
                cx.ready();
                serve(listener, hello()).stop_when(async move { told.stop_requested().await }).await;
                second.lock().unwrap().push("http");
                Ok(())
            })
            .needs("db"),
        );
    let client = async {
        assert!(read_all(clients.send(GET).await).await.ends_with("hello"));
        shutdown("enough");
    };
    let (ran, ()) = tokio::join!(stages.run(), client);
    ran.unwrap();
    assert_eq!(*order.lock().unwrap(), ["http", "db"]);
}

#[testudo::test(start_paused = true)]
async fn the_largest_settings_are_no_limits() {
    let slow = get(|| async {
        sleep(2 * SECOND).await;
        "done"
    });
    let unlimited = |s: Server<_, _>| s.linger(Duration::MAX).connections_max(usize::MAX);
    let (clients, server) = begin(Router::new().route("/", slow), unlimited);
    let client = clients.send(GET).await;
    sleep(SECOND).await;
    let (text, _) = tokio::join!(read_all(client), server.stop());
    assert!(text.ends_with("done"), "{text}");
}

/// A future that is one already.
#[allow(dead_code, reason = "it is compiled")]
fn a_server_is_send(server: Server<Queue, Router>) -> impl Future<Output = Served> + Send {
    server.into_future()
}

#[test]
fn a_connection_whose_handler_panicked_was_not_cut_off_by_the_server() {
    let mut taken = None;
    let finished = Runner::new().current_thread().reporter(None).run(async {
        tokio::time::pause();
        let app = hello().route("/broken", get(|| async { panic!("the handler is broken") as () }));
        let (clients, server) = begin(app, |s| s);
        assert_eq!(read_all(clients.send(b"GET /broken HTTP/1.1\r\nhost: a\r\n\r\n").await).await, "");
        taken = Some(server.stop().await);
    });
    finished.outcome.unwrap();
    assert_eq!(taken.unwrap().cut(), [] as [String; 0]);
}

#[test]
fn the_report_of_a_panic_names_the_request() {
    let finished = Runner::new().current_thread().reporter(None).run(async {
        tokio::time::pause();
        let app = hello().route("/broken", get(|| async { panic!("the handler is broken") as () }));
        let (clients, server) = begin(app, |s| s);
        assert_eq!(read_all(clients.send(b"GET /broken HTTP/1.1\r\nhost: a\r\n\r\n").await).await, "");
        server.stop().await;
    });
    finished.outcome.unwrap();
    let said: Vec<String> = finished.report.events().iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|event| event.contains("GET /broken")), "{said:?}");
}
