//! Streams of HTTP/2 at a stop.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use testudo::{Runner, shield, shutdown};
use testudo_http::serve;
use testudo_tower::{OnDisconnect, RequestLayer};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::memory::{Clients, queue};
use crate::support::{runner, wait_dump};

const SECOND: Duration = Duration::from_secs(1);

/// A client whose connection is no task of the run.
async fn connect(clients: &Clients) -> SendRequest<Empty<Bytes>> {
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(clients.connect())).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The status and the text of an answer; none if there was none.
fn ask(client: &SendRequest<Empty<Bytes>>, path: &str) -> impl Future<Output = Option<(u16, Bytes)>> + Send + use<> {
    let mut client = client.clone();
    let request = hyper::Request::get(format!("http://a{path}")).body(Empty::new()).unwrap();
    async move {
        client.ready().await.ok()?;
        let answer = client.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.into_body().collect().await.ok()?.to_bytes()))
    }
}

/// Serves `app` on paused time until `act` has returned.
fn with_client<F: Future<Output = ()>>(
    runner: Runner,
    app: Router,
    act: impl FnOnce(SendRequest<Empty<Bytes>>) -> F,
) -> testudo::Report {
    let finished = runner.current_thread().run(async {
        tokio::time::pause();
        let (clients, listener) = queue();
        let server = testudo::spawn(async { Ok::<_, std::io::Error>(serve(listener, app).await) });
        // The test itself is not cut off.
        testudo::shield_scoped(async { act(connect(&clients).await).await }).await;
        drop(server.await);
    });
    finished.report
}

#[test]
fn streams_that_are_open_at_a_stop_are_finished_and_their_connection_ends_then() {
    let slow = || async {
        sleep(SECOND / 10).await;
        "slow"
    };
    let app = Router::new().route("/slow", get(slow)).route("/quick", get(|| async { "quick" }));
    let report = with_client(runner(), app, |client| async move {
        assert_eq!(ask(&client, "/quick").await, Some((200, "quick".into())));
        let (first, second) = (tokio::spawn(ask(&client, "/slow")), tokio::spawn(ask(&client, "/slow")));
        wait_dump("and 1 more").await;
        let began = Instant::now();
        shutdown("enough");
        assert_eq!(first.await.unwrap(), Some((200, "slow".into())));
        assert_eq!(second.await.unwrap(), Some((200, "slow".into())));
        assert!(ask(&client, "/quick").await.is_none(), "the connection takes no more");
        assert!(began.elapsed() < SECOND / 5, "{:?}", began.elapsed());
    });
    assert!(report.stop().unwrap().cancelled().is_empty(), "{report}");
}

#[test]
fn a_stream_is_a_task_of_its_own_name_and_cut_off_by_it() {
    let app = Router::new().route("/stuck", get(std::future::pending::<()>));
    let report = with_client(runner(), app, |client| async move {
        let stuck = tokio::spawn(ask(&client, "/stuck"));
        wait_dump("task GET /stuck [working for pipe] at ").await;
        wait_dump("task pipe [GET /stuck, working] at ").await;
        shutdown("enough");
        assert_eq!(stuck.await.unwrap(), None);
    });
    let cancelled: Vec<String> = report.stop().unwrap().cancelled().iter().map(ToString::to_string).collect();
    assert!(cancelled.iter().any(|who| who.contains("`GET /stuck` [working for pipe]")), "{cancelled:#?}");
}

#[test]
fn what_a_shield_holds_in_a_stream_is_answered_after_the_cancel() {
    for layered in [false, true] {
        let go_on = Arc::new(Notify::new());
        let waits = Arc::clone(&go_on);
        let held = move || async move {
            shield(async move { waits.notified().await }).await;
            "held"
        };
        let app = Router::new().route("/held", get(held));
        let app = if layered { app.layer(RequestLayer::new(OnDisconnect::Finish)) } else { app };
        let report = with_client(runner(), app, |client| async move {
            let held = tokio::spawn(ask(&client, "/held"));
            wait_dump("GET /held").await;
            shutdown("enough");
            // Some time after the cancel.
            sleep(SECOND).await;
            assert!(!held.is_finished(), "{}", testudo::dump());
            go_on.notify_waiters();
            let answer = held.await.unwrap();
            assert_eq!(answer, Some((200, "held".into())), "layered: {layered}");
        });
        assert!(report.is_clean(), "{report}");
    }
}

#[test]
fn a_budget_of_its_own_names_the_streams_that_it_cuts_off() {
    for streams in [1, 3] {
        let mut cut = Vec::new();
        let app = Router::new().route("/stuck", get(std::future::pending::<()>));
        let finished = runner().current_thread().run(async {
            tokio::time::pause();
            let (clients, listener) = queue();
            let server = serve(listener, app).budget(SECOND / 10);
            let server = testudo::spawn(async { Ok::<_, std::io::Error>(server.await) });
            let client = connect(&clients).await;
            let asked: Vec<_> = (0..streams).map(|_| tokio::spawn(ask(&client, "/stuck"))).collect();
            wait_dump("GET /stuck").await;
            shutdown("enough");
            for asked in asked {
                assert_eq!(asked.await.unwrap(), None);
            }
            cut = server.await.unwrap().cut().to_vec();
        });
        finished.outcome.unwrap();
        assert!(cut.iter().any(|who| who.contains("GET /stuck")), "{streams}: {cut:?}\n{}", finished.report);
    }
}
