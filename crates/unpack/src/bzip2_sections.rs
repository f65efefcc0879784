//! Cuts bzip2 data at the magics of its blocks, and has the blocks decoded in advance of the reader.

use std::collections::VecDeque;
use std::sync::Arc;

use super::byte_source::ByteSource;
use super::bzip2_bits::{BlockMark, MarkScanner};
use super::bzip2_block::{DecodedBlock, LONGEST, decode};
use super::decode_context::DecodeContext;
use super::decode_workers::{DecodeTask, DecodeWorkers};
use super::decoder_input::DecoderInput;
use super::error::UnpackError;
use dupfs_base::{CancelToken, RequestContext};

/// The content of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectionKind {
    /// The header of the first stream, or nothing, where decoding starts at a block.
    Start,
    Block,
    /// The end of a stream, and the next one's header.
    End,
}

/// The input between two marks.
pub(super) struct InputSection {
    pub(super) kind: SectionKind,
    pub(super) start: u64,
    pub(super) end: u64,
    /// The bytes that contain bits `start` to `end`.
    pub(super) bytes: Arc<[u8]>,
    /// The decoding, once it is to be begun.
    pub(super) task: Option<Arc<DecodeTask<DecodedBlock>>>,
}

/// The section whose end is not known yet.
struct OpenSection {
    kind: SectionKind,
    start: u64,
    bytes: Vec<u8>,
}

/// The sections of the input in order, the blocks among them decoded or being decoded.
pub(super) struct SectionQueue {
    input: DecoderInput,
    scanner: MarkScanner,
    workers: Arc<DecodeWorkers>,
    /// The stored file, whose share of the processors its blocks take.
    flow: u64,
    /// Sections whose end is known.
    queue: VecDeque<InputSection>,
    open: OpenSection,
    /// Marks before this bit do not count.
    from: u64,
    input_ended: bool,
    #[cfg(test)]
    pub(super) false_marks: Vec<BlockMark>,
    /// Cancelled on drop: the queued blocks are no longer needed.
    wanted: CancelToken,
}

impl OpenSection {
    /// Number of its bytes before byte `end` of the input; all of them if that is not within the section.
    fn before(&self, end: u64) -> usize {
        let len = end.checked_sub(self.start / 8).and_then(|len| usize::try_from(len).ok());
        len.filter(|len| *len <= self.bytes.len()).unwrap_or(self.bytes.len())
    }

    /// The bit after its last byte.
    fn end(&self) -> u64 {
        self.start / 8 * 8 + self.bytes.len() as u64 * 8
    }
}

impl SectionQueue {
    /// The sections of `source` from `bit` on.
    pub(super) fn new(source: Arc<dyn ByteSource>, workers: Arc<DecodeWorkers>, bit: u64) -> Self {
        let flow = source.origin().flow;
        Self {
            input: DecoderInput::new(source, bit / 8),
            scanner: MarkScanner::new(bit / 8),
            workers,
            flow,
            queue: VecDeque::new(),
            open: OpenSection { kind: SectionKind::Start, start: bit, bytes: Vec::new() },
            from: bit,
            input_ended: false,
            #[cfg(test)]
            false_marks: Vec::new(),
            wanted: CancelToken::new(),
        }
    }

    /// The input.
    pub(super) fn input(&self) -> &DecoderInput {
        &self.input
    }

    /// Takes a turn on the processors for work on this input; see [`DecoderInput::work`].
    pub(super) fn work(&mut self, context: &DecodeContext<'_>) -> Result<(), UnpackError> {
        self.input.work(context)
    }

    /// The number of blocks that are decoded at once.
    pub(super) fn width(&self) -> usize {
        self.workers.width()
    }

    /// The start of the section whose end is not known.
    pub(super) fn open_start(&self) -> u64 {
        self.open.start
    }

    /// Returns true if no byte follows the queued sections.
    pub(super) fn input_ended(&self) -> bool {
        self.input_ended
    }

    /// Returns true if no section follows.
    pub(super) fn is_at_end(&self) -> bool {
        self.queue.is_empty() && self.input_ended
    }

    /// Takes the first section.
    pub(super) fn pop(&mut self) -> Option<InputSection> {
        self.queue.pop_front()
    }

    /// Puts `section` back to the front.
    pub(super) fn put_back(&mut self, section: InputSection) {
        self.queue.push_front(section);
    }

    /// The queued section at `index`.
    pub(super) fn get(&self, index: usize) -> Option<&InputSection> {
        self.queue.get(index)
    }

