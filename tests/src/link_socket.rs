//! A packet socket on an interface: what the host at its other end would send and receive.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// The socket.
pub struct LinkSocket(OwnedFd);

impl LinkSocket {
    /// One that is bound to `interface`, and sees what arrives there.
    pub fn bind(interface: &str) -> LinkSocket {
        // Of all protocols, once it is bound: the address of the interface says so.
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .expect("a packet socket (as root)");
        bind(fd.as_raw_fd(), &address(interface)).expect("bound to the interface");
        LinkSocket(fd)
    }

    /// Sends a frame, and says whether there was room for it.
    pub fn send(&self, frame: &[u8]) -> bool {
        match send(self.0.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(sent) => sent == frame.len(),
            Err(Errno::ENOBUFS) => false,
            Err(errno) => panic!("a frame cannot be sent: {errno}"),
        }
    }

    /// The next frame that arrives within `limit`, in whole seconds.
    pub fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        let mut frame = vec![0; 2048];
        setsockopt(&self.0, sockopt::ReceiveTimeout, &TimeVal::seconds(limit.as_secs() as i64))
            .expect("a time limit");
        let length = recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty()).ok()?;
        frame.truncate(length);
        Some(frame)
    }

    /// The descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

fn address(interface: &str) -> LinkAddr {
    let mut all = getifaddrs().expect("the interfaces").filter(|found| found.interface_name == interface);
    let address = all.find_map(|found| found.address?.as_link_addr().copied());
    address.unwrap_or_else(|| panic!("no interface is called {interface}"))
}
