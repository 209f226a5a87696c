//! The main task of a run.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use crate::core::node::Info;
use crate::core::task::{TaskInfo, Traits};
use crate::host::{self, Frame, Node};
use crate::region::{End, Region};

/// Polls the main future of a run as a task of its root.
pub(crate) async fn run<F: Future>(root: &Arc<Node>, info: Info, main: F) -> End<F::Output> {
    let task = TaskInfo::new(host::next_task_id(), info, Traits::default());
    let frame = Frame::of_task(Arc::clone(root), true, task);
    let key = root.add_task(&frame);
    let mut region = pin!(Region::within(Arc::clone(&frame), main));
    let end = std::future::poll_fn(|cx| region.as_mut().poll(cx)).await;
    if let (End::Cut(_), Some(task)) = (&end, frame.task()) {
        task.cut();
    }
    frame.end_task();
    root.remove_task(key);
    end
}
