//! virtio_net_config (virtio 1.2, 5.1.4), as GET_CONFIG and SET_CONFIG see it.

use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

use crate::refusal::Refused;
use crate::{DeviceOptions, Link};

/// As far as a frontend may read: what QEMU's VHOST_USER_MAX_CONFIG_SIZE says. Fields we do not have are 0.
const LEN: usize = 256;
const MAC: std::ops::Range<usize> = 0..6;
/// What stands for a speed and a duplex mode that are not known.
const UNKNOWN_SPEED: u32 = u32::MAX;
const UNKNOWN_DUPLEX: u8 = u8::MAX;

pub(crate) struct ConfigSpace {
    mac: [u8; 6],
    queue_pairs: u16,
    mtu: u16,
}

impl ConfigSpace {
    pub fn new(options: &DeviceOptions) -> ConfigSpace {
        ConfigSpace { mac: options.mac, queue_pairs: options.rings() / 2, mtu: options.mtu.unwrap_or(0) }
    }

    /// `len` bytes from `offset` on.
    pub fn read(&self, offset: u32, len: u32, link: Link) -> Result<Vec<u8>, Refused> {
        let status = if link.up { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
        let mut space = [0; LEN];
        space[MAC].copy_from_slice(&self.mac);
        space[6..8].copy_from_slice(&status.to_le_bytes());
        space[8..10].copy_from_slice(&self.queue_pairs.to_le_bytes());
        space[10..12].copy_from_slice(&self.mtu.to_le_bytes());
        let speed = link.speed_mbps.filter(|speed| *speed <= i32::MAX as u32).unwrap_or(UNKNOWN_SPEED);
        space[12..16].copy_from_slice(&speed.to_le_bytes());
        space[16] = link.full_duplex.map_or(UNKNOWN_DUPLEX, u8::from);
        let (start, len) = (offset as usize, len as usize);
        let bytes = space.get(start..start.saturating_add(len));
        Ok(bytes.ok_or(Refused::ConfigRange { offset, len })?.to_vec())
    }

    /// Writes `bytes` at `offset`; only the MAC address can be written.
    pub fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Refused> {
        let (start, len) = (offset as usize, bytes.len());
        let field = self.mac.get_mut(start..start.saturating_add(len));
        field.ok_or(Refused::ConfigReadOnly { offset, len })?.copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Link = Link { up: true, speed_mbps: Some(10_000), full_duplex: Some(true) };

    fn space() -> ConfigSpace {
        ConfigSpace::new(&DeviceOptions {
            name: "vm".into(),
            queue_pairs: 128,
            mac: [2, 0, 0, 0, 0, 9],
            mtu: Some(9000),
            offloads: 0,
        })
    }

    #[test]
    fn reads_every_field_and_zeros_behind() {
        let mut expected = vec![2, 0, 0, 0, 0, 9, 1, 0, 128, 0, 0x28, 0x23, 0x10, 0x27, 0, 0, 1];
        expected.resize(LEN, 0);
        assert_eq!(space().read(0, 256, UP).unwrap(), expected);
        assert_eq!(space().read(6, 2, Link::default()).unwrap(), [0, 0]);
        assert!(space().read(256, 0, UP).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_known_of_the_link_is_said_to_be_unknown() {
        let read = |link| space().read(12, 5, link).unwrap();
        assert_eq!(read(Link { speed_mbps: None, full_duplex: None, ..UP }), [0xff; 5]);
        assert_eq!(read(Link { full_duplex: Some(false), ..UP }), [0x10, 0x27, 0, 0, 0]);
        // The driver takes 0 to 0x7fffffff for speeds.
        assert_eq!(read(Link { speed_mbps: Some(1 << 31), ..UP })[..4], [0xff; 4]);
    }

    #[test]
    fn refuses_what_is_out_of_bounds() {
        for (offset, len) in [(0, 257), (256, 1), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
            assert!(space().read(offset, len, UP).is_err(), "{offset} {len}");
        }
    }

    #[test]
    fn only_the_mac_is_writable() {
        let mut space = space();
        space.write(0, &[6; 6]).unwrap();
        space.write(5, &[7]).unwrap();
        assert_eq!(space.read(0, 8, Link::default()).unwrap(), [6, 6, 6, 6, 6, 7, 0, 0]);
        for (offset, bytes) in [(0, &[1; 7][..]), (6, &[1, 1]), (5, &[1, 1]), (u32::MAX, &[1])] {
            assert!(space.write(offset, bytes).is_err(), "{offset}");
        }
    }
}
