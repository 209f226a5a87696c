//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// A ledger over HTTP that loses nothing, whatever stops it.
///
/// Alone it serves until it is stopped: by Ctrl-C, by SIGTERM, or after --seconds. With --load it has clients of its own, and its
/// last line says what has become of their transfers.
#[derive(Clone, Debug, Parser)]
#[command(name = "ledger", version)]
pub struct Options {
    /// Runs so many clients, some of which leave in the middle
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub load: Option<u16>,
    /// Stops by itself after so many seconds
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub seconds: Option<Duration>,
    /// The database; it is made if there is none [default: ledger.db, with --load a temporary one]
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,
    /// The port on 127.0.0.1; 0 is a free one [default: 8080, with --load a free one]
    #[arg(long, value_name = "P")]
    pub port: Option<u16>,
    /// Covers no transfer: to see what is lost then
    #[arg(long)]
    pub unshielded: bool,
    /// How long a transfer pauses between its two steps
    #[arg(long, value_name = "MS", default_value = "20", value_parser = milliseconds)]
    pub pause: Duration,
    /// Shares the port with others who say the same, so that the next version can begin before this one ends
    #[arg(long)]
    pub reuse_port: bool,
    /// Goes on accepting for so many seconds when it is told to stop, and asks its clients to go elsewhere
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub drain_delay: Option<Duration>,
    /// What the clients do follows from this number
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
}

impl Options {
    /// The port to listen on; 0 is a free one.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.load.is_some() { 0 } else { 8080 })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match seconds {
        Some(seconds) if !seconds.is_zero() => Ok(seconds),
        Some(_) | None => Err("give a number of seconds above 0, such as 3 or 0.5".into()),
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_millis).map_err(|_| "give a number of milliseconds, such as 20".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_with_what_to_write() {
        for (args, says) in [
            (["--load", "0"], "1..=1000"),
            (["--seconds", "-1"], "such as 3 or 0.5"),
            (["--seconds", "0"], "such as 3 or 0.5"),
            (["--seconds", "soon"], "such as 3 or 0.5"),
            (["--port", "70000"], "65535"),
            (["--pause", "long"], "such as 20"),
        ] {
            let error = Options::try_parse_from(["ledger", &args.join("=")]).unwrap_err().to_string();
            assert!(error.contains(says), "{args:?}: {error}");
        }
    }

    #[test]
    fn with_a_load_the_port_is_a_free_one() {
        let port = |args: &[&str]| Options::try_parse_from([&["ledger"], args].concat()).unwrap().port();
        assert_eq!((port(&[]), port(&["--load=1"]), port(&["--load=1", "--port=9"])), (8080, 0, 9));
    }
}
