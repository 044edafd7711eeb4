//! What a frontend says beside features and rings: MTU, address, status, and where it wants to hear from us.

use std::os::fd::OwnedFd;

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_FEATURES_OK;

use super::{Device, Done, Protocol};
use crate::channel::Channel;
use crate::refusal::Refused;

/// Smallest MTU a guest may be given (virtio 1.3, 5.1.4.1; RFC 791).
const MIN_MTU: u16 = 68;

impl Device<'_> {
    /// NET_SET_MTU: the MTU that the guest is going to use. QEMU (`host_mtu`) sends it each time before its guest's
    /// rings start, whether we offer VIRTIO_NET_F_MTU or not, and leaves the guest without a network if refused: better
    /// than one that loses whatever is long.
    pub fn set_mtu(&mut self, mtu: u64) -> Done {
        let most = self.options.mtu.into_iter().chain(self.queues.max_mtu()).min().unwrap_or(u16::MAX);
        self.mtu = match u16::try_from(mtu) {
            Ok(mtu) if (MIN_MTU..=most).contains(&mtu) => Some(mtu),
            _ => return Err(Refused::Mtu { mtu, most }),
        };
        Ok(())
    }

    /// SEND_RARP: the guest with this address is here now (it has migrated, say), and cannot say so itself.
    pub fn send_rarp(&mut self, mac: [u8; 6]) -> Done {
        let group = mac[0] & 1 != 0;
        if group || mac == [0; 6] {
            return Err(Refused::Mac(mac));
        }
        self.mac = Some(mac);
        self.observe();
        self.queues.announce(mac);
        Ok(())
    }

    /// Device status (GET_STATUS).
    pub fn status(&self) -> u8 {
        self.status
    }

    /// SET_STATUS. Rings do not wait for DRIVER_OK: they have SET_VRING_ENABLE, and not every frontend has a status to
    /// tell of. 0 resets the device (virtio 1.2, 2.1), unless it was 0 all along: a driver begins with that, and
    /// what its frontend has set up by then is to stay. Where each ring got to is kept: QEMU 7.2 asks for it
    /// (GET_VRING_BASE) after it has set 0, and would go on with an old index. Whoever starts a ring says where anyway.
    pub fn set_status(&mut self, value: u64) -> Done {
        let mut status = u8::try_from(value).map_err(|_| Refused::Status { value })?;
        if status == 0 && self.status != 0 {
            self.park_all();
            let bases: Vec<u32> = self.vrings.iter().map(|vring| vring.base).collect();
            self.reset_device()?;
            self.vrings.iter_mut().zip(bases).for_each(|(vring, base)| vring.base = base);
        }
        if self.features.is_none() {
            // How a device says that it does not take the features (virtio 1.2, 3.1.1, step 6).
            status &= !(VIRTIO_CONFIG_S_FEATURES_OK as u8);
        }
        self.status = status;
        Ok(())
    }

    /// SET_BACKEND_REQ_FD; another one replaces the first. What we say there is about the config space, which only a
    /// frontend with CONFIG gets from us. QEMU keeps its own, and does not know what to do with the message.
    /// `frontend` is its process.
    pub fn set_channel(&mut self, fd: Option<OwnedFd>, frontend: Option<i32>) -> Done {
        let socket = fd.ok_or(Refused::Fds { found: 0 })?;
        let reads_config = self.has_protocol_feature(Protocol::CONFIG);
        let channel = Channel::new(&self.options.name, socket, reads_config, frontend)?;
        self.queues.set_channel(Some(channel));
        Ok(())
    }
}
