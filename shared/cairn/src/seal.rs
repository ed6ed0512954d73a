//! Sealing with a subject's key, and opening.
//!
//! AES-256-GCM with a nonce that follows from the key, the place and the value. So the same value is sealed into the
//! same text when a request is tried again, which can then be compared; and a nonce comes twice only with the same text,
//! but for a chance of one in 2^96 for each pair of texts.
//!
//! | bytes | |
//! |---|---|
//! | 1 | the format, 1 |
//! | 8 | the key's id, which follows from it |
//! | 12 | the nonce |
//! | | the text and its tag of 16 bytes, in base64 with the rest |

use aws_smithy_types::base64;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac::{self, HMAC_SHA256},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::sealed::{SealContext, Sealed};

/// A key that seals and opens.
pub struct Key {
    id: [u8; Key::ID_BYTES],
    cipher: LessSafeKey,
    nonces: hmac::Key,
}

/// Why a value does not open. None of these says what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It was sealed with another key.
    #[error("encrypted with a different key")]
    OtherKey,
    /// It is not what was sealed, or stands in another place.
    #[error("authentication failed")]
    Tampered,
    /// It opens, and is not what is expected.
    #[error("unsupported format")]
    Form,
}

impl Key {
    /// How long a key is.
    pub const BYTES: usize = 32;
    const FORMAT: u8 = 1;
    const ID_BYTES: usize = 8;
    const NONCE_BYTES: usize = 12;

    /// A key from its bytes, all of which are random.
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

    /// Encrypts a value for its context. The same again gives the same text.
    ///
    /// # Errors
    /// When it has no JSON.
    pub fn seal<T: Serialize>(
        &self,
        context: &SealContext<'_>,
        value: &T,
    ) -> Result<Sealed<T>, serde_json::Error> {
        let text = serde_json::to_vec(value)?;
        let sealed = self.seal_bytes(&about(context)?, text);
        Ok(Sealed::new(base64::encode(sealed)))
    }

    /// Decrypts a value of this context.
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
        // What serde says would show what is in it.
        serde_json::from_slice(&text).map_err(|_| OpenError::Form)
    }

    /// Seals bytes, which open only with the same words about them.
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
            .unwrap_or_else(|_| unreachable!("a text that fits into memory can be sealed"));
        let mut sealed = vec![Self::FORMAT];
        sealed.extend(self.id);
        sealed.extend(nonce);
        sealed.append(&mut text);
        sealed
    }

    /// Opens bytes.
    ///
    /// # Errors
    /// [`OpenError::OtherKey`] or [`OpenError::Tampered`].
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

/// Without the key.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// The additional authenticated data of a context. As JSON, no two contexts have the same.
fn about(context: &SealContext<'_>) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&(context.subject, context.stream.as_str(), context.field))
}

/// The first bytes of at least as many.
fn head<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::StreamId;

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
    fn what_was_sealed_opens_in_its_place_with_its_key_and_nowhere_else() {
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
    fn nothing_of_the_text_is_in_what_it_is_sealed_into() {
        let sealed = sealed(NAME);
        let bytes = base64::decode(sealed.as_str()).unwrap();
        assert!(!sealed.as_str().contains("Zebedee"));
        assert!(!bytes.windows(7).any(|part| part == b"Zebedee"));
    }

    #[test]
    fn the_same_is_sealed_into_the_same_and_anything_else_into_something_else() {
        let texts = ["", "a", "b", "ab", NAME, "Zebedee Quillfeathes"];
        for one in texts {
            for other in texts {
                let is_same = sealed(one) == sealed(other);
                assert_eq!(is_same, one == other, "{one} {other}");
                assert_eq!(sealed(one).contradicts(&sealed(other)), one != other);
            }
        }
        // No two nonces are the same, or two texts could be told from each other.
        let nonce = |text: &str| base64::decode(sealed(text).as_str()).unwrap()[9..21].to_vec();
        let nonces: std::collections::BTreeSet<_> = texts.into_iter().map(nonce).collect();
        assert_eq!(nonces.len(), texts.len());
    }

    #[test]
    fn what_two_keys_have_sealed_is_not_compared() {
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

    /// The form is stored: what was sealed years ago has to open.
    #[test]
    fn it_is_sealed_in_exactly_this_form() {
        let kept =
            "AaK/u6TalZ+1nUfpHoRphiTSy5eG/lhLle4tEVdcQ+MPoUgHOo0UZQ69rvNP9ihCqkkFJWVwFe5aewc=";
        assert_eq!(sealed(NAME).as_str(), kept);
        let kept = Sealed::<String>::new(kept.to_owned());
        assert_eq!(key(1).open(&context(&stream("1")), &kept).unwrap(), NAME);
    }
}
