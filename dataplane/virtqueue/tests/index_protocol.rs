//! The index protocol of both ring formats, as loom models: every interleaving and every outcome the memory
//! model allows, of a guest and a device that follow the same steps, with the same orderings, as `split.rs`
//! and `packed.rs`. Each model has a twin with one ordering taken out, which loom must catch: so the models
//! can fail.
#![allow(unsafe_code)] // loom's cells are read and written through raw pointers

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU16, Ordering, fence};
use loom::thread;

/// Whether loom finds an interleaving in which the model fails.
fn fails(model: impl Fn() + Sync + Send + 'static) -> bool {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(|| loom::model(model)));
    std::panic::set_hook(hook);
    outcome.is_err()
}

/// The index of a split ring (or the flags of a packed descriptor) publishes what was written before it.
///
/// Guest: `Avail` entry, then the index. Device: the index, then the entry. The used side is the same with
/// the roles swapped.
fn publish_and_consume(store: Ordering, load: Ordering) {
    struct Shared {
        entry: UnsafeCell<u16>,
        index: AtomicU16,
    }
    let shared = Arc::new(Shared { entry: UnsafeCell::new(0), index: AtomicU16::new(0) });
    let guest = shared.clone();
    let guest = thread::spawn(move || {
        // SAFETY: nobody reads the entry before the index says so; loom checks exactly that.
        guest.entry.with_mut(|entry| unsafe { *entry = 7 });
        guest.index.store(1, store);
    });
    if shared.index.load(load) == 1 {
        // SAFETY: as above.
        shared.entry.with(|entry| assert_eq!(unsafe { *entry }, 7));
    }
    guest.join().unwrap();
}

#[test]
fn an_entry_is_never_read_before_it_is_published() {
    loom::model(|| publish_and_consume(Ordering::Release, Ordering::Acquire));
}

#[test]
fn the_publish_model_needs_both_orderings() {
    assert!(fails(|| publish_and_consume(Ordering::Relaxed, Ordering::Acquire)));
    assert!(fails(|| publish_and_consume(Ordering::Release, Ordering::Relaxed)));
}

/// Whether an event index in `event` was passed by going from `old` to `new` (virtio 1.2, 2.7.10).
fn passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// One side publishes an index and then looks whether the other wants to be woken; the other says so and
/// then looks at the index again before it sleeps. This is the guest's kick and, with the roles swapped, our
/// call: `start` is where the indices stand, so that the event index may wrap.
fn wake_up(start: u16, publisher_fence: bool, sleeper_fence: bool) {
    struct Shared {
        index: AtomicU16,
        event: AtomicU16,
        woken: AtomicBool,
    }
    let shared = Arc::new(Shared {
        index: AtomicU16::new(start),
        // Half a lap away: not wanted.
        event: AtomicU16::new(start.wrapping_add(1 << 15)),
        woken: AtomicBool::new(false),
    });
    let publisher = shared.clone();
    let publisher = thread::spawn(move || {
        let new = start.wrapping_add(1);
        publisher.index.store(new, Ordering::Release);
        if publisher_fence {
            fence(Ordering::SeqCst);
        }
        if passed(publisher.event.load(Ordering::Relaxed), start, new) {
            publisher.woken.store(true, Ordering::Relaxed);
        }
    });
    shared.event.store(start, Ordering::Relaxed);
    if sleeper_fence {
        fence(Ordering::SeqCst);
    }
    let asleep = shared.index.load(Ordering::Acquire) == start;
    publisher.join().unwrap();
    assert!(!asleep || shared.woken.load(Ordering::Relaxed), "asleep, and nobody will wake it");
}

#[test]
fn no_wake_up_is_lost_with_an_event_index() {
    for start in [0, 1, u16::MAX, u16::MAX - 1, (1 << 15) - 1, 1 << 15] {
        loom::model(move || wake_up(start, true, true));
    }
}

#[test]
fn the_wake_up_model_needs_both_fences() {
    assert!(fails(|| wake_up(0, false, true)));
    assert!(fails(|| wake_up(0, true, false)));
}

/// The same with flags instead of an event index: NO_INTERRUPT or NO_NOTIFY (split), or the event
/// suppression structure's DISABLE (packed).
fn wake_up_by_flag(publisher_fence: bool, sleeper_fence: bool) {
    struct Shared {
        index: AtomicU16,
        unwanted: AtomicBool,
        woken: AtomicBool,
    }
    let shared = Arc::new(Shared {
        index: AtomicU16::new(0),
        unwanted: AtomicBool::new(true),
        woken: AtomicBool::new(false),
    });
    let publisher = shared.clone();
    let publisher = thread::spawn(move || {
        publisher.index.store(1, Ordering::Release);
        if publisher_fence {
            fence(Ordering::SeqCst);
        }
        if !publisher.unwanted.load(Ordering::Relaxed) {
            publisher.woken.store(true, Ordering::Relaxed);
        }
    });
    shared.unwanted.store(false, Ordering::Relaxed);
    if sleeper_fence {
        fence(Ordering::SeqCst);
    }
    let asleep = shared.index.load(Ordering::Acquire) == 0;
    publisher.join().unwrap();
    assert!(!asleep || shared.woken.load(Ordering::Relaxed), "asleep, and nobody will wake it");
}

#[test]
fn no_wake_up_is_lost_with_flags() {
    loom::model(|| wake_up_by_flag(true, true));
    assert!(fails(|| wake_up_by_flag(false, true)));
    assert!(fails(|| wake_up_by_flag(true, false)));
}

/// A burst of used descriptors of a packed ring: all are written, the first one's flags last. The guest
/// looks at the first one's flags, and then at the second's without waiting: it must find all of both.
fn packed_burst(first_flags: Ordering) {
    struct Shared {
        lens: [UnsafeCell<u32>; 2],
        flags: [AtomicU16; 2],
    }
    let shared = Arc::new(Shared {
        lens: [UnsafeCell::new(0), UnsafeCell::new(0)],
        flags: [AtomicU16::new(0), AtomicU16::new(0)],
    });
    let device = shared.clone();
    let device = thread::spawn(move || {
        for len in &device.lens {
            // SAFETY: the guest reads a length only once the flags in front of it are set; loom checks that.
            len.with_mut(|len| unsafe { *len = 60 });
        }
        device.flags[1].store(1, Ordering::Relaxed);
        device.flags[0].store(1, first_flags);
    });
    if shared.flags[0].load(Ordering::Acquire) == 1 {
        assert_eq!(shared.flags[1].load(Ordering::Acquire), 1, "a burst is seen whole");
        for len in &shared.lens {
            // SAFETY: as above.
            len.with(|len| assert_eq!(unsafe { *len }, 60));
        }
    }
    device.join().unwrap();
}

#[test]
fn a_packed_burst_is_seen_whole_or_not_at_all() {
    loom::model(|| packed_burst(Ordering::Release));
    assert!(fails(|| packed_burst(Ordering::Relaxed)));
}
