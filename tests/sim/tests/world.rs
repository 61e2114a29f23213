//! The world itself: that clients and servers meet in it, what faults do, and that a seed is a
//! schedule. What the library makes of faults is for `check` to judge.

#![allow(unsafe_code)] // Buffers of reads are lent as C programs lend theirs.

use std::cell::Cell;
use std::pin::pin;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sheepdog_proto::SdResult;
use sim::clock::Instant;
use sim::cluster::{Cluster, Op, Options};
use sim::error::{Error, Result};
use sim::exec::{Completion, join, try_for_each_concurrent};
use sim::model;
use sim::net::{RecvBuf, SendBuf, is_ready};
use sim::vdi::{Client, CreateOptions, ExtentKind, Name, Space, Vdi};
use sim::world::{Delays, Fault, Kind, When, World, WorldConfig};

const SIZE: u64 = 64 << 20;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn world(seed: u64, nodes: usize, faults: &[Fault]) -> Rc<World> {
    let model = model::Config { nodes, copies: nodes.min(2) as u8, ..Default::default() };
    let (delays, faults) = (Delays::default(), faults.to_vec());
    let world = World::new(WorldConfig { seed, nodes, delays, faults, model });
    world.start_trace();
    world
}

fn client(world: &World, number: usize) -> Client {
    Client::new(Cluster::new(world.gateways(number), Options::default()).unwrap())
}

fn open(client: &Client) -> Arc<Vdi> {
    open_as(client, &CreateOptions { size: SIZE, ..Default::default() })
}

fn open_as(client: &Client, options: &CreateOptions) -> Arc<Vdi> {
    let name = Name::new(b"vdi").unwrap();
    let created = client.cluster.run(async |op| client.create(op, name, options).await);
    created.unwrap();
    client.cluster.run(async |op| client.open(op, name).await).unwrap()
}

fn write(client: &Client, vdi: &Vdi, sector: u64, byte: u8) -> Result<()> {
    let data = vec![byte; 512];
    client.cluster.run(async |op| vdi.write(&client.cluster, op, &data.into(), 512 * sector).await)
}

fn read(client: &Client, vdi: &Vdi, sector: u64) -> Result<u8> {
    let mut data = [0; 512];
    client.cluster.run(async |op| {
        // SAFETY: `data` outlives the operation, and is read after it.
        let mut buf = unsafe { RecvBuf::from_raw(data.as_mut_ptr(), data.len()) };
        vdi.read(&client.cluster, op, &mut buf, 512 * sector).await
    })?;
    assert!(data.iter().all(|byte| *byte == data[0]));
    Ok(data[0])
}

/// For a moment.
async fn sleep(cluster: &Cluster, op: &Op) -> Result<()> {
    cluster.sleep_until(op, Instant::now() + ms(50)).await
}

fn close(client: &Client) {
    client.cluster.close(async |op| client.close_all(op).await).unwrap();
}

/// Time passes, and everything that can happen does.
fn settle(world: &World) {
    while world.step() {}
}

/// Where the account says so first.
fn line(trace: &[String], what: &str) -> usize {
    let found = trace.iter().position(|line| line.contains(what));
    found.unwrap_or_else(|| panic!("no {what:?} in\n{}", trace.join("\n")))
}

/// Writes and reads with one fault; the account of it.
fn with_fault(nodes: usize, fault: Fault) -> Vec<String> {
    let world = world(7, nodes, &[fault]);
    let _entered = world.enter();
    world.quiesce_faults(s(100));
    let client = client(&world, 0);
    // A change waits for what was lost, however long that is.
    client.cluster.set_timeout_ms(0);
    let vdi = open(&client);
    for sector in 0..4 {
        write(&client, &vdi, sector, 1 + sector as u8).unwrap();
    }
    for sector in 0..4 {
        assert_eq!(read(&client, &vdi, sector).unwrap(), 1 + sector as u8);
    }
    close(&client);
    settle(&world);
    let trace = world.take_trace();
    if let Some((_, kind, _)) = fault.request() {
        assert!(trace.iter().any(|line| line.contains("fault: ")), "no {kind} was sent");
    }
    trace
}

#[test]
fn a_client_connects_to_a_gateway_in_no_time_of_ours() {
    let world = world(1, 1, &[]);
    let _entered = world.enter();
    let cluster = Cluster::new(world.gateways(0), Options::default()).unwrap();
    cluster.start().unwrap();
    assert!(world.now() > Duration::ZERO && world.now() < s(1));
    cluster.close(async |_| Ok(())).unwrap();
    settle(&world);
}

