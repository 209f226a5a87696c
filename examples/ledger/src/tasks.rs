//! `/tasks`: the tree of what is alive, as a page for people, as text and as JSON.

use axum::Json;
use axum::Router;
use axum::http::{HeaderMap, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use testudo::{ShutdownHandle, dump};

/// `GET /tasks`, which answers what `Accept` asks for: `text/html`, `application/json`, or else text.
pub fn routes(shutdown: ShutdownHandle) -> Router {
    Router::new().route("/tasks", get(move |headers: HeaderMap| async move { tasks(&headers, &shutdown) }))
}

fn tasks(headers: &HeaderMap, shutdown: &ShutdownHandle) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let fresh = [(header::CACHE_CONTROL, "no-store"), (header::VARY, "accept")];
    if accept.contains("text/html") {
        return (fresh, Html(include_str!("tasks.html"))).into_response();
    }
    let dump = dump();
    if accept.contains("application/json") {
        let tree = json!({
            "phase": shutdown.phase().name(),
            "reason": shutdown.reason().map(|reason| reason.to_string()),
            "time_left": shutdown.time_left().map(|left| left.as_secs_f64()),
            "tasks": dump.entries(),
        });
        return (fresh, Json(tree)).into_response();
    }
    (fresh, format!("{dump}\n")).into_response()
}
