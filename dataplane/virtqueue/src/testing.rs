//! The driver's side of a split ring, for tests: plain bytes in plain memory, nothing shared with the device.
#![allow(unsafe_code)] // it plays the guest, whose memory is reached by raw pointer

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::{Memory, Notifier, Region, RingConfig, Segment, SplitRing};

/// Where the three areas are (guest address), each on a page of its own.
pub const RINGS: u64 = 0x10_0000;
/// Two pieces of memory for buffers that follow each other in the guest, but not in the host.
pub const DATA: u64 = 0x4000_0000;
/// Where the first ends and the second starts.
pub const SEAM: u64 = DATA + 0x1_0000;
/// Where the second ends, and nothing follows.
pub const HOLE: u64 = SEAM + 0x1_0000;
/// Frontend address minus guest address.
pub const USER: u64 = 0x7000_0000_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const F_INDIRECT: u64 = 1 << 28;
pub const F_EVENT_IDX: u64 = 1 << 29;

struct Ram {
    host: *mut u8,
    layout: Layout,
}

// SAFETY: an allocation; who touches it when is up to the test.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `Guest::new`.
        unsafe { dealloc(self.host, self.layout) }
    }
}

/// A guest's memory.
#[derive(Clone)]
pub struct Guest {
    pub memory: Arc<Memory>,
    ram: Vec<(u64, Arc<Ram>)>,
}

impl Guest {
    /// Memory at each (guest address, length).
    pub fn new(ranges: &[(u64, usize)]) -> Guest {
        let ram = |&(addr, len): &(u64, usize)| {
            // No more aligned than the descriptor table asks: so that untouched memory costs nothing.
            let layout = Layout::from_size_align(len, 16).unwrap();
            // SAFETY: no range is empty.
            let host = unsafe { alloc_zeroed(layout) };
            assert!(!host.is_null());
            (addr, Arc::new(Ram { host, layout }))
        };
        let ram: Vec<_> = ranges.iter().map(ram).collect();
        let places = ram.iter().map(|(addr, _)| (*addr, addr + USER));
        Guest { memory: Arc::new(table(&ram, places)), ram }
    }

    /// The same memory, shown by the frontend at other addresses of its own.
    pub fn shown_at(&self, users: &[u64]) -> Memory {
        table(&self.ram, self.ram.iter().zip(users).map(|((guest, _), user)| (*guest, *user)))
    }

    /// The same memory at other guest addresses.
    pub fn at_guest(&self, guests: &[u64]) -> Memory {
        table(&self.ram, self.ram.iter().zip(guests).map(|((guest, _), other)| (*other, guest + USER)))
    }

    /// Where `addr` is, and how many bytes of its range follow.
    fn at(&self, addr: u64) -> (*mut u8, usize) {
        let hit = |(start, ram): &(u64, Arc<Ram>)| {
            let offset = addr.checked_sub(*start)? as usize;
            (offset < ram.layout.size()).then(|| (ram.host.wrapping_add(offset), ram.layout.size() - offset))
        };
        self.ram.iter().find_map(hit).unwrap_or_else(|| panic!("the test touches {addr:#x}"))
    }

    pub fn write(&self, mut addr: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (to, room) = self.at(addr);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            // SAFETY: `at` found that much room in one of our allocations.
            unsafe { std::ptr::copy(now.as_ptr(), to, now.len()) }
            (addr, bytes) = (addr + now.len() as u64, later);
        }
    }

    pub fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let (from, room) = self.at(addr + done as u64);
            let n = room.min(len - done);
            // SAFETY: as in `write`.
            unsafe { std::ptr::copy(from, bytes[done..].as_mut_ptr(), n) }
            done += n;
        }
        bytes
    }

    fn word(&self, addr: u64) -> &AtomicU16 {
        assert!(addr.is_multiple_of(2));
        let (at, room) = self.at(addr);
        assert!(room > 1);
        // SAFETY: the word is in one of our allocations; each is aligned, and so is the address.
        unsafe { AtomicU16::from_ptr(at.cast()) }
    }

    pub fn write_u16(&self, addr: u64, value: u16) {
        self.word(addr).store(value.to_le(), Ordering::Release);
    }

    pub fn read_u16(&self, addr: u64) -> u16 {
        u16::from_le(self.word(addr).load(Ordering::Acquire))
    }

    pub fn read_u32(&self, addr: u64) -> u32 {
        u32::from_le_bytes(self.read(addr, 4).try_into().unwrap())
    }

    /// Guest address of a segment; the whole of it must be guest memory.
    pub fn addr_of(&self, segment: &Segment) -> u64 {
        let at = segment.ptr().addr();
        let inside = |(start, ram): &(u64, Arc<Ram>)| {
            let offset = at.checked_sub(ram.host.addr())?;
            (offset + segment.len() <= ram.layout.size()).then_some(start + offset as u64)
        };
        self.ram.iter().find_map(inside).expect("a segment outside the guest's memory")
    }
}

