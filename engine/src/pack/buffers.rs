//! Buffers of decoded blocks, used again: those of a long-lived reader come and go by the thousand,
//! among many small pieces of memory that stay, and an allocator that gets them back cannot join them.

use std::sync::{Mutex, PoisonError};

use super::GROUP_TARGET;

/// Capacity of all buffers that are kept.
const LEN: usize = GROUP_TARGET;
/// Shorter contents get memory of their own.
const MIN: usize = LEN / 2;
/// How many are kept.
const KEPT: usize = 8;

static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// An empty buffer with room for that many bytes.
pub(crate) fn take(len: usize) -> Vec<u8> {
    if !(MIN..=LEN).contains(&len) {
        return Vec::with_capacity(len);
    }
    free().pop().unwrap_or_else(|| Vec::with_capacity(LEN))
}

/// Takes a buffer that is not needed any more.
pub(crate) fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() != LEN {
        return;
    }
    buffer.clear();
    let mut free = free();
    if free.len() < KEPT {
        free.push(buffer);
    }
}

fn free() -> std::sync::MutexGuard<'static, Vec<Vec<u8>>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_odd_ones_are_not_kept() {
        give(vec![7; LEN]);
        give(vec![7; 3]);
        for len in [MIN, LEN] {
            let buffer = take(len);
            assert_eq!((buffer.len(), buffer.capacity()), (0, LEN));
        }
        assert_eq!(take(100).capacity(), 100);
        assert!(take(LEN + 1).capacity() > LEN);
    }
}
