//! Room for the threads of a driver: address space is asked for before any of them starts.
//!
//! A thread that starts in the last of it finds no memory for itself, and the standard library then aborts the
//! process.

use std::io;

/// Largest piece that is asked for at once: more than a machine has may be refused although its parts are not.
const PIECE_BYTES: usize = 64 << 20;

/// Address space that is kept from others until it is dropped. Nothing is written to it, so that it takes no memory.
pub(crate) struct Room(#[expect(dead_code, reason = "held, never read")] Vec<Vec<u8>>);

impl Room {
    /// Takes `bytes` for each of so many threads; if there is no room, fails with the number, from 1, of a thread that
    /// has none.
    pub(crate) fn take(threads: u32, bytes: usize) -> Result<Self, (u32, io::Error)> {
        let in_a_piece = u32::try_from(PIECE_BYTES / bytes)
            .unwrap_or(u32::MAX)
            .max(1);
        let mut pieces: Vec<Vec<u8>> = Vec::new();

        for first in (0..threads).step_by(in_a_piece as usize) {
            let count = in_a_piece.min(threads - first);
            let mut piece = Vec::new();
            piece
                .try_reserve_exact(count as usize * bytes)
                .map_err(|_| (first + 1, io::ErrorKind::OutOfMemory.into()))?;
            pieces.push(piece);
        }
        Ok(Room(pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_asked_for_all_threads() {
        Room::take(100, 1 << 20).unwrap();
        Room::take(0, 1 << 20).unwrap();
        // More than any address space has.
        let (thread, error) = Room::take(4, usize::MAX / 4).err().unwrap();
        assert_eq!((thread, error.kind()), (1, io::ErrorKind::OutOfMemory));
    }
}