    /// Drops the sections up to and with the one at `last`.
    pub(super) fn drop_to(&mut self, last: usize) {
        self.queue.drain(..=last);
    }

    /// Reads until `count` sections are in the queue, and submits the blocks among them to the workers.
    pub(super) fn fill(&mut self, count: usize, context: &DecodeContext<'_>) -> Result<(), UnpackError> {
        let mut marks = Vec::new();
        while self.queue.len() < count && !self.input_ended {
            self.input.peek(context)?;
            self.input.work(context)?;
            let chunk = self.input.buffered();
            if chunk.is_empty() {
                self.input_ended = true;
                self.close(self.open.end(), None);
                break;
            }
            self.scanner.scan(chunk, &mut marks);
            self.open.bytes.extend_from_slice(chunk);
            let len = chunk.len();
            self.input.consume(len);
            #[cfg(test)]
            self.add_false_marks(&mut marks);
            for mark in marks.drain(..) {
                if mark.bit >= self.from {
                    self.close(mark.bit, Some(mark));
                }
            }
            if self.open.bytes.len() as u64 > LONGEST {
                // No block is that long: the data is damaged, and its reader gets an error.
                self.input_ended = true;
                self.close(self.open.end(), None);
            }
            self.submit(count);
        }
        self.submit(count);
        Ok(())
    }

    /// Submits the blocks among the first `count` sections to the workers, and no others: one chunk of input may have
    /// hundreds of blocks of 46 MB each, and a block that was begun is decoded even if the reader does not return.
    fn submit(&mut self, count: usize) {
        let waiting = |section: &&mut InputSection| section.kind == SectionKind::Block && section.task.is_none();
        for section in self.queue.iter_mut().take(count).filter(waiting) {
            let (start, end) = (section.start, section.end);
            let (bytes, wanted) = (Arc::clone(&section.bytes), self.wanted.clone());
            section.task = Some(self.workers.submit(self.flow, move || {
                decode(&bytes, start, end, &RequestContext::new(None, wanted)).unwrap_or(DecodedBlock::Bad)
            }));
        }
    }

    /// Ends the open section at bit `end`, where the next one begins at `mark`.
    fn close(&mut self, end: u64, mark: Option<BlockMark>) {
        let bytes: Arc<[u8]> = self.open.bytes.get(..self.open.before(end.div_ceil(8))).unwrap_or(&[]).into();
        let (start, kind) = (self.open.start, self.open.kind);
        self.queue.push_back(InputSection { kind, start, end, bytes, task: None });
        if let Some(mark) = mark {
            self.open.bytes.drain(..self.open.before(end / 8));
            self.open.kind = if mark.end { SectionKind::End } else { SectionKind::Block };
            self.open.start = end;
        }
    }

    #[cfg(test)]
    fn add_false_marks(&mut self, marks: &mut Vec<BlockMark>) {
        let reach = self.input.offset() * 8;
        let (now, later) = self.false_marks.iter().partition(|mark| mark.bit < reach);
        self.false_marks = later;
        marks.extend::<Vec<BlockMark>>(now);
        marks.sort_by_key(|mark| mark.bit);
    }
}

impl Drop for SectionQueue {
    fn drop(&mut self) {
        self.wanted.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::memory_source::MemorySource;

    /// 5 kB of input can have a hundred blocks that decode to 46 MB each. A block that was begun is decoded even if its
    /// reader does not return, so only the next blocks may be begun.
    #[test]
    fn only_the_next_blocks_of_a_dense_input_are_begun() {
        let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::best());
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        let packed = encoder.finish().unwrap().repeat(100);
        let workers = Arc::new(DecodeWorkers::new());
        let request = RequestContext::unlimited();
        let context = DecodeContext::new(&workers, 0, &request);
        let mut sections = SectionQueue::new(Arc::new(MemorySource::new("a", packed)), Arc::clone(&workers), 0);
        let begun = |sections: &SectionQueue| sections.queue.iter().filter(|section| section.task.is_some()).count();
        sections.fill(4, &context).unwrap();
        assert!(sections.queue.len() > 100, "{}", sections.queue.len());
        assert_eq!(begun(&sections), 2, "the header, a block, the end, a block");
        sections.pop();
        sections.fill(4, &context).unwrap();
        assert_eq!(begun(&sections), 2);
        let first = sections.pop().unwrap();
        assert!(first.kind == SectionKind::Block && first.task.is_some());
    }
}
