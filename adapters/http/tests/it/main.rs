//! The server over real TCP.

mod held_up;
mod support;
