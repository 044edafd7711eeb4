//! Which worker gets what, step by step, under the same load.

use super::*;

/// A guest of two pairs, each of which has a lane of its own to the first of two nics, and one worker. `None` where there is only one core.
fn two_lanes() -> Option<Rig> {
    let case = Case { order: 6, features: F_VERSION_1, pairs: 2, nics: 2, steps: Vec::new() };
    let rig = Rig::set_up(Format::Split, &case, 1);
    if rig.cores.len() < 2 {
        println!("skipped: this process has one core only");
        return None;
    }
    Some(rig)
}

impl Rig {
    /// In the place of the second nic, which nobody needs, one with a single queue pair: both of the guest's are in its
    /// lane.
    fn one_queue_pair(&mut self) {
        self.control.remove_port("nic1").unwrap();
        let (nic, pairs) = open_loop(1);
        self.control.add_nic("nic1", pairs);
        self.nics[1] = nic;
    }
}

fn owners(rig: &Rig) -> [Owner; 2] {
    [0, 1].map(|pair| rig.control.owner(VM, pair))
}

fn pair(index: u16) -> Pair {
    Pair { guest: VM.to_owned(), index }
}

#[test]
fn a_worker_that_is_added_gets_its_share_and_gives_it_back() {
    let Some(mut rig) = two_lanes() else { return };
    let [first, second] = [rig.cores[0], rig.cores[1]].map(Owner::Worker);
    assert_eq!(owners(&rig), [first, first]);
    rig.let_move(500);
    rig.toggle(1);
    assert_eq!(owners(&rig), [first, second], "the lane that was placed last");
    rig.let_move(500);
    rig.toggle(0);
    assert_eq!(owners(&rig), [second, second]);
    rig.let_move(500);
    let last = rig.control.remove_worker(rig.cores[1]).map(drop).unwrap_err();
    assert_eq!(last.to_string(), format!("core {} has the last worker: add another one first", rig.cores[1]));
    assert_eq!(owners(&rig), [second, second]);
    rig.finish().unwrap();
}

#[test]
fn an_assigned_pair_stays_until_its_worker_goes() {
    let Some(mut rig) = two_lanes() else { return };
    let cores = rig.cores.clone();
    let [first, second] = [cores[0], cores[1]].map(Owner::Worker);
    for index in [0, 1] {
        assert_eq!(rig.control.assign(pair(index), Some(cores[0])).unwrap(), [pair(index)]);
    }
    rig.toggle(1);
    assert_eq!(owners(&rig), [first, first], "what was assigned is not moved to even the load");
    assert_eq!(rig.control.assign(pair(1), Some(cores[1])).unwrap(), [pair(1)]);
    assert_eq!(owners(&rig), [first, second]);
    rig.let_move(500);
    // Stopped and started again, in an order in which the least loaded worker would be another one.
    (0..4).for_each(|ring| rig.stop(ring));
    assert_eq!(rig.control.assign(pair(0), Some(cores[1])).unwrap(), [], "not polled now");
    (0..4).for_each(|ring| rig.start(ring));
    assert_eq!(owners(&rig), [second, second]);
    let assigned: Vec<_> = rig.control.assigned_to(cores[1]).cloned().collect();
    assert_eq!(assigned, [pair(0), pair(1)]);
    rig.let_move(500);
    rig.toggle(1);
    assert_eq!(owners(&rig), [first, first]);
    assert_eq!(rig.control.assigned_to(cores[0]).count(), 0);
    rig.toggle(1);
    assert_eq!(owners(&rig), [first, second], "it is assigned no more");
    rig.let_move(500);
    rig.finish().unwrap();
}

#[test]
fn an_assignment_is_taken_back_and_the_pair_is_as_free_as_before() {
    let Some(mut rig) = two_lanes() else { return };
    let cores = rig.cores.clone();
    let [first, second] = [cores[0], cores[1]].map(Owner::Worker);
    rig.control.assign_all(VM, &BTreeMap::from([(0, cores[0]), (1, cores[0])])).unwrap();
    rig.toggle(1);
    assert_eq!(owners(&rig), [first, first]);
    assert_eq!(rig.control.assign(pair(1), None).unwrap(), [], "nothing asks for it to move");
    assert_eq!(owners(&rig), [first, first]);
    assert_eq!(rig.control.assignments(VM), BTreeMap::from([(0, cores[0])]));
    rig.let_move(500);
    rig.toggle(1);
    rig.toggle(1);
    assert_eq!(owners(&rig), [first, second], "a worker that comes may have it again");
    rig.let_move(500);
    rig.finish().unwrap();
}

