//! Peers that break the protocol, lie about lengths, or do not read.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use common::{Client, Dice, Lamb, OBJECT, Program, obj, vid};
use sheepdog_proto::op::{self, FLAG_WRITE};
use sheepdog_proto::zerocopy::IntoBytes;
use sheepdog_proto::{Request, SdResult};

fn program() -> (tempfile::TempDir, Program) {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &["--no-sync"]);
    (dir, program)
}

#[test]
fn a_frame_may_end_anywhere() {
    let (_dir, mut program) = program();
    let v = program.client().vdi("alpha", 4);
    let frame = [
        obj(op::CREATE_AND_WRITE_OBJ, FLAG_WRITE, v.data(0), 0).with_length(200_000).as_bytes(),
        &[7; 200_000],
    ]
    .concat();
    for cut in [0, 1, 15, 47, 48, 49, 1000, 65_000, 65_536, 70_000, 199_999, 200_047] {
        let mut stream = TcpStream::connect(program.address).unwrap();
        stream.write_all(&frame[..cut]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), 0, "cut at {cut}");
        assert_eq!(program.client().read(v.data(0), 0, 1), Err(SdResult::NO_OBJ));
    }
    // Byte by byte it is a request like any other.
    let mut stream = TcpStream::connect(program.address).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in &frame[..100] {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.write_all(&frame[100..]).unwrap();
    let mut answer = [0; 48];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(program.client().read(v.data(0), 0, 1), Ok(vec![7]));
    program.assert_alive();
}

#[test]
fn what_arrived_before_the_end_is_executed_and_answered() {
    let (_dir, program) = program();
    let v = program.client().vdi("alpha", 4);
    for round in 0..100 {
        let mut c = program.client();
        for i in 0..4 {
            c.send(obj(op::CREATE_AND_WRITE_OBJ, 0, v.data(i), 0), &[1]);
            c.send(obj(op::READ_OBJ, 0, v.data(i), 0).with_length(1), &[]);
        }
        c.stream.shutdown(Shutdown::Write).unwrap();
        for answer in 0..8 {
            let (response, _) = c.receive().unwrap_or_else(|e| panic!("{round} {answer}: {e}"));
            assert_eq!(response.result(), SdResult::SUCCESS);
        }
        assert!(c.receive().is_err());
    }
}

#[test]
fn an_impossible_payload_ends_the_connection() {
    let (_dir, mut program) = program();
    for len in [u32::MAX, 1 << 31, (16 << 20) + 1] {
        for opcode in [op::WRITE_OBJ, op::NEW_VDI, 0x60, op::GET_VDI_ATTR] {
            let mut c = program.client();
            let request = Request::new(opcode, FLAG_WRITE, [0; 32]).with_length(len);
            c.stream.write_all(request.as_bytes()).unwrap();
            assert_eq!(c.stream.read(&mut [0]).unwrap_or(0), 0);
        }
    }
    // Without a payload the length is only room for an answer.
    let mut c = program.client();
    assert_eq!(c.read(vid(7).data(0), 0, u32::MAX), Err(SdResult::NO_OBJ));
    c.vdi("alpha", 1);
    program.assert_alive();
}

#[test]
fn memory_is_for_bytes_that_arrived() {
    let (_dir, mut program) = program();
    program.assert_alive();
    let before = program.memory();
    let liars: Vec<Client> = (0..200)
        .map(|_| {
            let mut c = program.client();
            let request = obj(op::WRITE_OBJ, FLAG_WRITE, vid(7).data(0), 0).with_length(16 << 20);
            c.stream.write_all(request.as_bytes()).unwrap();
            c.stream.write_all(&[1; 1000]).unwrap();
            c
        })
        .collect();
    program.assert_alive();
    let used = program.memory() - before;
    assert!(used < 100 << 20, "{used} bytes for {} announcements", liars.len());
}

#[test]
fn random_bytes_do_no_harm() {
    let (_dir, mut program) = program();
    let mut dice = Dice(1);
    for _ in 0..300 {
        let mut stream = TcpStream::connect(program.address).unwrap();
        let len = dice.roll(400);
        let bytes: Vec<u8> = (0..len).map(|_| dice.next() as u8).collect();
        let _ = stream.write_all(&bytes);
        if dice.roll(2) == 0 {
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
            let _ = stream.read(&mut [0; 100]);
        }
    }
    program.assert_alive();
}

