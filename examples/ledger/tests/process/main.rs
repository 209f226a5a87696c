//! The program under signals that come at random, under kill, under force, and with options that can not be.

#![cfg(unix)]

mod support;

use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use ledger::tally::Tally;
use nix::sys::signal::Signal::{SIGINT, SIGKILL, SIGTERM};
use tempfile::TempDir;

use support::{End, Ledger};

fn folder() -> TempDir {
    TempDir::new().expect("a folder for a test")
}

#[expect(clippy::disallowed_methods, reason = "a process of its own is what goes on meanwhile")]
fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Sends a request with a body, and does not wait for its answer.
fn post(address: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = format!(
        "POST /transfer HTTP/1.1\r\nhost: l\r\ncontent-type: application/json\r\ncontent-length: {}",
        body.len()
    );
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).expect("it reads");
    stream
}

fn get(address: &str, path: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = format!("GET {path} HTTP/1.1\r\nhost: l\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Waits until something is so; if it never is, the test is over.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if is_so() {
            return;
        }
        pause(Duration::from_millis(5));
    }
    panic!("it never came to this: {what}");
}

/// Waits until the tree of the ledger says so.
#[track_caller]
fn wait_tree(address: &str, what: &str) {
    wait_until(what, || get(address, "/tasks", "text/plain").contains(what));
}

/// Waits until a transfer is debited.
#[track_caller]
fn wait_half_done(db: &Path) {
    wait_until("a debit", || Tally::take(db, 0, &[]).expect("it is there").half_done > 0);
}

/// One run under load, with presses at random until it has ended.
fn storm(random: &mut Rng) -> End {
    let folder = folder();
    let db = folder.path().join("ledger.db");
    let (clients, seed) = (random.u32(1..=12).to_string(), random.u32(..).to_string());
    let mut ledger = Ledger::start(&db, &["--load", &clients, "--seed", &seed]);
    pause(Duration::from_millis(random.u64(50..800)));
    while !ledger.has_ended() {
        ledger.signal(if random.bool() { SIGINT } else { SIGTERM });
        pause(Duration::from_millis(random.u64(0..150)));
    }
    let end = ledger.end();
    assert_eq!(end.number("lost"), 0, "{end:#?}");
    if is_forced(&end) {
        // On a busy machine transfers are cut off by that, and some end while the last line is made. The next start finishes them.
        let next = Ledger::start(&db, &["--port", "0", "--seconds", "0.1"]).end();
        assert!(next.is_good() && next.number("committed") >= end.number("acknowledged"), "{end:#?}, then {next:#?}");
        return end;
    }
    let again = Tally::take(&db, 0, &[]).expect("the database is there");
    assert_eq!(u64::try_from(again.committed), Ok(end.number("committed")), "{end:#?}");
    assert!(end.is_good() && again.is_good(), "{end:#?}");
    end
}

fn is_forced(end: &End) -> bool {
    end.status.code() != Some(0)
}

#[test]
fn no_storm_of_signals_loses_or_halves_a_transfer() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let (storms, seed) = (number("LEDGER_STORMS").unwrap_or(10), number("LEDGER_SEED").unwrap_or(now));
    println!("{storms} storms; again with LEDGER_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let (mut acknowledged, mut forced) = (0, 0);
    for n in 1..=storms {
        let end = storm(&mut random);
        println!("{n}: {} ({})", end.last, end.status);
        acknowledged += end.number("acknowledged");
        assert!(end.number("accepted") >= end.number("acknowledged"), "{end:#?}");
        forced += u64::from(is_forced(&end));
    }
    println!("{acknowledged} transfers were acknowledged; {forced} runs were ended by a third press");
    assert!(acknowledged > storms, "there was load");
}

#[test]
fn without_shields_a_client_that_leaves_takes_money_along() {
    let folder = folder();
    let end = Ledger::start(&folder.path().join("l.db"), &["--load", "16", "--seconds", "1", "--unshielded"]).end();
    assert!(end.number("half_done") > 0 && end.last.ends_with("sum=off"), "{end:#?}");
    assert_eq!(end.status.code(), Some(1), "{end:#?}");
}

#[test]
fn it_stops_by_itself_and_says_what_became_of_everything() {
    let folder = folder();
    let end = Ledger::start(&folder.path().join("l.db"), &["--load", "4", "--seconds", "0.5"]).end();
    assert!(end.is_good() && end.number("acknowledged") > 0, "{end:#?}");
    assert_eq!(end.status.code(), Some(0), "{end:#?}");
}