fn table(ram: &[(u64, Arc<Ram>)], places: impl Iterator<Item = (u64, u64)>) -> Memory {
    let region = |((_, ram), (guest, user)): (&(u64, Arc<Ram>), _)| {
        // SAFETY: the allocation lives as long as `ram`.
        unsafe { Region::new(guest, user, ram.layout.size() as u64, ram.host, ram.clone()) }
    };
    Memory::new(ram.iter().zip(places).map(region).collect()).unwrap()
}

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buf {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
}

/// A buffer the device reads.
pub fn out(addr: u64, len: u32) -> Buf {
    Buf { addr, len, flags: 0 }
}

/// A buffer the device writes.
pub fn into(addr: u64, len: u32) -> Buf {
    Buf { addr, len, flags: WRITE }
}

/// The driver.
pub struct Driver {
    pub guest: Guest,
    pub size: u16,
    pub features: u64,
    pub avail: u16,
    pub seen: u16,
    /// Kick, call, err.
    wires: Option<[EventFd; 3]>,
}

impl Driver {
    pub fn new(size: u16, features: u64) -> Driver {
        let rings = (used_of(size) - RINGS) as usize + 6 + 8 * usize::from(size);
        let guest =
            Guest::new(&[(RINGS, rings), (DATA, (SEAM - DATA) as usize), (SEAM, (HOLE - SEAM) as usize)]);
        // Miri has no /proc/self/fd to tell an eventfd by.
        let wire = || EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let wires = (!cfg!(miri)).then(|| [wire(), wire(), wire()]);
        Driver { guest, size, features, avail: 0, seen: 0, wires }
    }

    /// As if `index` entries had gone by already.
    pub fn at_index(mut self, index: u16) -> Driver {
        (self.avail, self.seen) = (index, index);
        self.set_avail_index(index);
        self.set_used_index(index);
        self
    }

    /// The same driver on other memory.
    pub fn over(self, guest: Guest) -> Driver {
        Driver { guest, ..self }
    }

    pub fn config(&self) -> RingConfig {
        let wire = |i: usize| {
            let fd = self.wires.as_ref()?[i].as_fd().try_clone_to_owned().unwrap();
            Some(Notifier::new(File::from(fd)).unwrap())
        };
        RingConfig {
            index: 1,
            size: self.size,
            desc: self.desc_addr() + USER,
            avail: self.avail_addr() + USER,
            used: self.used_addr() + USER,
            base: u32::from(self.avail),
            features: self.features,
            memory: self.guest.memory.clone(),
            kick: wire(0),
            call: wire(1),
            err: wire(2),
        }
    }

    /// A ring over what is published so far and not used.
    pub fn start(&self) -> SplitRing {
        self.start_at(self.seen)
    }

    pub fn start_at(&self, base: u16) -> SplitRing {
        SplitRing::start(RingConfig { base: base.into(), ..self.config() }).unwrap()
    }

    pub fn desc_addr(&self) -> u64 {
        RINGS
    }

    pub fn avail_addr(&self) -> u64 {
        avail_of(self.size)
    }

    pub fn used_addr(&self) -> u64 {
        used_of(self.size)
    }

