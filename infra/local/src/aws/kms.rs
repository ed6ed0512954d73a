//! KMS: makes keys, and wraps them with one that never leaves this machine.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use cairn::seal::Key;
use serde_json::{Value, json};

use crate::{
    aws::{Answer, roles::key_arn},
    world::World,
};

/// The keys of the template, by their ids.
#[derive(Debug)]
pub struct Kms {
    ids: Vec<String>,
    master: Key,
    world: Arc<dyn World>,
}

impl Kms {
    /// The keys of these ids, in memory: another `Kms` cannot unwrap what they wrap.
    pub fn new(ids: Vec<String>, world: Arc<dyn World>) -> Self {
        let secret = random(world.as_ref());
        Self::of(&secret, ids, world)
    }

    /// The keys of these ids, wrapped by the secret that [`make`](Self::make) has written.
    ///
    /// # Errors
    /// When the file cannot be read, or its content is not a secret.
    pub fn open(file: &Path, ids: Vec<String>, world: Arc<dyn World>) -> io::Result<Self> {
        let kept = fs::read(file)?;
        let secret = kept.try_into().map_err(|kept: Vec<u8>| {
            let (is, must) = (kept.len(), Key::BYTES);
            let problem = format!("it holds no key: it has {is} bytes and must have {must}");
            io::Error::new(io::ErrorKind::InvalidData, problem)
        })?;
        Ok(Self::of(&secret, ids, world))
    }

    /// Writes a new secret to a new file, which no other user can read.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn make(file: &Path, world: &dyn World) -> io::Result<()> {
        keep(file, &random(world))
    }

    fn of(secret: &[u8; Key::BYTES], ids: Vec<String>, world: Arc<dyn World>) -> Self {
        Self {
            ids,
            master: Key::new(secret),
            world,
        }
    }

    pub(crate) fn call(&self, operation: &str, body: &str) -> Answer {
        let request: Value = serde_json::from_str(body).unwrap_or_default();
        let id = request.get("KeyId").and_then(Value::as_str);
        let Some(id) = id.filter(|id| self.ids.iter().any(|known| known == id)) else {
            let message = "there is no such key; name it by its id";
            return Answer::error(400, "NotFoundException", message);
        };
        let arn = key_arn(id);
        // A wrapped key opens with the same context only.
        let context = request.get("EncryptionContext").unwrap_or(&Value::Null);
        let about = json!([arn, context]).to_string();
        match operation {
            "GenerateDataKey" => self.generate(&arn, about.as_bytes()),
            "Decrypt" => {
                let wrapped = request.get("CiphertextBlob").and_then(Value::as_str);
                self.decrypt(&arn, about.as_bytes(), wrapped.unwrap_or_default())
            }
            _ => {
                let message = format!("{operation} is not there on one machine");
                Answer::error(400, "UnsupportedOperationException", &message)
            }
        }
    }

    fn generate(&self, arn: &str, about: &[u8]) -> Answer {
        let secret = random(self.world.as_ref());
        let wrapped = self.master.seal_bytes(about, secret.to_vec());
        Answer::ok(&json!({
            "KeyId": arn,
            "Plaintext": BASE64_STANDARD.encode(secret),
            "CiphertextBlob": BASE64_STANDARD.encode(wrapped),
        }))
    }

    fn decrypt(&self, arn: &str, about: &[u8], wrapped: &str) -> Answer {
        let wrapped = BASE64_STANDARD.decode(wrapped).unwrap_or_default();
        match self.master.open_bytes(about, &wrapped) {
            Ok(bare) => Answer::ok(&json!({
                "KeyId": arn,
                "Plaintext": BASE64_STANDARD.encode(bare),
                "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            })),
            Err(error) => Answer::error(400, "InvalidCiphertextException", &error.to_string()),
        }
    }
}

/// Two random ids: 244 random bits, and the same ones again where the world's chance has a seed.
fn random(world: &dyn World) -> [u8; Key::BYTES] {
    let halves = [world.new_id(), world.new_id()].map(uuid::Uuid::into_bytes);
    let mut secret = [0; Key::BYTES];
    for (byte, random) in secret.iter_mut().zip(halves.as_flattened()) {
        *byte = *random;
    }
    secret
}

/// Keeps a secret in a new file that no other user can read.
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
