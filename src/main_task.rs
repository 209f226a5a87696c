//! The main task of a run.

use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;

use crate::clock;
use crate::core::node::{Info, Kind};
use crate::core::task::{TaskInfo, Traits};
use crate::host::{self, Frame, Node};
use crate::outcome::{Outcome, Panic, TaskOutput};
use crate::region::{Cutting, End, Region};
use crate::shield::ScopedShield;

/// Polls the main future of a run as a task of its root.
pub(crate) async fn run<F: Future>(root: &Arc<Node>, info: Info, main: F) -> End<F::Output> {
    let task = TaskInfo::new(host::next_task_id(), info, Traits::default());
    let frame = Frame::of_task(Arc::clone(root), true, task);
    let key = root.add_task(&frame);
    let mut region = pin!(Region::new(main, Cutting::Unwinds));
    region.as_mut().enter(Arc::clone(&frame));
    let end = std::future::poll_fn(|cx| region.as_mut().poll(cx)).await;
    if let (End::Cut(_), Some(task)) = (&end, frame.task()) {
        task.cut();
    }
    frame.end_task();
    drop(root.remove_task(key, || None));
    end
}

/// Runs main as the task of that name, and gives how it has ended.
pub(crate) async fn outcome<F>(
    root: &Arc<Node>,
    main: F,
    shielded: bool,
    place: &'static Location<'static>,
) -> Outcome<<F::Output as TaskOutput>::Value, <F::Output as TaskOutput>::Error>
where
    F: Future,
    F::Output: TaskOutput,
{
    let info = Info::new(Kind::Task, place, clock::now());
    info.set_name("main".into());
    let main = async move { if shielded { ScopedShield::at(place, main).await } else { main.await } };
    match run(root, info, main).await {
        End::Done(output) => match output.into_result() {
            Ok(value) => Outcome::Ok(value),
            Err(error) => Outcome::Err(error),
        },
        End::Cut(cut) => Outcome::Cancelled(cut.cause),
        End::Panicked(payload) => Outcome::Panicked(Panic::new(payload)),
    }
}