#[test]
fn what_a_client_writes_it_reads() {
    for seed in 0..50 {
        let world = world(seed, 3, &[]);
        let _entered = world.enter();
        let client = client(&world, 0);
        let vdi = open(&client);
        for round in 1..5 {
            for sector in [0, 1, 9000] {
                write(&client, &vdi, sector, round).unwrap();
                assert_eq!(read(&client, &vdi, sector).unwrap(), round);
            }
        }
        close(&client);
        settle(&world);
        assert!(world.now() < s(10), "nothing is left to happen long after");
    }
}

#[test]
fn a_stopped_gateway_carries_out_what_its_socket_took() {
    let stall = Fault::Stall { node: 0, at: s(1), length: Some(s(100)) };
    let world = world(1, 1, &[stall]);
    let _entered = world.enter();
    let client = client(&world, 0);
    let vdi = open(&client);
    assert!(world.now() < s(1));
    write(&client, &vdi, 0, 1).unwrap();
    while world.now() < s(1) && world.step() {}
    client.cluster.set_timeout_ms(3_000);
    assert!(write(&client, &vdi, 0, 2).is_err());
    settle(&world);
    let trace = world.take_trace();
    let trace = &trace[line(&trace, "goes on")..];
    line(trace, "WRITE_OBJ: SUCCESS");
}

#[test]
fn a_stopped_gateways_socket_fills_up_and_another_is_asked() {
    let stall = Fault::Stall { node: 0, at: s(1), length: None };
    let world = world(1, 2, &[stall]);
    let _entered = world.enter();
    let client = client(&world, 0);
    let vdi = open(&client);
    write(&client, &vdi, 0, 1).unwrap();
    while world.now() < s(1) && world.step() {}
    let data = vec![1; 4 << 20];
    let written =
        client.cluster.run(async |op| vdi.write(&client.cluster, op, &data.into(), 0).await);
    let trace = world.take_trace();
    assert!(line(&trace, "-> node 1") < line(&trace, "gives #0 up"), "{written:?}");
}

/// However often one stops, and though the next one stops meanwhile.
#[test]
fn each_gateway_that_stops_costs_five_seconds() {
    let stall = |node, at, length| Fault::Stall { node, at: s(at), length: Some(s(length)) };
    let faults = vec![
        stall(0, 10, 20),
        stall(0, 50, 20),
        stall(0, 90, 40),
        stall(1, 110, 40),
        stall(0, 200, 20),
    ];
    // Each node has a copy of all objects.
    let model = model::Config { nodes: 3, copies: 3, ..Default::default() };
    let delays = Delays::default();
    let world = World::new(WorldConfig { seed: 3, nodes: 3, delays, faults, model });
    let _entered = world.enter();
    let client = client(&world, 0);
    let vdi = open(&client);
    write(&client, &vdi, 0, 1).unwrap();
    while world.now() < s(240) {
        let before = world.now();
        assert_eq!(read(&client, &vdi, 0).unwrap(), 1);
        let took = world.now() - before;
        assert!(took < s(5), "{took:?} at {before:?}");
        client.cluster.run(async |op| sleep(&client.cluster, op).await).unwrap();
    }
}

#[test]
fn a_killed_gateway_is_missed_and_another_takes_over() {
    for restart in [None, Some(ms(100)), Some(s(30))] {
        let trace = with_fault(3, Fault::Kill { node: 0, at: ms(30), restart });
        assert!(line(&trace, "sees #") < line(&trace, "connect #1"));
        assert!(line(&trace, "epoch 2: node 0 is missed") < line(&trace, "epoch 3: node 0 has"));
    }
}

#[test]
fn a_cluster_that_died_as_a_whole_comes_back() {
    for restart in [ms(20), s(2)] {
        let kill = |node| Fault::Kill { node, at: ms(20), restart: Some(restart) };
        let world = world(1, 2, &[kill(0), kill(1)]);
        let _entered = world.enter();
        let client = client(&world, 0);
        let vdi = open(&client);
        while world.now() < ms(20) && world.step() {}
        write(&client, &vdi, 0, 1).unwrap();
        assert_eq!(read(&client, &vdi, 0).unwrap(), 1);
        close(&client);
        settle(&world);
    }
}

#[test]
fn a_partition_is_found_out_after_twenty_seconds() {
    let part = |length| Fault::Partition { client: 0, node: 0, at: ms(30), length };
    let long = with_fault(2, part(s(60)));
    assert!(line(&long, "gives #0 up") < line(&long, "-> node 1"));
    let short = with_fault(2, part(s(5)));
    line(&short, "hear each other again");
    assert!(!short.iter().any(|line| line.contains("up") || line.contains("-> node 1")));
}

