//! Encryption and decryption with the key of a subject.
//!
//! The cipher is AES-256-GCM. The nonce follows from the key, the context and the value. The retry
//! of a request therefore results in the same ciphertext, which can be compared. Two different
//! values have the same nonce with a probability of 2^-96 per pair.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | the format, 1 |
//! | 8 | the id of the key, which follows from the key |
//! | 12 | the nonce |
//! | rest | the ciphertext and its tag of 16 bytes |
//!
//! A [`Sealed`] contains these bytes in base64.

use aws_smithy_types::base64;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac::{self, HMAC_SHA256},
};
use serde::{Serialize, de::DeserializeOwned};

use cairn::sealed::{SealContext, Sealed};

/// An encryption key of a subject.
pub struct Key {
    id: [u8; Key::ID_BYTES],
    cipher: LessSafeKey,
    nonces: hmac::Key,
}

/// A value cannot be decrypted. No message contains a part of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The value was encrypted with another key.
    #[error("encrypted with a different key")]
    OtherKey,
    /// The ciphertext was changed, or has another context.
    #[error("authentication failed")]
    Tampered,
    /// The decrypted value does not match the type.
    #[error("unsupported format")]
    Form,
}

impl Key {
    /// The length of a key in bytes.
    pub const BYTES: usize = 32;
    const FORMAT: u8 = 1;
    const ID_BYTES: usize = 8;
    const NONCE_BYTES: usize = 12;

    /// Creates a key from random bytes.
    pub fn new(secret: &[u8; Self::BYTES]) -> Self {
        let root = hmac::Key::new(HMAC_SHA256, secret);
        let part = |of: &[u8]| hmac::sign(&root, of);
        let cipher = part(b"cipher");
        let cipher = UnboundKey::new(&AES_256_GCM, cipher.as_ref())
            .unwrap_or_else(|_| unreachable!("a digest of SHA-256 has the length of a key"));
        Self {
            id: head(part(b"id").as_ref()),
            cipher: LessSafeKey::new(cipher),
            nonces: hmac::Key::new(HMAC_SHA256, part(b"nonces").as_ref()),
        }
    }

    /// Encrypts a value for a context. The same value always results in the same ciphertext.
    ///
    /// # Errors
    /// Returns an error if the value cannot be serialized as JSON.
    pub fn seal<T: Serialize>(
        &self,
        context: &SealContext<'_>,
        value: &T,
    ) -> Result<Sealed<T>, serde_json::Error> {
        let text = serde_json::to_vec(value)?;
        let sealed = self.seal_bytes(&about(context)?, text);
        Ok(Sealed::new(base64::encode(sealed)))
    }

    /// Decrypts a value of a context.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open<T: DeserializeOwned>(
        &self,
        context: &SealContext<'_>,
        sealed: &Sealed<T>,
    ) -> Result<T, OpenError> {
        let bytes = base64::decode(sealed.as_str()).map_err(|_| OpenError::Tampered)?;
        let about = about(context).map_err(|_| OpenError::Tampered)?;
        let text = self.open_bytes(&about, &bytes)?;
        // The error of serde would show the value.
        serde_json::from_slice(&text).map_err(|_| OpenError::Form)
    }

    /// Encrypts bytes. The same additional data `about` is necessary to decrypt them.
    pub fn seal_bytes(&self, about: &[u8], bytes: Vec<u8>) -> Vec<u8> {
        let mut nonce = hmac::Context::with_key(&self.nonces);
        nonce.update(&(about.len() as u64).to_be_bytes());
        nonce.update(about);
        nonce.update(&bytes);
        let nonce: [u8; Self::NONCE_BYTES] = head(nonce.sign().as_ref());
        let mut text = bytes;
        self.cipher
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(about),
                &mut text,
            )
            .unwrap_or_else(|_| unreachable!("a text that fits into memory can be encrypted"));
        let mut sealed = vec![Self::FORMAT];
        sealed.extend(self.id);
        sealed.extend(nonce);
        sealed.append(&mut text);
        sealed
    }

    /// Decrypts bytes.
    ///
    /// # Errors
    /// Returns [`OpenError::OtherKey`] or [`OpenError::Tampered`].
    pub fn open_bytes(&self, about: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let rest = sealed.strip_prefix(&[Self::FORMAT]);
        let (id, rest) = rest
            .and_then(|rest| rest.split_at_checked(Self::ID_BYTES))
            .ok_or(OpenError::Tampered)?;
        if id != self.id {
            return Err(OpenError::OtherKey);
        }
        let (nonce, text) = rest
            .split_at_checked(Self::NONCE_BYTES)
            .ok_or(OpenError::Tampered)?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(head(nonce));
        let opened = self
            .cipher
            .open_in_place(nonce, Aad::from(about), &mut text)
            .map_err(|_| OpenError::Tampered)?;
        Ok(opened.to_vec())
    }
}

