//! The library against servers that do anything, in the world of `tests/sim`: simulated servers
//! carry out what it asks for, and what they send is changed, in one thread and in virtual time.
//!
//! The input is the number of calls and eight bytes for each; then, for each answer, what becomes of
//! it. A byte below 0x80 lets so many more answers pass as they are, as does the end of the input.
//!
//! What holds: no panic; every call ends, the close as well, and in virtual time that is bounded
//! by its limits; the memory of all that is bounded, and is given back.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sheepdog_proto::header::HEADER_LEN;
use sheepdog_proto::zerocopy::IntoBytes;
use sheepdog_proto::{Response, Vid};
use sim::cluster::{Cluster, Op, Options};
use sim::error::Result;
use sim::fault::Delays;
use sim::model;
use sim::net::{self, RecvBuf, SendBuf};
use sim::vdi::{Client, CreateOptions, Key, Name, Space, UNDO_LIMIT, Vdi, Which};
use sim::world::{Said, Tamper, World, WorldConfig};

use crate::memory::Account;
use crate::script::Script;

const MAX_CALLS: u8 = 24;
const LIMIT_MS: u32 = 5000;
/// What has no other limit than that it goes on ends by then.
const LAST: Duration = Duration::from_secs(3600);
/// Of the library and of all that the simulated servers hold.
const MAX_MEMORY: usize = 256 << 20;
/// Then the servers say nothing more, for the sake of time: what makes the library ask for much shows
/// by then.
const MAX_ANSWERS: usize = 600;
/// Bytes of a read or write at most.
const MAX_LEN: u64 = 1 << 20;

pub fn run(data: &[u8]) {
    let account = Account::open();
    play(&mut Script::new(data));
    assert!(account.peak() < MAX_MEMORY, "{} bytes of memory", account.peak());
}

/// What the program has.
#[derive(Default)]
struct Program {
    open: Vec<Arc<Vdi>>,
    snapshots: Vec<Arc<Vdi>>,
    ended: usize,
}

fn play(script: &mut Script) {
    let first = script.u8();
    let calls: Vec<[u8; 8]> = (0..first % MAX_CALLS + 1).map(|_| script.array()).collect();
    // So long that not too much can happen before the calls' limits.
    let delays = Delays {
        network: Duration::from_millis(10),
        step: Duration::from_millis(2),
        tail: Duration::from_millis(10),
    };
    let nodes = 1 + usize::from(first >> 7);
    let model = model::Config { nodes, use_lock: first & 0x40 != 0, ..model::Config::default() };
    let config = WorldConfig { seed: first.into(), nodes, delays, faults: Vec::new(), model };
    let world = World::new(config);
    let _entered = world.enter();
    world.set_tamper(Rc::new(Liar(RefCell::new(Lies {
        script: script.rest().to_vec(),
        ..Lies::default()
    }))));
    let options = Options { timeout_ms: LIMIT_MS, ..Options::default() };
    let cluster = Cluster::new(world.gateways(0), options).expect("there is a gateway");
    let fd = cluster.events_fd().expect("a number");
    let client = Arc::new(Client::new(cluster));
    let program = Arc::new(Mutex::new(Program::default()));
    let mut begun = 0;
    let wait = |begun: usize| {
        let limit = world.now() + LAST;
        loop {
            while net::is_ready(fd) {
                world.turn();
                client.cluster.dispatch();
            }
            if program.lock().expect("one thread").ended == begun {
                return;
            }
            assert!(world.now() < limit, "a call does not end");
            assert!(world.step(), "nothing can happen any more");
        }
    };
    let connecting = client.clone();
    spawn(&client, &program, async move |op| connecting.cluster.connect(&op).await);
    begun += 1;
    for call in calls {
        // Beside those before, or after them.
        if call[0] & 0x80 == 0 {
            wait(begun);
        }
        begin(&client, &program, call);
        begun += 1;
    }
    wait(begun);
    let closes = world.now();
    let _ = client.cluster.close(async |op| client.close_all(op).await);
    assert!(world.now() < closes + LAST, "a close does not end");
}