#[test]
fn a_cut_comes_before_during_or_after_its_request() {
    let cut = |when| {
        let trace = with_fault(1, Fault::Cut { client: 0, nth: 0, matches: Kind::MapUpdate, when });
        let executed = |line: &&String| line.contains("WRITE_OBJ: SUCCESS (lost)");
        (trace.iter().filter(executed).count(), line(&trace, "sees #0 end"))
    };
    let (before, received, executed) =
        (cut(When::Before), cut(When::AfterReceived), cut(When::AfterExecuted));
    assert_eq!((before.0, received.0, executed.0), (0, 1, 1));
}

#[test]
fn a_late_request_is_carried_out_after_its_connection_or_before_its_end() {
    let late = |by| {
        let trace = with_fault(1, Fault::Late { client: 0, nth: 1, matches: Kind::Write, by });
        (line(&trace, "WRITE_OBJ: SUCCESS (lost)"), line(&trace, "sees #0 end"))
    };
    let (executed, seen) = late(s(1));
    assert!(seen < executed);
    let (executed, seen) = late(s(10));
    assert!(executed < seen);
}

#[test]
fn a_request_that_outlives_its_connection_for_long_is_told_of() {
    let outlived = |length| {
        let stall = Fault::Stall { node: 1, at: s(1), length: Some(length) };
        // The first one has no bytes: it follows the create.
        let (client, nth, matches, when) = (0, 1, Kind::Write, When::AfterReceived);
        let world = world(1, 2, &[stall, Fault::Cut { client, nth, matches, when }]);
        let _entered = world.enter();
        let client = self::client(&world, 0);
        let vdi = open(&client);
        write(&client, &vdi, 0, 1).unwrap();
        while world.now() < s(1) && world.step() {}
        write(&client, &vdi, 0, 2).unwrap();
        close(&client);
        settle(&world);
        world.outlived().is_some()
    };
    assert_eq!((outlived(s(1)), outlived(s(10))), (false, true));
}

#[test]
fn a_blocking_call_lets_other_clients_go_on() {
    let world = world(1, 1, &[]);
    let _entered = world.enter();
    let other = Arc::new(Cluster::new(world.gateways(1), Options::default()).unwrap());
    let fd = other.events_fd().unwrap();
    let (connecting, told) = (other.clone(), Arc::new(AtomicBool::new(false)));
    let tell = told.clone();
    let done = |_: Result<()>| -> Option<Completion> {
        Some(Box::new(move || tell.store(true, Ordering::Relaxed)))
    };
    other.spawn(move |op| async move { connecting.connect(&op).await }, done).unwrap();
    let dispatched = other.clone();
    world.set_idle_hook(Rc::new(move || {
        let ready = is_ready(fd);
        if ready {
            dispatched.dispatch();
        }
        ready
    }));
    let client = client(&world, 0);
    open(&client);
    assert!(told.load(Ordering::Relaxed));
    close(&client);
}

/// Sixteen writers of one object, each of whose writes follows another at once, until that ends.
async fn beside_writers<T>(
    client: &Client,
    op: &Op,
    vdi: &Vdi,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let is_over = Cell::new(false);
    let writers = try_for_each_concurrent((0..16).map(|writer| {
        let is_over = &is_over;
        async move {
            while !is_over.get() {
                vdi.write(&client.cluster, op, &vec![1; 512].into(), 512 * writer).await?;
            }
            Ok(())
        }
    }));
    let work = async {
        let result = work.await;
        is_over.set(true);
        result
    };
    let (written, result) = join(writers, work).await;
    written.and(result)
}

#[test]
fn who_needs_an_object_alone_waits_for_the_writes_under_way_and_not_for_later_ones() {
    let world = world(1, 1, &[]);
    let _entered = world.enter();
    let client = client(&world, 0);
    let vdi = open(&client);
    write(&client, &vdi, 0, 1).unwrap();
    let took = client.cluster.run(async |op| {
        let discards = async {
            let begun = world.now();
            for len in [4 << 20, 4096, 4 << 20, 4096] {
                vdi.zero(&client.cluster, op, 0, len, Space::Freed).await?;
            }
            Ok(world.now() - begun)
        };
        beside_writers(&client, op, &vdi, discards).await
    });
    assert!(took.as_ref().is_ok_and(|took| *took < s(3)), "{took:?}");
}

