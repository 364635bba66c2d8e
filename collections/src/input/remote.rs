//! Files in stores: found, read by ranges, written whole.

use std::io::{self, Read};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::error::ReadError;
use super::file::shown_url;
use super::stores::{Located, locate, parts, wait};
use crate::csv::CsvError;
use crate::files::FILES_MAX;

/// Behind what is asked for for sure, so many bytes are read at once.
const TAIL_BYTES: u64 = 256 << 10;

/// About so many bytes are handed from the store's thread to the reading one at once.
const HANDED_BYTES: usize = 1 << 20;

/// An object as it was when it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteStamp {
    /// Its URL, in which nothing is secret.
    pub(super) url: String,
    pub(super) len: u64,
    etag: Option<String>,
    /// In milliseconds since 1970.
    modified: i64,
    /// Whether the server gives parts of it.
    pub(super) has_ranges: bool,
}

impl RemoteStamp {
    /// The objects that a URL names; in one of S3 `*`, `?`, `[..]` and `**` stand for what they do in paths.
    pub(super) fn find(url: &str) -> Result<Vec<RemoteStamp>, ReadError> {
        let (scheme, _, path) = parts(url)?;
        let is_s3 = scheme.starts_with("s3");
        if is_s3 && path.contains(['*', '?', '[']) {
            return matching(url);
        }
        if path.contains('*') || path.ends_with('/') {
            return Err(ReadError::BadUrl {
                url: shown_url(url),
                problem: if is_s3 {
                    "it is no file: write s3://BUCKET/FOLDER/* for all files of a folder".to_owned()
                } else {
                    "web servers list no files: name each file by its whole URL".to_owned()
                },
            });
        }
        let located = locate(url)?;
        let (store, path) = (located.store.store.clone(), located.path.clone());
        let found = wait(async move {
            let meta = store.head(&path).await?;
            let has_ranges = match (is_s3, meta.size) {
                (true, _) | (_, 0) => true,
                _ => match store.get_range(&path, 0..1).await {
                    Ok(byte) => byte.len() == 1,
                    Err(Error::NotSupported { .. }) => false,
                    Err(error) => return Err(error),
                },
            };
            Ok((meta, has_ranges))
        })?;
        match found {
            Ok((meta, has_ranges)) => Ok(vec![RemoteStamp::of(located.url, &meta, has_ranges)]),
            Err(Error::NotFound { .. }) => Err(CsvError::NotFound { pattern: located.url }.into()),
            Err(error) => Err(located.failed(&error)),
        }
    }

    fn of(url: String, meta: &ObjectMeta, has_ranges: bool) -> RemoteStamp {
        let modified = meta.last_modified.timestamp_millis();
        RemoteStamp { url, len: meta.size, etag: meta.e_tag.clone(), modified, has_ranges }
    }

    fn is(&self, meta: &ObjectMeta) -> bool {
        let same_tag = self.etag.is_none() || meta.e_tag.is_none() || self.etag == meta.e_tag;
        self.len == meta.size && same_tag && self.modified / 1000 == meta.last_modified.timestamp()
    }

    /// The bytes from `start` on, those before `soon` in one request.
    pub(super) fn open(&self, start: u64, soon: u64) -> Result<RemoteRead, ReadError> {
        let located = locate(&self.url)?;
        Ok(RemoteRead { located, stamp: self.clone(), at: start, soon, open: None, piece: Bytes::new() })
    }
}

fn matching(url: &str) -> Result<Vec<RemoteStamp>, ReadError> {
    let (scheme, bucket, pattern) = parts(url)?;
    let shown = format!("{scheme}://{bucket}/{pattern}");
    let invalid = |message: String| ReadError::from(CsvError::Pattern { pattern: shown.clone(), message });
    let glob = glob::Pattern::new(pattern).map_err(|error| invalid(error.to_string()))?;
    let fixed = &pattern[..pattern.find(['*', '?', '[']).unwrap_or(pattern.len())];
    let folder = fixed.rsplit_once('/').map_or("", |(folder, _)| folder);
    // Any place there will do, to have the store.
    let located = Located {
        url: shown.clone(),
        ..locate(&format!("{scheme}://{bucket}/{}", if folder.is_empty() { "x" } else { folder }))?
    };
    let store = located.store.store.clone();
    let prefix = (!folder.is_empty()).then(|| located.path.clone());
    let listed = wait(async move {
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let mut listing = store.list(prefix.as_ref());
        let mut found = Vec::new();
        while let Some(meta) = listing.next().await {
            let meta = meta?;
            if glob.matches_with(meta.location.as_ref(), options) {
                found.push(meta);
            }
            if found.len() > FILES_MAX {
                break;
            }
        }
        Ok::<_, Error>(found)
    })?;
    let mut found = listed.map_err(|error| located.failed(&error))?;
    if found.len() > FILES_MAX {
        return Err(invalid(format!("it matches more than {FILES_MAX} files; name fewer")));
    }
    if found.is_empty() {
        return Err(CsvError::NotFound { pattern: shown }.into());
    }
    found.sort_unstable_by(|a, b| a.location.cmp(&b.location));
    let stamp = |meta: &ObjectMeta| RemoteStamp::of(format!("{scheme}://{bucket}/{}", meta.location), meta, true);
    Ok(found.iter().map(stamp).collect())
}

