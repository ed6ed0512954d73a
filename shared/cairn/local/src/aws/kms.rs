//! KMS: creates data keys and wraps them with a local key that is never returned.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use cairn::personal_data::Key;
use serde::Deserialize;
use serde_json::json;

use super::call::Answer;
use crate::{
    names::{ACCOUNT, REGION, key_arn},
    platform::Platform,
    template::MasterKey,
};

#[derive(Debug)]
pub struct Kms {
    keys: Vec<MasterKey>,
    master: Key,
    platform: Arc<dyn Platform>,
}

impl Kms {
    /// Holds the keys in memory: another `Kms` cannot unwrap what they wrap.
    pub fn new(keys: Vec<MasterKey>, platform: Arc<dyn Platform>) -> Self {
        let secret = random(platform.as_ref());
        Self::with_secret(&secret, keys, platform)
    }

    /// Opens the keys with the secret that [`make`](Self::make) has written.
    pub fn open(
        file: &Path,
        keys: Vec<MasterKey>,
        platform: Arc<dyn Platform>,
    ) -> io::Result<Self> {
        let kept = fs::read(file)?;
        let secret = kept.try_into().map_err(|kept: Vec<u8>| {
            let (is, must) = (kept.len(), Key::BYTES);
            let problem = format!("it holds no key: it has {is} bytes and must have {must}");
            io::Error::new(io::ErrorKind::InvalidData, problem)
        })?;
        Ok(Self::with_secret(&secret, keys, platform))
    }

    /// Writes a new secret to a new file that no other user can read.
    pub fn make(file: &Path, platform: &dyn Platform) -> io::Result<()> {
        keep(file, &random(platform))
    }

    fn with_secret(
        secret: &[u8; Key::BYTES],
        keys: Vec<MasterKey>,
        platform: Arc<dyn Platform>,
    ) -> Self {
        Self {
            keys,
            master: Key::new(secret),
            platform,
        }
    }

    pub(crate) fn call(&self, operation: &str, body: &str) -> Answer {
        let request = match serde_json::from_str(body) {
            Ok(request) => request,
            Err(error) => return Answer::error(400, "SerializationException", &error.to_string()),
        };
        let answer = match operation {
            "GenerateDataKey" => self.generate(&request),
            "Decrypt" => self.decrypt(&request),
            _ => return Answer::unavailable("kms", operation),
        };
        answer.unwrap_or_else(|(kind, message)| Answer::error(400, kind, &message))
    }

    /// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html>
    fn generate(&self, request: &Request) -> Result<Answer, Refusal> {
        let id = self.named(request.key_id.as_deref().ok_or_else(|| missing("keyId"))?)?;
        let bytes = match (request.key_spec.as_deref(), request.number_of_bytes) {
            (Some("AES_256"), None) => 32,
            (Some("AES_128"), None) => 16,
            (Some(spec), None) => {
                let allowed = "Member must satisfy enum value set: [AES_256, AES_128]";
                return Err(invalid("keySpec", spec, allowed));
            }
            (None, Some(bytes @ 1..=1024)) => bytes,
            (None, Some(bytes)) => {
                let allowed = "Member must have value between 1 and 1024";
                return Err(invalid("numberOfBytes", &bytes.to_string(), allowed));
            }
            _ => {
                let message = "Please specify either number of bytes or key spec.";
                return Err((VALIDATION, message.to_owned()));
            }
        };
        let arn = key_arn(id);
        let secret = self.random(usize::try_from(bytes).unwrap_or_default());
        let about = request.about(&arn);
        let wrapped = self.master.seal_bytes(about.as_bytes(), secret.clone());
        Ok(Answer::ok(&json!({
            "KeyId": arn,
            "Plaintext": BASE64_STANDARD.encode(secret),
            "CiphertextBlob": BASE64_STANDARD.encode(wrapped),
        })))
    }

