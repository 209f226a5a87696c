//! Deadlines of requests, and how their end is told.

use http::{HeaderName, HeaderValue, Request};
use http_body_util::BodyExt;
use testudo::{EffectiveDeadline, Policy, current_deadline, nursery, shield};
use testudo_tower::{BoxError, OnDisconnect, RequestLayer};
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, call, get, wait_gone};

fn layer() -> RequestLayer {
    RequestLayer::new(OnDisconnect::Finish).timeout(10 * SECOND).header(HeaderName::from_static("x-timeout-ms"))
}

fn with(name: &'static str, value: &'static str) -> Request<()> {
    let mut request = get("/");
    request.headers_mut().insert(name, HeaderValue::from_static(value));
    request
}

#[testudo::test(start_paused = true)]
async fn the_shortest_deadline_counts_from_the_arrival_of_the_head() {
    let cases = [
        (get("/"), 10_000),
        (with("x-timeout-ms", "1500"), 1500),
        (with("x-timeout-ms", "99999"), 10_000),
        (with("x-timeout-ms", "soon"), 10_000),
        (with("grpc-timeout", "2S"), 2000),
        (with("grpc-timeout", "1H"), 10_000),
    ];
    for (request, millis) in cases {
        let headers = format!("{:?}", request.headers());
        let began = Instant::now();
        let answer = call(&layer(), request, |_| async {
            let EffectiveDeadline::At(at) = current_deadline() else { panic!("there is a deadline") };
            at.duration_since(Instant::now()).as_millis().to_string()
        });
        let answer = answer.await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, millis.to_string(), "{headers}");
        assert_eq!(began.elapsed().as_millis(), 0);
    }
    wait_gone("GET /").await;
}

#[testudo::test(start_paused = true)]
async fn what_is_out_of_time_is_answered_with_504() {
    for mode in [OnDisconnect::Cancel, OnDisconnect::Finish, OnDisconnect::Grace(SECOND)] {
        let began = Instant::now();
        let layer = RequestLayer::new(mode).timeout(SECOND);
        let answer = call(&layer, get("/"), |_| std::future::pending()).await.unwrap();
        assert_eq!((answer.status().as_u16(), began.elapsed()), (504, SECOND), "{mode:?}");
        assert!(!answer.headers().contains_key("connection"), "the connection is well");
    }
}

#[testudo::test(start_paused = true)]
async fn what_is_shielded_is_finished_before_the_deadline_is_told() {
    let began = Instant::now();
    let layer = RequestLayer::new(OnDisconnect::Cancel).timeout(SECOND);
    let answer = call(&layer, get("/"), |_| async {
        shield(sleep(3 * SECOND)).await;
        "done".into()
    });
    // It was done, so it is no timeout.
    assert_eq!((answer.await.unwrap().status().as_u16(), began.elapsed()), (200, 3 * SECOND));
    wait_gone("GET /").await;
}

#[testudo::test(start_paused = true)]
async fn grpc_is_told_in_trailers_only() {
    let mut request = with("content-type", "application/grpc+proto");
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("100m"));
    let answer = call(&layer(), request, |_| std::future::pending()).await.unwrap();
    let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(header("content-type"), Some("application/grpc"));
    assert_eq!(header("grpc-status"), Some("4"));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "");
}

#[testudo::test(start_paused = true)]
async fn a_request_that_somebody_cancels_by_name_is_answered_with_503() {
    let answer = call(&RequestLayer::new(OnDisconnect::Cancel), get("/"), |_| std::future::pending());
    let (answer, _) = tokio::join!(answer, async {
        sleep(SECOND).await;
        assert!(testudo::cancel("GET /", "enough").unwrap());
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    assert!(!answer.headers().contains_key("connection"), "the server goes on");
}

#[testudo::test(start_paused = true)]
async fn what_the_end_of_the_server_cuts_off_is_told_to_go_elsewhere() {
    for mode in [OnDisconnect::Cancel, OnDisconnect::Grace(SECOND)] {
        let (send, receive) = tokio::sync::oneshot::channel();
        let server = nursery(|n| async move {
            send.send(n.clone()).unwrap();
            std::future::pending::<Result<(), BoxError>>().await
        });
        let requests = async {
            let layer = RequestLayer::new(mode).nursery(&receive.await.unwrap());
            let grpc = with("content-type", "application/grpc");
            let answers =
                (call(&layer, get("/"), |_| std::future::pending()), call(&layer, grpc, |_| std::future::pending()));
            (answers.0.await.unwrap(), answers.1.await.unwrap())
        };
        let (_, (plain, grpc)) = tokio::join!(server.policy(Policy::Supervise).timeout(SECOND), requests);
        assert_eq!(
            (plain.status().as_u16(), &plain.headers()["connection"]),
            (503, &HeaderValue::from_static("close"))
        );
        assert_eq!((grpc.status().as_u16(), &grpc.headers()["grpc-status"]), (200, &HeaderValue::from_static("14")));
    }
}
