//! Requests that wait, first come first served.

use std::collections::{BTreeMap, BTreeSet};

use super::ask::{Ask, Change, LeaseName, Read, RequestId};
use super::coordinator::LinkId;
use crate::ids::Time;

/// What requests wait for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LineName {
    /// A lease.
    Lease(LeaseName),
    /// Room in a queue.
    Room(String),
    /// A value in a queue.
    Value(String),
    /// An event to be set.
    Set(String),
    /// A variable to have a value.
    Variable(String),
    /// The others at a barrier.
    Barrier(String),
    /// An event of a topic.
    Topic(String),
}

impl LineName {
    /// The line in which a request waits; `None` if it never does.
    pub(super) fn of(ask: &Ask) -> Option<LineName> {
        match ask {
            Ask::Change(Change::Acquire { of, .. }) => Some(LineName::Lease(of.clone())),
            Ask::Change(Change::Put { queue, .. }) => Some(LineName::Room(queue.clone())),
            Ask::Change(Change::Get { queue }) => Some(LineName::Value(queue.clone())),
            Ask::Read(Read::WaitSet(name)) => Some(LineName::Set(name.clone())),
            Ask::Read(Read::Variable(name)) => Some(LineName::Variable(name.clone())),
            Ask::Read(Read::Events { topic, .. }) => Some(LineName::Topic(topic.clone())),
            Ask::Arrive { barrier, .. } => Some(LineName::Barrier(barrier.clone())),
            Ask::Change(_) | Ask::Read(_) => None,
        }
    }

    /// Whose wait may be over when this is done.
    pub(super) fn after(change: &Change) -> Option<LineName> {
        match change {
            Change::Release { of, .. } => Some(LineName::Lease(of.clone())),
            Change::Put { queue, .. } | Change::PutBack { queue, .. } => Some(LineName::Value(queue.clone())),
            Change::Get { queue } | Change::ClearQueue(queue) => Some(LineName::Room(queue.clone())),
            Change::SetEvent(name) => Some(LineName::Set(name.clone())),
            Change::SetVariable { name, .. } => Some(LineName::Variable(name.clone())),
            Change::Log { topic, .. } => Some(LineName::Topic(topic.clone())),
            Change::Acquire { .. }
            | Change::ClearEvent(_)
            | Change::DeleteVariable(_)
            | Change::SetMetadata { .. }
            | Change::DeleteMetadata(_) => None,
        }
    }
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) request: RequestId,
    pub(super) link: LinkId,
    pub(super) seen: u64,
    pub(super) ask: Ask,
    pub(super) line: LineName,
    /// Until when it waits.
    pub(super) deadline: Option<Time>,
}

/// The place of a request among all that wait: they grow.
pub(super) type Ticket = u64;

#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Only those with waiters.
    lines: BTreeMap<LineName, BTreeSet<Ticket>>,
    waiters: BTreeMap<Ticket, Waiter>,
    by_request: BTreeMap<RequestId, Ticket>,
    deadlines: BTreeSet<(Time, Ticket)>,
    last_ticket: Ticket,
}

impl Lines {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn ticket_of(&self, request: RequestId) -> Option<Ticket> {
        self.by_request.get(&request).copied()
    }

    pub(super) fn is_empty(&self, line: &LineName) -> bool {
        !self.lines.contains_key(line)
    }

    pub(super) fn add(&mut self, waiter: Waiter) {
        self.last_ticket += 1;
        self.put_back(self.last_ticket, waiter);
    }

    /// Puts one back that was removed, where it was.
    pub(super) fn put_back(&mut self, ticket: Ticket, waiter: Waiter) {
        self.lines.entry(waiter.line.clone()).or_default().insert(ticket);
        self.by_request.insert(waiter.request, ticket);
        self.deadlines.extend(waiter.deadline.map(|deadline| (deadline, ticket)));
        self.waiters.insert(ticket, waiter);
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket)?;
        if let Some(line) = self.lines.get_mut(&waiter.line) {
            line.remove(&ticket);
            if line.is_empty() {
                self.lines.remove(&waiter.line);
            }
        }
        self.by_request.remove(&waiter.request);
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
        Some(waiter)
    }

    /// Those who wait here, in their order.
    pub(super) fn waiting(&self, line: &LineName) -> impl Iterator<Item = (Ticket, &Waiter)> {
        let tickets = self.lines.get(line).into_iter().flatten();
        tickets.filter_map(|ticket| Some((*ticket, self.waiters.get(ticket)?)))
    }

    /// Those whose time is over.
    pub(super) fn overdue(&self, now: Time) -> Vec<Ticket> {
        self.deadlines.range(..=(now, Ticket::MAX)).map(|(_, ticket)| *ticket).collect()
    }

    /// Those who wait and came over this link.
    pub(super) fn of_link(&self, link: LinkId) -> Vec<Ticket> {
        self.waiters.iter().filter(|(_, waiter)| waiter.link == link).map(|(ticket, _)| *ticket).collect()
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &LineName> {
        self.lines.keys()
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let in_lines: BTreeSet<Ticket> = self.lines.values().flatten().copied().collect();
        assert!(in_lines.iter().eq(self.waiters.keys()), "each waits in one line");
        assert!(self.lines.values().all(|line| !line.is_empty()), "an empty line is kept");
        for (ticket, waiter) in &self.waiters {
            assert_eq!(self.by_request.get(&waiter.request), Some(ticket), "{waiter:?}");
            assert!(waiter.deadline.is_none_or(|deadline| self.deadlines.contains(&(deadline, *ticket))), "{waiter:?}");
        }
        assert_eq!(self.by_request.len(), self.waiters.len(), "a request that waits twice");
        assert_eq!(self.deadlines.len(), self.waiters.values().filter(|waiter| waiter.deadline.is_some()).count());
    }
}