/// Does not show the key.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// Returns the additional authenticated data of a context. JSON makes it unique.
fn about(context: &SealContext<'_>) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&(context.subject, context.stream.as_str(), context.field))
}

/// Returns the first `N` bytes, padded with zeros.
fn head<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn::stream::StreamId;

    const NAME: &str = "Zebedee Quillfeather";

    fn key(seed: u8) -> Key {
        Key::new(&[seed; Key::BYTES])
    }

    fn stream(key: &str) -> StreamId {
        StreamId::new("order", key).unwrap()
    }

    fn context(stream: &StreamId) -> SealContext<'_> {
        SealContext {
            subject: "c-42",
            stream,
            field: "name",
        }
    }

    fn sealed(text: &str) -> Sealed<String> {
        key(1)
            .seal(&context(&stream("1")), &text.to_owned())
            .unwrap()
    }

    #[test]
    fn a_value_is_decrypted_with_its_key_and_context_only() {
        let (one, other) = (stream("1"), stream("2"));
        let (here, sealed) = (context(&one), sealed(NAME));
        assert_eq!(key(1).open(&here, &sealed).unwrap(), NAME);
        assert_eq!(key(2).open(&here, &sealed), Err(OpenError::OtherKey));
        for there in [
            context(&other),
            SealContext {
                subject: "c-4",
                ..here
            },
            SealContext {
                field: "email",
                ..here
            },
        ] {
            assert_eq!(key(1).open(&there, &sealed), Err(OpenError::Tampered));
        }
    }

    #[test]
    fn a_ciphertext_contains_no_part_of_the_text() {
        let sealed = sealed(NAME);
        let bytes = base64::decode(sealed.as_str()).unwrap();
        assert!(!sealed.as_str().contains("Zebedee"));
        assert!(!bytes.windows(7).any(|part| part == b"Zebedee"));
    }

    #[test]
    fn equal_values_have_equal_ciphertexts_and_different_values_different_ones() {
        let texts = ["", "a", "b", "ab", NAME, "Zebedee Quillfeathes"];
        for one in texts {
            for other in texts {
                let is_same = sealed(one) == sealed(other);
                assert_eq!(is_same, one == other, "{one} {other}");
                assert_eq!(sealed(one).contradicts(&sealed(other)), one != other);
            }
        }
        // A repeated nonce would reveal the difference of two texts.
        let nonce = |text: &str| base64::decode(sealed(text).as_str()).unwrap()[9..21].to_vec();
        let nonces: std::collections::BTreeSet<_> = texts.into_iter().map(nonce).collect();
        assert_eq!(nonces.len(), texts.len());
    }

    #[test]
    fn ciphertexts_under_two_keys_are_not_compared() {
        let here = stream("1");
        let again = key(2).seal(&context(&here), &NAME.to_owned()).unwrap();
        assert_ne!(again, sealed(NAME));
        assert!(!again.contradicts(&sealed(NAME)));
    }

    #[test]
    fn a_byte_changed_anywhere_is_found_out() {
        let here = stream("1");
        let bytes = base64::decode(sealed(NAME).as_str()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = Sealed::<String>::new(base64::encode(changed));
            let opened = key(1).open(&context(&here), &changed);
            let expected = if (1..9).contains(&at) {
                OpenError::OtherKey
            } else {
                OpenError::Tampered
            };
            assert_eq!(opened, Err(expected), "byte {at}");
        }
        for short in 0..bytes.len() {
            let short = Sealed::<String>::new(base64::encode(&bytes[..short]));
            assert!(key(1).open(&context(&here), &short).is_err());
        }
        let none = Sealed::<String>::new("not base64!".to_owned());
        assert_eq!(
            key(1).open(&context(&here), &none),
            Err(OpenError::Tampered)
        );
    }

    #[test]
    fn an_error_does_not_show_what_is_in_it() {
        let here = stream("1");
        let text = sealed(NAME).as_str().to_owned();
        let error = key(1)
            .open(&context(&here), &Sealed::<u64>::new(text))
            .unwrap_err();
        assert_eq!(error, OpenError::Form);
        assert!(!error.to_string().contains("Zebedee"));
    }

    /// The format is stored, so values that were encrypted years ago must stay readable.
    #[test]
    fn a_value_is_encrypted_in_exactly_this_format() {
        let kept =
            "AaK/u6TalZ+1nUfpHoRphiTSy5eG/lhLle4tEVdcQ+MPoUgHOo0UZQ69rvNP9ihCqkkFJWVwFe5aewc=";
        assert_eq!(sealed(NAME).as_str(), kept);
        let kept = Sealed::<String>::new(kept.to_owned());
        assert_eq!(key(1).open(&context(&stream("1")), &kept).unwrap(), NAME);
    }
}
