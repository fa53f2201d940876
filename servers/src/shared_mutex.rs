//! A mutex in memory that forked processes share.

use std::cell::UnsafeCell;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// A robust mutex: when the process that holds it dies, the next one gets it.
///
/// Source: `pthread_mutexattr_setrobust(3)`. It is never destroyed: its memory ends with the last
/// process that maps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedMutex(NonNull<UnsafeCell<libc::pthread_mutex_t>>);

#[expect(
    unsafe_code,
    reason = "the pointer leads to a mutex, made for threads and processes"
)]
// SAFETY: the memory is mapped for ever, and only pthread functions touch it.
unsafe impl Send for SharedMutex {}

#[expect(
    unsafe_code,
    reason = "the pointer leads to a mutex, made for threads and processes"
)]
// SAFETY: as for `Send`.
unsafe impl Sync for SharedMutex {}

impl SharedMutex {
    pub(crate) fn new() -> io::Result<Self> {
        let length = NonZeroUsize::new(size_of::<libc::pthread_mutex_t>()).expect("not empty");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;

        #[expect(unsafe_code, reason = "memory shared over fork comes from mmap only")]
        // SAFETY: the kernel chooses a fresh place, so no other memory is touched.
        let memory = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_SHARED) }?;
        let mutex: NonNull<UnsafeCell<libc::pthread_mutex_t>> = memory.cast();
        let mut attributes = MaybeUninit::uninit();

        #[expect(
            unsafe_code,
            reason = "the standard library has no mutex for processes"
        )]
        // SAFETY: the attributes are initialised before they are used and destroyed after; the
        // mutex lies in fresh, page-aligned memory that nobody else knows yet.
        let codes = unsafe {
            let attributes = attributes.as_mut_ptr();
            let codes = [
                libc::pthread_mutexattr_init(attributes),
                libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED),
                libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST),
                libc::pthread_mutex_init(mutex.as_ref().get(), attributes),
            ];
            libc::pthread_mutexattr_destroy(attributes);
            codes
        };
        match codes.into_iter().find(|code| *code != 0) {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => Ok(SharedMutex(mutex)),
        }
    }

    /// Waits until nobody holds the mutex, and holds it until the guard is dropped.
    pub(crate) fn lock(self) -> SharedMutexGuard {
        #[expect(
            unsafe_code,
            reason = "the standard library has no mutex for processes"
        )]
        // SAFETY: the mutex was initialised by `new` and is never destroyed.
        unsafe {
            let mutex = self.0.as_ref().get();
            if libc::pthread_mutex_lock(mutex) == Errno::EOWNERDEAD as i32 {
                // It guards a turn, no data, so there is nothing to repair.
                libc::pthread_mutex_consistent(mutex);
            }
        }
        SharedMutexGuard(self, PhantomData)
    }
}

/// A held [`SharedMutex`]; only the thread that holds it may release it, so it is not `Send`.
pub(crate) struct SharedMutexGuard(SharedMutex, PhantomData<*const ()>);

impl Drop for SharedMutexGuard {
    fn drop(&mut self) {
        #[expect(
            unsafe_code,
            reason = "the standard library has no mutex for processes"
        )]
        // SAFETY: the guard was made by the thread that holds the mutex.
        unsafe {
            libc::pthread_mutex_unlock(self.0.0.as_ref().get());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::thread;

    use super::*;

    #[test]
    fn one_thread_holds_it_at_a_time() {
        let mutex = SharedMutex::new().unwrap();
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));

        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _guard = mutex.lock();
                        most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                        thread::yield_now();
                        inside.fetch_sub(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }

    #[test]
    fn a_holder_that_ends_leaves_it_to_the_next() {
        let mutex = SharedMutex::new().unwrap();
        thread::spawn(move || std::mem::forget(mutex.lock()))
            .join()
            .unwrap();
        drop(mutex.lock());
        drop(mutex.lock());
    }
}
