//! A value in numbered parts, of which others fetch one at a time: what a task gives that splits its data for many others.
//!
//! A shuffle of M tasks by N makes M of these values instead of M*N. A task that says so
//! ([`Call::part`](crate::task::Call::part)) is given values of which only its part was fetched, or whole ones where these
//! are on its own worker.
//!
//! Each part has an encoding to itself. So a part can be cut out of an encoded value without knowing its type and without
//! copying it, and of a live one only the part that is asked for is ever encoded.
//!
//! ```text
//! encoding:   mark, how many parts there are, then for each part that is there: its number, head and buffers
//! ```

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::size;
use crate::value::{self, Buffer, CodecError, Data, Encoded, Value};

/// What an encoding begins with: nothing else that is encoded does, for all that chance will ever do.
const MARK: [u8; 16] = *b"\xc8\x1f\x9a\x03starling\xe6\x52\x0d\xb7";

/// A value in parts, of which some may be absent. Cloning shares them.
///
/// ```
/// # use starling_runtime::parts::Parts;
/// let parts = Parts::live([vec![1_u32], vec![2, 3]]);
/// let second = parts.only(1);
/// assert_eq!((second.len(), second.get::<Vec<u32>>(0)?), (2, None));
/// assert_eq!(*second.get::<Vec<u32>>(1)?.unwrap(), [2, 3]);
/// # Ok::<(), starling_runtime::value::CodecError>(())
/// ```
#[derive(Clone, Default)]
pub struct Parts {
    /// How many there are, absent ones included.
    len: u32,
    /// Those that are here, by their numbers, in order.
    here: Vec<(u32, Value)>,
}

impl Parts {
    /// These parts, numbered from 0.
    pub fn new(parts: Vec<Value>) -> Parts {
        Parts { len: parts.len() as u32, here: (0..).zip(parts).collect() }
    }

    /// These parts, numbered from 0.
    pub fn live<T: Data>(parts: impl IntoIterator<Item = T>) -> Parts {
        Parts::new(parts.into_iter().map(Value::live).collect())
    }

    /// How many parts there are, absent ones included.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are no parts at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts that are here, with their numbers, in order.
    pub fn here(&self) -> impl Iterator<Item = (usize, &Value)> {
        self.here.iter().map(|(number, part)| (*number as usize, part))
    }

    /// A part as it is, live or encoded; `None` if it is absent or there are not so many.
    pub fn value(&self, number: usize) -> Option<&Value> {
        let number = u32::try_from(number).ok()?;
        let at = self.here.binary_search_by_key(&number, |part| part.0).ok()?;
        self.here.get(at).map(|part| &part.1)
    }

    /// A part, shared if it is live, decoded if not; `None` if it is absent or there are not so many.
    ///
    /// # Errors
    /// If it is no `T`.
    pub fn get<T: Data>(&self, number: usize) -> Result<Option<Arc<T>>, CodecError> {
        self.value(number).map(Value::get).transpose()
    }

    /// About how many bytes a part has; 0 if it is not here.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn nbytes_of(&self, number: usize) -> Result<u64, CodecError> {
        self.value(number).map_or(Ok(0), Value::nbytes)
    }

    /// The same with all other parts absent. Nothing is copied.
    pub fn only(&self, number: usize) -> Parts {
        let here = self.value(number).map(|part| (number as u32, part.clone()));
        Parts { len: self.len, here: here.into_iter().collect() }
    }

    /// About how many bytes the parts that are here have together.
    fn nbytes(&self) -> Result<u64, CodecError> {
        self.here.iter().try_fold(0_u64, |sum, (_, part)| Ok(sum.saturating_add(part.nbytes()?)))
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parts({} of {})", self.here.len(), self.len)
    }
}

/// A part as it is encoded: its number, head and buffers.
type Piece = (u32, Buffer, Vec<Buffer>);

impl Serialize for Parts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if size::is_counting() {
            return size::count(serializer, self.nbytes().map_err(ser::Error::custom)?);
        }
        if value::is_described() {
            let nbytes = self.nbytes().map_err(ser::Error::custom)?;
            return serializer.collect_map([("parts", self.len.into()), ("bytes", nbytes)]);
        }
        let pieces = self.here.iter().map(|(number, part)| {
            let Encoded { head, buffers } = part.encode()?;
            Ok((*number, Buffer(head), buffers.into_iter().map(Buffer).collect()))
        });
        let pieces: Vec<Piece> = pieces.collect::<Result<_, CodecError>>().map_err(ser::Error::custom)?;
        (MARK, self.len, pieces).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parts, D::Error> {
        if deserializer.is_human_readable() {
            return Err(de::Error::custom("a value in parts cannot be written as text: a task has to give it"));
        }
        let (mark, len, pieces): ([u8; 16], u32, Vec<Piece>) = Deserialize::deserialize(deserializer)?;
        if mark != MARK {
            return Err(de::Error::custom("this is no value in parts"));
        }
        if !pieces.is_sorted_by(|a, b| a.0 < b.0) || pieces.last().is_some_and(|last| last.0 >= len) {
            return Err(de::Error::custom("the parts are not numbered in order"));
        }
        let here = pieces.into_iter().map(|(number, head, buffers)| {
            let buffers = buffers.into_iter().map(|buffer| buffer.0).collect();
            (number, Value::Encoded(Encoded { head: head.0, buffers }))
        });
        Ok(Parts { len, here: here.collect() })
    }
}

