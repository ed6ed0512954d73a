//! Encryption and decryption with the key of a subject.
//!
//! The same value in the same context always results in the same ciphertext, so the retry of a
//! request can be compared with the stored one.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | the [format](Format) |
//! | 8 | the id of the key, which follows from the key |
//! | rest | the ciphertext of the format |
//!
//! A [`Sealed`] contains these bytes in base64.

use aes_siv::{KeyInit, siv::Aes256Siv};
use base64::{Engine, prelude::BASE64_STANDARD};
use ring::hmac::{self, HMAC_SHA256};
use serde::{Serialize, de::DeserializeOwned};

use super::{SealContext, Sealed};

mod gcm;

/// An encryption key of a subject.
pub struct Key {
    id: [u8; Key::ID_BYTES],
    gcm: gcm::Cipher,
    siv: [u8; 2 * Key::BYTES],
    written: Format,
}

/// The format of a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Format {
    /// AES-256-GCM with a nonce from HMAC-SHA-256.
    Gcm = 1,
    /// AES-SIV with two keys of 256 bits, and the context as its associated data.
    /// <https://www.rfc-editor.org/rfc/rfc5297>
    Siv = 2,
}

/// A value cannot be decrypted. No message contains a part of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The value was encrypted with another key.
    #[error("encrypted with a different key")]
    OtherKey,
    /// The format is unknown. A later release can have written it.
    #[error("encrypted in format {0}, which this release does not read")]
    Format(u8),
    /// The ciphertext was changed, or has another context.
    #[error("authentication failed")]
    Tampered,
    /// The decrypted value does not match the type.
    #[error("the decrypted value does not match the type")]
    Form,
}

impl Format {
    /// The format of new ciphertexts. The previous release must read it, so a release that adds a
    /// format does not write it yet.
    const WRITTEN: Self = Self::Gcm;

    fn read(number: u8) -> Result<Self, OpenError> {
        let mut known = [Self::Gcm, Self::Siv].into_iter();
        let found = known.find(|format| *format as u8 == number);
        found.ok_or(OpenError::Format(number))
    }
}

impl Key {
    /// The length of a key in bytes.
    pub const BYTES: usize = 32;
    const ID_BYTES: usize = 8;

