//! The model of the servers on a socket: one node, formatted with one copy, its requests carried
//! out one at a time. What clients of the real server recorded is replayed against it.
//!
//! usage: model-server [PORT]     (0, the default: any; says where it listens)

use std::io::{Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use sheepdog_proto::zerocopy::IntoBytes;
use sheepdog_proto::{Request, Response};
use sim::host::Still;
use sim::model::{Cluster, Config};

type Question = (Request, Vec<u8>, Sender<(Response, Vec<u8>)>);

fn main() -> Result<()> {
    let port = std::env::args().nth(1).map_or(0, |port| port.parse().expect("a port"));
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("model-server: listening on {}", listener.local_addr()?);
    let (questions, received) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let questions = questions.clone();
            // A connection that breaks is the client's to tell.
            thread::spawn(move || serve(stream, &questions));
        }
    });
    answer(&received);
    Ok(())
}

fn answer(questions: &Receiver<Question>) {
    let host = Rc::new(Still::new(1));
    let cluster = Cluster::new(host.clone(), Config::default());
    for (request, payload, answers) in questions {
        // Whoever asked may have gone.
        let _ = answers.send(host.run(cluster.clone().serve(0, request, payload)));
    }
}

fn serve(mut stream: TcpStream, questions: &Sender<Question>) -> Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut request = Request::default();
        stream.read_exact(request.as_mut_bytes())?;
        let mut payload = vec![0; request.payload_len() as usize];
        stream.read_exact(&mut payload)?;
        let (sender, answer) = channel();
        let gone = |_| std::io::Error::other("the model has ended");
        questions.send((request, payload, sender)).map_err(|_| gone(()))?;
        let (response, data) = answer.recv().map_err(|_| gone(()))?;
        stream.write_all(response.as_bytes())?;
        stream.write_all(&data)?;
    }
}
