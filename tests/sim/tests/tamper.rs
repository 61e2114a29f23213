//! What the library makes of servers that do not keep to the protocol. fuzz/src/hostile.rs looks for
//! more of that.

use std::rc::Rc;
use std::time::Duration;

use sheepdog_proto::zerocopy::{FromBytes, IntoBytes};
use sheepdog_proto::{InodeHeader, Response, op};
use sim::cluster::{Cluster, Options};
use sim::error::{Error, Refusal};
use sim::fault::Delays;
use sim::model;
use sim::vdi::{Client, CreateOptions, Name};
use sim::world::{Said, Tamper, World, WorldConfig};

/// Changes payloads of READs.
struct Reads<F>(F);

impl<F: Fn(&mut [u8])> Tamper for Reads<F> {
    fn answer(&self, response: Response, mut payload: Vec<u8>) -> Vec<(Duration, Said)> {
        if response.opcode == op::READ_OBJ {
            self.0(&mut payload);
        }
        vec![(Duration::ZERO, Said::Bytes([response.as_bytes(), &payload].concat()))]
    }
}

/// A client whose servers change what they read.
fn client(tamper: impl Fn(&mut [u8]) + 'static) -> (Client, sim::world::Entered) {
    let world = World::new(WorldConfig {
        seed: 1,
        nodes: 1,
        delays: Delays { network: Duration::from_millis(1), ..Delays::NONE },
        faults: Vec::new(),
        model: model::Config::default(),
    });
    let entered = world.enter();
    world.set_tamper(Rc::new(Reads(tamper)));
    let cluster = Cluster::new(world.gateways(0), Options::default()).unwrap();
    cluster.start().unwrap();
    (Client::new(cluster), entered)
}

#[test]
fn an_impossible_object_size_of_a_new_vdi_is_found_before_anything_is_allocated() {
    for shift in [0, 8, 32, 64, 255] {
        let (client, _world) = client(move |payload| {
            if let Ok((header, _)) = InodeHeader::mut_from_prefix(payload) {
                header.block_size_shift = shift;
            }
        });
        let options = CreateOptions { size: 32 << 20, prealloc: true, ..CreateOptions::default() };
        let name = Name::new(b"a").unwrap();
        let result = client.cluster.run(async |op| client.create(op, name, &options).await);
        assert!(matches!(result, Err(Error::Refused(Refusal::NoSupport))), "{shift}: {result:?}");
        client.cluster.close(async |_| Ok(())).unwrap();
    }
}
