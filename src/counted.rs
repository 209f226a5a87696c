//! Shields in their first polls, in tasks that nobody waits for: counted in at the root, and named there.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::Arc;

use crate::core::node::Info;
use crate::core::parts::Parts;
use crate::host::Node;
use crate::numbers::Numbers;
use crate::ticket::Ticket;

/// The shields of one runtime that are counted and have no node yet. A few: each is being polled.
#[derive(Debug, Default)]
pub(crate) struct Unmade {
    listed: Parts<Vec<(Number, Info)>>,
}

/// Which of them; never used twice in this process, as a place may be made below what lives on another runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(NonZero<u64>);

impl Number {
    const BLOCK: u64 = 1024;

    fn next() -> Self {
        static NUMBERS: Numbers<{ Number::BLOCK }> = Numbers::new();
        thread_local! { static LAST: Cell<u64> = const { Cell::new(Numbers::<{ Number::BLOCK }>::NONE) } }
        Self(LAST.with(|last| NUMBERS.next(last)))
    }

    /// Another one for each block, so that two threads seldom share one.
    fn part(self) -> usize {
        (self.0.get() / Self::BLOCK) as usize
    }
}

impl Unmade {
    /// Who they are.
    pub(crate) fn list(&self) -> Vec<Info> {
        self.listed.all().flat_map(|part| part.iter().map(|(_, info)| info.clone()).collect::<Vec<_>>()).collect()
    }

    fn insert(&self, info: Info) -> Number {
        let number = Number::next();
        self.listed.lock(number.part()).push((number, info));
        number
    }

    /// It has ended or gets a node, and who looks from now on finds it there; unless it had one.
    pub(crate) fn remove(&self, number: Number) {
        let mut listed = self.listed.lock(number.part());
        let index = listed.iter().position(|(one, _)| *one == number);
        let shield = index.map(|index| listed.swap_remove(index));
        drop(listed);
        drop(shield);
    }
}

/// One of them. What it says to others in its first poll finds it counted (S32), and who asks meanwhile what is waited for finds it named.
pub(crate) struct Counted {
    /// None once somebody else has it.
    ticket: Option<Ticket>,
    pub(crate) number: Number,
}

impl Counted {
    /// Counts a shield in at the root of `node`; none if that is closed.
    pub(crate) fn at_root(node: &Arc<Node>, info: Info) -> Option<Self> {
        let ticket = Ticket::at_root(node)?;
        let number = ticket.owner().host()?.unmade.insert(info);
        Some(Self { ticket: Some(ticket), number })
    }

    /// It stays counted, by the node that it has.
    pub(crate) fn into_ticket(mut self) -> Option<Ticket> {
        self.forget_name();
        self.ticket.take()
    }

    fn forget_name(&self) {
        if let Some(host) = self.ticket.as_ref().and_then(|ticket| ticket.owner().host()) {
            host.unmade.remove(self.number);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.forget_name();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;
    use crate::core::node::Kind;

    #[test]
    fn each_is_taken_out_by_its_own_number_once() {
        let unmade = Unmade::default();
        let info = |born| Info::new(Kind::Shield, Location::caller(), born);
        let numbers = [1, 2, 3].map(|born| unmade.insert(info(born)));
        let left = || unmade.list().iter().map(|info| info.born).collect::<Vec<_>>();
        unmade.remove(numbers[1]);
        unmade.remove(numbers[1]);
        assert_eq!(left(), [1, 3]);
        unmade.remove(numbers[0]);
        assert_eq!(left(), [3]);
    }
}
