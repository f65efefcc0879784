//! A layer that a separate thread reads in advance of the layer above it, so that two cores work on one object.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

use super::layer::{LayerReader, read_buffered};

/// Upper bound of the buffers that wait between the two threads; each is one buffer of the layer beneath.
const MAX_QUEUED: usize = 8;

/// Returns a reader of `source`, which a separate thread reads. If no thread can be started, returns `source` itself. The
/// thread ends once `source` has ended or failed, or when the returned reader is dropped.
pub(super) fn read_in_thread(source: LayerReader<'static>) -> LayerReader<'static> {
    let (source_tx, source_rx) = channel::<LayerReader<'static>>();
    let (buffer_tx, buffer_rx) = sync_channel(MAX_QUEUED);
    let work = move || {
        if let Ok(source) = source_rx.recv() {
            send_all(source, &buffer_tx);
        }
    };
    if thread::Builder::new().name("dupfs-decrypt".into()).spawn(work).is_err() {
        return source;
    }
    match source_tx.send(source) {
        Ok(()) => Box::new(ThreadedLayer { buffer_rx, buffer: Vec::new(), at: 0, ended: false }),
        // The thread waits for nothing else, so this does not happen. The source is not lost if it does.
        Err(unsent) => unsent.0,
    }
}

/// Sends all of `source`, then an empty buffer at its verified end, or its error.
fn send_all(mut source: LayerReader<'static>, buffer_tx: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let buffer = source.fill_buf().map(<[u8]>::to_vec);
        let len = buffer.as_ref().map_or(0, Vec::len);
        if buffer_tx.send(buffer).is_err() || len == 0 {
            return;
        }
        source.consume(len);
    }
}

/// The reading end.
struct ThreadedLayer {
    buffer_rx: Receiver<io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
}

impl BufRead for ThreadedLayer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.buffer.len() && !self.ended {
            // A closed channel is no end of the data: the thread sends that explicitly.
            let next = self
                .buffer_rx
                .recv()
                .map_err(|_| io::Error::other("internal error (bug in dupfs): the decrypting thread failed"))?;
            self.buffer = next?;
            self.at = 0;
            self.ended = self.buffer.is_empty();
        }
        Ok(self.buffer.get(self.at..).unwrap_or(&[]))
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.buffer.len().min(self.at.saturating_add(amount));
    }
}

impl Read for ThreadedLayer {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::object_context::ObjectContext;
    use super::*;

    fn threaded(source: impl BufRead + Send + 'static) -> LayerReader<'static> {
        read_in_thread(Box::new(source))
    }

    #[test]
    fn all_bytes_arrive_in_order_and_the_end_is_permanent() {
        let bytes: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let mut source = threaded(io::BufReader::with_capacity(1000, Cursor::new(bytes.clone())));
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
                ObjectContext::new("x").damaged("broken on purpose")
            })?;
            buf[..5].fill(7);
            Ok(5)
        }
    }

    #[test]
    fn a_failure_or_a_panic_of_the_source_is_an_error_and_not_the_end() {
        for fails in [true, false] {
            let mut read = Vec::new();
            let error = threaded(io::BufReader::with_capacity(5, Breaks(3, fails))).read_to_end(&mut read).unwrap_err();
            assert_eq!(read, [7; 15]);
            assert_eq!(error.to_string().contains("broken on purpose"), fails, "{error}");
        }
    }

    /// Never ends, and reports when it is dropped.
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
    fn the_source_is_dropped_when_the_reader_is_dropped() {
        let (tx, rx) = channel();
        let mut source = threaded(io::BufReader::with_capacity(64, Endless(tx)));
        assert!(!source.fill_buf().unwrap().is_empty());
        drop(source);
        rx.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    }
}
