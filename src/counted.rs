//! Shields in their first polls, in tasks that nobody waits for: counted in at the root, and named there.

use std::sync::{Arc, Mutex};

use slab::Slab;

use crate::core::node::Info;
use crate::host::{Host, Node, lock};
use crate::nursery::Ticket;

/// The shields of one runtime that are counted and have no node yet.
#[derive(Debug, Default)]
pub(crate) struct Unmade {
    listed: Mutex<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    shields: Slab<(u64, Info)>,
    /// The number of the next one.
    next: u64,
}

/// Which of them: where it is listed, and its number, as it may have gone from there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    key: usize,
    number: u64,
}

impl Unmade {
    /// Who they are.
    pub(crate) fn list(&self) -> Vec<Info> {
        lock(&self.listed).shields.iter().map(|(_, (_, info))| info.clone()).collect()
    }

    fn insert(&self, info: Info) -> Mark {
        let mut listed = lock(&self.listed);
        let number = listed.next;
        listed.next += 1;
        Mark { key: listed.shields.insert((number, info)), number }
    }

    /// It gets a node, or has ended; unless it had one.
    pub(crate) fn remove(&self, Mark { key, number }: Mark) {
        let mut listed = lock(&self.listed);
        let is_it = listed.shields.get(key).is_some_and(|(listed, _)| *listed == number);
        let info = is_it.then(|| listed.shields.remove(key));
        drop(listed);
        drop(info);
    }
}

/// One of them. What it says to others in its first poll finds it counted (S32), and who asks meanwhile what is waited for finds it named.
pub(crate) struct Counted {
    ticket: Option<Ticket>,
    host: Arc<Host>,
    pub(crate) mark: Mark,
}

impl Counted {
    /// Counts a shield in at the root of `node`; none if that is closed.
    pub(crate) fn at_root(node: &Arc<Node>, info: Info) -> Option<Self> {
        let ticket = Ticket::at_root(node)?;
        let host = Arc::clone(ticket.owner().host()?);
        let mark = host.unmade.insert(info);
        Some(Self { ticket: Some(ticket), host, mark })
    }

    /// It has a node by now, and stays counted.
    pub(crate) fn into_ticket(mut self) -> Option<Ticket> {
        self.ticket.take()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.host.unmade.remove(self.mark);
    }
}
