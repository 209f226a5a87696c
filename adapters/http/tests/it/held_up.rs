//! The ways in which a client can hold a server up: each ends in its time, and is named.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::response::sse::{Event, Sse};
use axum::routing::{any, get, post};
use futures_util::stream;
use tokio::time::sleep;

use crate::support::*;

fn app() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/slow",
            get(|| async {
                sleep(Duration::from_millis(100)).await;
                "slow"
            }),
        )
        .route("/stuck", get(std::future::pending::<()>))
        .route("/upload", post(|body: Bytes| async move { body.len().to_string() }))
        .route(
            "/events",
            get(|| async {
                let first = stream::once(async { Ok::<_, Infallible>(Event::default().data("first")) });
                Sse::new(stream::StreamExt::chain(first, stream::pending()))
            }),
        )
        .route(
            "/ws",
            any(|ws: WebSocketUpgrade| async {
                ws.on_upgrade(|mut socket| async move { while socket.recv().await.is_some() {} })
            }),
        )
        .route("/large", get(|| async { Body::from(vec![b'x'; 64 << 20]) }))
}

/// Much shorter than the graceful phase of a patient run.
const QUICK: Duration = Duration::from_secs(3);
/// Much shorter than the budget of the run.
const BUDGET: Duration = Duration::from_secs(4);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn without_a_connection_it_ends_at_once() {
    let ran = run(patient(), app(), |s| s, |_| async {});
    assert!(ran.took < QUICK, "{:?}", ran.took);
    assert_eq!(ran.served.expect("nobody cancels it").connections(), 0);
}

#[test]
fn a_connection_without_a_byte_ends_after_the_linger() {
    let ran = run(
        patient(),
        app(),
        |s| s.linger(Duration::from_millis(50)),
        |address| async move {
            let stream = send(address, b"").await;
            wait_dump("[idle]").await;
            stream
        },
    );
    assert!(ran.took < QUICK, "{:?}", ran.took);
    assert!(ran.cancelled().is_empty(), "{:?}", ran.cancelled());
    assert_eq!(ran.served.expect("nobody cancels it").cut(), [""; 0], "nothing was begun");
}

#[test]
fn a_connection_with_a_byte_or_a_part_of_the_http2_preface_ends_after_the_linger() {
    for part in ["G", "P", "PRI * HT"] {
        let ran = run(
            patient(),
            app(),
            |s| s.linger(Duration::from_millis(50)),
            |address| async move {
                let stream = send(address, part.as_bytes()).await;
                wait_dump("[reading the head of a request]").await;
                stream
            },
        );
        assert!(ran.took < QUICK, "{part} {:?}", ran.took);
        assert!(ran.cancelled().is_empty(), "{part} {:?}", ran.cancelled());
    }
}

#[test]
fn an_idle_keep_alive_connection_ends_at_once() {
    let ran = run(
        patient(),
        app(),
        |s| s,
        |address| async move {
            let mut stream = send(address, GET).await;
            read_until(&mut stream, "hello").await;
            wait_dump("[idle]").await;
            stream
        },
    );
    assert!(ran.took < QUICK, "{:?}", ran.took);
    assert!(ran.cancelled().is_empty(), "{:?}", ran.cancelled());
}

#[test]
fn a_slow_handler_is_waited_for() {
    let ran = run(
        patient(),
        app(),
        |s| s,
        |address| async move {
            let stream = send(address, b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
            wait_dump("[GET /slow, working]").await;
            // Answered after the request to stop.
            Answer::with(stream, &["HTTP/1.1 200", "connection: close", "slow"])
        },
    );
    assert!(ran.cancelled().is_empty(), "{:?}", ran.cancelled());
    assert_eq!(ran.served.expect("nobody cancels it").connections(), 1);
}

#[test]
fn half_of_a_head_ends_after_the_linger_and_is_named() {
    let ran = run(
        patient(),
        app(),
        |s| s.linger(Duration::from_millis(50)),
        |address| async move {
            let stream = send(address, b"GET / HTTP/1.1\r\nhos").await;
            wait_dump("[reading the head of a request]").await;
            stream
        },
    );
    assert!(ran.took < QUICK, "{:?}", ran.took);
    assert!(ran.cancelled().is_empty(), "{:?}", ran.cancelled());
    assert!(ran.served.expect("nobody cancels it").cut()[0].ends_with("[reading the head of a request]"));
}

#[test]
fn a_stalled_upload_is_cut_off_by_name() {
    let ran = run(
        runner(),
        app(),
        |s| s,
        |address| async move {
            let stream = send(address, b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc").await;
            wait_dump("[POST /upload, reading its body]").await;
            stream
        },
    );
    assert!(ran.took < BUDGET, "{:?}", ran.took);
    ran.assert_named("[POST /upload, reading its body]");
}

#[test]
fn a_stuck_handler_is_cut_off_by_name() {
    let ran = run(
        runner(),
        app(),
        |s| s,
        |address| async move {
            let stream = send(address, b"GET /stuck HTTP/1.1\r\nhost: a\r\n\r\n").await;
            wait_dump("[GET /stuck, working]").await;
            stream
        },
    );
    assert!(ran.took < BUDGET, "{:?}", ran.took);
    ran.assert_named("[GET /stuck, working]");
}

#[test]
fn a_stream_of_events_is_cut_off_by_name() {
    let ran = run(
        runner(),
        app(),
        |s| s,
        |address| async move {
            let mut stream = send(address, b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await;
            read_until(&mut stream, "first").await;
            wait_dump("[GET /events, writing its answer]").await;
            stream
        },
    );
    assert!(ran.took < BUDGET, "{:?}", ran.took);
    ran.assert_named("[GET /events, writing its answer]");
}

#[test]
fn a_peer_that_does_not_read_is_cut_off_by_name() {
    let ran = run(
        runner(),
        app(),
        |s| s,
        |address| async move {
            let stream = send(address, b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
            wait_dump("which its peer does not read").await;
            stream
        },
    );
    assert!(ran.took < BUDGET, "{:?}", ran.took);
    ran.assert_named("which its peer does not read");
}

#[test]
fn a_websocket_is_counted_and_cut_off_by_name() {
    let ran = run(
        runner(),
        app(),
        |s| s,
        |address| async move {
            let mut stream = send(address, b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
            read_until(&mut stream, "101 Switching Protocols").await;
            wait_dump("[GET /ws, upgraded]").await;
            stream
        },
    );
    assert!(ran.took < BUDGET, "{:?}", ran.took);
    ran.assert_named("[GET /ws, upgraded]");
}

#[test]
fn a_silent_http2_peer_ends_after_the_linger_and_is_named() {
    let ran = run(
        patient(),
        app(),
        |s| s.linger(Duration::from_millis(50)),
        |address| async move {
            let stream = send(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
            wait_dump("[HTTP/2, idle]").await;
            stream
        },
    );
    assert!(ran.took < QUICK, "{:?}", ran.took);
    assert!(ran.cancelled().is_empty(), "{:?}", ran.cancelled());
    assert!(ran.served.expect("nobody cancels it").cut()[0].ends_with("[HTTP/2, idle]"));
}
