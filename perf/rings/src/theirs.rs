//! A device on rust-vmm's `virtio-queue`, as the devices of vhost-device and others are: chains popped one by one,
//! buffers accessed through `GuestMemory`, and one question about the notification for all of them.

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Address, Bytes, GuestMemoryMmap};

use crate::guest::Path;
use crate::{BURST, Device, HEADER, ONE_BUFFER, Packets};

/// The device for a ring.
pub fn device(queue: Queue, memory: Arc<GuestMemoryMmap>, path: Path, frame: usize) -> Box<dyn Device> {
    match path {
        Path::Dequeue => Box::new(Dequeue { queue, memory }),
        Path::Enqueue => Box::new(Enqueue { queue, memory, frame }),
    }
}

struct Dequeue {
    queue: Queue,
    memory: Arc<GuestMemoryMmap>,
}

impl Device for Dequeue {
    #[inline(never)]
    fn device_burst(&mut self, packets: &mut Packets) -> usize {
        let memory = &*self.memory;
        let mut done = 0;
        while done < BURST
            && let Some(chain) = self.queue.pop_descriptor_chain(memory)
        {
            let head = chain.head_index();
            let (mut skipped, mut filled) = (HEADER, 0);
            for desc in chain.readable() {
                let len = desc.len() as usize - skipped;
                let to = &mut packets[done][filled..filled + len];
                memory.read_slice(to, desc.addr().unchecked_add(skipped as u64)).unwrap();
                (skipped, filled) = (0, filled + len);
            }
            self.queue.add_used(memory, head, 0).unwrap();
            done += 1;
        }
        self.queue.needs_notification(memory).unwrap();
        done
    }
}

struct Enqueue {
    queue: Queue,
    memory: Arc<GuestMemoryMmap>,
    frame: usize,
}

impl Device for Enqueue {
    #[inline(never)]
    fn device_burst(&mut self, packets: &mut Packets) -> usize {
        let memory = &*self.memory;
        let mut done = 0;
        while done < BURST
            && let Some(chain) = self.queue.pop_descriptor_chain(memory)
        {
            let head = chain.head_index();
            let desc = chain.writable().next().unwrap();
            assert!(desc.len() as usize >= HEADER + self.frame);
            memory.write_slice(&ONE_BUFFER, desc.addr()).unwrap();
            let at = desc.addr().unchecked_add(HEADER as u64);
            memory.write_slice(&packets[done][..self.frame], at).unwrap();
            self.queue.add_used(memory, head, (HEADER + self.frame) as u32).unwrap();
            done += 1;
        }
        self.queue.needs_notification(memory).unwrap();
        done
    }
}
