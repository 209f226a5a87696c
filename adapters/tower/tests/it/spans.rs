//! The span of the caller, in the task that does the work.

use std::sync::{Arc, Mutex};

use testudo_tower::{OnDisconnect, RequestLayer};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::support::{call, get, wait_gone};

/// Notes each new span behind those around it.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notes {
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let names: Vec<&str> = cx.span_scope(id).into_iter().flatten().map(|span| span.name()).collect();
        self.0.lock().unwrap().push(names.into_iter().rev().collect::<Vec<_>>().join(" > "));
    }
}

#[testudo::test(start_paused = true)]
async fn the_work_is_done_inside_of_the_span_that_it_was_asked_for_in() {
    let notes = Notes::default();
    let _notes = tracing::subscriber::set_default(Registry::default().with(notes.clone()));
    let answer = tracing::info_span!("request").in_scope(|| {
        call(&RequestLayer::new(OnDisconnect::Finish), get("/"), |_| async {
            tracing::info_span!("query").in_scope(String::new)
        })
    });
    answer.await.unwrap();
    wait_gone("GET /").await;
    assert_eq!(*notes.0.lock().unwrap(), ["request", "request > task", "request > task > query"]);
}
