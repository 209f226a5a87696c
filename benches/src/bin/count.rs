//! Does the work of one case `n` times and says nothing: what callgrind looks at.

use std::env;

use testudo_bench::case::one_thread;
use testudo_bench::work;

fn main() {
    let mut args = env::args().skip(1);
    let (Some(name), Some(n)) = (args.next(), args.next()) else { panic!("usage: count CASE N") };
    let n = n.parse().expect("N is a number");
    let case = work::all().into_iter().find(|case| format!("{case:?}") == name).expect("the case exists");
    drop(case.run(&one_thread(), n));
}
