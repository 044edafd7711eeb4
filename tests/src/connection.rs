//! The connection of a frontend of our own, whatever its guest does: memory in a memfd, one queue pair, split rings.

use std::fs::File;
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

/// VHOST_USER_F_PROTOCOL_FEATURES.
const PROTOCOL_FEATURES: u32 = 30;

/// Where in guest memory a ring is, and how many entries it has.
pub(crate) struct Areas {
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
}

/// A frontend that has set up everything but its rings.
pub(crate) struct Connection {
    pub frontend: Frontend,
    kicks: [EventFd; 2],
}

/// Guest memory from address 0 on, in a memfd, so that it can be shared.
pub(crate) fn guest_memory(bytes: u64) -> GuestMemoryMmap {
    let file = File::from(memfd_create(c"guest memory", MFdFlags::MFD_CLOEXEC).expect("a memfd"));
    file.set_len(bytes).expect("a memfd's size");
    let region = (GuestAddress(0), bytes as usize, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files([region]).expect("guest memory")
}

impl Connection {
    /// Connects, negotiates what every guest here needs and `features`, and shares `memory`.
    pub fn new(socket: &Path, memory: &GuestMemoryMmap, features: u64) -> Connection {
        let mut frontend = Frontend::connect(socket, 2).expect("a connection");
        negotiate(&mut frontend, features);
        let region = memory.iter().next().expect("one region");
        let table = [VhostUserMemoryRegionInfo::from_guest_region(region).expect("a region with a file")];
        frontend.set_mem_table(&table).expect("SET_MEM_TABLE");
        Connection { frontend, kicks: [(); 2].map(|()| EventFd::new(0).expect("an eventfd")) }
    }

    /// Starts ring `index`, which is at `areas` of `memory`, at `base`.
    pub fn start_ring(&mut self, memory: &GuestMemoryMmap, index: usize, areas: &Areas, base: u16) {
        let address = |at| memory.get_host_address(GuestAddress(at)).expect("an address of a ring") as u64;
        let config = VringConfigData {
            queue_max_size: areas.size,
            queue_size: areas.size,
            flags: 0,
            desc_table_addr: address(areas.desc),
            avail_ring_addr: address(areas.avail),
            used_ring_addr: address(areas.used),
            log_addr: None,
        };
        let frontend = &mut self.frontend;
        frontend.set_vring_num(index, areas.size).expect("SET_VRING_NUM");
        frontend.set_vring_base(index, base).expect("SET_VRING_BASE");
        frontend.set_vring_addr(index, &config).expect("SET_VRING_ADDR");
        frontend.set_vring_kick(index, &self.kicks[index]).expect("SET_VRING_KICK");
        frontend.set_vring_enable(index, true).expect("SET_VRING_ENABLE");
    }

    /// Kicks ring `index`.
    pub fn kick(&self, index: usize) {
        self.kicks[index].write(1).expect("a kick");
    }
}

fn negotiate(frontend: &mut Frontend, features: u64) {
    frontend.set_owner().expect("SET_OWNER");
    let offered = frontend.get_features().expect("GET_FEATURES");
    let wanted = 1 << VIRTIO_F_VERSION_1 | 1 << PROTOCOL_FEATURES | features;
    assert_eq!(offered & wanted, wanted, "offered: {offered:#x}");
    frontend.set_features(wanted).expect("SET_FEATURES");
    let offered = frontend.get_protocol_features().expect("GET_PROTOCOL_FEATURES");
    let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
    assert!(offered.contains(wanted), "offered: {offered:?}");
    frontend.set_protocol_features(wanted).expect("SET_PROTOCOL_FEATURES");
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
}
