//! The task that does the work of a request, and the future that waits for its answer.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};
use http_body::Body;
use testudo::{CancelScope, Cancelled, CauseKind, Nursery, Outcome, ScopeHandle, ShutdownHandle, Task};
use testudo::{checkpoint, root_nursery, shield, shield_with};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::BoxError;
use crate::answer::CutOff;
use crate::body::{Stream, TrackedBody};
use crate::gone::Waiting;
use crate::layer::OnDisconnect;

/// What is known of a request before its work begins.
pub(crate) struct Work {
    pub(crate) name: Arc<str>,
    pub(crate) is_grpc: bool,
    /// To be answered without a body.
    pub(crate) is_head: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) on_disconnect: OnDisconnect,
    pub(crate) shield_budget: Option<Duration>,
    pub(crate) detached: Option<Arc<Semaphore>>,
    pub(crate) owner: Option<Nursery<BoxError>>,
}

/// The answer of the inner service, with what ties a streamed body to the task.
type Answer<R, E> = Result<(Response<R>, Option<Tie>), E>;

/// One end of it is in the [`Stream`] of the body.
struct Tie {
    cut: oneshot::Receiver<Infallible>,
    ended: oneshot::Sender<Infallible>,
}

/// Begins the work at once, and gives the future that waits for its answer.
pub(crate) fn begin<F, R, E>(work: Work, fut: F, waiting: Waiting) -> ResponseFuture<R, E>
where
    F: Future<Output = Result<Response<R>, E>> + Send + 'static,
    R: Body + Send + 'static,
    E: Send + 'static,
{
    let (request, gone) = (scope(work.deadline), scope(None));
    let progress = Arc::new(Progress::default());
    let guard =
        Guard { waiting, is_answered: false, progress: Arc::clone(&progress), gone: Gone::new(&work, &request, &gone) };
    let (send, receive) = oneshot::channel();
    let (is_grpc, is_head, owner, name) = (work.is_grpc, work.is_head, work.owner.clone(), Arc::clone(&work.name));
    let done = Arc::clone(&progress);
    let task = async move {
        let _end = done.at_end();
        let end = work.run(request, gone, Box::pin(fut)).await;
        deliver(&done, send, end, work.deadline).await;
    };
    let handle = Handle::spawn(owner, name, progress, task);
    ResponseFuture(Box::pin(wait(receive, handle, guard, is_grpc, is_head)))
}

fn scope(deadline: Option<Instant>) -> CancelScope {
    let scope = CancelScope::new();
    match deadline {
        Some(at) => scope.deadline(at),
        None => scope,
    }
}

/// How the work ended without an answer: by its own scope, or by one outside.
enum Cut {
    Own(Cancelled),
    Outer(Cancelled),
}

impl Cut {
    fn kind(&self) -> CutOff {
        match self {
            Self::Own(cut) if cut.cause().kind() == CauseKind::Deadline => CutOff::Deadline,
            Self::Own(cut) | Self::Outer(cut) => CutOff::by(Some(cut.cause())),
        }
    }
}

impl Work {
    async fn run<F>(&self, request: CancelScope, gone: CancelScope, fut: Pin<Box<F>>) -> Result<F::Output, Cut>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let work = request.run(fut);
        match self.on_disconnect {
            OnDisconnect::Cancel => work.await.map_err(Cut::Own),
            OnDisconnect::Finish => {
                let work = shield(work).name(Arc::clone(&self.name));
                let work = match self.shield_budget {
                    Some(budget) => work.budget(budget),
                    None => work,
                };
                work.await.map_err(Cut::Own)
            }
            OnDisconnect::Grace(length) => {
                let work = shield_with(|exposed| async move { exposed.run(work).await });
                let work = gone.run(work.name(Arc::clone(&self.name)).budget(length)).await;
                work.and_then(|exposed| exposed).map_err(Cut::Outer)?.map_err(Cut::Own)
            }
        }
    }
}

/// Gives the answer to whoever waits, and stays until a streamed body has ended.
async fn deliver<R: Body, E>(
    progress: &Progress,
    send: oneshot::Sender<Result<Answer<R, E>, CutOff>>,
    end: Result<Result<Response<R>, E>, Cut>,
    deadline: Option<Instant>,
) {
    let response = match end {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return drop(send.send(Ok(Err(error)))),
        Err(cut) => {
            drop(send.send(Err(cut.kind())));
            // If the task itself is cancelled, it has not ended well, and says so by ending here.
            return checkpoint().await;
        }
    };
    if response.body().is_end_stream() {
        return drop(send.send(Ok(Ok((response, None)))));
    }
    let (until_cut, cut) = oneshot::channel();
    let (ended, until_ended) = oneshot::channel();
    progress.set(Stage::Streaming);
    if send.send(Ok(Ok((response, Some(Tie { cut, ended }))))).is_ok() {
        // Cut off here, by its deadline or from outside, the sender goes, and the body ends with an error.
        drop(scope(deadline).run(until_ended).await);
    }
    drop::<oneshot::Sender<Infallible>>(until_cut);
}

