//! What tasks need of a worker, each distinct requirement once, and which workers have it.
//!
//! A task without requirements is in class [`ClassId::ANY`] and never looked at here. The tasks of another class that no
//! worker has room for wait in the class's own queue, because a queue that others share would be held up by them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::spec::{NAME_BYTES_MAX, REQUIREMENTS_MAX, Requirements};
use crate::wire::WorkerInfo;

use super::pool::Slot;
use super::queue::ReadyQueue;

/// A distinct set of requirements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClassId(pub(super) u32);

impl ClassId {
    /// No requirements.
    pub(super) const ANY: ClassId = ClassId(0);
}

/// The tasks of one set of requirements.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) requirements: Arc<Requirements>,
    /// How many records are of this class.
    tasks: u64,
    /// The workers that it names and that have the resources, in all. Ascending, like the others.
    named: Vec<Slot>,
    /// Those that have the resources and are not named.
    others: Vec<Slot>,
    /// All and only the tasks in state queued here.
    pub(super) queue: ReadyQueue,
}

impl Class {
    /// The workers that may run its tasks, whether they have room or not.
    pub(super) fn eligible(&self) -> &[Slot] {
        let is_open = self.requirements.workers.is_empty();
        if is_open || (self.requirements.allow_other_workers && self.named.is_empty()) {
            &self.others
        } else {
            &self.named
        }
    }

    /// Whether this worker may run its tasks.
    pub(super) fn is_eligible(&self, slot: Slot) -> bool {
        self.eligible().binary_search(&slot).is_ok()
    }

    fn add_worker(&mut self, slot: Slot, info: &WorkerInfo) {
        let needs = &self.requirements.resources;
        let has_all = needs.iter().all(|(name, needed)| info.resources.get(name).is_some_and(|has| has >= needed));
        if has_all {
            let list = if is_named(&self.requirements, info) { &mut self.named } else { &mut self.others };
            if let Err(place) = list.binary_search(&slot) {
                list.insert(place, slot);
            }
        }
    }

    fn remove_worker(&mut self, slot: Slot) {
        for list in [&mut self.named, &mut self.others] {
            if let Ok(place) = list.binary_search(&slot) {
                list.remove(place);
            }
        }
    }
}

/// Whether requirements name this worker: by its name, its host, or the beginning of its node's id.
pub(super) fn is_named(requirements: &Requirements, info: &WorkerInfo) -> bool {
    let id = info.node.hex();
    let names = |name: &String| {
        *name == info.name
            || (!info.host.is_empty() && *name == info.host)
            || (!name.is_empty() && id.starts_with(name.as_str()))
    };
    requirements.workers.iter().any(names)
}

/// What is out of bounds in requirements, for a person.
pub(super) fn check(requirements: &Requirements) -> Result<(), String> {
    let names = || requirements.resources.keys().chain(&requirements.workers);
    if requirements.resources.len() > REQUIREMENTS_MAX || requirements.workers.len() > REQUIREMENTS_MAX {
        return Err(format!("it names more than {REQUIREMENTS_MAX} resources or workers"));
    }
    match names().find(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        Some(_) => Err(format!("the name of a resource or worker is empty or longer than {NAME_BYTES_MAX} bytes")),
        None => Ok(()),
    }
}

/// All classes that a task is of.
#[derive(Debug, Default)]
pub(super) struct Classes {
    /// Indexed by id less one.
    classes: Vec<Option<Box<Class>>>,
    free: Vec<ClassId>,
    index: BTreeMap<Arc<Requirements>, ClassId>,
    /// The classes whose queue is not empty.
    waiting: BTreeSet<ClassId>,
}

impl Classes {
    pub(super) fn get(&self, id: ClassId) -> Option<&Class> {
        self.classes.get((id.0 as usize).checked_sub(1)?)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: ClassId) -> Option<&mut Class> {
        self.classes.get_mut((id.0 as usize).checked_sub(1)?)?.as_deref_mut()
    }

