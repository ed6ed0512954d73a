//! The recent commands of a stream, as a snapshot stores them.

use std::collections::VecDeque;

use serde_bytes::ByteBuf;

use crate::hash::fnv1a;

/// The recent commands of a stream: a short hash of each id, and the version of its commit.
///
/// A matching hash is a candidate only; the commit at its version has the whole id. Three bytes per
/// id therefore suffice. An id without a match is not among the recent commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentCommands {
    commands: VecDeque<(Hash, u64)>,
}

type Hash = [u8; 3];

impl RecentCommands {
    /// The number of commands that are kept. A command is handled once while fewer commands than
    /// this follow it. A command that begins a stream and a saga's step are handled once without a
    /// limit.
    pub const CAPACITY: usize = 64;

    pub(crate) fn push(&mut self, id: &str, version: u64) {
        while self.commands.len() >= Self::CAPACITY {
            self.commands.pop_front();
        }
        self.commands.push_back((short(id), version));
    }

    /// Returns the versions after `after` at which a command with this id can be, latest first.
    pub(crate) fn candidates(&self, id: &str, after: u64) -> Vec<u64> {
        let hash = short(id);
        self.commands
            .iter()
            .rev()
            .filter(|(other, version)| *other == hash && *version > after)
            .map(|(_, version)| *version)
            .collect()
    }

    /// Encodes the commands for a commit that begins at `base`, from the latest to the oldest: the
    /// hash of each id, and in LEB128 the distance from the previously encoded version.
    pub(crate) fn encode(&self, base: u64) -> ByteBuf {
        let mut bytes = Vec::with_capacity(self.commands.len() * 4);
        let mut from = base;
        for (hash, version) in self.commands.iter().rev() {
            bytes.extend(hash);
            leb128(&mut bytes, from.saturating_sub(*version));
            from = *version;
        }
        ByteBuf::from(bytes)
    }

    /// Decodes the stored form. Of invalid bytes, it keeps the valid part.
    pub(crate) fn decode(bytes: &[u8], base: u64) -> Self {
        let (mut commands, mut from) = (VecDeque::new(), base);
        let mut rest = bytes;
        while let Some((hash, after)) = rest.split_first_chunk()
            && commands.len() < Self::CAPACITY
        {
            let mut back = 0_u64;
            let mut shift = 0;
            rest = after;
            while let Some((byte, after)) = rest.split_first() {
                rest = after;
                back |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            from = from.saturating_sub(back);
            commands.push_front((*hash, from));
        }
        Self { commands }
    }
}

fn leb128(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [.., low] = number.to_be_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn short(id: &str) -> Hash {
    let [a, b, c, d] = fnv1a(id).to_be_bytes();
    [a ^ d, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_commands_are_decoded_and_the_oldest_is_dropped() {
        let mut commands = RecentCommands::default();
        for version in 1..=100 {
            commands.push(&format!("command-{version}"), version);
        }
        let stored = commands.encode(100);
        assert_eq!(stored.len(), 4 * RecentCommands::CAPACITY);
        let back = RecentCommands::decode(&stored, 100);
        assert_eq!(back, commands);
        assert_eq!(back.candidates("command-100", 0), [100]);
        assert_eq!(back.candidates("command-37", 0), [37]);
        assert_eq!(back.candidates("command-37", 37), Vec::<u64>::new());
        assert_eq!(back.candidates("command-36", 0), Vec::<u64>::new());
    }

    #[test]
    fn any_distance_between_commands_is_kept() {
        let mut commands = RecentCommands::default();
        let versions = [
            1,
            2,
            129,
            130,
            1 << 21,
            (1 << 21) + 128,
            1 << 40,
            u64::MAX - 5,
        ];
        for version in versions {
            commands.push(&version.to_string(), version);
        }
        let back = RecentCommands::decode(&commands.encode(u64::MAX), u64::MAX);
        assert_eq!(back, commands);
    }

    #[test]
    fn bytes_that_make_no_sense_do_no_harm() {
        for bytes in [&[][..], &[1, 2], &[1, 2, 3], &[255; 40]] {
            RecentCommands::decode(bytes, 7);
        }
    }
}
