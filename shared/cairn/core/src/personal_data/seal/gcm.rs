//! Format 1: AES-256-GCM with a nonce that is a MAC of the context and the text.
//!
//! Two different values have the same nonce with a probability of 2^-96 per pair. The ciphertext
//! follows the nonce of 12 bytes, and ends with a tag of 16 bytes.

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac::{self, HMAC_SHA256},
};

use super::head;

pub(super) struct Cipher {
    key: LessSafeKey,
    nonces: hmac::Key,
}

impl Cipher {
    pub(super) fn new(root: &hmac::Key) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, hmac::sign(root, b"cipher").as_ref())
            .unwrap_or_else(|_| unreachable!("a digest of SHA-256 has the length of a key"));
        Self {
            key: LessSafeKey::new(key),
            nonces: hmac::Key::new(HMAC_SHA256, hmac::sign(root, b"nonces").as_ref()),
        }
    }

    pub(super) fn seal(&self, about: &[u8], mut text: Vec<u8>) -> Vec<u8> {
        let mut nonce = hmac::Context::with_key(&self.nonces);
        nonce.update(&(about.len() as u64).to_be_bytes());
        nonce.update(about);
        nonce.update(&text);
        let nonce: [u8; NONCE_LEN] = head(nonce.sign().as_ref());
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(about),
                &mut text,
            )
            .unwrap_or_else(|_| unreachable!("a text that fits into memory can be encrypted"));
        [nonce.as_slice(), &text].concat()
    }

    /// Returns `None` if the authentication fails.
    pub(super) fn open(&self, about: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut text = text.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(about), &mut text);
        opened.ok().map(|opened| opened.to_vec())
    }
}
