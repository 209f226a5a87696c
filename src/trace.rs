//! What the feature `tracing` adds: a span for each task, an event for each cancel and phase; without it, nothing.

#[cfg(all(feature = "signal", not(feature = "tracing")))]
pub(crate) use off::phase;
#[cfg(not(feature = "tracing"))]
pub(crate) use off::{Span, cancelled, event};
#[cfg(all(feature = "signal", feature = "tracing"))]
pub(crate) use on::phase;
#[cfg(feature = "tracing")]
pub(crate) use on::{Span, cancelled, event};

#[cfg(feature = "tracing")]
mod on {
    use crate::core::cause::Cause;
    use crate::core::task::TaskInfo;
    use crate::host::{Member, Node};
    use crate::report::{Event, Subject};

    /// The span of a task, or of the place where a shield was polled first.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Span(Option<tracing::Span>);

    impl Span {
        /// A new span for a task, inside the span of whoever spawns it.
        pub(crate) fn of_task(task: &Member) -> Self {
            task.with_task(Self::of_info).unwrap_or_default()
        }

        fn of_info(task: &TaskInfo) -> Self {
            let place = task.info.place;
            Self(Some(tracing::info_span!(
                target: "testudo",
                "task",
                id = task.id,
                name = &*task.name(),
                place = %format_args!("{}:{}", place.file(), place.line()),
            )))
        }

        pub(crate) fn current() -> Self {
            Self(Some(tracing::Span::current()))
        }

        pub(crate) fn inside<R>(&self, run: impl FnOnce() -> R) -> R {
            match &self.0 {
                Some(span) => span.in_scope(run),
                None => run(),
            }
        }
    }

    pub(crate) fn cancelled(node: &Node, cause: &Cause) {
        tracing::debug!(target: "testudo", what = %Subject::of_node(node), %cause, "cancelled");
    }

    #[cfg(feature = "signal")]
    pub(crate) fn phase(phase: crate::core::phase::Phase) {
        tracing::debug!(target: "testudo", %phase, "shutdown");
    }

    pub(crate) fn event(event: &Event) {
        match event {
            Event::Stopping { .. } | Event::Waiting { .. } | Event::Dump(_) => {
                tracing::info!(target: "testudo", "{event}")
            }
            Event::Warning(_)
            | Event::Unfinished { .. }
            | Event::Forced { .. }
            | Event::Overran(_)
            | Event::Ended(_) => {
                tracing::warn!(target: "testudo", "{event}")
            }
            Event::Lost(_) | Event::Dropped(_) | Event::Failed(..) | Event::Panicked(..) => {
                tracing::error!(target: "testudo", "{event}");
            }
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use crate::core::cause::Cause;
    use crate::host::{Member, Node};
    use crate::report::Event;

    #[derive(Clone, Debug, Default)]
    pub(crate) struct Span(());

    impl Span {
        pub(crate) fn of_task(_: &Member) -> Self {
            Self(())
        }

        pub(crate) fn current() -> Self {
            Self(())
        }

        pub(crate) fn inside<R>(&self, run: impl FnOnce() -> R) -> R {
            run()
        }
    }

    pub(crate) fn cancelled(_: &Node, _: &Cause) {}

    #[cfg(feature = "signal")]
    pub(crate) fn phase(_: crate::core::phase::Phase) {}

    pub(crate) fn event(_: &Event) {}
}
