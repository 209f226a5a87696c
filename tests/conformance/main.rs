//! Ports of the tests of trio, asyncio, aiorun and anyio. Each has the name of its origin; `tests/CONFORMANCE.md` lists them all.

#![expect(clippy::unwrap_used, reason = "a test that unwraps in vain has failed, and says where")]
#![expect(non_snake_case, reason = "a port has the name of its origin")]

mod aiorun;
mod anyio;
mod asyncio;
mod read;
#[expect(dead_code, reason = "these ports do not need all of it")]
#[path = "../it/support.rs"]
mod support;
mod table;
mod trio;
