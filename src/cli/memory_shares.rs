//! The division of `--memory` and of the spill file among the layers.

use dupfs_cache::{BLOCK_BYTES, CacheConfig, SpillConfig};
use dupfs_unpack::UnpackLimits;

/// Memory that one decoder may take whatever `--memory` is: that of a file of `xz -9`, with a window of 64 MiB.
const MIN_MAX_DECODERS: u64 = 80 << 20;

/// The least value of `--memory`: the least share of a cache, an eighth, has room for a block and for the one that replaces it.
pub(super) const MIN_MEMORY: u64 = 16 * BLOCK_BYTES as u64;

/// The shares of the layers. Five eighths of the memory are for decoded blocks, and an eighth each for member tables, for
/// extent maps, and for unpacked data including the tables of archives. Of the spill file three quarters are for decoded
/// blocks, the rest is for unpacked data. The other shares are added to that.
#[derive(Clone, Debug)]
pub(super) struct MemoryShares {
    /// Decoded blocks of volumes.
    pub(super) blocks: CacheConfig,
    /// Member tables of volumes.
    pub(super) member_table_bytes: u64,
    /// Manifests.
    pub(super) manifest_bytes: u64,
    /// Tables that are larger than the stored bytes of their objects explain.
    pub(super) table_bytes: u64,
    /// Extent maps.
    pub(super) extent_map_bytes: u64,
    /// Unpacked data.
    pub(super) unpacked: CacheConfig,
    /// The bounds of unpacking. Decoders take their memory from that of decoded blocks.
    pub(super) unpack_limits: UnpackLimits,
    /// Seek points, where there is no index on disk: room for all points of the longest stream at the default of `--memory`.
    pub(super) seek_point_bytes: u64,
}

impl MemoryShares {
    /// Divides `memory` bytes and `spill`.
    pub(super) fn of(memory: u64, spill: Option<&SpillConfig>) -> Self {
        let spill_of = |quarters: u64| {
            spill.map(|spill| SpillConfig { bytes: spill.bytes / 4 * quarters, dir: spill.dir.clone() })
        };
        Self {
            blocks: CacheConfig { memory_bytes: memory / 8 * 5, spill: spill_of(3) },
            member_table_bytes: memory / 8,
            manifest_bytes: memory / 16,
            table_bytes: memory / 8,
            extent_map_bytes: memory / 8,
            unpacked: CacheConfig { memory_bytes: memory / 8, spill: spill_of(1) },
            unpack_limits: UnpackLimits {
                decoders: memory / 8 * 5,
                max_decoders: memory.max(MIN_MAX_DECODERS),
                ..UnpackLimits::default()
            },
            seek_point_bytes: memory / 32,
        }
    }

    /// The shares of a verification. It has lists of all files of a set, and reads each block once: so of the five eighths for
    /// decoded blocks it leaves three to the tree and the lists.
    pub(super) fn of_verification(memory: u64, spill: Option<&SpillConfig>) -> Self {
        let mut shares = Self::of(memory, spill);
        shares.blocks.memory_bytes = memory / 4;
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_layers_are_the_whole() {
        let spill = SpillConfig { dir: "/cache".into(), bytes: 1 << 30 };
        let shares = MemoryShares::of(256 << 20, Some(&spill));
        let held = [shares.member_table_bytes, shares.extent_map_bytes, shares.unpacked.memory_bytes];
        assert_eq!(shares.blocks.memory_bytes + held.iter().sum::<u64>(), 256 << 20);
        let spilled = [shares.blocks.spill, shares.unpacked.spill].map(Option::unwrap);
        assert_eq!(spilled.iter().map(|spill| spill.bytes).sum::<u64>(), 1 << 30);
        assert!(spilled.iter().all(|share| share.dir == spill.dir));
        let least = MemoryShares::of(MIN_MEMORY, None);
        assert_eq!(least.unpacked.memory_bytes, 2 * BLOCK_BYTES as u64);
        let verification = MemoryShares::of_verification(256 << 20, None);
        assert_eq!(verification.blocks.memory_bytes, 64 << 20);
        assert_eq!(verification.table_bytes, shares.table_bytes);
        let none = MemoryShares::of(0, None);
        assert!(none.blocks.spill.is_none() && none.unpacked.spill.is_none());
    }
}
