//! Many clients that leave at any moment, and a stop at any moment: nothing that was begun is left half done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use testudo::{Runner, shutdown};
use testudo_http::serve;
use testudo_tower::{OnDisconnect, RequestLayer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

const POST: &[u8] = b"POST /transfer HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";

/// Numbers by chance; a seed gives the same ones again.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[derive(Default)]
struct Books {
    begun: AtomicU64,
    done: AtomicU64,
    /// What a client has seen an answer to.
    acknowledged: AtomicU64,
    /// What came back otherwise: an error in the middle, or an answer that is none of the handler's.
    refused: AtomicU64,
}

/// One client: sends again and again, and leaves before the answer by chance.
async fn client(address: SocketAddr, mut chance: Chance, over: Arc<AtomicBool>, books: Arc<Books>) {
    while !over.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(address).await else { return };
        for _ in 0..chance.below(5) + 1 {
            if stream.write_all(POST).await.is_err() {
                break;
            }
            let patience = if chance.below(3) == 0 { chance.below(4) } else { 10_000 };
            let mut answer = [0; 512];
            match timeout(Duration::from_millis(patience), stream.read(&mut answer)).await {
                Ok(Ok(length)) if answer[..length].starts_with(b"HTTP/1.1 200") => {
                    books.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Ok(0) | Err(_)) | Err(_) => break,
                Ok(Ok(_)) => {
                    books.refused.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
    }
}

/// Runs a server under clients for a moment. Gives the books, and how long the stop took.
fn run(seed: u64) -> (Arc<Books>, Duration) {
    let books = Arc::<Books>::default();
    let noted = Arc::clone(&books);
    let transfer = move || async move {
        noted.begun.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(2)).await;
        noted.done.fetch_add(1, Ordering::Relaxed);
    };
    let app = Router::new().route("/transfer", post(transfer)).layer(RequestLayer::new(OnDisconnect::Finish));
    let (mut clients, over) = (None, Arc::new(AtomicBool::new(false)));
    let mut chance = Chance(seed);
    let graceful = Duration::from_millis(chance.below(2) * 200 + 1);
    let runner =
        Runner::new().worker_threads(2).reporter(None).budget(Duration::from_secs(10)).graceful_budget(graceful);
    let finished = runner.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (told, written, mut each) = (Arc::clone(&over), Arc::clone(&books), chance.clone());
        clients = Some(thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut all = tokio::task::JoinSet::new();
                for _ in 0..16 {
                    let chance = Chance(each.below(u64::MAX) | 1);
                    all.spawn(client(address, chance, Arc::clone(&told), Arc::clone(&written)));
                }
                all.join_all().await;
            });
        }));
        let length = Duration::from_millis(20 + chance.below(80));
        testudo::spawn(async move {
            sleep(length).await;
            shutdown("enough");
        });
        serve(listener, app).await;
        Ok::<_, std::io::Error>(())
    });
    over.store(true, Ordering::Relaxed);
    clients.map(thread::JoinHandle::join).transpose().unwrap();
    let took = finished.report.stop().map_or(Duration::ZERO, testudo::StopReport::took);
    assert!(finished.report.is_clean(), "{}", finished.report);
    (books, took)
}

#[test]
fn nothing_that_was_begun_is_left_half_done() {
    let seed = std::env::var("TESTUDO_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(1..21, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let (books, took) = run(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let [begun, done, acknowledged, refused] =
            [&books.begun, &books.done, &books.acknowledged, &books.refused].map(|count| count.load(Ordering::Relaxed));
        let said = format!(
            "seed {seed}: {begun} begun, {done} done, {acknowledged} acknowledged, {refused} refused, {took:?}"
        );
        assert!(begun == done && acknowledged <= done && acknowledged > 0 && refused == 0, "{said}");
        assert!(took < Duration::from_secs(2), "{said}");
    }
}
