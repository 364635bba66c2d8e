//! Compressed files, unpacked and packed piece by piece.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use super::error::ReadError;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// As the end of its name says: `.gz`, `.zst`, `.bz2`, `.xz`, or not at all.
    #[default]
    ByName,
    /// Not at all.
    None,
    /// gzip, in one or several members.
    Gzip,
    /// Zstandard, in one or several frames. Needs the feature `compression`.
    Zstd,
    /// bzip2, in one or several streams. Needs the feature `compression`.
    Bzip2,
    /// xz, in one or several streams. Needs the feature `compression`.
    Xz,
}

impl Compression {
    /// That of the file at `path`: never [`ByName`](Compression::ByName).
    pub fn of(self, path: &str) -> Compression {
        if self != Compression::ByName {
            return self;
        }
        let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
        match extension.as_str() {
            "gz" | "gzip" => Compression::Gzip,
            "zst" | "zstd" => Compression::Zstd,
            "bz2" => Compression::Bzip2,
            "xz" => Compression::Xz,
            _ => Compression::None,
        }
    }

    /// Its name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Compression::ByName | Compression::None => "plain",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Bzip2 => "bzip2",
            Compression::Xz => "xz",
        }
    }

    /// The end of a name that says so.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Compression::ByName | Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
            Compression::Bzip2 => ".bz2",
            Compression::Xz => ".xz",
        }
    }

    /// What is packed in `input`.
    pub(crate) fn unpack<'a>(self, input: impl BufRead + Send + 'a) -> Result<Box<dyn Read + Send + 'a>, ReadError> {
        Ok(match self {
            Compression::ByName | Compression::None => Box::new(input),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            #[cfg(feature = "compression")]
            Compression::Zstd => Box::new(Started::Not(Some(Box::new(input)))),
            #[cfg(feature = "compression")]
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            #[cfg(feature = "compression")]
            Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(input)),
            #[cfg(not(feature = "compression"))]
            other => return Err(other.no_feature()),
        })
    }

    /// `bytes`, packed by `write`.
    pub(crate) fn pack(self) -> Result<Packer, ReadError> {
        let bytes = Vec::new();
        Ok(match self {
            Compression::ByName | Compression::None => Packer::Plain(bytes),
            Compression::Gzip => Packer::Gzip(flate2::write::GzEncoder::new(bytes, flate2::Compression::default())),
            #[cfg(feature = "compression")]
            Compression::Zstd => Packer::Zstd(zstd::Encoder::new(bytes, 0).map_err(|source| ReadError::Unpack {
                path: "a new file".into(),
                compression: "zstd",
                source,
            })?),
            #[cfg(feature = "compression")]
            Compression::Bzip2 => Packer::Bzip2(bzip2::write::BzEncoder::new(bytes, bzip2::Compression::default())),
            #[cfg(feature = "compression")]
            Compression::Xz => Packer::Xz(liblzma::write::XzEncoder::new(bytes, 6)),
            #[cfg(not(feature = "compression"))]
            other => return Err(other.no_feature()),
        })
    }

    #[cfg(not(feature = "compression"))]
    fn no_feature(self) -> ReadError {
        ReadError::NoFeature { what: format!("compression by {}", self.name()), feature: "compression" }
    }
}

/// A decoder of zstd that is made when something is read, so that making it cannot fail earlier.
#[cfg(feature = "compression")]
enum Started<'a> {
    Not(Option<Box<dyn BufRead + Send + 'a>>),
    Yes(zstd::Decoder<'a, Box<dyn BufRead + Send + 'a>>),
}

#[cfg(feature = "compression")]
impl Read for Started<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Started::Not(input) = self
            && let Some(input) = input.take()
        {
            *self = Started::Yes(zstd::Decoder::with_buffer(input)?);
        }
        match self {
            Started::Yes(decoder) => decoder.read(buffer),
            Started::Not(_) => Err(io::Error::other("the decoder could not be started")),
        }
    }
}

/// Packs what is written to it.
pub(crate) enum Packer {
    Plain(Vec<u8>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    #[cfg(feature = "compression")]
    Zstd(zstd::Encoder<'static, Vec<u8>>),
    #[cfg(feature = "compression")]
    Bzip2(bzip2::write::BzEncoder<Vec<u8>>),
    #[cfg(feature = "compression")]
    Xz(liblzma::write::XzEncoder<Vec<u8>>),
}

impl Packer {
    fn inner(&mut self) -> &mut dyn Write {
        match self {
            Packer::Plain(inner) => inner,
            Packer::Gzip(inner) => inner,
            #[cfg(feature = "compression")]
            Packer::Zstd(inner) => inner,
            #[cfg(feature = "compression")]
            Packer::Bzip2(inner) => inner,
            #[cfg(feature = "compression")]
            Packer::Xz(inner) => inner,
        }
    }

    /// What was packed.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Packer::Plain(inner) => Ok(inner),
            Packer::Gzip(inner) => inner.finish(),
            #[cfg(feature = "compression")]
            Packer::Zstd(inner) => inner.finish(),
            #[cfg(feature = "compression")]
            Packer::Bzip2(inner) => inner.finish(),
            #[cfg(feature = "compression")]
            Packer::Xz(inner) => inner.finish(),
        }
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner().flush()
    }
}
