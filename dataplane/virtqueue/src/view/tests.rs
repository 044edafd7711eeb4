use super::*;
use crate::Ring;
use crate::testing::*;

/// Posts, uses and looks, lap after lap.
fn follows(format: Format) {
    let mut guest = poster(format, 4, 0);
    let mut ring = Ring::start(guest.config()).unwrap();
    let view = RingView::new(&guest.config()).unwrap();
    assert!(!view.glance().posted);
    for lap in 1..=9u16 {
        guest.post(&[out(DATA, 64)], None).unwrap();
        guest.post(&[out(DATA, 64)], None).unwrap();
        for left in [true, false] {
            assert!(view.glance().posted);
            let queue = ring.as_dyn();
            assert!(queue.available(1).unwrap() > 0);
            let token = queue.take().unwrap().unwrap().token;
            queue.complete(token, 0);
            queue.publish();
            assert_eq!(view.glance().posted, left, "lap {lap}");
        }
        let indices = (format == Format::Split).then_some((2 * lap, 2 * lap));
        assert_eq!(view.glance().indices, indices);
        guest.collect();
    }
}

#[test]
fn a_view_follows_a_split_ring() {
    follows(Format::Split);
}

#[test]
fn a_view_follows_a_packed_ring() {
    follows(Format::Packed);
}

#[test]
fn a_view_shows_what_a_guest_wrote_whatever_it_is() {
    let mut driver = split::Driver::new(8, 0);
    let view = RingView::new(&driver.config()).unwrap();
    driver.set_avail_index(0xfff0);
    driver.set_used_index(7);
    assert_eq!(view.glance(), Glance { posted: true, indices: Some((0xfff0, 7)) });
    driver.post(0, &[out(DATA, 1)]);
    assert_eq!(view.glance(), Glance { posted: true, indices: Some((1, 7)) });
}

#[test]
fn there_is_no_view_of_what_is_not_mapped() {
    for format in [Format::Split, Format::Packed] {
        let config = poster(format, 4, 0).config();
        assert!(RingView::new(&config).is_some());
        assert!(RingView::new(&RingConfig { desc: 16, avail: 16, ..config }).is_none(), "{format:?}");
    }
}

#[test]
fn a_view_keeps_the_memory_until_it_is_dropped() {
    let config = poster(Format::Split, 4, 0).config();
    let memory = Arc::downgrade(&config.memory);
    let view = RingView::new(&config).unwrap();
    drop(config);
    assert!(memory.upgrade().is_some());
    drop(view);
    assert!(memory.upgrade().is_none());
}
