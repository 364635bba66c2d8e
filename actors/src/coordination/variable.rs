//! [`Variable`].

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use starling_core::coordination::{Ask, Change, Outcome, Read};
use starling_runtime::value::Data;

use super::CoordinationError;
use super::queue::{decode, encode};
use crate::cluster::Cluster;

/// A variable of the cluster's: [`Cluster::variable`]. Its value is a `T` for all who use the name.
pub struct Variable<T> {
    cluster: Cluster,
    name: String,
    value: PhantomData<fn(T) -> T>,
}

impl<T: Data> Variable<T> {
    pub(crate) fn new(cluster: Cluster, name: String) -> Variable<T> {
        Variable { cluster, name, value: PhantomData }
    }

    /// Sets its value.
    ///
    /// # Errors
    /// [`Refused::TooLarge`](super::Refused::TooLarge) for a value over 1 MiB, [`Refused::OutOfRoom`](super::Refused::OutOfRoom) if
    /// all queues and variables together have 64 MiB; otherwise [`CoordinationError`].
    pub async fn set(&self, value: &T) -> Result<(), CoordinationError> {
        let set = Change::SetVariable { name: self.name.clone(), value: encode(value)? };
        self.cluster.coordination()?.ask(Ask::Change(set), None).await.map(drop)
    }

    /// Its value, once it has one.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn get(&self) -> Result<T, CoordinationError> {
        loop {
            if let Some(value) = self.get_for(None).await? {
                return Ok(value);
            }
        }
    }

    /// Its value, if it has one now.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn try_get(&self) -> Result<Option<T>, CoordinationError> {
        self.get_for(Some(Duration::ZERO)).await
    }

    /// As [`Variable::get`], but waits no longer than this, unless the scheduler has to be looked for.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn get_timeout(&self, wait: Duration) -> Result<Option<T>, CoordinationError> {
        self.get_for(Some(wait)).await
    }

    async fn get_for(&self, wait: Option<Duration>) -> Result<Option<T>, CoordinationError> {
        let read = Ask::Read(Read::Variable(self.name.clone()));
        match self.cluster.coordination()?.ask(read, wait).await? {
            Outcome::Value(value) => decode(&value).map(Some),
            _ => Ok(None),
        }
    }

    /// Forgets its value. Says whether it had one.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn delete(&self) -> Result<bool, CoordinationError> {
        let delete = Ask::Change(Change::DeleteVariable(self.name.clone()));
        Ok(self.cluster.coordination()?.ask(delete, None).await? == Outcome::Flag(true))
    }
}

impl<T> Clone for Variable<T> {
    fn clone(&self) -> Variable<T> {
        Variable { cluster: self.cluster.clone(), name: self.name.clone(), value: PhantomData }
    }
}

impl<T> fmt::Debug for Variable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variable({:?})", self.name)
    }
}