    /// Creates a key from random bytes.
    pub fn new(secret: &[u8; Self::BYTES]) -> Self {
        let root = hmac::Key::new(HMAC_SHA256, secret);
        let part = |label: &[u8]| head(hmac::sign(&root, label).as_ref());
        let (mac, cipher): ([u8; Self::BYTES], [u8; Self::BYTES]) =
            (part(b"siv mac"), part(b"siv cipher"));
        Self {
            id: head(hmac::sign(&root, b"id").as_ref()),
            gcm: gcm::Cipher::new(&root),
            siv: head([mac, cipher].as_flattened()),
            written: Format::WRITTEN,
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
        Ok(Sealed::new(BASE64_STANDARD.encode(sealed)))
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
        let bytes = BASE64_STANDARD.decode(sealed.as_str());
        let bytes = bytes.map_err(|_| OpenError::Tampered)?;
        let about = about(context).map_err(|_| OpenError::Tampered)?;
        let text = self.open_bytes(&about, &bytes)?;
        // The error of serde would show the value.
        serde_json::from_slice(&text).map_err(|_| OpenError::Form)
    }

    /// Encrypts bytes. The same additional data `about` is necessary to decrypt them.
    pub fn seal_bytes(&self, about: &[u8], bytes: Vec<u8>) -> Vec<u8> {
        let text = match self.written {
            Format::Gcm => self.gcm.seal(about, bytes),
            Format::Siv => {
                let mut text = bytes;
                let sealed = Aes256Siv::new(&self.siv.into()).encrypt_in_place([about], &mut text);
                sealed.unwrap_or_else(|_| unreachable!("one header is within the limit of 126"));
                text
            }
        };
        [&[self.written as u8], self.id.as_slice(), &text].concat()
    }

    /// Decrypts bytes.
    ///
    /// # Errors
    /// Returns any [`OpenError`] except [`OpenError::Form`].
    pub fn open_bytes(&self, about: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (format, rest) = sealed.split_first().ok_or(OpenError::Tampered)?;
        let format = Format::read(*format)?;
        let (id, text) = rest
            .split_at_checked(Self::ID_BYTES)
            .ok_or(OpenError::Tampered)?;
        if id != self.id {
            return Err(OpenError::OtherKey);
        }
        let opened = match format {
            Format::Gcm => self.gcm.open(about, text),
            Format::Siv => Aes256Siv::new(&self.siv.into()).decrypt([about], text).ok(),
        };
        opened.ok_or(OpenError::Tampered)
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
    use crate::stream::StreamId;

    const NAME: &str = "Zebedee Quillfeather";
    const FORMATS: [Format; 2] = [Format::Gcm, Format::Siv];

    /// `NAME` in each format. Ciphertexts are stored, so those of any age must stay readable. The
    /// second was created with OpenSSL, which shows that it is AES-SIV.
    const STORED: [(Format, &str); 2] = [
        (
            Format::Gcm,
            "AaK/u6TalZ+1nUfpHoRphiTSy5eG/lhLle4tEVdcQ+MPoUgHOo0UZQ69rvNP9ihCqkkFJWVwFe5aewc=",
        ),
        (
            Format::Siv,
            "AqK/u6TalZ+1oQXfI4tgPnIcOboorBcm92etcRg6I2nn0myOvOkyFDxXRmG+1gk=",
        ),
    ];

    fn key(seed: u8, written: Format) -> Key {
        let key = Key::new(&[seed; Key::BYTES]);
        Key { written, ..key }
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

    fn sealed(format: Format, text: &str) -> Sealed<String> {
        let key = key(1, format);
        key.seal(&context(&stream("1")), &text.to_owned()).unwrap()
    }

    fn bytes(sealed: &Sealed<String>) -> Vec<u8> {
        BASE64_STANDARD.decode(sealed.as_str()).unwrap()
    }

    #[test]
    fn a_value_is_decrypted_with_its_key_and_context_only() {
        let (one, other) = (stream("1"), stream("2"));
        let here = context(&one);
        for format in FORMATS {
            let (key, sealed) = (|seed| key(seed, Format::WRITTEN), sealed(format, NAME));
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
                let opened = key(1).open(&there, &sealed);
                assert_eq!(opened, Err(OpenError::Tampered), "{format:?} {there:?}");
            }
        }
    }

    #[test]
    fn a_ciphertext_contains_no_part_of_the_text() {
        for format in FORMATS {
            let sealed = sealed(format, NAME);
            assert!(!sealed.as_str().contains("Zebedee"));
            assert!(!bytes(&sealed).windows(7).any(|part| part == b"Zebedee"));
        }
    }

    #[test]
    fn equal_values_have_equal_ciphertexts_and_different_values_different_ones() {
        let texts = ["", "a", "b", "ab", NAME, "Zebedee Quillfeathes"];
        for format in FORMATS {
            let sealed = |text: &str| sealed(format, text);
            for one in texts {
                for other in texts {
                    let is_same = sealed(one) == sealed(other);
                    assert_eq!(is_same, one == other, "{one} {other}");
                    assert_eq!(sealed(one).contradicts(&sealed(other)), one != other);
                }
            }
            // A repeated nonce would reveal the difference of two texts.
            let nonce = |text: &str| bytes(&sealed(text))[9..21].to_vec();
            let nonces: std::collections::BTreeSet<_> = texts.into_iter().map(nonce).collect();
            assert_eq!(nonces.len(), texts.len());
        }
    }

    #[test]
    fn ciphertexts_of_two_keys_or_formats_are_not_compared() {
        let (here, gcm) = (stream("1"), sealed(Format::Gcm, NAME));
        let other = key(2, Format::Gcm).seal(&context(&here), &NAME.to_owned());
        for other in [other.unwrap(), sealed(Format::Siv, NAME)] {
            assert_ne!(other, gcm);
            assert!(!other.contradicts(&gcm));
        }
    }

    #[test]
    fn a_change_of_any_byte_is_detected() {
        let here = stream("1");
        let open = |bytes: &[u8]| {
            let sealed = Sealed::<String>::new(BASE64_STANDARD.encode(bytes));
            key(1, Format::WRITTEN).open(&context(&here), &sealed)
        };
        for format in FORMATS {
            let bytes = bytes(&sealed(format, NAME));
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 4;
                let expected = match at {
                    0 => OpenError::Format(format as u8 ^ 4),
                    1..9 => OpenError::OtherKey,
                    _ => OpenError::Tampered,
                };
                assert_eq!(open(&changed), Err(expected), "{format:?}, byte {at}");
                assert!(open(&bytes[..at]).is_err(), "{format:?}, {at} bytes");
            }
            let mut relabelled = bytes;
            relabelled[0] ^= 3;
            assert_eq!(open(&relabelled), Err(OpenError::Tampered));
        }
        let opened = key(1, Format::WRITTEN).open(
            &context(&here),
            &Sealed::<String>::new("not base64!".to_owned()),
        );
        assert_eq!(opened, Err(OpenError::Tampered));
    }

    #[test]
    fn an_error_does_not_show_the_value() {
        let here = stream("1");
        for (format, stored) in STORED {
            let stored = Sealed::<u64>::new(stored.to_owned());
            let error = key(1, format).open(&context(&here), &stored).unwrap_err();
            assert_eq!(error, OpenError::Form);
            assert!(!error.to_string().contains("Zebedee"));
        }
    }

    #[test]
    fn stored_ciphertexts_stay_readable_and_are_written_in_exactly_this_form() {
        let here = stream("1");
        for (format, stored) in STORED {
            assert_eq!(sealed(format, NAME).as_str(), stored);
            let stored = Sealed::<String>::new(stored.to_owned());
            let opened = key(1, Format::WRITTEN).open(&context(&here), &stored);
            assert_eq!(opened.unwrap(), NAME);
        }
    }

    /// The previous release reads format 1 only. The next release writes format 2.
    #[test]
    fn a_release_writes_the_format_that_the_previous_release_reads() {
        let written = Key::new(&[1; Key::BYTES]).seal_bytes(b"", vec![]);
        assert_eq!(written.first(), Some(&1));
    }
}
