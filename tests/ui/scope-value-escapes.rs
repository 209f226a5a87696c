//! What the body of a scope borrows from itself does not leave it.

#[testudo::main]
async fn main() {
    let mut kept = None;
    let scope = testudo::CancelScope::new();
    let body = async {
        let text = String::from("of the body");
        kept = Some(text.as_str());
    };
    scope.run(body).await.unwrap();
    drop(kept);
}
