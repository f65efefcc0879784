//! The seek points of a stream, bounded in memory, and their encoding for a
//! [`PointStore`](super::PointStore).

use std::sync::Arc;

use super::stream_decoder::{ByteFields, SeekPoint, put_len};

/// Upper bound of the bytes of all points of a stream.
const MAX_BYTES: u64 = 8 << 20;
/// Bytes of a point besides its state.
const EACH: u64 = 48;
/// Version of the encoding.
const VERSION: u8 = 1;

/// Seek points in the order of the stream.
#[derive(Debug, Default)]
pub(super) struct SeekPoints {
    points: Vec<SeekPoint>,
    /// Least distance of two points in decompressed bytes.
    spacing: u64,
    bytes: u64,
}

impl SeekPoints {
    /// The last point at or before `out`.
    pub(super) fn before(&self, out: u64) -> Option<&SeekPoint> {
        let next = self.points.partition_point(|p| p.out <= out);
        next.checked_sub(1).and_then(|i| self.points.get(i))
    }

    /// Adds a point, if it is far enough after the last one.
    pub(super) fn add(&mut self, point: SeekPoint) {
        let last = self.points.last().map_or(0, |p| p.out);
        if point.out <= last || point.out - last < self.spacing {
            return;
        }
        self.bytes += EACH + point.state.len() as u64;
        self.points.push(point);
        if self.bytes > MAX_BYTES {
            self.thin();
        }
    }

    fn thin(&mut self) {
        let mut keep = false;
        self.points.retain(|_| {
            keep = !keep;
            keep
        });
        self.bytes = self.points.iter().map(|p| EACH + p.state.len() as u64).sum();
        let reach = self.points.last().map_or(0, |p| p.out);
        self.spacing = reach / (self.points.len() as u64).max(1);
    }

    /// Encodes the length of a stream, `len` bytes, and its points; `None` if they have no encoded form.
    pub(super) fn encode(&self, len: u64) -> Option<Vec<u8>> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&len.to_be_bytes());
        for point in &self.points {
            out.extend_from_slice(&point.out.to_be_bytes());
            out.extend_from_slice(&point.input.to_be_bytes());
            put_len(&mut out, point.state.len())?;
            out.extend_from_slice(&point.state);
        }
        Some(out)
    }

    /// Decodes the length and points in `bytes`; `None` unless they are well-formed.
    pub(super) fn decode(bytes: &[u8]) -> Option<(u64, Self)> {
        if bytes.len() as u64 > 2 * MAX_BYTES {
            return None;
        }
        let mut fields = ByteFields(bytes);
        if fields.u8()? != VERSION {
            return None;
        }
        let len = fields.u64()?;
        let mut this = Self::default();
        while !fields.0.is_empty() {
            let (out, input, state) = (fields.u64()?, fields.u64()?, fields.u32()?);
            let (state, rest) = fields.0.split_at_checked(usize::try_from(state).ok()?)?;
            fields.0 = rest;
            let last = this.points.last();
            if out > len || last.is_some_and(|last| last.out >= out || last.input > input) {
                return None;
            }
            this.bytes += EACH + state.len() as u64;
            this.points.push(SeekPoint { out, input, state: Arc::from(state) });
        }
        Some((len, this))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(out: u64, state: usize) -> SeekPoint {
        SeekPoint { out, input: out / 2, state: vec![7; state].into() }
    }

    #[test]
    fn the_number_of_points_is_bounded_and_they_cover_the_stream() {
        let mut points = SeekPoints::default();
        for i in 1..10_000 {
            points.add(point(i << 20, 32 << 10));
        }
        assert!(points.bytes <= MAX_BYTES && points.points.len() > 100, "{}", points.points.len());
        let distances = points.points.windows(2).map(|w| w[1].out - w[0].out);
        assert!(distances.max().unwrap() < 256 << 20);
        assert_eq!(points.before(0), None);
        assert!(points.before(u64::MAX).unwrap().out > 9_000 << 20);
    }

    /// The index contains these bytes: another encoding needs another version.
    #[test]
    fn the_bytes_of_seek_points_are_stable() {
        let mut points = SeekPoints::default();
        points.add(point(0x0102, 2));
        points.add(point(0x0304_0506, 0));
        let expected: &[&[u8]] = &[
            &[1, 0, 0, 0, 0, 7, 8, 9, 10],
            &[0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0x81, 0, 0, 0, 2, 7, 7],
            &[0, 0, 0, 0, 3, 4, 5, 6, 0, 0, 0, 0, 1, 0x82, 2, 0x83, 0, 0, 0, 0],
        ];
        assert_eq!(points.encode(0x0708_090a), Some(expected.concat()));
    }

    #[test]
    fn encoded_points_are_decoded_and_damaged_ones_refused() {
        let mut points = SeekPoints::default();
        (1..5).for_each(|i| points.add(point(i * 100, 3)));
        let encoded = points.encode(1000).unwrap();
        let (len, back) = SeekPoints::decode(&encoded).unwrap();
        assert_eq!((len, back.points), (1000, points.points));
        for cut in 1..encoded.len() {
            let whole = cut == 9 || (cut - 9.min(cut)) % 23 == 0;
            assert_eq!(SeekPoints::decode(&encoded[..cut]).is_some(), whole && cut >= 9, "{cut}");
        }
        let mut wrong = encoded.clone();
        wrong[9] = 0xff;
        assert!(SeekPoints::decode(&wrong).is_none());
    }
}
