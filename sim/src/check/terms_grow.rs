//! Nobody goes back to an earlier term: a node or client that has taken a message of one scheduler takes none of an earlier
//! one's, however late that still speaks.

use std::collections::BTreeMap;

use starling_core::ids::ClientId;

/// Of which term everybody has taken something last.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    nodes: BTreeMap<usize, u32>,
    clients: BTreeMap<ClientId, u32>,
}

impl Terms {
    /// A node takes a message of the scheduler of this term.
    pub(crate) fn node_takes(&mut self, node: usize, term: u32) -> Result<(), String> {
        let last = self.nodes.entry(node).or_default();
        grow(last, term).map_err(|error| format!("node {node}: {error}"))
    }

    /// A client takes a message of the scheduler of this term.
    pub(crate) fn client_takes(&mut self, client: ClientId, term: u32) -> Result<(), String> {
        let last = self.clients.entry(client).or_default();
        grow(last, term).map_err(|error| format!("{client:?}: {error}"))
    }

    /// A client has another id.
    pub(crate) fn client_is_now(&mut self, old: ClientId, new: ClientId) {
        if let Some(term) = self.clients.remove(&old) {
            self.clients.insert(new, term);
        }
    }

    /// A node has forgotten what it knew.
    pub(crate) fn node_crashes(&mut self, node: usize) {
        self.nodes.remove(&node);
    }
}

fn grow(last: &mut u32, term: u32) -> Result<(), String> {
    if term < *last {
        return Err(format!("a message of term {term} is taken after one of term {last}"));
    }
    *last = term;
    Ok(())
}
