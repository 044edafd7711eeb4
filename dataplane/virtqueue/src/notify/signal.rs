//! Signals an eventfd and never blocks, whatever its other owners do to it.
//!
//! write(2) on a full eventfd blocks unless it is O_NONBLOCK, and that is a property of the open file, which the
//! frontend shares: it can clear the flag, fill the counter, and so stop whoever calls it. The kernel itself
//! signals an eventfd when an asynchronous request is done (io_submit(2), IOCB_FLAG_RESFD), and that never
//! blocks. So each thread that signals submits a read of nothing from /dev/null, which is done at once. It takes
//! some two and a half times as long as the write.
#![allow(unsafe_code)] // the system calls for asynchronous requests have no safe wrapper

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use nix::libc::{SYS_io_destroy, SYS_io_getevents, SYS_io_setup, SYS_io_submit, c_long, iocb, syscall};

/// Requests that may be done and not yet fetched.
const DONE: u32 = 32;
/// Of the requests there are, and of their flags (linux/aio_abi.h).
const IOCB_CMD_PREAD: u16 = 0;
const IOCB_FLAG_RESFD: u32 = 1;
/// A `struct io_event`.
type IoEvent = [u64; 4];

thread_local! {
    static REQUESTS: OnceCell<Requests> = const { OnceCell::new() };
}

/// A thread's requests, made when they are first asked for.
fn made(requests: &OnceCell<Requests>) -> io::Result<&Requests> {
    match requests.get() {
        Some(made) => Ok(made),
        None => Requests::new().map(|new| requests.get_or_init(|| new)),
    }
}

/// Makes this thread's requests beforehand.
pub(super) fn prepare() -> io::Result<()> {
    REQUESTS.with(|requests| made(requests).map(|_| ()))
}

/// Adds one to `eventfd`.
pub(super) fn signal(eventfd: BorrowedFd<'_>) {
    // (A thread at its very end has no requests any more.)
    let signalled =
        REQUESTS.try_with(|requests| made(requests).is_ok_and(|requests| requests.signal(eventfd)));
    if signalled != Ok(true) {
        // A kernel without asynchronous requests, or one that has none left (fs.aio-max-nr). It blocks if, and
        // only if, the frontend does what is described above.
        let _ = nix::unistd::write(eventfd, &1u64.to_ne_bytes());
    }
}

/// A thread's asynchronous requests.
struct Requests {
    context: usize,
    null: &'static File,
    /// Done, and not fetched.
    done: Cell<u32>,
}

impl Requests {
    fn new() -> io::Result<Requests> {
        static NULL: OnceLock<File> = OnceLock::new();
        if cfg!(miri) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let null = match NULL.get() {
            Some(null) => null,
            None => {
                let opened = File::open("/dev/null")?;
                NULL.get_or_init(|| opened)
            }
        };
        let mut context = 0usize;
        // SAFETY: the kernel writes one word, the context's name.
        check(unsafe { syscall(SYS_io_setup, 2 * DONE, &raw mut context) })?;
        Ok(Requests { context, null, done: Cell::new(0) })
    }

    /// Whether it was signalled.
    fn signal(&self, eventfd: BorrowedFd<'_>) -> bool {
        if self.done.get() >= DONE {
            self.fetch();
        }
        // SAFETY: numbers only: all zeroes is a request.
        let mut request: iocb = unsafe { std::mem::zeroed() };
        request.aio_lio_opcode = IOCB_CMD_PREAD;
        request.aio_fildes = self.null.as_raw_fd() as u32;
        request.aio_flags = IOCB_FLAG_RESFD;
        request.aio_resfd = eventfd.as_raw_fd() as u32;
        let requests = [&raw mut request];
        // SAFETY: the context is this thread's own; the request is read before the call returns, and names no
        // buffer.
        let submitted = check(unsafe { syscall(SYS_io_submit, self.context, 1, requests.as_ptr()) });
        self.done.set(self.done.get() + 1);
        matches!(submitted, Ok(1))
    }

    /// Fetches what is done: the kernel keeps room for so many only.
    fn fetch(&self) {
        let mut events = [IoEvent::default(); 2 * DONE as usize];
        let timeout = std::ptr::null::<nix::libc::timespec>();
        // SAFETY: at most as many events are written as there is room for. With a minimum of 0 it does not wait.
        let _ =
            unsafe { syscall(SYS_io_getevents, self.context, 0, events.len(), events.as_mut_ptr(), timeout) };
        self.done.set(0);
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // SAFETY: the context is this thread's own, and nobody uses it after this.
        let _ = unsafe { syscall(SYS_io_destroy, self.context) };
    }
}

fn check(status: c_long) -> io::Result<c_long> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}