fn spawn<F>(
    client: &Arc<Client>,
    program: &Arc<Mutex<Program>>,
    work: impl FnOnce(Op) -> F + Send + 'static,
) where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (bounding, program) = (client.clone(), program.clone());
    let spawned = client.cluster.spawn(
        move |op| async move {
            let bounds = op.extended(UNDO_LIMIT);
            bounding.cluster.bounded(&bounds, pin!(work(op))).await
        },
        move |result: Result<()>| {
            // Each error has a text and a code.
            if let Err(error) = result {
                let _ = (error.to_string(), error.code());
            }
            Some(Box::new(move || program.lock().expect("one thread").ended += 1))
        },
    );
    spawned.expect("a number");
}

fn name(number: u8) -> Name {
    Name::new(&[b'a' + number % 3]).expect("a name")
}

fn begin(client: &Arc<Client>, program: &Arc<Mutex<Program>>, call: [u8; 8]) {
    let [kind, who, how, a, b, c, d, e] = call;
    let (at, len) = (u32::from_le_bytes([a, b, c, 0]), u16::from_le_bytes([d, e]));
    // Bytes, mostly not of whole objects.
    let at = u64::from(at) << (how & 15);
    let len = (u64::from(len) << (how >> 4)).min(MAX_LEN);
    let (vdi, snapshot) = {
        let program = program.lock().expect("one thread");
        let pick = |from: &[Arc<Vdi>]| {
            let n = from.len();
            (n > 0).then(|| from[usize::from(who >> 4) % n].clone())
        };
        (pick(&program.open), pick(&program.snapshots))
    };
    let which = match how {
        0 => Which::snap_id(len as u32 + 1),
        tag => Which::snapshot(&[b't', tag % 3 + b'0'], 0).expect("a tag"),
    };
    let key = Key::new(&name(who), &[b'k', how % 2 + b'0']).expect("a key");
    let (me, mine) = (client.clone(), program.clone());
    let with = |f: &dyn Fn(Arc<Vdi>)| {
        match &vdi {
            Some(vdi) => f(vdi.clone()),
            // There is nothing to do it to: at least somebody looks for it.
            None => {
                let me = me.clone();
                spawn(client, program, async move |op| {
                    me.open_read_only(&op, name(who)).await.map(drop)
                });
            }
        }
    };
    let with_snapshot = |f: &dyn Fn(Arc<Vdi>)| match &snapshot {
        Some(vdi) => f(vdi.clone()),
        None => with(f),
    };
    match kind & 31 {
        0 | 1 => {
            let options = CreateOptions {
                size: at.max(1),
                object_size: (how & 16 != 0).then_some(1 << 20),
                hypervolume: who & 8 != 0,
                prealloc: who & 4 != 0 && at < 64 << 20,
                ..CreateOptions::default()
            };
            spawn(client, program, async move |op| me.create(&op, name(who), &options).await);
        }
        2 | 3 => spawn(client, program, async move |op| {
            let vdi = match how & 7 {
                0 => me.open_read_only(&op, name(who)).await?,
                _ => me.open(&op, name(who)).await?,
            };
            mine.lock().expect("one thread").open.push(vdi);
            Ok(())
        }),
        4 => with(&|vdi| {
            let me = me.clone();
            spawn(client, program, async move |op| me.close(&op, vdi).await);
        }),
        5..=7 => with_snapshot(&|vdi| {
            let me = me.clone();
            spawn(client, program, async move |op| {
                let mut bytes = vec![0xa5; len as usize];
                // SAFETY: it outlives the request, which is over when this is, or dropped before.
                let mut buf = unsafe { RecvBuf::from_raw(bytes.as_mut_ptr(), bytes.len()) };
                vdi.read(&me.cluster, &op, &mut buf, at).await
            });
        }),
        8..=10 => with(&|vdi| {
            let me = me.clone();
            spawn(client, program, async move |op| {
                let buf = SendBuf::from(vec![how; len as usize]);
                vdi.write(&me.cluster, &op, &buf, at).await
            });
        }),
        11 => with(&|vdi| {
            let (me, space) = (me.clone(), if who & 8 == 0 { Space::Freed } else { Space::Kept });
            let len = len << (who & 7);
            spawn(client, program, async move |op| {
                vdi.zero(&me.cluster, &op, at, len, space).await
            });
        }),
        12 => with(&|vdi| {
            let me = me.clone();
            spawn(client, program, async move |op| vdi.flush(&me.cluster, &op).await);
        }),
        13 => with(&|vdi| {
            let me = me.clone();
            spawn(client, program, async move |op| vdi.resize(&me.cluster, &op, at).await);
        }),
        14 => with_snapshot(&|vdi| {
            let me = me.clone();
            spawn(client, program, async move |op| {
                let size = vdi.size();
                let start = at.min(size);
                vdi.block_status(&me.cluster, &op, start, size - start).await.map(drop)
            });
        }),
        15 => with(&|vdi| {
            let me = me.clone();
            spawn(client, program, async move |op| vdi.reload(&me.cluster, &op).await);
        }),
        16 => with_snapshot(&|vdi| {
            let me = me.clone();
            spawn(client, program, async move |op| vdi.info(&me.cluster, &op).await.map(drop));
        }),
        17 => spawn(client, program, async move |op| me.list(&op).await.map(drop)),
        18 => with(&|vdi| {
            let me = me.clone();
            spawn(client, program, async move |op| {
                let tag = [b't', how % 3 + b'0'];
                me.snapshot(&op, &vdi, &tag).await.map(drop::<Vid>)
            });
        }),
        19 => spawn(client, program, async move |op| {
            let vdi = me.open_snapshot(&op, name(who), which).await?;
            mine.lock().expect("one thread").snapshots.push(vdi);
            Ok(())
        }),
        20 => spawn(client, program, async move |op| {
            let all = me.snapshots(&op, name(who)).await?;
            mine.lock().expect("one thread").snapshots.extend(all);
            Ok(())
        }),
        21 => {
            spawn(client, program, async move |op| me.delete_snapshot(&op, name(who), which).await)
        }
        22 => with_snapshot(&|vdi| {
            let me = me.clone();
            spawn(client, program, async move |op| me.rollback(&op, &vdi).await);
        }),
        23 => with_snapshot(&|vdi| {
            let me = me.clone();
            spawn(client, program, async move |op| {
                me.clone_vdi(&op, &vdi, None, name(how), 0).await
            });
        }),
        24 => spawn(client, program, async move |op| me.delete(&op, name(who)).await),
        25 => spawn(client, program, async move |op| {
            me.set_attr(&op, &key, &vec![how; (len as usize).min(1 << 16)]).await
        }),
        26 => spawn(client, program, async move |op| {
            me.get_attr(&op, &key, len as usize).await.map(drop)
        }),
        27 => spawn(client, program, async move |op| me.delete_attr(&op, &key).await),
        28 => spawn(client, program, async move |op| me.break_lock(&op, name(who)).await),
        _ => {
            let closed = snapshot.inspect(|vdi| me.close_snapshot(vdi)).is_some();
            spawn(client, program, async move |op| match closed {
                true => Ok(()),
                false => me.open_read_only(&op, name(who)).await.map(drop),
            });
        }
    }
}

