//! A random sample of the volumes of a backup.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use md5::{Digest, Md5};
use serde::Serialize;

use dupfs_format::collection::BackupSet;
use dupfs_format::{SetIndex, VolumeNumber};

/// A share of the volumes, and the seed by which they are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SampleOptions {
    /// The share in percent, above 0 and at most 100.
    pub percent: f64,
    /// The same seed chooses the same volumes of the same backup.
    pub seed: u32,
}

impl SampleOptions {
    /// A sample of `percent` of the volumes, by `seed` or by one that is chosen at random.
    pub fn new(percent: f64, seed: Option<u32>) -> Self {
        let random = || {
            let [a, b, c, d, ..] = RandomState::new().hash_one(0u8).to_be_bytes();
            u32::from_be_bytes([a, b, c, d])
        };
        Self { percent, seed: seed.unwrap_or_else(random) }
    }

    /// Chooses volumes of `sets`: the share rounded up, and so at least one.
    pub(super) fn choose(self, sets: &[Arc<BackupSet>]) -> HashSet<(SetIndex, VolumeNumber)> {
        let mut ranked: Vec<_> = sets
            .iter()
            .flat_map(|set| set.volumes.iter().map(|(number, object)| (&object.name, (set.index, *number))))
            .map(|(name, id)| (Md5::digest([&self.seed.to_be_bytes()[..], name.as_bytes()].concat()), id))
            .collect();
        ranked.sort_unstable();
        let share = ranked.len() as f64 * self.percent / 100.0;
        let chosen = ranked.into_iter().enumerate().take_while(|(at, _)| (*at as f64) < share);
        chosen.map(|(_, (_, id))| id).collect()
    }
}

/// Parses a share: `5%`, `5` or `0.5%`.
///
/// # Errors
/// A line for the user.
pub fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    let is_share = |percent: &f64| *percent > 0.0 && *percent <= 100.0;
    number.filter(is_share).ok_or_else(|| "give a share above 0% and up to 100%, such as 5%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!(parse_percent("5%"), Ok(5.0));
        assert_eq!(parse_percent("0.5"), Ok(0.5));
        for wrong in ["0", "101%", "-1", "x", "NaN", "", "%"] {
            assert!(parse_percent(wrong).is_err(), "{wrong}");
        }
    }
}
