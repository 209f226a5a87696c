//! What the end of one child does to its siblings.

/// What a nursery does when a child, or its body, ends.
///
/// A cancel is never a failure, under any policy, and every child is awaited, whatever the policy.
#[doc(alias = "supervisor")]
#[doc(alias = "return_exceptions")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// The first error or panic cancels all the others; the nursery returns every error, or goes on with the panic (trio's).
    #[default]
    FailFast,
    /// A child's error or panic is its handle's business alone; one that nobody looks at is reported. An error of the body
    /// cancels the children.
    Supervise,
    /// The first child that succeeds cancels all the others; then only the handles show the errors of those. The nursery fails if
    /// none has succeeded and one has failed. A panic cancels all and goes on, as under [`FailFast`](Self::FailFast).
    #[doc(alias = "race")]
    FirstSuccess,
    /// Nobody is cancelled; the nursery returns every error and every panic as failures.
    Collect,
}

impl Policy {
    /// The inverse of `as usize`.
    pub(crate) fn from_number(number: usize) -> Self {
        let all = [Self::FailFast, Self::Supervise, Self::FirstSuccess, Self::Collect];
        all.into_iter().find(|policy| *policy as usize == number).unwrap_or_default()
    }

    /// True if an error of a child cancels its siblings.
    pub(crate) fn error_cancels(self) -> bool {
        self == Self::FailFast
    }

    /// True if a panic of a child cancels its siblings and goes on at the end of the nursery.
    pub(crate) fn panic_goes_on(self) -> bool {
        matches!(self, Self::FailFast | Self::FirstSuccess)
    }

    /// True if the outcome of a child belongs to its handle, not to the nursery.
    pub(crate) fn handle_owns(self) -> bool {
        self == Self::Supervise
    }
}
