//! The backend channel: the socket over which a frontend is told what it has not asked for (SET_BACKEND_REQ_FD).

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::io::Errno;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketType, recv, send, shutdown};
use tracing::{debug, warn};

use crate::Link;
use crate::refusal::Refused;
use crate::wire::VERSION;

/// BACKEND_CONFIG_CHANGE_MSG.
const CONFIG_CHANGE: u32 = 2;

/// A frontend's backend channel. It is closed with this.
#[derive(Debug)]
pub struct Channel {
    /// The guest port's name, for logs.
    guest: String,
    socket: OwnedFd,
    /// Whether the frontend may be told anything: it asks us for the config space, and it reads.
    listens: bool,
    /// The link that it was told of last; none: it may have looked before it could be told.
    told: Option<Link>,
}

impl Channel {
    /// `socket` is as the frontend gave it, which is process `frontend`. Only a frontend that `reads_config` has a use
    /// for the news that there is.
    ///
    /// To hold a socket is to keep it from being closed. Were it the frontend's end of a session, that session would
    /// not hear that its frontend is gone, and nobody else could connect to the guest. So the other end must not be
    /// ours, and no more file descriptors may wait in the socket.
    pub(crate) fn new(
        guest: &str,
        socket: OwnedFd,
        reads_config: bool,
        frontend: Option<i32>,
    ) -> Result<Channel, Refused> {
        // Of these it is known that sending does not block if it is asked not to.
        let stream = socket_type(&socket) == Ok(SocketType::STREAM);
        if !stream || socket_domain(&socket) != Ok(AddressFamily::UNIX) {
            return Err(Refused::Channel);
        }
        // A frontend within this process, as tests have one, has all its sockets from here.
        let ours = Some(std::process::id() as i32);
        if peer(&socket) == ours && frontend != ours {
            return Err(Refused::ChannelToUs);
        }
        shutdown(&socket, Shutdown::Read).map_err(|_| Refused::Channel)?;
        // Now nothing more comes: what is there is thrown away, and the end is reached.
        let mut bytes = [0; 4096];
        while matches!(recv(&socket, &mut bytes[..], RecvFlags::DONTWAIT), Ok((_, 1..))) {}
        Ok(Channel { guest: guest.to_owned(), socket, listens: reads_config, told: None })
    }

    /// Tells the frontend that the config space has changed, if `link` is another one than it was told of last.
    ///
    /// Never waits. A frontend that does not read is told nothing any more: what it has not read yet says the same,
    /// and one that will never read must cost nothing.
    pub fn tell(&mut self, link: Link) {
        if !self.listens || self.told == Some(link) {
            return;
        }
        self.told = Some(link);
        let message: Vec<u8> = [CONFIG_CHANGE, VERSION, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let guest = &self.guest;
        match send(&self.socket, &message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) if sent == message.len() => {
                debug!(port = guest, "told of its link: {link:?}");
                return;
            }
            Ok(_) | Err(Errno::AGAIN) => {
                warn!(
                    port = guest,
                    "the frontend does not read its backend channel: it is not told of its link any more"
                );
            }
            Err(errno) => warn!(port = guest, "the frontend is not told of its link any more: {errno}"),
        }
        self.listens = false;
    }
}

/// The process at the other end of a unix socket when it was connected, as far as it can be seen from here.
pub(crate) fn peer(socket: &impl AsFd) -> Option<i32> {
    getsockopt(socket, PeerCredentials).ok().map(|peer| peer.pid())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    const UP: Link = Link { up: true, speed_mbps: Some(10_000), full_duplex: Some(true) };

    fn channel(socket: UnixStream, reads_config: bool) -> Channel {
        Channel::new("vm1", socket.into(), reads_config, Some(std::process::id() as i32)).unwrap()
    }

    #[test]
    fn an_end_of_ours_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("vm1")).unwrap();
        let theirs = UnixStream::connect(directory.path().join("vm1")).unwrap();
        let (ours, _) = listener.accept().unwrap();
        // A frontend that is another process, which is what it must look like here.
        for socket in [theirs, ours] {
            let refused = Channel::new("vm1", socket.into(), true, Some(1));
            assert!(matches!(refused, Err(Refused::ChannelToUs)), "{refused:?}");
        }
    }

    fn read_all(mut stream: &UnixStream) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        stream.set_nonblocking(true).unwrap();
        let len = stream.read(&mut bytes).unwrap_or(0);
        bytes[..len].to_vec()
    }

    #[test]
    fn each_change_is_told_once() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut channel = channel(theirs, true);
        let message = [2u32, 1, 0].map(u32::to_ne_bytes).concat();
        for link in [UP, Link::default(), Link { speed_mbps: None, ..UP }, UP] {
            channel.tell(link);
            channel.tell(link);
            assert_eq!(read_all(&ours), message, "{link:?}");
        }
    }

    #[test]
    fn a_frontend_that_does_not_ask_for_config_is_told_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut channel = channel(theirs, false);
        channel.tell(UP);
        assert!(read_all(&ours).is_empty());
    }

    #[test]
    fn a_full_channel_is_left_alone_for_good() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut channel = channel(theirs, true);
        let mut told = 0;
        while channel.listens {
            channel.tell(Link { up: told % 2 == 0, ..UP });
            told += 1;
            assert!(told < 100_000, "it is never full");
        }
        assert!(!read_all(&ours).is_empty());
        channel.tell(UP);
        channel.tell(Link::default());
        while !read_all(&ours).is_empty() {}
        channel.tell(UP);
        assert!(read_all(&ours).is_empty(), "there was room again, but it is not asked for");
    }

    #[test]
    fn a_channel_that_was_closed_is_no_harm() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut channel = channel(theirs, true);
        drop(ours);
        channel.tell(UP);
        assert!(!channel.listens);
    }
}
