//! [`Queue`].

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use starling_core::coordination::{Ask, Change, Outcome, Read};
use starling_runtime::value::{CodecError, Data, Encoded};

use super::CoordinationError;
use crate::cluster::Cluster;

/// A queue of the cluster's: [`Cluster::queue`]. Each value that is put is got once. Values are `T` for all who use the name.
pub struct Queue<T> {
    cluster: Cluster,
    name: String,
    maxsize: u64,
    values: PhantomData<fn(T) -> T>,
}

/// The encoding of a value, buffers and all.
pub(super) fn encode<T: Data>(value: &T) -> Result<Bytes, CoordinationError> {
    let encoded = Encoded::of(value)?;
    let bytes = postcard::to_stdvec(&encoded)
        .map_err(|source| CodecError::Encode { type_name: std::any::type_name::<T>(), source })?;
    Ok(bytes.into())
}

pub(super) fn decode<T: Data>(bytes: &Bytes) -> Result<T, CoordinationError> {
    let encoded: Encoded = postcard::from_bytes(bytes).map_err(|source| CodecError::Decode {
        type_name: std::any::type_name::<T>(),
        nbytes: bytes.len() as u64,
        source,
    })?;
    Ok(encoded.decode()?)
}

impl<T: Data> Queue<T> {
    pub(crate) fn new(cluster: Cluster, name: String, maxsize: u64) -> Queue<T> {
        Queue { cluster, name, maxsize, values: PhantomData }
    }

    /// Puts a value at the end, once the queue has fewer than `maxsize`. It is there when this returns.
    ///
    /// # Errors
    /// [`Refused::TooLarge`](super::Refused::TooLarge) for a value over 1 MiB, [`Refused::OutOfRoom`](super::Refused::OutOfRoom) if
    /// all queues and variables together have 64 MiB; otherwise [`CoordinationError`].
    pub async fn put(&self, value: &T) -> Result<(), CoordinationError> {
        self.put_for(value, None).await.map(drop)
    }

    /// Puts a value if the queue is not full, and nobody waits to put one. Says whether it did.
    ///
    /// # Errors
    /// As [`Queue::put`].
    pub async fn try_put(&self, value: &T) -> Result<bool, CoordinationError> {
        self.put_for(value, Some(Duration::ZERO)).await
    }

    /// As [`Queue::put`], but waits no longer than this, unless the scheduler has to be looked for. Says whether it was put.
    ///
    /// # Errors
    /// As [`Queue::put`].
    pub async fn put_timeout(&self, value: &T, wait: Duration) -> Result<bool, CoordinationError> {
        self.put_for(value, Some(wait)).await
    }

    async fn put_for(&self, value: &T, wait: Option<Duration>) -> Result<bool, CoordinationError> {
        let change = Change::Put { queue: self.name.clone(), maxsize: self.maxsize, value: encode(value)? };
        Ok(self.cluster.coordination()?.ask(Ask::Change(change), wait).await? == Outcome::Done)
    }

    /// Takes the first value, once there is one. If this is dropped before it resolves, the value stays the first, unless the
    /// client dies at that moment.
    ///
    /// # Errors
    /// [`CoordinationError`]. A value that is no `T` is gone.
    pub async fn get(&self) -> Result<T, CoordinationError> {
        loop {
            if let Some(value) = self.get_for(None).await? {
                return Ok(value);
            }
        }
    }

    /// Takes the first value if there is one, and nobody waits for one.
    ///
    /// # Errors
    /// As [`Queue::get`].
    pub async fn try_get(&self) -> Result<Option<T>, CoordinationError> {
        self.get_for(Some(Duration::ZERO)).await
    }

    /// As [`Queue::get`], but waits no longer than this, unless the scheduler has to be looked for.
    ///
    /// # Errors
    /// As [`Queue::get`].
    pub async fn get_timeout(&self, wait: Duration) -> Result<Option<T>, CoordinationError> {
        self.get_for(Some(wait)).await
    }

    async fn get_for(&self, wait: Option<Duration>) -> Result<Option<T>, CoordinationError> {
        let get = Change::Get { queue: self.name.clone() };
        match self.cluster.coordination()?.ask(Ask::Change(get), wait).await? {
            Outcome::Value(value) => decode(&value).map(Some),
            _ => Ok(None),
        }
    }

    /// How many values it has.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn len(&self) -> Result<u64, CoordinationError> {
        let len = Ask::Read(Read::Len(self.name.clone()));
        Ok(count(&self.cluster.coordination()?.ask(len, None).await?))
    }

    /// Whether it has none.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn is_empty(&self) -> Result<bool, CoordinationError> {
        Ok(self.len().await? == 0)
    }

    /// Drops all values; gives how many there were.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn clear(&self) -> Result<u64, CoordinationError> {
        let clear = Ask::Change(Change::ClearQueue(self.name.clone()));
        Ok(count(&self.cluster.coordination()?.ask(clear, None).await?))
    }
}

pub(super) fn count(outcome: &Outcome) -> u64 {
    if let Outcome::Count(count) = outcome { *count } else { 0 }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        Queue { cluster: self.cluster.clone(), name: self.name.clone(), maxsize: self.maxsize, values: PhantomData }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({:?})", self.name)
    }
}
