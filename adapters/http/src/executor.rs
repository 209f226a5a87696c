//! The streams of HTTP/2 as tasks of the server.

use std::future::Future;
use std::sync::Arc;

use testudo::Nursery;

use crate::BoxError;
use crate::connection::Ending;
use crate::doing::Doing;
use crate::server::Tally;

/// Spawns what hyper wants spawned for one connection into the nursery of the server.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) nursery: Nursery<BoxError>,
    pub(crate) doing: Arc<Doing>,
    pub(crate) peer: Arc<str>,
    pub(crate) tally: Arc<Tally>,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, fut: F) {
        // hyper spawns a stream right after it has called the service for it.
        let request = self.doing.latest();
        let name = request.as_ref().map_or_else(|| "stream".into(), |request| request.name());
        let (stream, peer) = (self.doing.begin_stream(), Arc::clone(&self.peer));
        let ending = request.clone().map(|request| Ending::new(&self.tally, &self.peer, request));
        let task = async move {
            let _stream = stream;
            fut.await;
            ending.into_iter().for_each(Ending::set_over);
        };
        let status = move || format!("{} for {peer}", request.as_ref().map_or("working", |request| request.part()));
        // If the server has ended, so has the connection, and nobody waits for the stream.
        drop(self.nursery.task().name(name).status(status).try_spawn(task));
    }
}
