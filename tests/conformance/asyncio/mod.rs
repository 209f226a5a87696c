//! asyncio's own tests. Read at CPython 3.13.0; single newer ones at CPython's main branch.

mod cancel;
mod eager;
mod runners;
mod shield;
mod taskgroups;
mod timeouts;
mod waitfor;
