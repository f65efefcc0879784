//! The stored parts of objects in a volume, and groups of them that lie at equal distances.

/// One stored part: a whole object, or one of the parts that a file was split into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberPart {
    /// Number from 1; 1 for whole objects.
    pub number: u64,
    /// Offset of its data in the volume's plaintext.
    pub offset: u64,
    /// Length of its data.
    pub len: u64,
    /// Modification time in its header. The parts of one file have the same, unless an interrupted backup was resumed.
    pub mtime: i64,
}

/// Parts with consecutive numbers, one length, one time and equal distances: nearly all parts of a large file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartGroup {
    pub(super) first: MemberPart,
    /// Number of parts, from 1.
    pub(super) count: u64,
    /// From the start of a part to that of the next one, in bytes; 0 for a single part.
    pub(super) distance: u64,
}

impl PartGroup {
    /// The group of `part` alone.
    pub(super) fn of(part: MemberPart) -> Self {
        Self { first: part, count: 1, distance: 0 }
    }

    /// Part `number`, if it is in the group.
    pub(super) fn get(&self, number: u64) -> Option<MemberPart> {
        let index = number.checked_sub(self.first.number).filter(|&index| index < self.count)?;
        let offset = self.first.offset.saturating_add(self.distance.saturating_mul(index));
        Some(MemberPart { number, offset, ..self.first })
    }

    /// The last part.
    pub(super) fn last(&self) -> MemberPart {
        self.get(self.first.number.saturating_add(self.count.saturating_sub(1))).unwrap_or(self.first)
    }

    /// Adds `part` if it continues the group.
    pub(super) fn extend(&mut self, part: MemberPart) -> bool {
        let last = self.last();
        let distance = part.offset.checked_sub(last.offset).filter(|&distance| distance > 0);
        let continues = last.number.checked_add(1) == Some(part.number)
            && (part.len, part.mtime) == (last.len, last.mtime)
            && distance.is_some_and(|distance| self.count == 1 || distance == self.distance);
        if continues {
            self.distance = distance.unwrap_or(0);
            self.count = self.count.saturating_add(1);
        }
        continues
    }

    /// All parts in order.
    pub(super) fn iter(self) -> impl Iterator<Item = MemberPart> {
        (0..self.count).filter_map(move |index| self.get(self.first.number.saturating_add(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_the_parts_that_were_added() {
        let part = |number, offset| MemberPart { number, offset, len: 100, mtime: 7 };
        let mut group = PartGroup::of(part(3, 512));
        assert!(group.extend(part(4, 1536)) && group.extend(part(5, 2560)));
        let others = [
            part(7, 3584),
            part(6, 3072),
            part(6, 2560),
            MemberPart { len: 99, ..part(6, 3584) },
            MemberPart { mtime: 8, ..part(6, 3584) },
        ];
        for other in others {
            assert!(!group.extend(other), "{other:?}");
        }
        assert_eq!(group.iter().collect::<Vec<_>>(), [part(3, 512), part(4, 1536), part(5, 2560)]);
        assert_eq!((group.get(2), group.get(5), group.get(6)), (None, Some(part(5, 2560)), None));
        assert_eq!(group.last(), part(5, 2560));
    }
}
