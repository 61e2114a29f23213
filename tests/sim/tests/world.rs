//! The world itself: that clients and servers meet in it, and that a seed is a schedule.

use std::time::Duration;

use sim::cluster::Cluster;
use sim::model;
use sim::world::{Delays, Fault, World, WorldConfig};

fn world(seed: u64, nodes: usize, faults: Vec<Fault>) -> std::rc::Rc<World> {
    let model = model::Config { nodes, copies: nodes.min(2) as u8, ..Default::default() };
    World::new(WorldConfig { seed, nodes, delays: Delays::default(), faults, model })
}

#[test]
fn a_client_connects_to_a_gateway_in_no_time_of_ours() {
    let world = world(1, 1, Vec::new());
    let _entered = world.enter();
    let cluster = Cluster::new(world.gateways(0)).unwrap();
    cluster.start().unwrap();
    assert!(world.now() > Duration::ZERO && world.now() < Duration::from_secs(1));
    cluster.close(async |_| {});
}
