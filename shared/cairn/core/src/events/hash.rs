//! Hashes that can be stored: they depend on no build, process or library version.

use sha2::{Digest, Sha256};

/// Returns the 32-bit FNV-1a hash, for shards and lookups. It is not cryptographic.
/// <http://www.isthe.com/chongo/tech/comp/fnv/>
pub fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Returns the first 128 bits of the SHA-256 digest.
pub(crate) fn digest(bytes: &[u8]) -> u128 {
    let digest = Sha256::digest(bytes);
    let (half, _) = digest.as_slice().split_at(16);
    half.iter()
        .fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_the_published_function() {
        assert_eq!(fnv1a(""), 0x811c_9dc5);
        assert_eq!(fnv1a("a"), 0xe40c_292c);
        assert_eq!(fnv1a("foobar"), 0xbf9c_f968);
        assert_eq!(digest(b""), 0xe3b0_c442_98fc_1c14_9afb_f4c8_996f_b924);
    }
}
