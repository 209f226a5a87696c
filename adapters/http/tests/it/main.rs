//! The server over real TCP, and on pipes with paused time.

mod held_up;
mod memory;
mod settings;
mod stop;
mod support;
