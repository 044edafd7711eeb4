//! The socket frontends connect to.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use tracing::warn;

/// Connections that may wait while one is served.
const BACKLOG: i32 = 16;

/// Why there is no socket, or no connection from it.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The directory the socket is to be in does not exist.
    #[error("{}: directory {} does not exist", path.display(), directory.display())]
    NoDirectory {
        /// The socket's path.
        path: PathBuf,
        /// What is missing.
        directory: PathBuf,
    },
    /// Something listens there.
    #[error("{}: in use by another process", path.display())]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something else is there; it is left alone.
    #[error("{}: exists and is not a socket", path.display())]
    NotASocket {
        /// The socket's path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("{}: cannot {doing}: {cause}", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
}

/// The socket in the file system; removed when dropped, if it is still ours.
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if SocketFile::identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A listening socket. Its file is removed when it is dropped.
pub struct Listener {
    // Removed before the socket is closed: as long as it is open, no other file can have its inode.
    file: SocketFile,
    socket: UnixListener,
}

impl Listener {
    /// Listens at `path`. A socket nobody listens on is replaced; one that is in use is not.
    ///
    /// Mode and group are set before anybody can connect: between `bind` and `listen` a connection is
    /// refused. Without a mode, the process's umask decides.
    pub fn bind(path: &Path, mode: Option<u32>, group: Option<u32>) -> Result<Listener, SocketError> {
        let failed = |doing| move |cause| SocketError::Io { path: path.to_owned(), doing, cause };
        let address = SocketAddrUnix::new(path).map_err(|errno| failed("use that path")(errno.into()))?;
        clear(path, &address)?;
        let socket = unix_socket().map_err(failed("make a socket"))?;
        bind(&socket, &address).map_err(|errno| match errno {
            Errno::ADDRINUSE => SocketError::InUse { path: path.to_owned() },
            errno => failed("bind")(errno.into()),
        })?;
        let identity = SocketFile::identity(path).map_err(failed("find the socket again"))?;
        let file = SocketFile { path: path.to_owned(), identity };
        if group.is_some() {
            chown(path, None, group).map_err(failed("set the group"))?;
        }
        if let Some(mode) = mode {
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode"))?;
        }
        listen(&socket, BACKLOG).map_err(|errno| failed("listen")(errno.into()))?;
        Ok(Listener { file, socket: socket.into() })
    }

    /// The next connection; `None` once `stop` is readable. Waits while the process is out of descriptors.
    pub fn accept(&self, stop: BorrowedFd<'_>) -> Result<Option<UnixStream>, SocketError> {
        let failed = |doing| move |cause| SocketError::Io { path: self.path().to_owned(), doing, cause };
        let mut said = false;
        loop {
            if !wait(&[(&stop, PollFlags::IN), (&self.socket, PollFlags::IN)], None)
                .map_err(failed("wait"))?[0]
            {
                match self.socket.accept() {
                    Ok((stream, _)) => return Ok(Some(stream)),
                    Err(cause) => match cause.raw_os_error().map(Errno::from_raw_os_error) {
                        Some(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => continue,
                        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                            if !std::mem::replace(&mut said, true) {
                                warn!(socket = %self.path().display(), "a frontend has to wait: {cause}");
                            }
                            let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                            if !wait(&[(&stop, PollFlags::IN)], Some(&pause)).map_err(failed("wait"))?[0] {
                                continue;
                            }
                        }
                        _ => return Err(failed("accept")(cause)),
                    },
                }
            }
            return Ok(None);
        }
    }

    /// Whether somebody has connected, and is not accepted yet.
    pub fn is_awaited(&self) -> bool {
        wait(&[(&self.socket, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
            .is_ok_and(|ready| ready[0])
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

/// Waits for any of `fds`; whether the first is ready.
fn wait(fds: &[(&dyn std::os::fd::AsFd, PollFlags)], timeout: Option<&Timespec>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> =
        fds.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(fd.as_fd(), *flags)).collect();
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}

fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Makes way at `path`: removes a socket nobody listens on.
fn clear(path: &Path, address: &SocketAddrUnix) -> Result<(), SocketError> {
    let failed = |doing| move |cause| SocketError::Io { path: path.to_owned(), doing, cause };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
            return match directory {
                Some(directory) if !directory.exists() => {
                    Err(SocketError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() })
                }
                _ => Ok(()),
            };
        }
        Err(cause) => return Err(failed("look at it")(cause)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    let probe = unix_socket().map_err(failed("make a socket"))?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(failed("remove the stale socket")),
        // AGAIN: somebody listens, with a full backlog. PROTOTYPE: somebody has another kind of socket there.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("tell whether it is in use")(errno.into())),
    }
}

#[cfg(test)]
mod tests;
