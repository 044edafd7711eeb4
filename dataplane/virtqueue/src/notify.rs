//! Eventfds shared with the frontend: kick, call and error.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

mod signal;

/// A descriptor that cannot serve as kick, call or error eventfd.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// Some other kind of file: writing to it could block or do anything.
    #[error("the descriptor is no eventfd but {0}")]
    NotEventFd(String),
    /// The kernel refused to look at it or to make it non-blocking.
    #[error("the descriptor cannot be prepared: {0}")]
    Io(#[from] std::io::Error),
}

/// A shared, non-blocking eventfd.
#[derive(Clone, Debug)]
pub struct Notifier(Arc<OwnedFd>);

impl Notifier {
    /// Takes a descriptor that a frontend sent. It must be an eventfd, and is made non-blocking.
    pub fn new(file: File) -> Result<Notifier, NotifyError> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let kind = link.to_string_lossy();
        if !kind.starts_with("anon_inode:[eventfd") {
            return Err(NotifyError::NotEventFd(kind.into_owned()));
        }
        let flags = fcntl(&file, FcntlArg::F_GETFL).map_err(std::io::Error::from)?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&file, FcntlArg::F_SETFL(flags)).map_err(std::io::Error::from)?;
        Ok(Notifier(Arc::new(file.into())))
    }

    /// Adds one to the eventfd, and never blocks. A full counter means the other side has yet to look: nothing
    /// is lost.
    pub fn signal(&self) {
        signal::signal(self.as_fd());
    }
}

/// Makes this thread ready to signal: what it needs for that may be used up by others later.
///
/// # Errors
/// What the kernel said. Signals are writes then, and those block if the other side wants them to.
pub fn prepare_to_signal() -> std::io::Result<()> {
    signal::prepare()
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::eventfd::EventFd;

    #[test]
    #[cfg_attr(miri, ignore = "no /proc/self/fd")]
    fn takes_eventfds_only() {
        let refused = Notifier::new(File::open("/dev/null").unwrap()).unwrap_err();
        assert_eq!(refused.to_string(), "the descriptor is no eventfd but /dev/null");
    }

    /// A frontend may clear O_NONBLOCK, which belongs to the open file that it shares, and fill the counter.
    #[test]
    #[cfg_attr(miri, ignore = "no /proc/self/fd")]
    fn never_blocks_whatever_the_other_side_does() {
        for flags in [OFlag::O_NONBLOCK, OFlag::empty()] {
            let eventfd = EventFd::from_value(0).unwrap();
            let notifier = Notifier::new(File::from(eventfd.as_fd().try_clone_to_owned().unwrap())).unwrap();
            fcntl(&eventfd, FcntlArg::F_SETFL(flags)).unwrap();
            eventfd.write(u64::MAX - 1).unwrap();
            let (done, waiting) = std::sync::mpsc::channel();
            let signaller = notifier.clone();
            std::thread::spawn(move || {
                (0..100).for_each(|_| signaller.signal());
                let _ = done.send(());
            });
            waiting.recv_timeout(std::time::Duration::from_secs(10)).expect("it blocks");
            assert!(eventfd.read().unwrap() >= u64::MAX - 1);
            (0..100).for_each(|_| notifier.signal());
            assert_eq!(eventfd.read().unwrap(), 100);
        }
    }
}
