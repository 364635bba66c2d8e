//! A remote store whose failures say what to look at.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::error::StoreError;

/// A store with the remedies for what goes wrong in it.
#[derive(Debug)]
pub(super) struct Explained {
    pub(super) store: Arc<dyn ObjectStore>,
    /// What it is called in errors.
    pub(super) name: &'static str,
    /// What to look at if something cannot be read or written.
    pub(super) remedy: Arc<str>,
    /// What to look at if nothing can be listed.
    pub(super) list_remedy: Arc<str>,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

/// The error with its remedy, unless it is one that callers look at, or that says all by itself.
fn explain(error: Error, store: &'static str, remedy: &str) -> Error {
    match error {
        Error::Generic { .. }
        | Error::NotSupported { .. }
        | Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. } => Error::Generic {
            store,
            source: Box::new(StoreError::Store { source: Box::new(error), remedy: remedy.to_owned() }),
        },
        error => error,
    }
}

impl Explained {
    fn explain(&self) -> impl Fn(Error) -> Error + Send + 'static {
        let (name, remedy) = (self.name, Arc::clone(&self.remedy));
        move |error| explain(error, name, &remedy)
    }

    fn explain_list(&self) -> impl Fn(Error) -> Error + Send + 'static {
        let (name, remedy) = (self.name, Arc::clone(&self.list_remedy));
        move |error| explain(error, name, &remedy)
    }
}

#[async_trait]
impl ObjectStore for Explained {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).map_err(self.explain()).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).map_err(self.explain()).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.store.get_opts(location, options).map_err(self.explain()).await?;
        result.payload = match result.payload {
            GetResultPayload::Stream(stream) => GetResultPayload::Stream(stream.map_err(self.explain()).boxed()),
            file => file,
        };
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(location, ranges).map_err(self.explain()).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations).map_err(self.explain()).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix).map_err(self.explain_list()).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).map_err(self.explain_list()).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).map_err(self.explain()).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.store.rename_opts(from, to, options).map_err(self.explain()).await
    }
}
