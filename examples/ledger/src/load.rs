//! Clients over real TCP, on a thread and a runtime of their own; some of them leave in the middle.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fastrand::Rng;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::db::{ACCOUNTS, Order};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How long a patient client waits for its reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client waits after it was refused.
const RETRY: Duration = Duration::from_millis(10);

/// Clients that make transfers until they are told to stop.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinHandle<()>,
}

/// What the clients have seen so far. Clones are the same.
#[derive(Clone, Debug)]
pub struct Acknowledged(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    is_over: AtomicBool,
    /// The numbers of the transfers that were answered with 200.
    acknowledged: Mutex<Vec<i64>>,
}

/// How a client goes about its next request.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Patient,
    /// Gives up the reply after so long, and closes the connection.
    Leaves(Duration),
    /// Closes the connection before the request is sent in full.
    SendsHalf,
}

/// A connection; dropping it closes it.
struct Connection {
    requests: SendRequest<Full<Bytes>>,
    /// Aborted with the connection.
    _io: JoinSet<()>,
}

#[derive(Deserialize)]
struct Reply {
    transfer: i64,
}

impl Load {
    /// Begins with so many clients. What they do follows from the seed, when they do it does not.
    ///
    /// # Errors
    ///
    /// If there can be no thread or no runtime for them.
    pub fn start(server: SocketAddr, clients: usize, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared { server, is_over: AtomicBool::new(false), acknowledged: Mutex::default() });
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let all = {
            let shared = Arc::clone(&shared);
            async move {
                let clients =
                    (0..clients as u64).map(|n| client(Arc::clone(&shared), Rng::with_seed(seed ^ (n << 32))));
                clients.collect::<JoinSet<()>>().join_all().await;
            }
        };
        let clients = thread::Builder::new().name("clients".into()).spawn(move || runtime.block_on(all))?;
        Ok(Self { shared, clients })
    }

    /// What the clients have seen, for whoever asks before they stop.
    pub fn acknowledged(&self) -> Acknowledged {
        Acknowledged(Arc::clone(&self.shared))
    }

    /// Has the clients finish their requests, waits for that, and gives the transfers that were acknowledged.
    ///
    /// # Panics
    ///
    /// If a client did.
    pub fn stop(self) -> Vec<i64> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Err(payload) = self.clients.join() {
            std::panic::resume_unwind(payload);
        }
        Acknowledged(self.shared).so_far()
    }
}

impl Acknowledged {
    /// The transfers that were answered with 200.
    pub fn so_far(&self) -> Vec<i64> {
        self.0.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn client(shared: Arc<Shared>, mut random: Rng) {
    let mut connection = None;
    while !shared.is_over.load(Ordering::Relaxed) {
        let (order, manner) = (order(&mut random), manner(&mut random));
        match request(&shared, connection.take(), order, manner).await {
            Ok(kept) => connection = kept,
            // Refused, or closed in the middle: the server stops, or another one begins.
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Makes one request, and gives the connection back if both sides keep it.
async fn request(
    shared: &Shared,
    connection: Option<Connection>,
    order: Order,
    manner: Manner,
) -> Result<Option<Connection>, Error> {
    if let Manner::SendsHalf = manner {
        let mut stream = TcpStream::connect(shared.server).await?;
        stream.write_all(b"POST /transfer HTTP/1.1\r\nhost: ledger\r\ncontent-length: 40\r\n\r\n{\"from\":").await?;
        return Ok(None);
    }
    let mut connection = match connection {
        Some(connection) if !connection.requests.is_closed() => connection,
        Some(_) | None => connect(shared.server).await?,
    };
    let patience = match manner {
        Manner::Patient => PATIENCE,
        Manner::Leaves(after) => after,
        Manner::SendsHalf => Duration::ZERO,
    };
    match timeout(patience, ask(&mut connection.requests, order)).await {
        Err(_) => Ok(None),
        Ok(Err(error)) => Err(error),
        Ok(Ok(reply)) => {
            let mut acknowledged = shared.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
            acknowledged.extend(reply.map(|reply| reply.transfer));
            Ok(Some(connection))
        }
    }
}

async fn connect(server: SocketAddr) -> Result<Connection, Error> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (requests, connection) = handshake(TokioIo::new(stream)).await?;
    let mut io = JoinSet::new();
    io.spawn(async { drop(connection.await) });
    Ok(Connection { requests, _io: io })
}

/// Gives the reply if it is a 200.
async fn ask(requests: &mut SendRequest<Full<Bytes>>, order: Order) -> Result<Option<Reply>, Error> {
    requests.ready().await?;
    let body = Full::from(serde_json::to_vec(&order)?);
    let request = Request::post("/transfer").header("host", "ledger").header("content-type", "application/json");
    let response = requests.send_request(request.body(body)?).await?;
    let is_ok = response.status() == StatusCode::OK;
    let body = response.into_body().collect().await?.to_bytes();
    if is_ok { Ok(Some(serde_json::from_slice(&body)?)) } else { Ok(None) }
}

fn order(random: &mut Rng) -> Order {
    let from = random.i64(1..=ACCOUNTS);
    // Another one, each as likely as the next.
    let to = (from + random.i64(0..ACCOUNTS - 1)) % ACCOUNTS + 1;
    Order { from, to, amount: random.i64(1..=100) }
}

/// A third of the requests ends badly.
fn manner(random: &mut Rng) -> Manner {
    match random.u32(0..10) {
        0 | 1 => Manner::Leaves(Duration::from_millis(random.u64(0..30))),
        2 => Manner::SendsHalf,
        _ => Manner::Patient,
    }
}
