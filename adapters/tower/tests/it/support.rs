//! What the tests share.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use http::{Request, Response};
use testudo_tower::{RequestLayer, ResponseFuture};
use tower_layer::Layer;
use tower_service::Service;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A request without a body.
pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(path).body(()).unwrap()
}

/// Calls `handler` through the layer.
pub(crate) fn call<F>(
    layer: &RequestLayer,
    request: Request<()>,
    handler: impl FnOnce(Request<()>) -> F + Clone,
) -> ResponseFuture<String, Infallible>
where
    F: Future<Output = String> + Send + 'static,
{
    let service = tower::service_fn(move |request| {
        let answer = (handler.clone())(request);
        async move { Ok(Response::new(answer.await)) }
    });
    layer.layer(service).call(request)
}

/// Waits until the tree does not say `part` any more.
pub(crate) async fn wait_gone(part: &str) {
    while testudo::dump().to_string().contains(part) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the tree says `part`.
pub(crate) async fn wait_dump(part: &str) {
    for _ in 0..20_000 {
        if testudo::dump().to_string().contains(part) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("no {part} in\n{}", testudo::dump());
}
