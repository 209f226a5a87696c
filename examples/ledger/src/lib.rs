//! A ledger over HTTP: its database, its transfers, its pages, and the clients that put it under load.

pub mod db;
pub mod listen;
pub mod load;
pub mod options;
pub mod program;
pub mod routes;
pub mod server;
pub mod tally;
pub mod tasks;
pub mod transfer;
