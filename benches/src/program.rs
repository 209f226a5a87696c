//! The program that is started anew for each measurement, so that none finds the heap of another.

use std::env;
use std::fmt::Debug;
use std::str::FromStr;

use crate::case::{self, one_thread};
use crate::plan::{PLAN, Threads, measure};
use crate::{idle, work};

/// Does what the arguments say, and prints what was measured as JSON.
pub fn run(allocator: &str) {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["count", name, n] => drop(find(name).run(&one_thread(), number(n))),
        ["time", group, threads, n, rounds] => {
            let threads = if threads == Threads::One.to_string() { Threads::One } else { Threads::Two };
            let samples = measure(&PLAN[number::<usize>(group)], threads, allocator, number(n), number(rounds));
            print(&samples);
        }
        ["bytes", name, n] => {
            let n = number(n);
            let laps = find(name).run(&one_thread(), n);
            print(&(laps.parts()[0].bytes as f64 / n as f64));
        }
        ["idle", n, seconds] => print(&idle::wakeups(number(n), number(seconds))),
        _ => panic!("usage: count CASE N | time GROUP THREADS N ROUNDS | bytes CASE N | idle N SECONDS"),
    }
}

fn find(name: &str) -> case::Case {
    work::all().into_iter().find(|case| format!("{case:?}") == name).expect("the case exists")
}

fn number<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("a number")
}

#[expect(clippy::print_stdout, reason = "this is the program's answer")]
fn print(value: &impl serde::Serialize) {
    println!("{}", serde_json::to_string(value).expect("it is plain data"));
}