#[test]
fn writers_who_waited_for_one_to_create_their_object_write_side_by_side() {
    let took = |writers: u64| {
        let delays = Delays { tail: Delays::default().step, ..Delays::default() };
        let (model, faults) = (model::Config { nodes: 1, copies: 1, ..Default::default() }, vec![]);
        let world = World::new(WorldConfig { seed: 1, nodes: 1, delays, faults, model });
        let _entered = world.enter();
        let client = client(&world, 0);
        let vdi = open(&client);
        let begun = world.now();
        let written = client.cluster.run(async |op| {
            let data = SendBuf::from(vec![1; 512]);
            let write = |n| vdi.write(&client.cluster, op, &data, 512 * n);
            try_for_each_concurrent((0..writers).map(write)).await
        });
        written.unwrap();
        world.now() - begun
    };
    let (one, many) = (took(1), took(32));
    assert!(many < 2 * one, "{many:?} instead of {one:?}");
}

/// All of it at once: by its objects this would take hours.
#[test]
fn a_hole_takes_as_long_as_its_index_and_not_as_its_objects() {
    let world = world(1, 1, &[]);
    let _entered = world.enter();
    let client = client(&world, 0);
    let size = 16 << 50;
    let vdi = open_as(&client, &CreateOptions { size, hypervolume: true, ..Default::default() });
    let cluster = &client.cluster;
    let extents = cluster.run(async |op| {
        vdi.write(cluster, op, &vec![1; 512].into(), size / 2).await?;
        vdi.zero(cluster, op, 0, size / 2, Space::Freed).await?;
        vdi.zero(cluster, op, size / 2 + 4096, size / 2 - 4096, Space::Freed).await?;
        vdi.block_status(cluster, op, 0, size).await
    });
    let (half, object) = (size / 2, 4 << 20);
    let extents: Vec<_> = extents.unwrap().iter().map(|e| (e.offset, e.len, e.kind)).collect();
    let (hole, allocated) = (ExtentKind::Hole, ExtentKind::Allocated);
    let rest = (half + object, half - object, hole);
    assert_eq!(extents, [(0, half, hole), (half, object, allocated), rest]);
}

#[test]
fn work_that_never_waits_gives_way_and_ends_by_its_deadline() {
    const OBJECTS: u64 = 4096;
    let world = world(1, 1, &[]);
    let _entered = world.enter();
    let client = Arc::new(client(&world, 0));
    let (object_size, cluster) = (1 << 20, &client.cluster);
    cluster.set_timeout_ms(0);
    let size = OBJECTS * object_size;
    let options = CreateOptions { size, object_size: Some(object_size), ..Default::default() };
    let vdi = open_as(&client, &options);
    // No object is like its neighbour.
    let extents = cluster.run(async |op| {
        let data = SendBuf::from(vec![1; 512]);
        let write = |n| vdi.write(cluster, op, &data, 2 * n * object_size);
        try_for_each_concurrent((0..OBJECTS / 2).map(write)).await?;
        vdi.block_status(cluster, op, 0, size).await
    });
    assert_eq!(extents.unwrap().len() as u64, OBJECTS);

    let told = Arc::new(AtomicBool::new(false));
    let (tell, asking) = (told.clone(), (client.clone(), vdi.clone()));
    let done =
        |_| -> Option<Completion> { Some(Box::new(move || tell.store(true, Ordering::Relaxed))) };
    let work = move |op| async move {
        let (client, vdi) = asking;
        vdi.block_status(&client.cluster, &op, 0, size).await
    };
    let fd = cluster.events_fd().unwrap();
    cluster.spawn(work, done).unwrap();
    let mut dispatches = 0;
    while !told.load(Ordering::Relaxed) {
        if is_ready(fd) {
            cluster.dispatch();
            dispatches += 1;
        } else {
            assert!(world.step(), "nobody has it go on");
        }
    }
    assert!(dispatches >= 4, "{dispatches} dispatches");

    let late = cluster.run(async |op| {
        let op = op.until(Instant::now());
        cluster.bounded(&op, pin!(vdi.block_status(cluster, &op, 0, size))).await
    });
    assert!(matches!(late, Err(Error::TimedOut(_))));
}

/// A world of servers that take some time for everything, in which a large VDI is made and
/// deleted by calls that may take two: what came of that, when the deletion began, and how long it took.
fn deletion_beside(faults: &[Fault]) -> (Result<()>, Duration, Duration) {
    let model = model::Config { nodes: 1, copies: 1, ..Default::default() };
    let delays = Delays { network: ms(250), step: Duration::ZERO, tail: Duration::ZERO };
    let faults = faults.to_vec();
    let world = World::new(WorldConfig { seed: 1, nodes: 1, delays, faults, model });
    let _entered = world.enter();
    let client = client(&world, 0);
    client.cluster.set_timeout_ms(2_000);
    let (name, size) = (Name::new(b"vdi").unwrap(), 2 << 30);
    let options = CreateOptions { size, prealloc: true, ..Default::default() };
    client.cluster.run(async |op| client.create(op, name, &options).await).unwrap();
    let started = world.now();
    let result = client.cluster.run(async |op| client.delete(op, name).await);
    let took = world.now() - started;
    let _ = client.cluster.close(async |op| client.close_all(op).await);
    settle(&world);
    (result, started, took)
}

