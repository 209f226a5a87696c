//! The layer in tonic, over real TCP and without generated code.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use http::{Request, Response};
use testudo::{EffectiveDeadline, Runner, current_deadline};
use testudo_tower::{OnDisconnect, RequestLayer};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower_service::Service;

use crate::support::wait_dump;

/// Messages are text.
#[derive(Clone, Copy, Default)]
pub(crate) struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, item: String, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<tonic::Response<String>, Status>> + Send>>;

/// A service of one method, which does what `act` says.
#[derive(Clone)]
pub(crate) struct Text1<F>(pub(crate) F);

impl<F> NamedService for Text1<F> {
    const NAME: &'static str = "test.Text";
}

impl<F, G> UnaryService<String> for Text1<F>
where
    F: Fn(String) -> G,
    G: Future<Output = Result<String, Status>> + Send + 'static,
{
    type Response = String;
    type Future = Answer;

    fn call(&mut self, request: tonic::Request<String>) -> Answer {
        let answer = (self.0)(request.into_inner());
        Box::pin(async move { answer.await.map(tonic::Response::new) })
    }
}

impl<F, G> Service<Request<Body>> for Text1<F>
where
    F: Fn(String) -> G + Clone + Send + 'static,
    G: Future<Output = Result<String, Status>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move { Ok(tonic::server::Grpc::new(Text).unary(method, request).await) })
    }
}

/// Calls the method once.
pub(crate) async fn unary<S>(service: S, request: tonic::Request<String>) -> Result<String, Status>
where
    S: tonic::client::GrpcService<Body>,
    S::ResponseBody: http_body::Body + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<tonic::codegen::StdError>,
{
    let mut client = tonic::client::Grpc::new(service);
    client.ready().await.map_err(|_| Status::unknown("not ready"))?;
    let answer = client.unary(request, PathAndQuery::from_static("/test.Text/Do"), Text).await?;
    Ok(answer.into_inner())
}

/// Serves one method by tonic's own server with the layer, and gives a channel to it.
async fn tonic_with<F, G>(layer: RequestLayer, act: F) -> Channel
where
    F: Fn(String) -> G + Clone + Send + Sync + 'static,
    G: Future<Output = Result<String, Status>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().layer(layer).add_service(Text1(act));
    tokio::spawn(server.serve_with_incoming(incoming));
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

fn run(test: impl Future<Output = ()>) {
    Runner::new().reporter(None).run(test).outcome.unwrap();
}

#[test]
fn a_call_goes_through_tonic() {
    run(async {
        let channel = tonic_with(RequestLayer::new(OnDisconnect::Finish), |text| async move { Ok(text + "!") }).await;
        assert_eq!(unary(channel, tonic::Request::new("hello".into())).await.unwrap(), "hello!");
    });
}

#[test]
fn a_call_that_its_client_cancels_is_finished() {
    run(async {
        let (begun, go_on, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let act = {
            let (begun, go_on, done) = (Arc::clone(&begun), Arc::clone(&go_on), Arc::clone(&done));
            move |_| {
                let (begun, go_on, done) = (Arc::clone(&begun), Arc::clone(&go_on), Arc::clone(&done));
                async move {
                    begun.notify_one();
                    go_on.notified().await;
                    done.store(true, Ordering::Relaxed);
                    go_on.notify_one();
                    Ok(String::new())
                }
            }
        };
        let channel = tonic_with(RequestLayer::new(OnDisconnect::Finish), act).await;
        let call = tokio::spawn(unary(channel, tonic::Request::new(String::new())));
        begun.notified().await;
        call.abort();
        wait_dump("task POST /test.Text/Do [its client is gone]").await;
        go_on.notify_one();
        crate::support::wait_gone("POST /test.Text/Do").await;
        assert!(done.load(Ordering::Relaxed));
    });
}

#[test]
fn a_call_has_the_deadline_that_its_client_says() {
    run(async {
        let layer = RequestLayer::new(OnDisconnect::Finish).timeout(Duration::from_secs(1000));
        let channel = tonic_with(layer, |_| async {
            let EffectiveDeadline::At(at) = current_deadline() else { panic!("there is a deadline") };
            Ok((at - Instant::now()).as_secs().to_string())
        })
        .await;
        let left = async |timeout: Option<&'static str>| -> u64 {
            let mut request = tonic::Request::new(String::new());
            // By hand: in seconds, as the client has it.
            timeout.map(|timeout| request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap()));
            unary(channel.clone(), request).await.unwrap().parse().unwrap()
        };
        assert!((400..500).contains(&left(Some("500S")).await));
        assert!((900..1000).contains(&left(None).await));
    });
}

#[test]
fn a_call_that_is_out_of_time_is_told_so_and_not_that_it_was_cancelled() {
    run(async {
        // A timeout that the client sets is kept by tonic's own client and server, too, which say `CANCELLED`.
        let layer = RequestLayer::new(OnDisconnect::Finish).timeout(Duration::from_millis(50));
        let channel = tonic_with(layer, |_| std::future::pending()).await;
        let error = unary(channel, tonic::Request::new(String::new())).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::DeadlineExceeded, "deadline exceeded"));
    });
}
