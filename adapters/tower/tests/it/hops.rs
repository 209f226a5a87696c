//! A deadline that holds over two hops, through servers of ours.

use std::future::Future;
use std::time::Duration;

use testudo::{CancelScope, EffectiveDeadline, Runner, current_deadline, shutdown};
use testudo_http::serve;
use testudo_tower::{DeadlineLayer, OnDisconnect, RequestLayer};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tower_layer::Layer;

use crate::grpc::{Text1, unary};

/// Serves one method by a server of ours, and gives a channel that takes the deadline along.
async fn hop<F, G>(act: F) -> testudo_tower::DeadlineService<Channel>
where
    F: Fn(String) -> G + Clone + Send + Sync + 'static,
    G: Future<Output = Result<String, Status>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = RequestLayer::new(OnDisconnect::Cancel).layer(Routes::new(Text1(act)));
    testudo::spawn(async move {
        serve(listener, routes).await;
        Ok::<_, std::io::Error>(())
    });
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    DeadlineLayer::new().margin(Duration::from_millis(10)).layer(channel)
}

fn left() -> Duration {
    match current_deadline() {
        EffectiveDeadline::At(at) => at - Instant::now(),
        EffectiveDeadline::None | EffectiveDeadline::Cancelled => panic!("there is a deadline"),
    }
}

#[test]
fn a_deadline_holds_over_two_hops_and_gets_shorter() {
    let finished = Runner::new().reporter(None).run(async {
        let far = hop(|_| async { Ok(left().as_micros().to_string()) }).await;
        let near = hop(move |text| {
            let far = far.clone();
            async move {
                let here = left();
                let there = unary(far, tonic::Request::new(text)).await?;
                Ok(format!("{} {there}", here.as_micros()))
            }
        })
        .await;
        let told = CancelScope::new().timeout(Duration::from_secs(60));
        let told = told.run(unary(near, tonic::Request::new(String::new()))).await.unwrap().unwrap();
        let micros: Vec<u64> = told.split(' ').map(|part| part.parse().unwrap()).collect();
        let [near, far] = micros[..] else { panic!("{told}") };
        assert!(near <= 60_000_000 - 10_000 && far <= near - 10_000 && far > 50_000_000, "{told}");
        shutdown("the test is over");
        Ok::<_, std::io::Error>(())
    });
    finished.outcome.unwrap();
}
