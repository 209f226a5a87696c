//! What becomes of a request whose client goes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::BodyExt;
use testudo::{Event, Runner, catch_cancelled, nursery, shield};
use testudo_tower::{BoxError, ClientGone, OnDisconnect, Owner, RequestLayer};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tower_layer::Layer;
use tower_service::Service;

use crate::support::{SECOND, call, get, wait_gone};

#[testudo::test(start_paused = true)]
async fn the_answer_comes_through() {
    for mode in [OnDisconnect::Cancel, OnDisconnect::Finish, OnDisconnect::Grace(SECOND)] {
        let answer = call(&RequestLayer::new(mode), get("/"), |_| async { "hello".into() }).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
    }
    wait_gone("GET /").await;
}

#[testudo::test(start_paused = true)]
async fn the_work_begins_before_anybody_waits_for_it() {
    let (send, begun) = oneshot::channel();
    let send = Arc::new(std::sync::Mutex::new(Some(send)));
    let answer = call(&RequestLayer::new(OnDisconnect::Finish), get("/"), move |_| async move {
        send.lock().unwrap().take().unwrap().send(()).unwrap();
        String::new()
    });
    begun.await.unwrap();
    answer.await.unwrap();
    wait_gone("GET /").await;
}

#[testudo::test(start_paused = true)]
async fn a_request_that_finishes_outlives_its_client_and_is_told() {
    let (send, done) = oneshot::channel();
    let send = Arc::new(std::sync::Mutex::new(Some(send)));
    let answer = call(&RequestLayer::new(OnDisconnect::Finish), get("/transfer"), move |request| async move {
        let gone = request.extensions().get::<ClientGone>().unwrap().clone();
        assert!(!gone.is_gone());
        gone.wait_gone().await;
        sleep(SECOND).await;
        send.lock().unwrap().take().unwrap().send(gone.is_gone()).unwrap();
        String::new()
    });
    sleep(SECOND).await;
    assert!(testudo::dump().to_string().contains("task GET /transfer [working]"), "{}", testudo::dump());
    drop(answer);
    sleep(SECOND / 2).await;
    assert!(testudo::dump().to_string().contains("task GET /transfer [its client is gone]"), "{}", testudo::dump());
    assert!(done.await.unwrap());
    wait_gone("GET /transfer").await;
}

#[testudo::test(start_paused = true)]
async fn a_client_that_has_its_answer_is_not_gone() {
    let (send, seen) = oneshot::channel();
    let send = Arc::new(std::sync::Mutex::new(Some(send)));
    let answer = call(&RequestLayer::new(OnDisconnect::Cancel), get("/"), move |request| async move {
        let gone = request.extensions().get::<ClientGone>().unwrap().clone();
        send.lock().unwrap().take().unwrap().send(gone).unwrap();
        "hello".into()
    });
    let answer = answer.await.unwrap().into_body();
    let gone = seen.await.unwrap();
    answer.collect().await.unwrap();
    assert!(!gone.is_gone());
    assert_eq!(gone.wait_gone().now_or_never(), None);
    wait_gone("GET /").await;
}

/// Whether the client is gone for a handler that answers so after two seconds, once the answer has been read.
async fn is_gone_after(layer: RequestLayer, answer: Result<&'static str, &'static str>) -> bool {
    let (send, mut seen) = tokio::sync::mpsc::channel(1);
    let service = tower::service_fn(move |request: http::Request<()>| {
        let gone = request.extensions().get::<ClientGone>().unwrap().clone();
        send.try_send(gone).unwrap();
        async move {
            sleep(2 * SECOND).await;
            answer.map(|text| http::Response::new(text.to_owned()))
        }
    });
    let answer = layer.layer(service).call(get("/")).await;
    if let Ok(answer) = answer {
        answer.into_body().collect().await.unwrap();
    }
    seen.recv().await.unwrap().is_gone()
}

#[testudo::test(start_paused = true)]
async fn a_client_that_was_told_of_an_end_without_a_body_is_not_gone() {
    let layer = || RequestLayer::new(OnDisconnect::Cancel);
    assert!(!is_gone_after(layer(), Ok("")).await, "empty");
    assert!(!is_gone_after(layer(), Err("no")).await, "an error");
    assert!(!is_gone_after(layer().timeout(SECOND), Ok("late")).await, "504");
}

#[testudo::test(start_paused = true)]
async fn a_request_is_cancelled_with_a_cause_that_says_why() {
    for mode in [OnDisconnect::Cancel, OnDisconnect::Grace(SECOND)] {
        let (send, cause) = oneshot::channel();
        let send = Arc::new(std::sync::Mutex::new(Some(send)));
        let answer = call(&RequestLayer::new(mode), get("/"), move |_| async move {
            let end = catch_cancelled(std::future::pending::<()>()).await.unwrap_err();
            send.lock().unwrap().take().unwrap().send(end.cause().reason().map(str::to_owned)).unwrap();
            String::new()
        });
        sleep(SECOND).await;
        drop(answer);
        assert_eq!(cause.await.unwrap().as_deref(), Some("the client is gone"), "{mode:?}");
        wait_gone("GET /").await;
    }
}