/// Where the parts of an encoded [`Parts`] are among its buffers: enough to cut one out without the others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    len: u32,
    /// Of each part that is there, the number, and the numbers of the buffers that hold its head and buffers.
    pieces: Vec<(u32, u32, Vec<u32>)>,
}

impl Layout {
    /// From the head of an encoding; `None` if it is the head of something else.
    pub(crate) fn of(head: &[u8]) -> Option<Layout> {
        if !head.starts_with(&MARK) {
            return None;
        }
        let (len, pieces) = postcard::from_bytes(head.get(MARK.len()..)?).ok()?;
        Some(Layout { len, pieces })
    }

    /// The numbers of the buffers that a part is in; empty if it is not there.
    pub(crate) fn buffers_of(&self, number: u32) -> Vec<u32> {
        let piece = self.pieces.iter().find(|piece| piece.0 == number);
        piece.map_or_else(Vec::new, |(_, head, buffers)| [*head].into_iter().chain(buffers.iter().copied()).collect())
    }

    /// The encoding of the value with only this part, from the buffers that it is in.
    pub(crate) fn only(&self, number: u32, buffers: Vec<Bytes>) -> Result<Encoded, CodecError> {
        let mut buffers = buffers.into_iter();
        let part = buffers.next().map(|head| (number, Value::Encoded(Encoded { head, buffers: buffers.collect() })));
        Encoded::of(&Parts { len: self.len, here: part.into_iter().collect() })
    }
}

