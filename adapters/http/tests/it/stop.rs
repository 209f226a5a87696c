//! What a stop looks like from outside, and from a handler.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::sse::{Event, Sse};
use axum::routing::{any, get, post};
use futures_util::stream::{self, StreamExt};
use testudo::{Runner, shield, shutdown, shutdown_requested};
use testudo_http::{health, serve};
use testudo_tower::{OnDisconnect, RequestLayer};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::memory::{queue, read_all};
use crate::support::{Answer, read_to_end, read_until, run, runner, send, wait_dump};

const QUICK: Duration = Duration::from_millis(250);
const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn while_it_drains_it_accepts_and_says_goodbye() {
    let finished = Runner::new().current_thread().reporter(None).drain_delay(Duration::from_secs(1)).run(async {
        tokio::time::pause();
        let (clients, listener) = queue();
        let app = Router::new().route_service("/livez", health()).route_service("/readyz", health());
        let server = testudo::spawn(async { Ok::<_, Infallible>(serve(listener, app).await) });
        let ask = async |path: &str, kept: bool| {
            let mut stream = clients.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
            if kept {
                let mut head = vec![0; 12];
                tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head).await.unwrap();
                return String::from_utf8(head).unwrap();
            }
            read_all(stream).await
        };
        assert_eq!(ask("/readyz", true).await, "HTTP/1.1 200");
        shutdown("enough");
        sleep(Duration::from_millis(500)).await;
        // Each ends its connection.
        let (ready, live) = (ask("/readyz", false).await, ask("/livez", false).await);
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("connection: close"), "{ready}");
        assert!(live.starts_with("HTTP/1.1 200") && live.contains("connection: close"), "{live}");
        server.await.unwrap();
    });
    finished.outcome.unwrap();
    assert_eq!(finished.report.stop().unwrap().took().as_millis() / 100, 10, "the drain delay, and nothing more");
}

#[test]
fn what_waits_in_the_queue_of_the_listener_is_served() {
    let finished = Runner::new().current_thread().reporter(None).run(async {
        let (clients, listener) = queue();
        let app = Router::new().route("/", get(|| async { "hello" }));
        let server = testudo::spawn(async { Ok::<_, Infallible>(serve(listener, app).await) });
        wait_dump("nursery http").await;
        // Nothing is polled between the two: accepting has ended when the server looks.
        shutdown("enough");
        let waiting = clients.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let answer = read_all(waiting).await;
        assert!(answer.ends_with("hello") && answer.contains("connection: close"), "{answer}");
        assert_eq!(server.await.unwrap().connections(), 1);
    });
    finished.outcome.unwrap();
}

#[test]
fn a_stream_of_events_that_listens_ends_in_order() {
    let events = || async {
        let first = stream::once(async { Event::default().data("first") });
        let last = stream::once(async { Event::default().data(shutdown_requested().await.to_string()) });
        Sse::new(first.chain(last).map(Ok::<_, Infallible>))
    };
    let app = Router::new().route("/events", get(events));
    let ran = run(
        runner(),
        app,
        |s| s,
        |address| async move {
            let mut stream = send(address, b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await;
            read_until(&mut stream, "first").await;
            Answer::with(stream, &["the test is over"])
        },
    );
    assert!(ran.cancelled().is_empty() && ran.took < QUICK, "{:?} {:?}", ran.took, ran.cancelled());
}

#[test]
fn a_websocket_that_listens_ends_in_order() {
    let app = Router::new().route(
        "/ws",
        any(|ws: WebSocketUpgrade| async {
            ws.on_upgrade(|mut socket| async move {
                let reason = shutdown_requested().await.to_string();
                socket.send(Message::text(reason)).await.unwrap();
                socket.send(Message::Close(None)).await.unwrap();
            })
        }),
    );
    let ran = run(
        runner(),
        app,
        |s| s,
        |address| async move {
            let mut stream = send(address, UPGRADE).await;
            read_until(&mut stream, "\r\n\r\n").await;
            wait_dump("[GET /ws, upgraded]").await;
            Answer::with(stream, &["the test is over"])
        },
    );
    assert!(ran.cancelled().is_empty() && ran.took < QUICK, "{:?} {:?}", ran.took, ran.cancelled());
}

#[test]
fn what_a_shutdown_cuts_off_is_answered_with_503_and_a_goodbye() {
    let app = Router::new().route("/stuck", get(std::future::pending::<()>));
    for mode in [OnDisconnect::Cancel, OnDisconnect::Grace(Duration::from_secs(1))] {
        let app = app.clone().layer(RequestLayer::new(mode));
        let client = |address| async move {
            let stream = send(address, b"GET /stuck HTTP/1.1\r\nhost: a\r\n\r\n").await;
            wait_dump("task GET /stuck [working]").await;
            Answer::with(stream, &["HTTP/1.1 503", "connection: close"])
        };
        run(runner(), app, |s| s, client).assert_named("`GET /stuck`");
    }
}

#[test]
fn a_request_that_finishes_is_answered_after_the_cancel() {
    let finish = RequestLayer::new(OnDisconnect::Finish);
    let go_on = Arc::new(Notify::new());
    let handler = {
        let go_on = Arc::clone(&go_on);
        move || async move {
            go_on.notified().await;
            "finished"
        }
    };
    let app = Router::new().route("/transfer", post(handler)).layer(finish);
    let answer = Arc::new(std::sync::Mutex::new(String::new()));
    let seen = Arc::clone(&answer);
    let finished = runner().run(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = testudo::spawn(async { Ok::<_, std::io::Error>(serve(listener, app).await) });
        let mut stream = send(address, b"POST /transfer HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        wait_dump("task POST /transfer [working]").await;
        // The client of this test is not to be cancelled.
        let client = shield(async move {
            shutdown("enough");
            wait_dump("shield POST /transfer at").await;
            wait_dump("holding").await;
            go_on.notify_one();
            *seen.lock().unwrap() = read_to_end(&mut stream).await;
        });
        client.await;
        drop(server.await);
        Ok::<_, std::io::Error>(())
    });
    let answer = answer.lock().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("finished"), "{answer:?} {}", finished.report);
}
