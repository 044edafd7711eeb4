//! A frontend can truncate the file behind its memory while we use it: touching what is gone raises SIGBUS,
//! which would end the process and with it every other guest. Instead the lost mapping is replaced by zeroes,
//! whoever touched it goes on, and the session is told.
#![allow(unsafe_code)] // a signal handler, and a mapping put in place of another

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use libc::{c_int, c_void, siginfo_t};
use rustix::event::{EventfdFlags, eventfd};

/// Most mappings of all guests together.
const MAPPINGS: usize = 8192;

/// A mapping that may be lost. The handler reads it without a lock: `start` is written last and cleared
/// first.
struct Slot {
    start: AtomicUsize,
    len: AtomicUsize,
    alarm: AtomicI32,
}

static SLOTS: [Slot; MAPPINGS] =
    [const { Slot { start: AtomicUsize::new(0), len: AtomicUsize::new(0), alarm: AtomicI32::new(-1) } };
        MAPPINGS];

/// Held while a slot is searched for.
static SEARCH: Mutex<()> = Mutex::new(());

/// The handler that was there before ours, for a SIGBUS that is none of our mappings'.
static BEFORE: Mutex<Option<libc::sigaction>> = Mutex::new(None);

/// Becomes readable when memory of the session it belongs to was lost.
#[derive(Clone)]
pub(crate) struct Alarm(Arc<OwnedFd>);

impl Alarm {
    pub fn new() -> io::Result<Alarm> {
        Ok(Alarm(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Whether memory was lost since this was asked last.
    #[cfg(test)]
    pub fn rang(&self) -> bool {
        let mut count = [0; 8];
        rustix::io::read(&*self.0, &mut count).is_ok()
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Keeps a mapping registered, and its alarm open, until it is dropped: before the mapping goes.
pub(crate) struct Guarded {
    slot: &'static Slot,
    _alarm: Alarm,
}

impl Guarded {
    /// From now on, losing what is mapped at `start` rings `alarm` instead of ending the process.
    ///
    /// # Safety
    ///
    /// `start .. start + len` must be one mapping of guest memory, aligned to its file's blocks, that
    /// nothing relies on for its content.
    pub unsafe fn new(start: *mut c_void, len: usize, alarm: &Alarm) -> io::Result<Guarded> {
        install();
        let _searching = SEARCH.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = SLOTS.iter().find(|slot| slot.start.load(Ordering::Relaxed) == 0);
        let slot = slot.ok_or_else(|| io::Error::other(format!("more than {MAPPINGS} memory regions")))?;
        slot.len.store(len, Ordering::Relaxed);
        slot.alarm.store(alarm.as_fd().as_raw_fd(), Ordering::Relaxed);
        // Release: orders length and alarm before the address that makes the slot count.
        slot.start.store(start.addr(), Ordering::Release);
        Ok(Guarded { slot, _alarm: alarm.clone() })
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.slot.start.store(0, Ordering::Release);
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: all zeroes is a valid sigaction; the handler has the type that SA_SIGINFO asks for, and
        // does only what a signal handler may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut before: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            if libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) == 0 {
                *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
            }
        }
    });
}

/// Replaces the lost mapping, or leaves the signal to whoever had it before us.
extern "C" fn on_sigbus(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo with SA_SIGINFO, and SIGBUS fills in the address.
    let at = unsafe { (*info).si_addr() }.addr();
    for slot in &SLOTS {
        let start = slot.start.load(Ordering::Acquire);
        let len = slot.len.load(Ordering::Relaxed);
        if start != 0 && (start..start + len).contains(&at) {
            if replace(start, len) {
                let one = 1u64;
                // SAFETY: writes eight bytes of a local to an eventfd; write(2) may be called here.
                unsafe { libc::write(slot.alarm.load(Ordering::Relaxed), (&raw const one).cast(), 8) };
                return;
            }
            break;
        }
    }
    // Not ours: the old handler stays in place, and the access that failed is repeated under it. (`try_lock`
    // does not block; nobody holds the lock after the start.)
    if let Ok(before) = BEFORE.try_lock()
        && let Some(before) = &*before
    {
        // SAFETY: the very action that the kernel gave us.
        unsafe { libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut()) };
    } else {
        // SAFETY: gives the signal its default action: the process ends when the access is repeated.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
}

/// Puts zeroes in place of a whole mapping: part of one made of huge pages cannot be replaced.
fn replace(start: usize, len: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the range is a registered mapping of guest memory, whose content nothing relies on; mmap(2) is
    // a bare system call.
    let at =
        unsafe { libc::mmap(std::ptr::with_exposed_provenance_mut(start), len, protection, flags, -1, 0) };
    at != libc::MAP_FAILED
}