/// The encoding of a value with only one of its parts. A value that is not in parts is given as it is: whoever asked for
/// a part of it gets all of it, as where it is at hand.
pub(crate) fn encode_part(value: &Value, number: u32) -> Result<Encoded, CodecError> {
    match value {
        Value::Live(live) => match Arc::clone(live).into_any().downcast::<Parts>() {
            Ok(parts) => Encoded::of(&parts.only(number as usize)),
            Err(_) => live.encode(),
        },
        Value::Encoded(encoded) => {
            let Some(layout) = Layout::of(&encoded.head) else { return Ok(encoded.clone()) };
            let buffers = layout.buffers_of(number).into_iter();
            let buffers: Option<Vec<Bytes>> =
                buffers.map(|number| encoded.buffers.get(number as usize).cloned()).collect();
            // A damaged one is told from an absent part by whoever decodes it.
            buffers.map_or_else(|| Ok(encoded.clone()), |buffers| layout.only(number, buffers))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Chunk {
        name: String,
        data: Buffer,
    }

    fn chunk(number: u8) -> Chunk {
        Chunk { name: format!("chunk {number}"), data: vec![number; 100_000].into() }
    }

    fn chunks() -> Parts {
        Parts::live((0..4).map(chunk))
    }

    #[test]
    fn parts_come_back_as_they_were_and_nothing_is_copied() {
        let parts = chunks();
        let encoded = Encoded::of(&parts).unwrap();
        let back: Parts = encoded.decode().unwrap();
        assert_eq!((back.len(), back.here().map(|part| part.0).collect::<Vec<_>>()), (4, vec![0, 1, 2, 3]));
        for number in 0..4 {
            let (live, again) = (parts.get::<Chunk>(number).unwrap(), back.get::<Chunk>(number).unwrap());
            assert_eq!(live, again);
            assert_eq!(live.unwrap().data.as_ptr(), again.unwrap().data.as_ptr());
        }
        assert!(back.get::<Chunk>(4).unwrap().is_none());
        assert_eq!(Encoded::of(&back).unwrap(), encoded);
    }

    #[test]
    fn one_part_is_cut_out_of_a_live_value_and_of_an_encoded_one_alike() {
        let parts = chunks();
        let live = Value::live(parts.clone());
        let encoded = Value::Encoded(live.encode().unwrap());
        for number in 0..5 {
            let part = encode_part(&live, number).unwrap();
            assert_eq!(encode_part(&encoded, number).unwrap(), part);
            let back: Parts = part.decode().unwrap();
            assert_eq!(back.len(), 4);
            for other in 0..5 {
                let expected = (other == number && other < 4).then(|| Arc::new(chunk(other as u8)));
                assert_eq!(back.get::<Chunk>(other as usize).unwrap(), expected);
            }
            // The part of a part is the same, or nothing.
            assert_eq!(encode_part(&Value::Encoded(part.clone()), number).unwrap(), part);
            assert!(encode_part(&Value::Encoded(part.clone()), 7).unwrap().decode::<Parts>().unwrap().here.is_empty());
            assert!(part.nbytes() < 100_200, "{}", part.nbytes());
        }
        let cut = encode_part(&encoded, 2).unwrap().decode::<Parts>().unwrap().get::<Chunk>(2).unwrap().unwrap();
        assert_eq!(cut.data.as_ptr(), parts.get::<Chunk>(2).unwrap().unwrap().data.as_ptr());
    }

    #[test]
    fn parts_may_be_of_different_types() {
        let parts = Parts::new(vec![Value::live(7_u8), Value::live("seven".to_owned())]);
        let back: Parts = Encoded::of(&parts).unwrap().decode().unwrap();
        assert_eq!(*back.get::<u8>(0).unwrap().unwrap(), 7);
        assert_eq!(*back.get::<String>(1).unwrap().unwrap(), "seven");
        assert!(parts.get::<u64>(0).is_err());
    }

    #[test]
    fn a_value_that_is_not_in_parts_is_given_whole() {
        let chunk = Value::live(chunk(1));
        let whole = chunk.encode().unwrap();
        assert_eq!(encode_part(&chunk, 3).unwrap(), whole);
        assert_eq!(encode_part(&Value::Encoded(whole.clone()), 3).unwrap(), whole);
    }

    static ENCODED: AtomicUsize = AtomicUsize::new(0);

    /// Counts how often it is encoded, and has a size of its own.
    #[derive(Clone)]
    struct Costly;

    impl Serialize for Costly {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if size::is_counting() {
                return size::count(serializer, 1_000);
            }
            ENCODED.fetch_add(1, Ordering::Relaxed);
            ().serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Costly {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Costly, D::Error> {
            <()>::deserialize(deserializer).map(|()| Costly)
        }
    }

    #[test]
    fn only_the_part_that_is_asked_for_is_encoded_and_none_for_the_size() {
        let parts = Value::live(Parts::live(vec![Costly; 100]));
        assert_eq!(parts.nbytes().unwrap(), 100_000);
        // Inside of something else, and beyond what is sampled of a sequence.
        assert_eq!(Value::live((1_u64, vec![Parts::live(vec![Costly; 3]); 200])).nbytes().unwrap(), 8 + 1 + 600_000);
        assert_eq!(ENCODED.load(Ordering::Relaxed), 0);
        encode_part(&parts, 17).unwrap();
        assert_eq!(ENCODED.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_size_is_that_of_the_parts_whether_live_or_encoded() {
        let parts = chunks();
        assert_eq!(parts.nbytes_of(9).unwrap(), 0);
        let sum: u64 = (0..4).map(|number| parts.nbytes_of(number).unwrap()).sum();
        let live = Value::live(parts);
        assert_eq!(live.nbytes().unwrap(), sum);
        let encoded = live.encode().unwrap().nbytes();
        assert!(encoded.abs_diff(sum) < 200, "{encoded} for {sum}");
        let half = Encoded::of(&chunks()).unwrap().decode::<Parts>().unwrap();
        assert!(Value::live(half).nbytes().unwrap().abs_diff(sum) < 200);
    }

    #[test]
    fn what_is_no_encoding_of_parts_is_refused() {
        for bad in [
            Encoded::of(&(MARK, 1_u32, vec![(1_u32, Buffer::default(), Vec::<Buffer>::new())])),
            Encoded::of(&(MARK, 3_u32, vec![(1_u32, Buffer::default(), Vec::<Buffer>::new()); 2])),
            Encoded::of(&([7_u8; 16], 0_u32, Vec::<Piece>::new())),
        ] {
            assert!(bad.unwrap().decode::<Parts>().is_err());
        }
        let mut cut = Encoded::of(&chunks()).unwrap();
        cut.buffers.truncate(3);
        assert!(cut.decode::<Parts>().is_err());
        let given = encode_part(&Value::Encoded(cut.clone()), 3).unwrap();
        assert_eq!(given, cut);
    }

    #[test]
    fn outside_of_an_encoding_parts_are_plain_bytes() {
        let bytes = postcard::to_stdvec(&chunks()).unwrap();
        let back: Parts = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(*back.get::<Chunk>(3).unwrap().unwrap(), chunk(3));
    }
}
