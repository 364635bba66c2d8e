//! A file that was found, wherever it lies.

use std::io::{BufReader, Read};

use serde::{Deserialize, Serialize};

use super::compression::Compression;
use super::error::ReadError;
#[cfg(feature = "object-store")]
use super::remote::RemoteStamp;
use crate::csv::{CsvError, FileStamp};

/// To say the line of a fault an unpacked file is read again up to the fault, if that is not further than this.
const COUNTED_BYTES_MAX: u64 = 1 << 30;

/// A file as it was when it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InputFile {
    /// On the worker's disk.
    Local(FileStamp),
    /// In a store.
    #[cfg(feature = "object-store")]
    Remote(RemoteStamp),
}

impl InputFile {
    /// The files that a path, pattern or URL names, in order of their names.
    pub(crate) fn find(name: &str) -> Result<Vec<InputFile>, ReadError> {
        if !is_url(name) {
            return Ok(FileStamp::find(name)?.into_iter().map(InputFile::Local).collect());
        }
        #[cfg(feature = "object-store")]
        return Ok(RemoteStamp::find(name)?.into_iter().map(InputFile::Remote).collect());
        #[cfg(not(feature = "object-store"))]
        Err(ReadError::NoFeature { what: format!("reading {}", shown_url(name)), feature: "object-store" })
    }

    /// Its path or URL.
    pub(crate) fn path(&self) -> &str {
        match self {
            InputFile::Local(stamp) => &stamp.path,
            #[cfg(feature = "object-store")]
            InputFile::Remote(stamp) => &stamp.url,
        }
    }

    /// Its size in bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            InputFile::Local(stamp) => stamp.len,
            #[cfg(feature = "object-store")]
            InputFile::Remote(stamp) => stamp.len,
        }
    }

    /// Whether parts of it can be read.
    pub(crate) fn has_ranges(&self) -> bool {
        match self {
            InputFile::Local(_) => true,
            #[cfg(feature = "object-store")]
            InputFile::Remote(stamp) => stamp.has_ranges,
        }
    }

    /// The bytes from `start` on. What is before `soon` is read in large pieces, what is behind only as it is asked for.
    pub(crate) fn open(&self, start: u64, soon: u64) -> Result<Box<dyn Read + Send>, ReadError> {
        match self {
            InputFile::Local(stamp) => {
                // A local file needs no hint.
                let _ = soon;
                Ok(Box::new(stamp.open(start.min(stamp.len), stamp.len)?))
            }
            #[cfg(feature = "object-store")]
            InputFile::Remote(stamp) => Ok(Box::new(stamp.open(start, soon)?)),
        }
    }

    /// The whole file, unpacked.
    pub(crate) fn unpacked(&self, compression: Compression) -> Result<Box<dyn Read + Send>, ReadError> {
        let input = self.open(0, self.len())?;
        compression.unpack(BufReader::with_capacity(1 << 18, input))
    }

    /// Whether it is still the same: what was read of it is its content only then. What is read from a store is compared as
    /// it is read.
    pub(crate) fn check(&self) -> Result<(), ReadError> {
        match self {
            InputFile::Local(stamp) => Ok(stamp.open(0, 0).map(drop)?),
            #[cfg(feature = "object-store")]
            InputFile::Remote(_) => Ok(()),
        }
    }

    /// The physical line of the unpacked file, from 1, on which byte `offset` stands, as `line 2, `. For errors only.
    pub(crate) fn line_of(&self, compression: Compression, offset: u64) -> String {
        let is_far = !matches!(self, InputFile::Local(_)) && offset > 16 << 20;
        if is_far || offset > COUNTED_BYTES_MAX {
            return String::new();
        }
        let Ok(input) = self.unpacked(compression) else { return String::new() };
        let mut lines = 1;
        let counted = crate::csv::for_each_piece(input.take(offset), |bytes| {
            lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        });
        if counted.is_ok_and(|nread| nread == offset) { format!("line {lines}, ") } else { String::new() }
    }

    /// A failure to read it. Stores' failures say themselves what they are.
    pub(crate) fn io_error(&self, compression: Compression, source: std::io::Error) -> ReadError {
        let source = match source.downcast::<ReadError>() {
            Ok(own) => return own,
            Err(other) => other,
        };
        let path = self.path().to_owned();
        match compression {
            Compression::None | Compression::ByName => CsvError::Io { path, source }.into(),
            packed => ReadError::Unpack { path, compression: packed.name(), source },
        }
    }
}

/// Whether this is a URL and no path.
pub(crate) fn is_url(name: &str) -> bool {
    name.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    })
}

/// A URL without its user and its query, which may be secret.
pub(crate) fn shown_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://").filter(|_| is_url(url)) else { return url.to_owned() };
    // In a store's key these are letters like any other.
    let is_web = matches!(scheme, "http" | "https");
    let rest = if is_web { rest.split(['?', '#']).next().unwrap_or_default() } else { rest };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_in_a_url_is_not_shown() {
        assert_eq!(shown_url("https://me:pass@host:1/a/b?sig=x#y"), "https://host:1/a/b");
        assert_eq!(shown_url("http://host?sig=x"), "http://host");
        assert_eq!(shown_url("s3://bucket/a?/b#1"), "s3://bucket/a?/b#1");
        assert_eq!(shown_url("/a/b?c#d"), "/a/b?c#d");
        assert!(!is_url("/a/b://c") && is_url("s3://b/c"));
    }
}