    /// Writes a descriptor at any address.
    pub fn set_desc_at(&self, at: u64, buf: Buf, next: u16) {
        let mut bytes = buf.addr.to_le_bytes().to_vec();
        bytes.extend(buf.len.to_le_bytes());
        bytes.extend(buf.flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.guest.write(at, &bytes);
    }

    /// Writes a descriptor of the ring's own table.
    pub fn set_desc(&self, index: u16, buf: Buf, next: u16) {
        self.set_desc_at(self.desc_addr() + 16 * u64::from(index), buf, next);
    }

    /// Links `bufs` through the descriptors `slots`; the last keeps its flags.
    pub fn chain(&self, slots: &[u16], bufs: &[Buf]) {
        assert_eq!(slots.len(), bufs.len());
        for (i, (slot, buf)) in slots.iter().zip(bufs).enumerate() {
            match slots.get(i + 1) {
                Some(next) => self.set_desc(*slot, Buf { flags: buf.flags | NEXT, ..*buf }, *next),
                None => self.set_desc(*slot, *buf, 0xdead),
            }
        }
    }

    /// Writes an indirect table and returns the buffer that names it.
    pub fn table(&self, at: u64, bufs: &[Buf]) -> Buf {
        for (i, buf) in bufs.iter().enumerate() {
            let more = if i + 1 < bufs.len() { NEXT } else { 0 };
            let next = if more == NEXT { i as u16 + 1 } else { 0xdead };
            self.set_desc_at(at + 16 * i as u64, Buf { flags: buf.flags | more, ..*buf }, next);
        }
        Buf { addr: at, len: 16 * bufs.len() as u32, flags: INDIRECT }
    }

    /// Publishes the chain that starts at `head`.
    pub fn offer(&mut self, head: u16) {
        self.set_avail_entry(self.avail, head);
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_index(self.avail);
    }

    /// Links and publishes a chain.
    pub fn post(&mut self, slots: &[u16], bufs: &[Buf]) {
        self.chain(slots, bufs);
        self.offer(slots[0]);
    }

    /// What was used since the last look: (id, length).
    pub fn used(&mut self) -> Vec<(u32, u32)> {
        let mut used = Vec::new();
        while self.seen != self.used_index() {
            let at = self.used_addr() + 4 + 8 * u64::from(self.seen % self.size);
            used.push((self.guest.read_u32(at), self.guest.read_u32(at + 4)));
            self.seen = self.seen.wrapping_add(1);
        }
        used
    }

    pub fn set_avail_flags(&self, flags: u16) {
        self.guest.write_u16(self.avail_addr(), flags);
    }

    pub fn set_avail_index(&self, index: u16) {
        self.guest.write_u16(self.avail_addr() + 2, index);
    }

    pub fn set_avail_entry(&self, index: u16, head: u16) {
        self.guest.write_u16(self.avail_addr() + 4 + 2 * u64::from(index % self.size), head);
    }

    pub fn set_used_event(&self, index: u16) {
        self.guest.write_u16(self.avail_addr() + 4 + 2 * u64::from(self.size), index);
    }

    pub fn used_flags(&self) -> u16 {
        self.guest.read_u16(self.used_addr())
    }

    pub fn used_index(&self) -> u16 {
        self.guest.read_u16(self.used_addr() + 2)
    }

    pub fn set_used_index(&self, index: u16) {
        self.guest.write_u16(self.used_addr() + 2, index);
    }

    pub fn avail_event(&self) -> u16 {
        self.guest.read_u16(self.used_addr() + 4 + 8 * u64::from(self.size))
    }

    /// Whether a driver that has published from `old` up to now would kick (virtio 1.2, 2.7.10).
    pub fn would_kick(&self, old: u16) -> bool {
        if self.features & F_EVENT_IDX == 0 {
            return self.used_flags() & 1 == 0;
        }
        let published = self.avail.wrapping_sub(old);
        (0..published).any(|i| old.wrapping_add(i) == self.avail_event())
    }

    /// Calls since the last look; `expected` where there are no eventfds.
    pub fn calls(&self, expected: u64) -> u64 {
        self.wires.as_ref().map_or(expected, |wires| wires[1].read().unwrap_or(0))
    }

    /// Sleeps until called; `false` after ten seconds.
    pub fn sleep(&self) -> bool {
        let call = &self.wires.as_ref().unwrap()[1];
        let woken = poll(&mut [PollFd::new(call.as_fd(), PollFlags::POLLIN)], 10_000u16) == Ok(1);
        self.calls(0);
        woken
    }

    /// Errors since the last look; `expected` where there are no eventfds.
    pub fn errors(&self, expected: u64) -> u64 {
        self.wires.as_ref().map_or(expected, |wires| wires[2].read().unwrap_or(0))
    }
}

fn avail_of(size: u16) -> u64 {
    RINGS + 16 * u64::from(size)
}

fn used_of(size: u16) -> u64 {
    (avail_of(size) + 6 + 2 * u64::from(size)).next_multiple_of(4)
}
