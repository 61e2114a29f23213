//! After any sequence of operations exactly those data objects exist that some inode names (6.3).

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Client, Dice, Lamb};
use sheepdog_proto::op;
use sheepdog_proto::{SdResult, Vid};

const OBJECTS: u32 = 6;

#[derive(Clone)]
struct Vdi {
    vid: Vid,
    name: String,
    snap_id: u32,
    snapshot: bool,
    /// Owner and content of each object.
    map: BTreeMap<u32, (Vid, u8)>,
}

/// What the server should hold.
#[derive(Default)]
struct Model {
    vdis: Vec<Vdi>,
    names: u32,
    stamp: u8,
}

impl Model {
    fn step(&mut self, c: &mut Client, dice: &mut Dice) {
        self.stamp = self.stamp.wrapping_add(1).max(1);
        let working: Vec<usize> =
            (0..self.vdis.len()).filter(|&i| !self.vdis[i].snapshot).collect();
        let any = |dice: &mut Dice, len: usize| dice.roll(len.max(1));
        match dice.roll(20) {
            0 if working.len() < 6 => self.create(c),
            1 | 2 if !working.is_empty() => self.snapshot(c, working[any(dice, working.len())]),
            3 if working.len() < 6 => self.clone(c, dice),
            4 => self.rebase(c, dice),
            5 if !self.vdis.is_empty() => self.delete(c, any(dice, self.vdis.len())),
            6..=9 if !working.is_empty() => {
                let i = working[any(dice, working.len())];
                self.discard(c, i, dice);
            }
            10 if !self.vdis.is_empty() => self.clear(c, any(dice, self.vdis.len()), dice),
            _ if !working.is_empty() => {
                let i = working[any(dice, working.len())];
                self.write(c, i, dice.roll(OBJECTS as usize) as u32);
            }
            _ => {}
        }
    }

    fn create(&mut self, c: &mut Client) {
        self.names += 1;
        let name = format!("vdi{}", self.names);
        let vid = c.vdi(&name, OBJECTS.into());
        self.vdis.push(Vdi { vid, name, snap_id: 1, snapshot: false, map: BTreeMap::new() });
    }

    fn snapshot(&mut self, c: &mut Client, i: usize) {
        let old = &mut self.vdis[i];
        old.snapshot = true;
        let vid = c.branch(&old.name, old.vid, 1).unwrap();
        let new = Vdi { vid, snap_id: old.snap_id + 1, snapshot: false, ..old.clone() };
        self.vdis.push(new);
    }

    fn clone(&mut self, c: &mut Client, dice: &mut Dice) {
        let snapshots: Vec<&Vdi> = self.vdis.iter().filter(|vdi| vdi.snapshot).collect();
        if snapshots.is_empty() {
            return;
        }
        let base = snapshots[dice.roll(snapshots.len())].clone();
        self.names += 1;
        let name = format!("vdi{}", self.names);
        let vid = c.branch(&name, base.vid, 0).unwrap();
        self.vdis.push(Vdi { vid, name, snap_id: 1, snapshot: false, map: base.map });
    }

    fn rebase(&mut self, c: &mut Client, dice: &mut Dice) {
        let pairs: Vec<(usize, usize)> = (0..self.vdis.len())
            .flat_map(|i| (0..self.vdis.len()).map(move |j| (i, j)))
            .filter(|&(i, j)| !self.vdis[i].snapshot && self.vdis[j].snapshot)
            .collect();
        if pairs.is_empty() {
            return;
        }
        let (i, j) = pairs[dice.roll(pairs.len())];
        let (current, base) = (self.vdis[i].clone(), self.vdis[j].clone());
        let vid = c.branch(&current.name, base.vid, 1).unwrap();
        self.vdis[i].snapshot = true;
        self.vdis.push(Vdi { vid, snap_id: current.snap_id + 1, map: base.map, ..current });
    }

    fn delete(&mut self, c: &mut Client, i: usize) {
        let vdi = self.vdis.remove(i);
        let snap_id = if vdi.snapshot { vdi.snap_id } else { 0 };
        assert_eq!(c.delete(&vdi.name, "", snap_id), Ok(vdi.vid));
    }

    fn discard(&mut self, c: &mut Client, i: usize, dice: &mut Dice) {
        let index = dice.roll(OBJECTS as usize) as u32;
        let vdi = &mut self.vdis[i];
        let result = match dice.roll(2) {
            0 => c.discard(vdi.vid.data(index)),
            _ => c.map(vdi.vid, index, &[Vid::NONE]),
        };
        assert_eq!(result, SdResult::SUCCESS);
        vdi.map.remove(&index);
    }

    /// Empties a run of the map, as clients do before they delete (5.12).
    fn clear(&mut self, c: &mut Client, i: usize, dice: &mut Dice) {
        let vdi = &mut self.vdis[i];
        let first = dice.roll(OBJECTS as usize) as u32;
        assert_eq!(c.map(vdi.vid, first, &[Vid::NONE; 3]), SdResult::SUCCESS);
        vdi.map.retain(|&index, _| index < first || index >= first + 3);
    }

