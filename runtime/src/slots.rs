//! One value of each type, made when it is first asked for: what a client or a node keeps for those that stand on it,
//! without knowing of them.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// At most one value of each type.
#[derive(Default)]
pub struct Slots {
    values: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Slots {
    /// The value of this type; made now if there is none. `make` must not ask the same slots.
    pub fn get_or_init<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = values.get(&TypeId::of::<T>()).and_then(|value| Arc::clone(value).downcast().ok()) {
            return value;
        }
        let value = Arc::new(make());
        values.insert(TypeId::of::<T>(), Arc::clone(&value) as Arc<dyn Any + Send + Sync>);
        value
    }
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let len = self.values.lock().unwrap_or_else(PoisonError::into_inner).len();
        write!(f, "Slots({len})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once() {
        let slots = Slots::default();
        let first = slots.get_or_init(|| 7_u32);
        let second = slots.get_or_init(|| 8_u32);
        assert!(Arc::ptr_eq(&first, &second) && *second == 7);
        assert_eq!(*slots.get_or_init(|| "other".to_owned()), "other");
    }
}