#[test]
fn work_that_grows_with_a_vdi_is_bounded_by_time_without_progress() {
    let (result, started, took) = deletion_beside(&[]);
    result.unwrap();
    assert!(took > s(2), "{took:?}: too little work to show anything");
    let at = started + s(1);
    let (result, _, until) = deletion_beside(&[Fault::Stall { node: 0, at, length: None }]);
    assert!(matches!(result, Err(Error::TimedOut(_))), "{result:?}");
    assert!(until > s(2) && until < s(1) + s(2) + ms(500), "{until:?}");
}

#[test]
fn an_answer_can_be_made_up_or_slow() {
    for executed in [false, true] {
        let result = SdResult::NETWORK_ERROR.0;
        let (client, nth, matches) = (0, 1, Kind::Write);
        let trace = with_fault(1, Fault::Answer { client, nth, matches, result, executed });
        line(&trace, "WRITE_OBJ: NETWORK_ERROR");
    }
    let trace = with_fault(1, Fault::Slow { client: 0, nth: 0, matches: Kind::Read, by: s(9) });
    let time = |line: &String| line[..12].trim().parse::<f64>().unwrap();
    assert!(trace.iter().map(time).is_sorted());
    assert!(trace.last().map(time).is_some_and(|time| time > 9.0));
}

#[test]
fn a_fault_is_a_line_of_text_and_back() {
    let (client, nth, at, by) = (3, 12, ms(1), Duration::from_micros(1));
    let mut faults = vec![
        Fault::Stall { node: 1, at, length: None },
        Fault::Stall { node: 1, at, length: Some(s(2)) },
        Fault::Kill { node: 0, at, restart: None },
        Fault::Kill { node: 0, at, restart: Some(by) },
        Fault::Partition { client, node: 2, at, length: s(30) },
        Fault::Answer { client, nth, matches: Kind::Any, result: 0x41, executed: true },
    ];
    faults.extend(When::ALL.iter().map(|when| Fault::Cut {
        client,
        nth,
        matches: Kind::HeaderWrite,
        when: *when,
    }));
    for matches in Kind::ALL.iter().copied() {
        faults.push(Fault::Late { client, nth, matches, by });
        faults.push(Fault::Slow { client, nth, matches, by });
    }
    for fault in faults {
        assert_eq!(fault.to_string().parse(), Ok(fault));
    }
    let delays = Delays::default();
    assert_eq!(delays.to_string().parse(), Ok(delays));
}

/// The hashes of some worlds with all that can happen in them.
fn hashes() -> Vec<u64> {
    let worlds = (0..20).map(|seed| {
        let cut = Fault::Cut { client: 0, nth: 3, matches: Kind::Any, when: When::AfterReceived };
        let kill = Fault::Kill { node: 0, at: ms(40), restart: Some(s(1)) };
        let world = world(seed, 3, &[cut, kill]);
        let _entered = world.enter();
        let client = client(&world, 0);
        let vdi = open(&client);
        for sector in 0..20 {
            write(&client, &vdi, 8192 * (sector % 3), sector as u8).unwrap();
        }
        close(&client);
        settle(&world);
        world.hash()
    });
    worlds.collect()
}

const HASHES: &str = "SIM_PRINT_HASHES";

#[test]
fn a_seed_is_the_same_schedule_in_every_process() {
    let mine = format!("{:x?}", hashes());
    if std::env::var_os(HASHES).is_some() {
        println!("{mine}");
        return;
    }
    let test = std::env::current_exe().unwrap();
    let args = ["--exact", "a_seed_is_the_same_schedule_in_every_process", "--nocapture"];
    let output = Command::new(test).args(args).env(HASHES, "1").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&mine));
}

#[test]
fn a_fault_that_meets_nothing_changes_nothing() {
    let late = Fault::Late { client: 5, nth: 0, matches: Kind::Any, by: s(1) };
    let hash = |faults: &[Fault]| {
        let world = world(3, 3, faults);
        let _entered = world.enter();
        let client = client(&world, 0);
        open(&client);
        close(&client);
        settle(&world);
        world.hash()
    };
    assert_eq!(hash(&[]), hash(&[late]));
}
