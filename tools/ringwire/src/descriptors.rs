//! Open descriptors that are handed over to ringwired along with a request: SCM_RIGHTS (unix(7)).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::client::ClientError;

/// As many as a port has queues, at most.
const MOST: usize = 128;

/// Duplicates of descriptors that whoever started us has opened.
pub fn inherited(numbers: &[i32]) -> Result<Vec<OwnedFd>, ClientError> {
    if numbers.len() > MOST {
        return Err(ClientError::Refused(format!("a port has {MOST} descriptors at most")));
    }
    let duplicate = |number: &i32| {
        let this = pidfd_open(getpid(), PidfdFlags::empty());
        let fd = this.and_then(|this| pidfd_getfd(&this, *number, PidfdGetfdFlags::empty()));
        fd.map_err(|errno| {
            ClientError::Refused(format!(
                "descriptor {number} cannot be handed over: {}",
                io::Error::from(errno)
            ))
        })
    };
    numbers.iter().map(duplicate).collect()
}

/// A connection whose first bytes take descriptors along.
pub struct Connection {
    stream: UnixStream,
    /// Not sent yet.
    fds: Vec<OwnedFd>,
}

impl Connection {
    /// `fds` may be none.
    pub fn new(stream: UnixStream, fds: Vec<OwnedFd>) -> Connection {
        Connection { stream, fds }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let fds: Vec<_> = self.fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, flags)?)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while !self.fds.is_empty() {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, || self.send(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => {
                    self.fds.clear();
                    return Poll::Ready(sent);
                }
            }
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