    fn write(&mut self, c: &mut Client, i: usize, index: u32) {
        let vdi = &mut self.vdis[i];
        let (oid, data) = (vdi.vid.data(index), [self.stamp; 10]);
        let result = match vdi.map.get(&index) {
            Some((owner, _)) if *owner == vdi.vid => c.write(oid, 0, &data),
            Some((owner, _)) => c.create_cow(oid, owner.data(index), 0, &data),
            None => c.create(oid, 0, &data),
        };
        assert_eq!(result, SdResult::SUCCESS);
        if vdi.map.get(&index).is_none_or(|(owner, _)| *owner != vdi.vid) {
            assert_eq!(c.map(vdi.vid, index, &[vdi.vid]), SdResult::SUCCESS);
        }
        vdi.map.insert(index, (vdi.vid, self.stamp));
    }

    /// Compares everything that a client can see, and the objects on the disk.
    fn check(&self, lamb: &Lamb, c: &mut Client) {
        let mut named = BTreeSet::new();
        for vdi in &self.vdis {
            let entries = c.entries(vdi.vid, OBJECTS);
            for (index, entry) in (0..).zip(entries) {
                let (owner, content) = vdi
                    .map
                    .get(&index)
                    .map_or((Vid::NONE, 0), |&(owner, content)| (owner, content));
                assert_eq!(entry, owner.get(), "{} at {index}", vdi.vid);
                if !owner.is_none() {
                    named.insert((owner.get(), index));
                    assert_eq!(c.read(owner.data(index), 0, 1), Ok(vec![content]));
                }
            }
        }
        assert_eq!(lamb.data_objects(), named.into_iter().collect::<Vec<_>>());
    }
}

fn run(seed: u64, steps: usize) {
    let mut lamb = Lamb::start();
    let (mut model, mut dice) = (Model::default(), Dice(seed));
    let mut c = lamb.client();
    for step in 0..steps {
        model.step(&mut c, &mut dice);
        if step % 50 == 49 {
            model.check(&lamb, &mut c);
        }
        // The counts are the same when they are counted from the inodes.
        if dice.roll(100) == 0 {
            lamb.restart();
            c = lamb.client();
            model.check(&lamb, &mut c);
        }
    }
    while !model.vdis.is_empty() {
        model.delete(&mut c, dice.roll(model.vdis.len()));
    }
    model.check(&lamb, &mut c);
    assert_eq!(c.vdis(op::READ_VDIS), c.vdis(op::READ_DEL_VDIS));
}

#[test]
fn exactly_the_named_objects_exist() {
    for seed in 0..8 {
        println!("seed {seed}");
        run(seed, 400);
    }
}

/// Several clients at once, on VDIs that share objects: afterwards nothing is left and nothing is
/// missing.
#[test]
fn concurrent_changes_keep_the_count() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let root = c.vdi("root", 32);
    (0..32).for_each(|i| c.allocate(root, i, &[i as u8]));
    c.snapshot("root", root, "s");
    std::thread::scope(|scope| {
        // Lists go over all VDIs meanwhile.
        let mut lists = lamb.client();
        scope.spawn(move || {
            for _ in 0..50 {
                let vdis = lists.vdis(op::READ_VDIS);
                assert!(lists.vdis(op::READ_DEL_VDIS).len() <= 6 * 12 * 2 && !vdis.is_empty());
            }
        });
        for thread in 0..6 {
            let mut c = lamb.client();
            scope.spawn(move || {
                let mut dice = Dice(thread);
                for round in 0..12 {
                    let name = format!("clone{thread}-{round}");
                    let v = c.branch(&name, root, 0).unwrap();
                    for _ in 0..20 {
                        let i = dice.roll(32) as u32;
                        match dice.roll(3) {
                            0 => assert_eq!(c.discard(v.data(i)), SdResult::SUCCESS),
                            1 => assert_eq!(c.map(v, i, &[Vid::NONE]), SdResult::SUCCESS),
                            _ => c.allocate(v, i, &[100]),
                        }
                        assert_eq!(c.read(root.data(i), 0, 1), Ok(vec![i as u8]));
                    }
                    let w = c.branch(&name, v, 1).unwrap();
                    assert_eq!(c.delete(&name, "", 1), Ok(v));
                    assert_eq!(c.delete(&name, "", 0), Ok(w));
                }
            });
        }
    });
    let expected: Vec<(u32, u32)> = (0..32).map(|i| (root.get(), i)).collect();
    assert_eq!(lamb.data_objects(), expected);
    c.delete("root", "", 0).unwrap();
    assert_eq!(lamb.data_objects(), expected);
    c.delete("root", "s", 0).unwrap();
    assert_eq!(lamb.data_objects(), []);
}

/// A map update that meets the deletion of its VDI gives each object up once, whoever comes first.
#[test]
fn a_map_update_may_meet_a_deletion() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let root = c.vdi("root", 4);
    (0..4).for_each(|i| c.allocate(root, i, &[7]));
    c.snapshot("root", root, "s");
    for round in 0..60 {
        let names = [format!("a{round}"), format!("b{round}")];
        let [v, w] = names.each_ref().map(|name| c.branch(name, root, 0).unwrap());
        let (mut one, mut two) = (lamb.client(), lamb.client());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..4 {
                    let result = one.map(v, i, &[Vid::NONE]);
                    assert_eq!(result, SdResult::SUCCESS);
                }
            });
            assert_eq!(two.delete(&names[0], "", 0), Ok(v));
        });
        assert_eq!(c.delete(&names[1], "", 0), Ok(w));
        for i in 0..4 {
            assert_eq!(c.read(root.data(i), 0, 1), Ok(vec![7]), "round {round}");
        }
    }
    c.delete("root", "", 0).unwrap();
    c.delete("root", "s", 0).unwrap();
    assert_eq!(lamb.data_objects(), []);
}
