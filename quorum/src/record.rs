//! Records in files: length, checksum, content.

use std::ops::Range;

/// Bytes ahead of each record's content: its length and its CRC-32, little endian.
const HEAD: usize = 8;

/// The record of this content; `None` if it is over 4 GiB.
pub(crate) fn frame(content: &[u8]) -> Option<Vec<u8>> {
    let len = u32::try_from(content.len()).ok()?;
    let mut record = Vec::with_capacity(HEAD + content.len());
    record.extend_from_slice(&len.to_le_bytes());
    record.extend_from_slice(&checksum(len, content).to_le_bytes());
    record.extend_from_slice(content);
    Some(record)
}

/// Where the content of the record at `at` is. `None` if no whole record is there.
pub(crate) fn content(file: &[u8], at: usize) -> Option<Range<usize>> {
    let word = |from: usize| {
        let bytes = file.get(from..from.checked_add(4)?)?;
        bytes.try_into().ok().map(u32::from_le_bytes)
    };
    let (len, crc) = (word(at)?, word(at.checked_add(4)?)?);
    let start = at + HEAD;
    let range = start..start.checked_add(usize::try_from(len).ok()?)?;
    let content = file.get(range.clone())?;
    (checksum(len, content) == crc).then_some(range)
}

/// The length is a part of what is checked, so that zeros are no record.
fn checksum(len: u32, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(b"starling");
    hasher.update(&len.to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_and_what_is_torn_or_changed_is_not() {
        let mut file = frame(b"one").unwrap();
        let second = file.len();
        file.extend(frame(b"").unwrap());
        assert_eq!(content(&file, 0).map(|range| &file[range]), Some(&b"one"[..]));
        assert_eq!(content(&file, second).map(|range| range.is_empty()), Some(true));
        assert_eq!(content(&file, file.len()), None);
        for torn in 0..second {
            assert_eq!(content(&file[..torn], 0), None);
        }
        for place in 0..second {
            let mut changed = file.clone();
            changed[place] ^= 4;
            assert_eq!(content(&changed, 0), None);
        }
        assert_eq!(content(&[0; 64], 0), None);
    }
}