#[test]
fn a_transfer_whose_client_has_gone_is_waited_for_by_name() {
    let folder = folder();
    let ledger = Ledger::start(&folder.path().join("l.db"), &["--port", "0", "--pause", "1000"]);
    let client = post(&ledger.address, r#"{"from":1,"to":2,"amount":5}"#);
    wait_tree(&ledger.address, "shield transfer of 5 from 1 to 2 at examples/ledger/src/transfer.rs:");
    drop(client);
    // Its budget runs from the moment at which nobody waits for it any more.
    wait_tree(&ledger.address, ", holding, age ");
    ledger.signal(SIGTERM);
    let end = ledger.end();
    assert!(end.last.ends_with("acknowledged=0 committed=1 half_done=0 lost=0 sum=exact"), "{end:#?}");
}

#[test]
fn a_ledger_that_was_killed_is_whole_after_its_next_start() {
    let folder = folder();
    let db = folder.path().join("l.db");
    let ledger = Ledger::start(&db, &["--port", "0", "--pause", "60000"]);
    let _client = post(&ledger.address, r#"{"from":1,"to":2,"amount":5}"#);
    wait_tree(&ledger.address, "shield transfer");
    wait_half_done(&db);
    ledger.signal(SIGKILL);
    assert_eq!(ledger.end().status.signal(), Some(SIGKILL as i32));
    let end = Ledger::start(&db, &["--port", "0", "--seconds", "0.1"]).end();
    assert!(end.is_good() && end.number("committed") == 1, "{end:#?}");
}

#[test]
fn by_force_the_last_line_still_says_how_things_stand() {
    let folder = folder();
    let db = folder.path().join("l.db");
    let ledger = Ledger::start(&db, &["--port", "0", "--pause", "60000"]);
    let _client = post(&ledger.address, r#"{"from":1,"to":2,"amount":5}"#);
    wait_half_done(&db);
    for _ in 0..3 {
        ledger.signal(SIGTERM);
        pause(Duration::from_millis(300));
    }
    let end = ledger.end();
    assert_eq!(end.last, "accepted=1 acknowledged=0 committed=0 half_done=1 lost=0 sum=off", "{end:#?}");
    assert_eq!(end.status.code(), Some(128 + SIGTERM as i32), "{end:#?}");
    assert!(end.err.contains("transfer of 5 from 1 to 2"), "it is named: {end:#?}");
}

#[test]
fn the_tree_comes_as_page_text_or_json() {
    let folder = folder();
    let ledger = Ledger::start(&folder.path().join("l.db"), &["--port", "0"]);
    let page = get(&ledger.address, "/tasks", "text/html,application/xhtml+xml");
    assert!(page.contains("content-type: text/html") && page.contains("<title>ledger"), "{page}");
    let text = get(&ledger.address, "/tasks", "*/*");
    assert!(text.contains("nursery ledger at "), "{text}");
    let json = get(&ledger.address, "/tasks", "application/json");
    let json: serde_json::Value =
        serde_json::from_str(json.split("\r\n\r\n").nth(1).unwrap_or_default()).expect("JSON");
    assert_eq!((json["phase"].as_str(), json["tasks"][0]["depth"].as_u64()), (Some("running"), Some(0)), "{json}");
    for (path, says) in [("/livez", "alive"), ("/readyz", "ready"), ("/balance", "\"accounts\":100")] {
        let answer = get(&ledger.address, path, "*/*");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(says), "{answer}");
    }
    ledger.signal(SIGINT);
    assert!(ledger.end().is_good());
}

#[test]
fn what_can_not_be_is_said_with_what_to_do() {
    let folder = folder();
    let db = folder.path().join("l.db");
    let first = Ledger::start(&db, &["--port", "0"]);
    let port = first.address.rsplit(':').next().expect("an address has a port").to_owned();
    for (db, args, says) in [
        (&db, ["--port", &port], "give another --port"),
        (&folder.path().join("no/l.db"), ["--port", "0"], "give --db a file that you may write"),
        (&db, ["--load", "0"], "1..=1000"),
        (&db, ["--seconds", "never"], "such as 3 or 0.5"),
    ] {
        let end = Ledger::start(db, &args).end();
        assert!(end.status.code().is_some_and(|code| code > 0), "{args:?}: {end:#?}");
        assert!(end.err.contains(says) && end.out.is_empty(), "{args:?}: {end:#?}");
    }
    first.signal(SIGTERM);
    assert!(first.end().is_good());
}
