//! Answers that stream: they count, are cut, and know of their client.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use testudo_tower::{ClientGone, OnDisconnect, RequestLayer, StreamCut, TrackedBody};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::support::{SECOND, get, wait_gone};

type Ticks = stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

/// Calls a handler that answers with a tick each second, and says what the client was told at the end.
async fn ticks(layer: &RequestLayer, count: usize) -> (TrackedBody<StreamBody<Ticks>>, ClientGone) {
    let (send, mut gone) = mpsc::channel(1);
    let service = tower::service_fn(move |request: Request<()>| {
        let send = send.clone();
        async move {
            send.send(request.extensions().get::<ClientGone>().unwrap().clone()).await.unwrap();
            let ticks = stream::iter(0..count).then(|n| async move {
                sleep(SECOND).await;
                Ok(Frame::data(Bytes::from(n.to_string())))
            });
            Ok::<_, Infallible>(Response::new(StreamBody::new(ticks.boxed())))
        }
    });
    let body = layer.layer(service).call(get("/ticks")).await.unwrap().into_body();
    (body, gone.recv().await.unwrap())
}

#[testudo::test(start_paused = true)]
async fn a_stream_is_listed_until_its_end() {
    let (body, gone) = ticks(&RequestLayer::new(OnDisconnect::Cancel), 3).await;
    assert!(testudo::dump().to_string().contains("task GET /ticks [streaming its answer]"), "{}", testudo::dump());
    assert_eq!(body.collect().await.unwrap().to_bytes(), "012");
    wait_gone("GET /ticks").await;
    assert!(!gone.is_gone());
}

#[testudo::test(start_paused = true)]
async fn a_stream_that_nobody_reads_any_more_has_lost_its_client() {
    let (mut body, gone) = ticks(&RequestLayer::new(OnDisconnect::Cancel), 3).await;
    body.frame().await.unwrap().unwrap();
    drop(body);
    gone.wait_gone().await;
    wait_gone("GET /ticks").await;
}

#[testudo::test(start_paused = true)]
async fn a_stream_is_cut_by_the_deadline_of_its_request() {
    let began = Instant::now();
    let layer = RequestLayer::new(OnDisconnect::Finish).timeout(Duration::from_millis(2500));
    let (mut body, _) = ticks(&layer, 10).await;
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
    }
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(error.is::<StreamCut>(), "{error}");
    assert_eq!(began.elapsed(), Duration::from_millis(2500));
    assert!(body.frame().await.is_none());
    wait_gone("GET /ticks").await;
}

#[testudo::test(start_paused = true)]
async fn what_is_there_goes_out_though_the_request_is_cut() {
    let layer = RequestLayer::new(OnDisconnect::Finish).timeout(SECOND);
    let service = tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new("all".to_owned())) });
    let body = layer.layer(service).call(get("/ready")).await.unwrap().into_body();
    sleep(2 * SECOND).await;
    wait_gone("GET /ready").await;
    assert_eq!(body.collect().await.unwrap().to_bytes(), "all");
}

#[testudo::test(start_paused = true)]
async fn a_stream_that_always_has_a_frame_is_cut_as_others_are() {
    let layer = RequestLayer::new(OnDisconnect::Finish).timeout(5 * SECOND);
    let service = tower::service_fn(|_: Request<()>| async {
        let endless = stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from("x"))));
        Ok::<_, Infallible>(Response::new(StreamBody::new(endless)))
    });
    let mut body = layer.layer(service).call(get("/endless")).await.unwrap().into_body();
    // A client that reads slowly.
    for _ in 0..3 {
        body.frame().await.unwrap().unwrap();
        sleep(2 * SECOND).await;
    }
    // What is there goes out, but that has an end.
    let mut last = 0;
    while body.frame().await.unwrap().is_ok() {
        last += 1;
    }
    assert_eq!(last, 16);
    assert!(body.frame().await.is_none());
}

#[testudo::test(start_paused = true)]
async fn an_answer_that_is_done_goes_out_with_its_trailers_though_the_request_is_cut() {
    let layer = RequestLayer::new(OnDisconnect::Finish).timeout(SECOND);
    let service = tower::service_fn(|_: Request<()>| async {
        let trailers = Frame::trailers(http::HeaderMap::new());
        let frames = [Frame::data(Bytes::from("all")), trailers].map(Ok::<_, Infallible>);
        Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(frames))))
    });
    let body = layer.layer(service).call(get("/done")).await.unwrap().into_body();
    sleep(2 * SECOND).await;
    let answer = body.collect().await.unwrap();
    assert!(answer.trailers().is_some());
    assert_eq!(answer.to_bytes(), "all");
}

/// As hyper does: it drops a body of a known length when all of it is there, and that of an answer to HEAD at once.
#[testudo::test(start_paused = true)]
async fn an_answer_that_is_complete_has_not_lost_its_client() {
    for (request, status, frames) in
        [(Request::get("/file"), 200, 2), (Request::head("/file"), 200, 0), (Request::get("/file"), 304, 0)]
    {
        let (send, mut gone) = mpsc::channel(1);
        let service = tower::service_fn(move |request: Request<()>| {
            let send = send.clone();
            async move {
                send.send(request.extensions().get::<ClientGone>().unwrap().clone()).await.unwrap();
                let parts = stream::iter(0..2).then(|_| async { Ok(Frame::data(Bytes::from("12345"))) });
                let body: Ticks = parts.boxed();
                Ok::<_, Infallible>(
                    Response::builder()
                        .status(status)
                        .header("content-length", "10")
                        .body(StreamBody::new(body))
                        .unwrap(),
                )
            }
        });
        let layer = RequestLayer::new(OnDisconnect::Finish);
        let mut body = layer.layer(service).call(request.body(()).unwrap()).await.unwrap().into_body();
        for _ in 0..frames {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        sleep(SECOND).await;
        assert!(!gone.recv().await.unwrap().is_gone(), "after {frames} frames");
    }
}
