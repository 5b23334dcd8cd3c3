//! Standard error that never makes its writer wait.
//!
//! A pod's standard error is a pipe. When whoever reads it stops, a disk that is full or a runtime that hangs, a pipe of
//! 64 KiB fills up, and then a log line would stop the worker that writes it, with all of its connections. A line that
//! finds no room is dropped, and the next one that finds some says how many were.

use std::io::{self, LineWriter, Stderr, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Bytes that a pipe which has room takes without a wait (pipe(7), `PIPE_BUF`).
const PIECE_BYTES: usize = 4096;

/// Whole lines to a writer that may be full.
#[derive(Debug)]
struct Lossy<W> {
    to: W,
    lost: u64,
}

/// Standard error, line by line.
pub(crate) fn lines() -> impl Write + Send + 'static {
    LineWriter::with_capacity(PIECE_BYTES, Lossy::<Stderr> { to: io::stderr(), lost: 0 })
}

impl<W: Write + AsFd> Lossy<W> {
    fn has_room(&self) -> bool {
        let mut wanted = [PollFd::new(&self.to, PollFlags::OUT)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut wanted, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Whether all of it was written.
    fn write_whole(&mut self, line: &[u8]) -> io::Result<bool> {
        for piece in line.chunks(PIECE_BYTES) {
            if !self.has_room() {
                return Ok(false);
            }
            self.to.write_all(piece)?;
        }
        Ok(true)
    }
}

impl<W: Write + AsFd> Write for Lossy<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lost > 0 {
            let lost = format!("kserve-agent: {} lines of the log were lost, standard error was full\n", self.lost);
            if self.write_whole(lost.as_bytes())? {
                self.lost = 0;
            }
        }
        if !self.write_whole(line)? {
            self.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::{PipeReader, PipeWriter, Read, pipe};

    use super::*;

    fn full() -> (PipeReader, Lossy<PipeWriter>, usize) {
        let (reader, writer) = pipe().unwrap();
        let mut lossy = Lossy { to: writer, lost: 0 };
        let mut held = 0;
        while lossy.has_room() {
            lossy.to.write_all(&[b'x'; PIECE_BYTES]).unwrap();
            held += PIECE_BYTES;
        }
        (reader, lossy, held)
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_said_once() {
        let (mut reader, mut lossy, held) = full();
        lossy.write_all(b"one\n").unwrap();
        lossy.write_all(b"two\n").unwrap();
        reader.read_exact(&mut vec![0; held]).unwrap();
        lossy.write_all(b"three\n").unwrap();
        lossy.write_all(b"four\n").unwrap();
        drop(lossy);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let said = "kserve-agent: 2 lines of the log were lost, standard error was full\nthree\nfour\n";
        assert_eq!(text, said);
    }

    #[test]
    fn a_line_longer_than_a_pipe_takes_at_once_is_whole_where_there_is_room() {
        let (mut reader, writer) = pipe().unwrap();
        let line = [&[b'x'; 3 * PIECE_BYTES + 7][..], b"\n"].concat();
        Lossy { to: writer, lost: 0 }.write_all(&line).unwrap();
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text, line);
    }
}
