//! The server over real TCP, and on pipes with paused time.

#![expect(clippy::disallowed_methods, reason = "clients are not of the run")]
#![expect(clippy::unwrap_used, reason = "it is a test, also in its helpers")]

mod held_up;
mod http2;
mod memory;
mod roll;
mod settings;
mod stop;
mod storm;
mod support;