    /// <https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html>
    fn decrypt(&self, request: &Request) -> Result<Answer, Refusal> {
        let named = match &request.key_id {
            Some(named) => Some(self.named(named)?),
            None => None,
        };
        let wrapped = request.ciphertext_blob.as_deref();
        let wrapped = wrapped.ok_or_else(|| missing("ciphertextBlob"))?;
        let wrapped = BASE64_STANDARD
            .decode(wrapped)
            .map_err(|error| ("SerializationException", error.to_string()))?;
        if let Some(algorithm) = request.encryption_algorithm.as_deref()
            && algorithm != "SYMMETRIC_DEFAULT"
        {
            let message = format!("the keys of this system are symmetric, not {algorithm}");
            return Err(("InvalidKeyUsageException", message));
        }
        let (id, bare) = self.open_any(request, &wrapped).ok_or_else(|| {
            let message = "no key decrypts it with this encryption context";
            ("InvalidCiphertextException", message.to_owned())
        })?;
        if named.is_some_and(|named| named != id) {
            let message = "The key ID in the request does not identify a CMK that can perform this operation.";
            return Err(("IncorrectKeyException", message.to_owned()));
        }
        Ok(Answer::ok(&json!({
            "KeyId": key_arn(id),
            "Plaintext": BASE64_STANDARD.encode(bare),
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        })))
    }

    /// Decrypts a text, and returns the id of the key that matches it and the context.
    fn open_any(&self, request: &Request, wrapped: &[u8]) -> Option<(&str, Vec<u8>)> {
        self.keys.iter().find_map(|MasterKey { id, .. }| {
            let about = request.about(&key_arn(id));
            let bare = self.master.open_bytes(about.as_bytes(), wrapped).ok()?;
            Some((id.as_str(), bare))
        })
    }

    /// Returns the id of the key that is named by id, alias or ARN.
    /// <https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#key-id>
    fn named<'a>(&'a self, named: &str) -> Result<&'a str, Refusal> {
        let is_named = |key: &&MasterKey| {
            let mut aliases = key.aliases.iter();
            key.id == named
                || key_arn(&key.id) == named
                || aliases.any(|alias| alias == named || alias_arn(alias) == named)
        };
        let known = self.keys.iter().find(is_named);
        known.map(|key| key.id.as_str()).ok_or_else(|| {
            let message = match named.rfind("alias/").and_then(|at| named.get(at..)) {
                Some(alias) => format!("Alias {} is not found.", alias_arn(alias)),
                None if named.starts_with("arn:") => format!("Key '{named}' does not exist"),
                None => format!("Key '{}' does not exist", key_arn(named)),
            };
            ("NotFoundException", message)
        })
    }

    fn random(&self, bytes: usize) -> Vec<u8> {
        let mut secret = Vec::with_capacity(bytes + Key::BYTES);
        while secret.len() < bytes {
            secret.extend(random(self.platform.as_ref()));
        }
        secret.truncate(bytes);
        secret
    }
}

/// An error type and its message.
type Refusal = (&'static str, String);

const VALIDATION: &str = "ValidationException";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    key_id: Option<String>,
    key_spec: Option<String>,
    number_of_bytes: Option<i64>,
    ciphertext_blob: Option<String>,
    encryption_algorithm: Option<String>,
    #[serde(default)]
    encryption_context: BTreeMap<String, String>,
}

impl Request {
    /// The associated data of a wrapped key. An empty context counts as absent.
    fn about(&self, arn: &str) -> String {
        let context = Some(&self.encryption_context).filter(|context| !context.is_empty());
        json!([arn, context]).to_string()
    }
}

fn missing(member: &str) -> Refusal {
    invalid(member, "null", "Member must not be null")
}

fn invalid(member: &str, value: &str, allowed: &str) -> Refusal {
    let message = format!(
        "1 validation error detected: Value {value} at '{member}' failed to satisfy constraint: {allowed}"
    );
    (VALIDATION, message)
}

fn alias_arn(alias: &str) -> String {
    format!("arn:aws:kms:{REGION}:{ACCOUNT}:{alias}")
}

/// Two random ids: 244 random bits, reproducible if the platform's randomness has a seed.
fn random(platform: &dyn Platform) -> [u8; Key::BYTES] {
    let halves = [platform.new_id(), platform.new_id()].map(uuid::Uuid::into_bytes);
    let mut secret = [0; Key::BYTES];
    for (byte, random) in secret.iter_mut().zip(halves.as_flattened()) {
        *byte = *random;
    }
    secret
}

/// Writes a secret to a new file that no other user can read.
fn keep(file: &Path, secret: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(file)?.write_all(secret)
}
