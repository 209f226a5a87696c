//! The language of the programs: what trio and Testudo both can say.

use serde::{Deserialize, Serialize};

/// A program. Its operations are numbered; a scope, a nursery or a task is named by the number of what makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// How many events there are to set and to wait for.
    pub(crate) events: usize,
    pub(crate) body: Block,
}

pub(crate) type Block = Vec<Op>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Op {
    pub(crate) id: u32,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// Times are virtual milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum What {
    // Suspensions that a cancel may cut off.
    Sleep {
        ms: u64,
    },
    Checkpoint,
    Wait {
        event: usize,
    },
    /// Waits for the end of a task.
    Join {
        task: u32,
    },
    /// Waits for ever.
    Park,
    // Suspensions that it does not cut off.
    Yield,
    /// Waits for a cancel, and goes on.
    Cancelled,
    // What takes no time.
    Set {
        event: usize,
    },
    Cancel {
        target: u32,
    },
    Shield {
        target: u32,
        on: bool,
    },
    /// Moves a deadline to that long after now, or takes it away.
    Deadline {
        target: u32,
        ms: Option<u64>,
    },
    /// The effective deadline of the code itself.
    Look,
    /// Whether a scope was told to cancel.
    Peek {
        target: u32,
    },
    Fail,
    // Regions.
    Scope {
        /// After the beginning of the program.
        #[serde(default)]
        deadline: Option<u64>,
        timeout: Option<u64>,
        shield: bool,
        body: Block,
    },
    FailAfter {
        timeout: u64,
        body: Block,
    },
    MoveOnAfter {
        timeout: u64,
        body: Block,
    },
    Shielded {
        kind: ShieldKind,
        body: Block,
    },
    ShieldWith {
        before: Block,
        exposed: Block,
        after: Block,
    },
    /// Forgives failures.
    Try {
        body: Block,
    },
    /// Catches a cancel.
    Catch {
        body: Block,
    },
    Finally {
        body: Block,
        then: Block,
    },
    OnCancel {
        body: Block,
        then: Block,
    },
    Bracket {
        before: Block,
        body: Block,
        after: Block,
    },
    // Nurseries.
    Nursery {
        timeout: Option<u64>,
        shield: bool,
        /// In one task (`nursery_local`); to trio it is a nursery as any other.
        local: bool,
        body: Block,
    },
    Spawn {
        nursery: u32,
        shield: bool,
        body: Block,
    },
    Start {
        nursery: u32,
        /// False for a child that never says that it has started.
        starts: bool,
        before: Block,
        after: Block,
    },
}

/// Which of our shields stands for trio's shielded scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ShieldKind {
    Owned,
    Scoped,
    Local,
    Scope,
}

/// What a program did: what both sides must agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// By instant, then by task, then in their order.
    pub(crate) events: Vec<(u64, u32, String)>,
    /// The failures that reached nobody but the report.
    pub(crate) reported: Vec<u32>,
}

impl What {
    /// The blocks inside, in the order in which they stand.
    pub(crate) fn blocks(&mut self) -> Vec<&mut Block> {
        match self {
            Self::Sleep { .. }
            | Self::Checkpoint
            | Self::Wait { .. }
            | Self::Join { .. }
            | Self::Park
            | Self::Yield
            | Self::Cancelled
            | Self::Set { .. }
            | Self::Cancel { .. }
            | Self::Shield { .. }
            | Self::Deadline { .. }
            | Self::Look
            | Self::Peek { .. }
            | Self::Fail => Vec::new(),
            Self::Scope { body, .. }
            | Self::FailAfter { body, .. }
            | Self::MoveOnAfter { body, .. }
            | Self::Shielded { body, .. }
            | Self::Try { body }
            | Self::Catch { body }
            | Self::Nursery { body, .. }
            | Self::Spawn { body, .. } => vec![body],
            Self::ShieldWith { before, exposed, after } => vec![before, exposed, after],
            Self::Finally { body, then } | Self::OnCancel { body, then } => vec![body, then],
            Self::Bracket { before, body, after } => vec![before, body, after],
            Self::Start { before, after, .. } => vec![before, after],
        }
    }
}

impl What {
    /// Makes a long time short; false if there is none.
    pub(crate) fn hurry(&mut self, short: u64) -> bool {
        let time = if let Self::Sleep { ms }
        | Self::FailAfter { timeout: ms, .. }
        | Self::MoveOnAfter { timeout: ms, .. } = self
        {
            Some(ms)
        } else {
            self.timeout()
        };
        time.filter(|ms| **ms > short).map(|ms| *ms = short).is_some()
    }

    fn timeout(&mut self) -> Option<&mut u64> {
        if let Self::Scope { deadline: timeout @ Some(_), .. }
        | Self::Scope { timeout, .. }
        | Self::Nursery { timeout, .. }
        | Self::Deadline { ms: timeout, .. } = self
        {
            timeout.as_mut()
        } else {
            None
        }
    }
}

/// Calls `visit` for each operation of a block, those inside included, in the order in which they stand.
pub(crate) fn walk(block: &mut Block, visit: &mut impl FnMut(u32, &mut What)) {
    for op in block {
        visit(op.id, &mut op.what);
        op.what.blocks().into_iter().for_each(|inner| walk(inner, visit));
    }
}