/// Drops the client of a request whose clean-up takes two seconds, and gives how far that came, and what was reported.
fn clean_up(mode: OnDisconnect) -> (u32, Vec<String>) {
    let steps = Arc::new(AtomicU32::new(0));
    let done = Arc::clone(&steps);
    let finished = Runner::new().current_thread().reporter(None).run(async move {
        tokio::time::pause();
        let answer = call(&RequestLayer::new(mode), get("/clean"), move |_| async move {
            drop(catch_cancelled(std::future::pending::<()>()).await);
            shield(async move {
                sleep(SECOND).await;
                done.fetch_add(1, Ordering::Relaxed);
                sleep(SECOND).await;
                done.fetch_add(1, Ordering::Relaxed);
            })
            .await;
            String::new()
        });
        sleep(SECOND).await;
        drop(answer);
        wait_gone("GET /clean").await;
    });
    let overran = finished.report.events().iter().filter(|event| matches!(event, Event::Overran(_)));
    (steps.load(Ordering::Relaxed), overran.map(ToString::to_string).collect())
}

#[test]
fn clean_up_has_the_time_of_its_grace_and_no_more() {
    assert_eq!(clean_up(OnDisconnect::Cancel), (2, vec![]));
    assert_eq!(clean_up(OnDisconnect::Grace(3 * SECOND)), (2, vec![]));
    let (steps, overran) = clean_up(OnDisconnect::Grace(Duration::from_millis(1500)));
    assert_eq!(steps, 1);
    assert!(overran.len() == 1 && overran[0].contains("`GET /clean`"), "{overran:?}");
}

#[testudo::test(start_paused = true)]
async fn no_more_requests_than_allowed_go_on_without_their_clients() {
    let layer = RequestLayer::new(OnDisconnect::Finish).detached_max(1);
    let done = Arc::new(AtomicU32::new(0));
    let begin = || {
        let done = Arc::clone(&done);
        call(&layer, get("/"), move |_| async move {
            sleep(10 * SECOND).await;
            done.fetch_add(1, Ordering::Relaxed);
            String::new()
        })
    };
    let (first, second) = (begin(), begin());
    sleep(SECOND).await;
    drop((first, second));
    wait_gone("GET /").await;
    assert_eq!(done.load(Ordering::Relaxed), 1);
    // The permit is back.
    let third = begin();
    sleep(SECOND).await;
    drop(third);
    wait_gone("GET /").await;
    assert_eq!(done.load(Ordering::Relaxed), 2);
}

#[testudo::test(start_paused = true)]
async fn a_panic_goes_on_in_the_caller() {
    for mode in [OnDisconnect::Cancel, OnDisconnect::Finish, OnDisconnect::Grace(SECOND)] {
        let answer = call(&RequestLayer::new(mode), get("/"), |_| async { panic!("the handler is broken") });
        let payload = AssertUnwindSafe(answer).catch_unwind().await.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"the handler is broken"));
    }
}

#[test]
fn a_panic_without_a_caller_is_reported_by_name() {
    let finished = Runner::new().current_thread().reporter(None).run(async {
        let answer = call(&RequestLayer::new(OnDisconnect::Finish), get("/broken"), |request| async move {
            request.extensions().get::<ClientGone>().unwrap().wait_gone().await;
            panic!("the handler is broken")
        });
        drop(answer);
        wait_gone("GET /broken").await;
    });
    let said: Vec<String> = finished.report.events().iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|event| event.contains("`GET /broken`") && event.contains("is broken")), "{said:?}");
}

#[testudo::test(start_paused = true)]
async fn the_nursery_of_the_server_owns_the_task() {
    let served = nursery(|n| async move {
        let mut request = get("/owned");
        request.extensions_mut().insert(Owner::new(n.clone()));
        let layer = RequestLayer::new(OnDisconnect::Finish);
        drop(call(&layer, request, |_| async {
            sleep(SECOND).await;
            String::new()
        }));
        drop(call(&layer.clone().nursery(&n), get("/given"), |_| async {
            sleep(SECOND).await;
            String::new()
        }));
        assert_eq!(n.len(), 2);
        Ok::<_, BoxError>(())
    });
    served.policy(testudo::Policy::Supervise).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn outside_of_a_run_a_request_finishes_all_the_same() {
    let (send, done) = oneshot::channel();
    let send = Arc::new(std::sync::Mutex::new(Some(send)));
    let answer = call(&RequestLayer::new(OnDisconnect::Finish), get("/"), move |_| async move {
        sleep(SECOND).await;
        send.lock().unwrap().take().unwrap().send(()).unwrap();
        String::new()
    });
    tokio::task::yield_now().await;
    drop(answer);
    assert!(testudo::drain(10 * SECOND).await.is_clean());
    done.await.unwrap();
}