#[test]
fn all_assignments_are_replaced_at_once() {
    let Some(mut rig) = two_lanes() else { return };
    let cores = rig.cores.clone();
    let [first, second] = [cores[0], cores[1]].map(Owner::Worker);
    rig.toggle(1);
    for (wanted, then) in [
        (vec![(0, cores[1]), (1, cores[0])], [second, first]),
        (vec![(0, cores[0])], [first, first]),
        (vec![], [first, first]),
        (vec![(1, cores[1])], [first, second]),
    ] {
        let wanted = BTreeMap::from_iter(wanted);
        rig.control.assign_all(VM, &wanted).unwrap();
        assert_eq!((owners(&rig), rig.control.assignments(VM)), (then, wanted));
        rig.let_move(500);
    }
    let refused = rig.control.assign_all(VM, &BTreeMap::from([(0, cores[1]), (1, 999)])).unwrap_err();
    assert_eq!(refused.to_string(), "core 999 has no worker");
    assert_eq!(rig.control.assignments(VM), BTreeMap::from([(1, cores[1])]), "nothing has changed");
    rig.finish().unwrap();
}

#[test]
fn of_several_assignments_in_one_lane_the_first_counts() {
    let Some(mut rig) = two_lanes() else { return };
    let cores = rig.cores.clone();
    let [first, second] = [cores[0], cores[1]].map(|core| [Owner::Worker(core); 2]);
    rig.toggle(1);
    rig.one_queue_pair();
    rig.control.assign_all(VM, &BTreeMap::from([(0, cores[1]), (1, cores[0])])).unwrap();
    rig.switch(1);
    assert_eq!(owners(&rig), second);
    assert_eq!(rig.control.assign(pair(0), None).unwrap(), [pair(0), pair(1)]);
    assert_eq!(owners(&rig), first, "there is another one");
    rig.let_move(500);
    rig.control.assign_all(VM, &BTreeMap::from([(0, cores[0]), (1, cores[1])])).unwrap();
    assert_eq!(owners(&rig), first);
    rig.toggle(0);
    assert_eq!(owners(&rig), second);
    assert_eq!(rig.control.assignments(VM), BTreeMap::from([(1, cores[1])]), "its worker is there");
    rig.let_move(500);
    rig.switch(0);
    rig.finish().unwrap();
}

#[test]
fn pairs_of_one_lane_move_together_and_the_last_word_counts() {
    let Some(mut rig) = two_lanes() else { return };
    let cores = rig.cores.clone();
    rig.toggle(1);
    let in_use = rig.control.remove_port("nic0").unwrap_err().to_string();
    assert_eq!(in_use, "nic0 is the backend of vm: give that another one first");
    rig.one_queue_pair();
    rig.switch(1);
    for (index, core) in [(0, cores[1]), (1, cores[0]), (0, cores[1])] {
        assert_eq!(rig.control.assign(pair(index), Some(core)).unwrap(), [pair(0), pair(1)]);
        assert_eq!(owners(&rig), [Owner::Worker(core); 2]);
        assert_eq!(rig.control.assigned_to(core).cloned().collect::<Vec<_>>(), [pair(index)]);
        rig.let_move(500);
    }
    rig.switch(0);
    rig.finish().unwrap();
}

#[test]
fn what_cannot_be_assigned_is_refused() {
    let case = Case { order: 6, features: F_VERSION_1, pairs: 2, nics: 1, steps: Vec::new() };
    let mut rig = Rig::set_up(Format::Split, &case, 1);
    let core = rig.cores[0];
    let other = Pair { guest: "nic0".to_owned(), index: 0 };
    for (pair, core, refused) in [
        (pair(2), core, "vm has no queue pair 2: it has 2, from 0 on"),
        (pair(0), 999, "core 999 has no worker"),
        (other, core, "no guest is called \"nic0\""),
    ] {
        let all = BTreeMap::from([(pair.index, core)]);
        assert_eq!(rig.control.assign_all(&pair.guest, &all).unwrap_err().to_string(), refused);
        assert_eq!(rig.control.assign(pair, Some(core)).unwrap_err().to_string(), refused);
    }
    let refused = rig.control.assign(pair(2), None).unwrap_err().to_string();
    assert_eq!(refused, "vm has no queue pair 2: it has 2, from 0 on");
    assert!(rig.control.assign_all("nic0", &BTreeMap::new()).is_err());
    assert!(rig.control.assignments(VM).is_empty());
    assert_eq!(rig.control.remove_worker(999).map(drop).unwrap_err().to_string(), "core 999 has no worker");
    rig.finish().unwrap();
}
