//! A shield outlives its caller, so it can not borrow from it; `shield_scoped` can.

#[testudo::main]
async fn main() {
    let text = String::from("local");
    testudo::shield(async { drop(text.len()) }).await;
}