/// Requests that are well framed and otherwise wild: any opcode, flags, ids, offsets, lengths.
#[test]
fn every_request_is_answered() {
    let (dir, mut program) = program();
    let mut setup = program.client();
    let v = setup.vdi("alpha", 4);
    setup.allocate(v, 0, &[1]);
    let interesting = [0, 1, 4, 48, 80, 255, 256, 257, 512, 784, 4663, 4664, 66_320, 491_568];
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let mut c = program.client();
        for _ in 0..150 {
            let opcode = dice.next() as u8;
            if matches!(opcode, op::SHUTDOWN | op::KILL_NODE) {
                continue;
            }
            let mut arm = [0; 32];
            arm.iter_mut().for_each(|byte| {
                *byte = if dice.roll(3) == 0 { dice.next() as u8 } else { 0 };
            });
            if dice.roll(2) == 0 {
                // An object that exists, or almost.
                let oid = [v.data(0), v.inode(), v.vmstate(0), v.attr(1)][dice.roll(4)];
                arm[..8].copy_from_slice(&oid.0.to_le_bytes());
                arm[8..16].copy_from_slice(&v.data(0).0.to_le_bytes());
            }
            let version = if opcode >= 0x80 { 0x0a } else { dice.roll(4) as u8 };
            let mut request = Request::new(opcode, dice.next() as u16, arm);
            request.proto_ver = version;
            let len = interesting[dice.roll(interesting.len())];
            let payload: Vec<u8> = match request.flags.get() & FLAG_WRITE {
                0 => vec![],
                _ => (0..len).map(|i| if i < 600 { dice.next() as u8 } else { 0 }).collect(),
            };
            let offered = if payload.is_empty() { len as u32 } else { payload.len() as u32 };
            if payload.is_empty() && request.flags.get() & FLAG_WRITE != 0 {
                request.data_length = 0.into();
            } else {
                request = request.with_length(offered);
            }
            let (response, data) = c.call(request, &payload);
            assert!(data.len() <= offered as usize, "more than there is room for");
            assert_eq!(response.epoch.get(), 1);
        }
    }
    program.assert_alive();
    // Whatever became of the store, it opens again.
    program.kill();
    Program::start(dir.path(), &["--no-sync"]).assert_alive();
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let (_dir, mut program) = program();
    let mut c = program.client();
    let v = c.vdi("alpha", 4);
    c.allocate(v, 0, &[1; 4096]);
    program.assert_alive();
    let before = program.memory();
    // More than any pool of threads, each of them with answers that no socket holds.
    let request = Request::read(v.data(0), 0, OBJECT as u32);
    let mut deaf: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(program.address).unwrap();
            stream.set_nonblocking(true).unwrap();
            for _ in 0..2000 {
                if stream.write_all(request.as_bytes()).is_err() {
                    break;
                }
            }
            stream
        })
        .collect();
    // One of them begins to read, and finds everything in order.
    let stream = deaf.pop().unwrap();
    stream.set_nonblocking(false).unwrap();
    let mut late = Client::over(stream);
    for _ in 0..20 {
        let (response, data) = late.receive().unwrap();
        assert_eq!(response.result(), SdResult::SUCCESS);
        assert!(data.len() == OBJECT as usize && data[4095] == 1 && data[4096] == 0);
    }
    // Each of these would wait for good behind them.
    for i in 0..100 {
        assert_eq!(c.create(v.data(1), 0, &[i]), SdResult::SUCCESS);
        assert_eq!(c.read(v.data(1), 0, 1), Ok(vec![i]));
    }
    let used = program.memory() - before;
    assert!(used < 256 << 20, "{used} bytes");
    drop(late);
    drop(deaf);
    program.assert_alive();
}

#[test]
fn connections_that_say_nothing_cost_little() {
    let (_dir, mut program) = program();
    let mut idle: Vec<TcpStream> =
        (0..500).map(|_| TcpStream::connect(program.address).unwrap()).collect();
    program.assert_alive();
    assert!(program.memory() < 200 << 20);
    idle.clear();
    program.assert_alive();
}

#[test]
fn an_object_larger_than_usual_raises_the_limit() {
    let lamb = Lamb::start();
    let mut c = lamb.client();
    let arm = sheepdog_proto::header::VdiArm {
        vdi_size: (1 << 25).into(),
        block_size_shift: 25,
        ..Default::default()
    };
    let v = c.new_vdi("large", arm).unwrap();
    assert_eq!(c.create(v.data(0), 0, &vec![1; 1 << 25]), SdResult::SUCCESS);
    let request = obj(op::WRITE_OBJ, FLAG_WRITE, v.data(0), 0).with_length((1 << 25) + 1);
    c.stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(c.stream.read(&mut [0]).unwrap_or(0), 0);
}
