//! Main returns `()` or a `Result`.

fn main() {
    let outcome = testudo::run(async { 42 });
    drop(outcome);
}