/// What servers say in the place of their answers.
struct Liar(RefCell<Lies>);

#[derive(Default)]
struct Lies {
    script: Vec<u8>,
    at: usize,
    /// Answers that pass as they are.
    pass: u8,
    answers: usize,
}

impl Tamper for Liar {
    fn answer(&self, response: Response, payload: Vec<u8>) -> Vec<(Duration, Said)> {
        let lies = &mut *self.0.borrow_mut();
        lies.answers += 1;
        if lies.answers > MAX_ANSWERS {
            return Vec::new();
        }
        let mut script = Script::new(&lies.script[lies.at..]);
        let before = script.rest_len();
        let said = lie(&mut script, &mut lies.pass, response, payload);
        lies.at += before - script.rest_len();
        said.into_iter().map(|(ms, said)| (Duration::from_millis(ms), said)).collect()
    }
}

fn lie(
    script: &mut Script,
    pass: &mut u8,
    mut response: Response,
    mut payload: Vec<u8>,
) -> Vec<(u64, Said)> {
    let now = |bytes: Vec<u8>| (0, Said::Bytes(bytes));
    let whole = |response: &Response, payload: &[u8]| [response.as_bytes(), payload].concat();
    if *pass > 0 || script.is_over() {
        *pass = pass.saturating_sub(1);
        return vec![now(whole(&response, &payload))];
    }
    let what = script.u8();
    if what < 0x80 {
        *pass = what;
        return vec![now(whole(&response, &payload))];
    }
    match what & 15 {
        // A result, of those that there are or not.
        0 => {
            response.result = (u32::from(script.u8()) | u32::from(what & 0x40) << 1).into();
            if what & 0x10 != 0 {
                payload.clear();
                response.data_length = 0.into();
            }
            vec![now(whole(&response, &payload))]
        }
        // Bytes of the header.
        1 => {
            let mut bytes = whole(&response, &payload);
            bytes[usize::from(script.u8()) % HEADER_LEN] = script.u8();
            vec![now(bytes)]
        }
        // Some bytes of the payload.
        2..=4 => {
            let (at, bytes) = (usize::from(script.u16()), script.u8() % 17);
            let bytes = script.bytes(bytes.into());
            if !payload.is_empty() {
                let at = at % payload.len();
                let n = bytes.len().min(payload.len() - at);
                payload[at..at + n].copy_from_slice(&bytes[..n]);
            }
            vec![now(whole(&response, &payload))]
        }
        // Less of it, in order.
        5 => {
            payload.truncate(script.u16().into());
            response.data_length = (payload.len() as u32).into();
            vec![now(whole(&response, &payload))]
        }
        // Another length than it has.
        6 => {
            let len = response.data_length.get().wrapping_add(script.u32());
            response.data_length = len.into();
            vec![now(whole(&response, &payload))]
        }
        // Another one.
        7 => {
            let bytes = script.counted();
            let fill = script.u8();
            let n = bytes.len().min(payload.len());
            payload[..n].copy_from_slice(&bytes[..n]);
            payload[n..].fill(fill);
            vec![now(whole(&response, &payload))]
        }
        // Twice.
        8 => vec![now(whole(&response, &payload)), now(whole(&response, &payload))],
        // Not at all.
        9 => Vec::new(),
        // Later.
        10 => vec![(u64::from(script.u16()), Said::Bytes(whole(&response, &payload)))],
        // Some of it, and the end.
        11 => {
            let mut bytes = whole(&response, &payload);
            bytes.truncate(script.u16().into());
            let how = (what & 0x10 != 0).then_some(ErrorKind::ConnectionReset);
            vec![now(bytes), (0, Said::End(how))]
        }
        // All of it, and the end.
        12 => vec![now(whole(&response, &payload)), (0, Said::End(None))],
        // What nobody has asked for.
        13 => vec![now(whole(&response, &payload)), now(script.counted().to_vec())],
        // In two pieces.
        14 => {
            let mut bytes = whole(&response, &payload);
            let at = usize::from(script.u16()).min(bytes.len());
            let later = bytes.split_off(at);
            vec![now(bytes), (u64::from(script.u8()), Said::Bytes(later))]
        }
        // Zeros, or ones, for all of it.
        _ => {
            payload.fill(if what & 0x10 == 0 { 0 } else { 0xff });
            vec![now(whole(&response, &payload))]
        }
    }
}
