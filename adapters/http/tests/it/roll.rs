//! A rolling restart on one port, seen by clients.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use testudo::{Runner, ShutdownHandle};
use testudo_http::serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const DELAY: Duration = Duration::from_millis(100);
const ROLLS: usize = 10;
const CLIENTS: usize = 32;

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1024).unwrap()
}

/// One instance of the program, on a thread of its own. It runs until its handle says otherwise.
struct Instance {
    handle: ShutdownHandle,
    thread: thread::JoinHandle<SocketAddr>,
    address: SocketAddr,
}

impl Instance {
    fn begin(address: SocketAddr) -> Self {
        let runner = Runner::new().worker_threads(1).reporter(None).drain_delay(DELAY).budget(Duration::from_secs(20));
        let (handle, (send, ready)) = (runner.handle(), std::sync::mpsc::channel());
        let thread = thread::spawn(move || {
            let main = async move {
                let listener = listen(address);
                let address = listener.local_addr().unwrap();
                let served = serve(listener, Router::new().route("/", get(|| async { "hello" })));
                // Once the server takes part: a stop before that has nobody to wait for.
                tokio::join!(biased; served, async { send.send(address).unwrap() });
                Ok::<_, std::io::Error>(address)
            };
            runner.run(main).outcome.unwrap()
        });
        Self { handle, thread, address: ready.recv().unwrap() }
    }

    fn end(self) {
        self.handle.shutdown("rolled");
        self.thread.join().unwrap();
    }
}

#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    errors: AtomicU64,
    is_over: AtomicBool,
}

/// Asks again and again, on one connection as long as the server keeps it.
async fn client(address: SocketAddr, seen: Arc<Seen>) {
    let mut kept: Option<TcpStream> = None;
    while !seen.is_over.load(Ordering::Relaxed) {
        match ask(kept.take(), address).await {
            Ok(next) => {
                kept = next;
                seen.answers.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                eprintln!("{error}");
                seen.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Gives the connection back if it may be used again.
async fn ask(kept: Option<TcpStream>, address: SocketAddr) -> std::io::Result<Option<TcpStream>> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(address).await?,
    };
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    Ok((!text.contains("connection: close")).then_some(stream))
}

/// A network of its own, in which Linux gives connections that wait at a closed listener to the other listener of the port. By default it
/// resets them, and no program can prevent that.
const APART: &str = "ip link set lo up && echo 1 > /proc/sys/net/ipv4/tcp_migrate_req || exit 77; exec \"$0\" \"$@\"";

#[test]
fn clients_see_no_error_while_one_instance_takes_the_place_of_another() {
    if std::env::var_os("TESTUDO_ROLL").is_some() {
        return roll();
    }
    let own = std::env::current_exe().unwrap();
    let mut apart = Command::new("unshare");
    apart.args(["-n", "sh", "-c", APART]).arg(own).env("TESTUDO_ROLL", "1");
    let name = "roll::clients_see_no_error_while_one_instance_takes_the_place_of_another";
    let Ok(output) = apart.args(["--exact", name, "--nocapture"]).output() else {
        return eprintln!("skipped: there is no `unshare`");
    };
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !said.contains(BEGUN) {
        return eprintln!("skipped: no network of its own can be made here: {said}");
    }
    assert!(output.status.success(), "{said}");
}

const BEGUN: &str = "the first instance is there";

fn roll() {
    let seen = Arc::<Seen>::default();
    let mut old = Instance::begin("127.0.0.1:0".parse().unwrap());
    let (address, told) = (old.address, Arc::clone(&seen));
    eprintln!("{BEGUN}");
    let clients = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut all = tokio::task::JoinSet::new();
            (0..CLIENTS).for_each(|_| drop(all.spawn(client(address, Arc::clone(&told)))));
            all.join_all().await;
        });
    });
    for _ in 0..ROLLS {
        let next = Instance::begin(address);
        old.end();
        old = next;
    }
    seen.is_over.store(true, Ordering::Relaxed);
    clients.join().unwrap();
    old.end();
    let (answers, errors) = (seen.answers.load(Ordering::Relaxed), seen.errors.load(Ordering::Relaxed));
    assert!(answers > 0 && errors == 0, "{errors} errors beside {answers} answers");
}