    /// Whether no task has requirements.
    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether no task is queued for its requirements.
    pub(super) fn waits_nobody(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The class of these requirements, which one more task is of. `workers` are all that are registered.
    pub(super) fn enter<'a>(
        &mut self,
        requirements: &Option<Arc<Requirements>>,
        workers: impl Iterator<Item = (Slot, &'a WorkerInfo)>,
    ) -> ClassId {
        let Some(requirements) = requirements.as_ref().filter(|requirements| !is_empty(requirements)) else {
            return ClassId::ANY;
        };
        let id = match self.index.get(requirements) {
            Some(id) => *id,
            None => self.add(requirements, workers),
        };
        if let Some(class) = self.get_mut(id) {
            class.tasks += 1;
        }
        id
    }

    fn add<'a>(
        &mut self,
        requirements: &Arc<Requirements>,
        workers: impl Iterator<Item = (Slot, &'a WorkerInfo)>,
    ) -> ClassId {
        let mut class = Class {
            requirements: Arc::clone(requirements),
            tasks: 0,
            named: Vec::new(),
            others: Vec::new(),
            queue: ReadyQueue::default(),
        };
        workers.for_each(|(slot, info)| class.add_worker(slot, info));
        let id = self.free.pop().unwrap_or_else(|| {
            self.classes.push(None);
            ClassId(self.classes.len() as u32)
        });
        self.index.insert(Arc::clone(requirements), id);
        if let Some(place) = self.classes.get_mut(id.0 as usize - 1) {
            *place = Some(Box::new(class));
        }
        id
    }

    /// A task of this class is forgotten.
    pub(super) fn leave(&mut self, id: ClassId) {
        let Some(class) = self.get_mut(id) else { return };
        class.tasks -= 1;
        if class.tasks > 0 {
            return;
        }
        let requirements = Arc::clone(&class.requirements);
        self.index.remove(&requirements);
        self.waiting.remove(&id);
        if let Some(place) = self.classes.get_mut(id.0 as usize - 1) {
            *place = None;
        }
        self.free.push(id);
    }

    pub(super) fn add_worker(&mut self, slot: Slot, info: &WorkerInfo) {
        self.classes.iter_mut().flatten().for_each(|class| class.add_worker(slot, info));
    }

    pub(super) fn remove_worker(&mut self, slot: Slot) {
        self.classes.iter_mut().flatten().for_each(|class| class.remove_worker(slot));
    }

    /// A task was added to or taken from the class's queue.
    pub(super) fn queue_changed(&mut self, id: ClassId) {
        let Some(class) = self.get(id) else { return };
        if class.queue.is_empty() {
            self.waiting.remove(&id);
        } else {
            self.waiting.insert(id);
        }
    }

    /// The classes with a queue.
    pub(super) fn waiting(&self) -> impl Iterator<Item = ClassId> + '_ {
        self.waiting.iter().copied()
    }

    /// All classes, for checks.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        let places = self.classes.iter().zip(1..);
        places.filter_map(|(class, number)| class.as_deref().map(|class| (ClassId(number), class)))
    }

    /// Panics if the lists do not agree, given how many records are of each class.
    pub(super) fn check(&self, tasks: &BTreeMap<ClassId, u64>) {
        for (id, class) in self.iter() {
            assert_eq!(class.tasks, tasks.get(&id).copied().unwrap_or(0), "{id:?} counts its tasks wrongly");
            assert_eq!(self.index.get(&class.requirements), Some(&id));
            assert_eq!(self.waiting.contains(&id), !class.queue.is_empty());
        }
        assert_eq!(self.iter().count(), self.index.len());
        for id in tasks.keys() {
            assert!(self.get(*id).is_some(), "a task is of {id:?}, which is gone");
        }
    }
}

fn is_empty(requirements: &Requirements) -> bool {
    requirements.workers.is_empty() && requirements.resources.values().all(|amount| amount.0 == 0)
}