/// Waits for the answer. A cancel around it, of the connection for instance, does not end the wait: the task is cancelled as well, and
/// says what is to be answered.
async fn wait<R, E>(
    receive: oneshot::Receiver<Result<Answer<R, E>, CutOff>>,
    handle: Handle,
    guard: Guard,
    is_grpc: bool,
    is_head: bool,
) -> Result<Response<TrackedBody<R>>, E> {
    let end = async {
        match receive.await {
            Ok(end) => end,
            Err(_) => Err(handle.end().await),
        }
    };
    let end = CancelScope::new().shielded(true).run(end).await.unwrap_or(Err(CutOff::Stopping));
    let mut waiting = guard.answered();
    let is_streaming = matches!(&end, Ok(Ok((_, Some(_)))));
    if !is_streaming {
        waiting.answered();
    }
    let (response, tie) = match end {
        Ok(answer) => answer?,
        Err(cut) => return Ok(cut.answer(is_grpc)),
    };
    let owed = owed(&response, is_head);
    let stream = tie.map(|Tie { cut, ended }| Stream::new(cut, ended, waiting, owed));
    Ok(response.map(|body| TrackedBody::new(body, stream)))
}

/// How many bytes of a body the client waits for, if the answer says so.
fn owed<B>(answer: &Response<B>, is_head: bool) -> Option<u64> {
    let status = answer.status();
    if is_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return Some(0);
    }
    answer.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The task, whoever owns it.
enum Handle {
    Owned(Task<(), BoxError>),
    /// Outside of a run.
    Plain(JoinHandle<()>),
    /// Its owner has ended.
    Refused,
}

impl Handle {
    fn spawn(
        owner: Option<Nursery<BoxError>>,
        name: Arc<str>,
        progress: Arc<Progress>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let root = || ShutdownHandle::current().map(|_| root_nursery());
        let Some(owner) = owner.or_else(root) else { return Self::plain(task) };
        let task = owner.task().name(name).status(move || progress.to_string()).try_spawn(task);
        task.map_or(Self::Refused, Self::Owned)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "there is no nursery outside of a run; its shields are known all the same"
    )]
    fn plain(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::Plain(tokio::spawn(task))
    }

    /// Why there was no answer. A panic goes on here.
    async fn end(self) -> CutOff {
        match self {
            Self::Owned(task) => match task.await {
                Outcome::Panicked(panic) => panic.resume(),
                Outcome::Cancelled(cause) => CutOff::by(Some(&cause)),
                Outcome::Ok(()) | Outcome::Err(_) | Outcome::Lost => CutOff::Stopping,
            },
            Self::Plain(task) => match task.await {
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                Ok(()) | Err(_) => CutOff::Stopping,
            },
            Self::Refused => CutOff::Stopping,
        }
    }
}

/// Tells the work when its client has gone.
struct Guard {
    waiting: Waiting,
    is_answered: bool,
    progress: Arc<Progress>,
    gone: Gone,
}

/// What is to be done then.
enum Gone {
    Cancel(ScopeHandle),
    Finish,
    /// Goes on if there is a permit left.
    FinishIf(Arc<Semaphore>, ScopeHandle),
}

impl Gone {
    fn new(work: &Work, request: &CancelScope, gone: &CancelScope) -> Self {
        match (work.on_disconnect, &work.detached) {
            (OnDisconnect::Cancel, _) => Self::Cancel(request.handle()),
            (OnDisconnect::Grace(_), _) => Self::Cancel(gone.handle()),
            (OnDisconnect::Finish, None) => Self::Finish,
            (OnDisconnect::Finish, Some(detached)) => Self::FinishIf(Arc::clone(detached), request.handle()),
        }
    }
}

impl Guard {
    /// There is an answer: only its body can lose its client now.
    fn answered(mut self) -> Waiting {
        self.is_answered = true;
        let (mut nobody, _) = Waiting::new();
        nobody.answered();
        std::mem::replace(&mut self.waiting, nobody)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.progress.set(Stage::Alone);
        match &self.gone {
            Gone::Cancel(scope) => drop(scope.cancel("the client is gone")),
            Gone::Finish => {}
            Gone::FinishIf(detached, scope) => match Arc::clone(detached).try_acquire_owned() {
                Ok(permit) => self.progress.keep(permit),
                Err(_) => drop(scope.cancel("the client is gone, and enough requests go on without one")),
            },
        }
    }
}

/// How far a request has come, for its status.
#[derive(Default)]
struct Progress {
    stage: AtomicU8,
    detached: Mutex<Detached>,
}

#[derive(Default)]
enum Detached {
    #[default]
    No,
    Yes(#[expect(dead_code, reason = "kept for its destructor")] OwnedSemaphorePermit),
    Ended,
}

#[derive(Clone, Copy)]
enum Stage {
    Streaming = 1,
    Alone = 2,
}

impl Progress {
    fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    fn keep(&self, permit: OwnedSemaphorePermit) {
        let mut detached = self.detached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Detached::No = *detached {
            *detached = Detached::Yes(permit);
        }
    }

    fn at_end(&self) -> impl Drop + use<'_> {
        End(self)
    }
}

struct End<'a>(&'a Progress);

impl Drop for End<'_> {
    fn drop(&mut self) {
        *self.0.detached.lock().unwrap_or_else(PoisonError::into_inner) = Detached::Ended;
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage.load(Ordering::Relaxed) {
            stage if stage == Stage::Streaming as u8 => "streaming its answer",
            stage if stage == Stage::Alone as u8 => "its client is gone",
            _ => "working",
        })
    }
}

/// The answer to a request; made by [`RequestService`](crate::RequestService).
///
/// # Cancel safety
///
/// Dropping it before the answer is there says that the client has gone; what that does to the work, [`OnDisconnect`] tells. The answer
/// is lost.
#[must_use = "dropped, the client is taken to have gone"]
pub struct ResponseFuture<R, E>(BoxFuture<Result<Response<TrackedBody<R>>, E>>);

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<R, E> Future for ResponseFuture<R, E> {
    type Output = Result<Response<TrackedBody<R>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<R, E> fmt::Debug for ResponseFuture<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
