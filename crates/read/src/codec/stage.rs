//! A layer read by a thread of its own, ahead of the one above it, so that two cores work on one object.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

use super::source::Source;

/// Pieces that wait between the two threads at most; each is one buffer of the layer beneath.
const AHEAD: usize = 8;

/// How the layer that decrypts is read: as it is, or [`in_thread`].
pub(super) type Stage<'a> = fn(Source<'a>) -> Source<'a>;

/// `source`, read by a thread; where none can be started, `source` itself. The thread ends once `source` has ended or
/// failed, or when what is returned here is dropped.
pub(super) fn in_thread(source: Source<'static>) -> Source<'static> {
    let (give, given) = channel::<Source<'static>>();
    let (send, pieces) = sync_channel(AHEAD);
    let work = move || {
        if let Ok(source) = given.recv() {
            pump(source, &send);
        }
    };
    if thread::Builder::new().name("dupfs-stage".into()).spawn(work).is_err() {
        return source;
    }
    match give.send(source) {
        Ok(()) => Box::new(Staged { pieces, piece: Vec::new(), at: 0, ended: false }),
        // The thread waits for nothing else, so this does not happen; the source is not lost if it does.
        Err(unsent) => unsent.0,
    }
}

/// Sends all of `source`, an empty piece at its verified end, or its error.
fn pump(mut source: Source<'static>, send: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let piece = source.fill_buf().map(<[u8]>::to_vec);
        let len = piece.as_ref().map_or(0, Vec::len);
        if send.send(piece).is_err() || len == 0 {
            return;
        }
        source.consume(len);
    }
}

/// The reading end.
struct Staged {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl BufRead for Staged {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.piece.len() && !self.ended {
            // A thread that ended without a word is no end of the data.
            let next = self.pieces.recv().map_err(|_| io::Error::other("the thread that decrypts it has failed"))?;
            self.piece = next?;
            self.at = 0;
            self.ended = self.piece.is_empty();
        }
        Ok(self.piece.get(self.at..).unwrap_or(&[]))
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.piece.len().min(self.at.saturating_add(amount));
    }
}

impl Read for Staged {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let n = bytes.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::source::Ctx;
    use super::*;

    fn staged(source: impl BufRead + Send + 'static) -> Source<'static> {
        in_thread(Box::new(source))
    }

    #[test]
    fn all_bytes_come_in_order_and_then_the_end_for_good() {
        let bytes: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let mut source = staged(io::BufReader::with_capacity(1000, Cursor::new(bytes.clone())));
        let mut read = Vec::new();
        source.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        assert!(source.fill_buf().unwrap().is_empty() && source.fill_buf().unwrap().is_empty());
    }

    /// Gives a few bytes, then fails or panics.
    struct Breaks(u32, bool);

    impl Read for Breaks {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| {
                assert!(self.1, "on purpose");
                Ctx::new("x").damaged("broken on purpose")
            })?;
            buf[..5].fill(7);
            Ok(5)
        }
    }

    #[test]
    fn a_failure_or_a_panic_of_the_source_is_an_error_and_no_end() {
        for fails in [true, false] {
            let mut read = Vec::new();
            let error = staged(io::BufReader::with_capacity(5, Breaks(3, fails))).read_to_end(&mut read).unwrap_err();
            assert_eq!(read, [7; 15]);
            assert_eq!(error.to_string().contains("broken on purpose"), fails, "{error}");
        }
    }

    /// Tells when it is dropped.
    struct Endless(std::sync::mpsc::Sender<()>);

    impl Read for Endless {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            Ok(buf.len())
        }
    }

    impl Drop for Endless {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }

    #[test]
    fn the_source_is_given_up_when_nobody_reads_on() {
        let (tell, told) = channel();
        let mut source = staged(io::BufReader::with_capacity(64, Endless(tell)));
        assert!(!source.fill_buf().unwrap().is_empty());
        drop(source);
        told.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    }
}
