//! The backend channel: the socket over which a frontend is told what it has not asked for (SET_BACKEND_REQ_FD).

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SendFlags, SocketType, send};
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
    /// `socket` is as the frontend gave it. Only a frontend that `reads_config` has a use for the news that there is.
    pub(crate) fn new(guest: &str, socket: OwnedFd, reads_config: bool) -> Result<Channel, Refused> {
        // Of these it is known that sending does not block if it is asked not to.
        let stream = socket_type(&socket) == Ok(SocketType::STREAM);
        if !stream || socket_domain(&socket) != Ok(AddressFamily::UNIX) {
            return Err(Refused::Channel);
        }
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
                debug!(guest, "told of its link: {link:?}");
                return;
            }
            Ok(_) | Err(Errno::AGAIN) => {
                warn!(
                    guest,
                    "the frontend does not read its backend channel: it is not told of its link any more"
                );
            }
            Err(errno) => warn!(guest, "the frontend is not told of its link any more: {errno}"),
        }
        self.listens = false;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    const UP: Link = Link { up: true, speed_mbps: Some(10_000), full_duplex: Some(true) };

    fn read_all(mut stream: &UnixStream) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        stream.set_nonblocking(true).unwrap();
        let len = stream.read(&mut bytes).unwrap_or(0);
        bytes[..len].to_vec()
    }

    #[test]
    fn each_change_is_told_once() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut channel = Channel::new("vm1", theirs.into(), true).unwrap();
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
        let mut channel = Channel::new("vm1", theirs.into(), false).unwrap();
        channel.tell(UP);
        assert!(read_all(&ours).is_empty());
    }

    #[test]
    fn a_full_channel_is_left_alone_for_good() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut channel = Channel::new("vm1", theirs.into(), true).unwrap();
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
        let mut channel = Channel::new("vm1", theirs.into(), true).unwrap();
        drop(ours);
        channel.tell(UP);
        assert!(!channel.listens);
    }
}
