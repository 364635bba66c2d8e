//! Which of 64 bytes are a certain one, as bits: without calls, and as fast as a compiler makes plain loops.

/// So many bytes are looked at together.
pub(crate) const WINDOW: usize = 64;

/// Bit `n` says whether byte `n` is `needle`.
#[inline(always)]
pub(crate) fn mask(window: &[u8; WINDOW], needle: u8) -> u64 {
    // A loop of its own, which becomes vector instructions.
    let mut equal = [0_u8; WINDOW];
    for (equal, byte) in equal.iter_mut().zip(window) {
        *equal = u8::from(*byte == needle);
    }
    let mut words = [0_u64; WINDOW / 8];
    for (word, bytes) in words.iter_mut().zip(equal.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    if words.iter().fold(0, |any, word| any | word) == 0 {
        return 0;
    }
    let mut mask = 0;
    for word in words.iter().rev() {
        // The lowest bits of eight bytes come together in the top byte of the product.
        mask = mask << 8 | word.wrapping_mul(0x0102_0408_1020_4080) >> 56;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_says_whether_a_byte_is_the_needle() {
        let mut window = [b'a'; WINDOW];
        assert_eq!(mask(&window, b'"'), 0);
        assert_eq!(mask(&window, b'a'), u64::MAX);
        for place in 0..WINDOW {
            window[place] = b'"';
            window[(place * 7 + 3) % WINDOW] = b'"';
            let expected = window.iter().rev().fold(0, |mask, byte| mask << 1 | u64::from(*byte == b'"'));
            assert_eq!(mask(&window, b'"'), expected);
        }
    }
}
