//! A task of the run returns `()` or a `Result`, as a child does.

#[testudo::main]
async fn main() {
    testudo::spawn(async { 42 });
}