/// Reads an object from a place on.
pub(super) struct RemoteRead {
    located: Located,
    stamp: RemoteStamp,
    /// The place of the first byte that was not given yet, `piece` included.
    at: u64,
    soon: u64,
    open: Option<Open>,
    piece: Bytes,
}

/// A request's answer that is being read.
struct Open {
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    /// How many bytes are still to come.
    left: u64,
}

impl RemoteRead {
    fn changed(&self) -> ReadError {
        CsvError::Changed { path: self.stamp.url.clone() }.into()
    }

    fn request(&self) -> Result<Open, ReadError> {
        let len = self.stamp.len;
        let end = if self.at < self.soon { self.soon.min(len) } else { (self.at + TAIL_BYTES).min(len) };
        let end = if self.stamp.has_ranges { end } else { len };
        let options = GetOptions {
            range: self.stamp.has_ranges.then_some(GetRange::Bounded(self.at..end)),
            if_match: self.stamp.etag.clone(),
            ..GetOptions::default()
        };
        let (store, path) = (self.located.store.store.clone(), self.located.path.clone());
        let result = match wait(async move { store.get_opts(&path, options).await })? {
            Ok(result) => result,
            Err(Error::Precondition { .. } | Error::NotModified { .. }) => return Err(self.changed()),
            Err(Error::NotFound { .. }) => return Err(CsvError::NotFound { pattern: self.stamp.url.clone() }.into()),
            Err(error) => return Err(self.located.failed(&error)),
        };
        if !self.stamp.is(&result.meta) {
            return Err(self.changed());
        }
        Ok(Open { stream: result.into_stream(), left: end - self.at })
    }

    fn next_piece(&mut self) -> Result<(), ReadError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.request()?,
        };
        let handed = wait(async move {
            let mut bytes = Vec::new();
            while bytes.len() < HANDED_BYTES {
                match open.stream.next().await {
                    Some(Ok(more)) => bytes.extend_from_slice(&more),
                    Some(Err(error)) => return Err(error),
                    None => break,
                }
            }
            Ok((bytes, open))
        })?;
        let (bytes, mut open) = handed.map_err(|error| self.located.failed(&error))?;
        if bytes.is_empty() || bytes.len() as u64 > open.left {
            return Err(self.changed());
        }
        open.left -= bytes.len() as u64;
        self.piece = bytes.into();
        if open.left > 0 {
            self.open = Some(open);
        }
        Ok(())
    }
}

impl Read for RemoteRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.at >= self.stamp.len {
            return Ok(0);
        }
        if self.piece.is_empty() {
            self.next_piece().map_err(io::Error::other)?;
        }
        let given = self.piece.split_to(buffer.len().min(self.piece.len()));
        buffer[..given.len()].copy_from_slice(&given);
        self.at += given.len() as u64;
        Ok(given.len())
    }
}

/// Writes an object: it is there whole or not at all.
pub(super) fn put(url: &str, bytes: Vec<u8>) -> Result<(), ReadError> {
    let (scheme, ..) = parts(url)?;
    if !scheme.starts_with("s3") {
        let problem = "files can be written to paths and s3:// only".to_owned();
        return Err(ReadError::BadUrl { url: shown_url(url), problem });
    }
    let located = locate(url)?;
    let (store, path) = (located.store.store.clone(), located.path.clone());
    let put = wait(async move { store.put(&path, bytes.into()).await })?;
    put.map(drop).map_err(|error| located.failed(&error))
}
