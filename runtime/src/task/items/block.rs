//! Items in encoded form, with their boundaries: what flows from one collection task to the next.
//!
//! Counting, taking, comparing and regrouping items need no type: postcard's encoding of an item is canonical as far as
//! the item's own `Serialize` is (a `HashMap` inside an item is not), and the encoding of a pair is the first's followed
//! by the second's.

use serde::{Deserialize, Serialize};
use starling_core::failure::FailureCause;

use crate::value::Buffer;

/// A sequence of encoded items.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemBlock {
    count: u64,
    /// The length of each item: four bytes, little-endian.
    lens: Buffer,
    /// The items, one after the other.
    bytes: Buffer,
}

impl ItemBlock {
    /// A block of these items.
    pub fn of<T: Serialize>(items: impl IntoIterator<Item = T>) -> Result<ItemBlock, FailureCause> {
        let mut builder = BlockBuilder::default();
        for item in items {
            builder.push_value(&item)?;
        }
        Ok(builder.finish())
    }

    /// How many items there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Size in bytes.
    pub fn nbytes(&self) -> u64 {
        (self.lens.len() + self.bytes.len()) as u64
    }

    /// The items' bytes, in order. Fails if the block contradicts itself, as one from a faulty peer may.
    pub fn items(&self) -> Result<Items<'_>, FailureCause> {
        let total: u64 = lens(&self.lens).map(|len| len as u64).sum();
        if self.lens.len() as u64 != self.count * 4 || total != self.bytes.len() as u64 {
            return Err(FailureCause::Codec { message: format!("a block of {} items is damaged", self.count) });
        }
        Ok(Items { lens: &self.lens, bytes: &self.bytes })
    }

    /// The items themselves.
    pub fn decode<T: for<'de> Deserialize<'de>>(&self) -> Result<Vec<T>, FailureCause> {
        self.items()?.map(decode).collect()
    }
}

fn lens(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    bytes.chunks_exact(4).map(|len| u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize)
}

/// The item that `bytes` encode.
pub fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, FailureCause> {
    postcard::from_bytes(bytes).map_err(|error| {
        let name = std::any::type_name::<T>();
        let message = match error {
            postcard::Error::WontImplement => format!(
                "{name} cannot travel between tasks (self-describing types such as serde_json::Value cannot): map it to a \
                 struct in the same stage"
            ),
            error => format!("{} bytes are no {name}: {error}", bytes.len()),
        };
        FailureCause::Codec { message }
    })
}

/// Appends the encoding of `value`.
pub fn encode_to<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) -> Result<(), FailureCause> {
    *bytes = postcard::to_extend(value, std::mem::take(bytes)).map_err(|error| FailureCause::Codec {
        message: format!("a value of type {} cannot be encoded: {error}", std::any::type_name::<T>()),
    })?;
    Ok(())
}

/// The bytes of a block's items.
#[derive(Clone)]
pub struct Items<'a> {
    lens: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, lens) = self.lens.split_first_chunk::<4>()?;
        let (item, bytes) = self.bytes.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.lens = lens;
        self.bytes = bytes;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.lens.len() / 4, Some(self.lens.len() / 4))
    }
}

impl ExactSizeIterator for Items<'_> {}

/// A block under construction.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    count: u64,
    lens: Vec<u8>,
    bytes: Vec<u8>,
}

impl BlockBuilder {
    /// How many items there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Appends an encoded item.
    pub fn push(&mut self, item: &[u8]) -> Result<(), FailureCause> {
        self.bytes.extend_from_slice(item);
        self.close(item.len())
    }

    /// Appends an item that is encoded in two parts: a pair.
    pub fn push_pair(&mut self, first: &[u8], second: &[u8]) -> Result<(), FailureCause> {
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(second);
        self.close(first.len() + second.len())
    }

    /// Appends an item that is encoded in several parts.
    pub fn push_parts(&mut self, parts: &[&[u8]]) -> Result<(), FailureCause> {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.close(parts.iter().map(|part| part.len()).sum())
    }

    /// Appends an item.
    pub fn push_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), FailureCause> {
        let before = self.bytes.len();
        encode_to(value, &mut self.bytes)?;
        self.close(self.bytes.len() - before)
    }

    fn close(&mut self, len: usize) -> Result<(), FailureCause> {
        let len = u32::try_from(len).map_err(|_| FailureCause::Codec {
            message: format!("an item of {len} bytes is too large: the limit is 4 GiB"),
        })?;
        self.lens.extend_from_slice(&len.to_le_bytes());
        self.count += 1;
        Ok(())
    }

    /// The block.
    pub fn finish(self) -> ItemBlock {
        ItemBlock { count: self.count, lens: self.lens.into(), bytes: self.bytes.into() }
    }
}

/// Items, perhaps with a key each: what one task gives to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The items' keys, encoded, in the items' order.
    pub keys: Option<ItemBlock>,
    /// The items; beside keys of a grouping, what was gathered for each key.
    pub items: ItemBlock,
}

impl Bucket {
    /// How many items there are.
    pub fn count(&self) -> u64 {
        self.items.count()
    }

    /// Keys and items together. Fails if there are no keys or not as many as items.
    pub fn pairs(&self) -> Result<impl Iterator<Item = (&[u8], &[u8])>, FailureCause> {
        let keys = self.keys.as_ref().ok_or_else(|| FailureCause::Codec { message: "a bucket has no keys".into() })?;
        if keys.count() != self.items.count() {
            return Err(FailureCause::Codec { message: "a bucket has not as many keys as items".into() });
        }
        Ok(keys.items()?.zip(self.items.items()?))
    }
}

/// The output of a collection task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets(pub Vec<Bucket>);

impl Buckets {
    /// One bucket of items without keys.
    pub fn one(items: ItemBlock) -> Buckets {
        Buckets(vec![Bucket { keys: None, items }])
    }
}
