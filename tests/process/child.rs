//! A child process whose lines and end a test waits for.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A child that stays silent for so long is stuck. Generous, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than the time within which presses of one kind are one.
pub(crate) const NEXT_PRESS: Duration = Duration::from_millis(300);

/// What a scene prints begins with this, so that it can be told from the test harness around it.
pub(crate) const MARK: &str = "@ ";

/// A started child.
pub(crate) struct Proc {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    /// What has come on stderr so far.
    seen: String,
    /// Lines without it are not the child's own.
    mark: &'static str,
}

/// How a child has ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    pub(crate) err: String,
}

impl End {
    #[track_caller]
    pub(crate) fn code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn died_by(&self, signal: Signal) -> &Self {
        assert_eq!(self.status.signal(), Some(signal as i32), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn said(&self, text: &str) -> &Self {
        assert!(self.err.contains(text), "no `{text}`: {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn did_not_say(&self, text: &str) -> &Self {
        assert!(!self.err.contains(text), "`{text}`: {self:#?}");
        self
    }
}

/// The program of an example, which cargo builds before it runs tests.
fn example(name: &str) -> PathBuf {
    let own = env::current_exe().expect("a test knows its own file");
    let folder = own.ancestors().nth(2).expect("target/PROFILE/deps/process-*");
    let path = folder.join("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo build --examples`", path.display());
    path
}

impl Proc {
    pub(crate) fn example(name: &str, args: &[&str]) -> Self {
        Self::start(Command::new(example(name)).args(args), "")
    }

    /// At a terminal, on which both outputs are one.
    pub(crate) fn at_a_terminal(name: &str, args: &[&str]) -> Self {
        let mut script = Command::new("script");
        if cfg!(target_os = "linux") {
            let command = format!("exec '{}' {}", example(name).display(), args.join(" "));
            script.args(["-q", "-e", "-c", &command, "/dev/null"]);
        } else {
            script.args(["-q", "/dev/null"]).arg(example(name)).args(args);
        }
        // A terminal without a name is taken for one that can not redraw a line.
        Self::start(script.env("TERM", "xterm"), "")
    }

    /// This binary again, as an actor.
    pub(crate) fn scene(name: &str) -> Self {
        let own = env::current_exe().expect("a test knows its own file");
        Self::start(actor(&mut Command::new(own), name), MARK)
    }

    /// The same with these variables in its environment.
    pub(crate) fn scene_with(name: &str, variables: &[(&str, &str)]) -> Self {
        let own = env::current_exe().expect("a test knows its own file");
        let mut command = Command::new(own);
        Self::start(actor(&mut command, name).envs(variables.iter().copied()), MARK)
    }

    /// The same started by another program, which gets our own name and arguments behind its own.
    pub(crate) fn scene_by(mut starter: Command, name: &str) -> Self {
        let own = env::current_exe().expect("a test knows its own file");
        Self::start(actor(starter.arg(own), name), MARK)
    }

    /// The same with this as its stdin.
    pub(crate) fn scene_at(name: &str, stdin: Stdio) -> Self {
        let own = env::current_exe().expect("a test knows its own file");
        let mut command = Command::new(own);
        let (mut proc, err) = Self::start_with(actor(&mut command, name), stdin, MARK);
        proc.err = lines(err);
        proc
    }

    /// A scene in a process that was started with SIGINT and SIGHUP ignored, as `nohup` and shells' `&` do.
    pub(crate) fn deaf_scene(name: &str) -> Self {
        let own = env::current_exe().expect("a test knows its own file");
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' INT HUP; exec \"$0\" \"$@\""]).arg(own);
        Self::start(actor(&mut shell, name), MARK)
    }

    fn start(command: &mut Command, mark: &'static str) -> Self {
        let (mut proc, err) = Self::start_unheard(command, mark);
        proc.err = lines(err);
        proc
    }

    /// A scene whose stderr nobody reads, so that it can be full.
    pub(crate) fn unheard_scene(name: &str) -> (Self, ChildStderr) {
        let own = env::current_exe().expect("a test knows its own file");
        Self::start_unheard(actor(&mut Command::new(own), name), MARK)
    }

    fn start_unheard(command: &mut Command, mark: &'static str) -> (Self, ChildStderr) {
        Self::start_with(command, Stdio::piped(), mark)
    }

    fn start_with(command: &mut Command, stdin: Stdio, mark: &'static str) -> (Self, ChildStderr) {
        hear_interrupts();
        let piped = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("can start");
        let out = lines(child.stdout.take().expect("piped"));
        let err = child.stderr.take().expect("piped");
        (Self { child, out, err: mpsc::channel().1, seen: String::new(), mark }, err)
    }

    /// The next line on stdout; none at its end.
    #[track_caller]
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            let line = match self.out.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("the child is stuck; stderr so far: {}", self.heard()),
            };
            if let Some(own) = line.strip_prefix(self.mark) {
                return Some(own.to_owned());
            }
        }
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, line: &str) -> &mut Self {
        assert_eq!(self.line().as_deref(), Some(line), "stderr so far: {}", self.heard());
        self
    }

    /// These lines next, in any order.
    #[track_caller]
    pub(crate) fn expect_all<S: AsRef<str> + Ord>(&mut self, lines: impl IntoIterator<Item = S>) -> &mut Self {
        let mut expected: Vec<String> = lines.into_iter().map(|line| line.as_ref().to_owned()).collect();
        let mut came: Vec<String> = expected.iter().map_while(|_| self.line()).collect();
        expected.sort();
        came.sort();
        assert_eq!(came, expected, "stderr so far: {}", self.heard());
        self
    }

    /// A line that begins so; gives the rest.
    #[track_caller]
    pub(crate) fn expect_prefix(&mut self, prefix: &str) -> String {
        let line = self.line().unwrap_or_default();
        let rest = line.strip_prefix(prefix);
        rest.unwrap_or_else(|| panic!("no `{prefix}` but `{line}`; stderr so far: {}", self.heard())).to_owned()
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> &mut Self {
        self.signal_pid(signal, self.child.id())
    }

    pub(crate) fn signal_pid(&mut self, signal: Signal, pid: u32) -> &mut Self {
        let pid = Pid::from_raw(pid.try_into().expect("small"));
        kill(pid, signal).expect("it is alive");
        self
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_some()
    }

    /// False if it has ended.
    pub(crate) fn try_signal(&mut self, signal: Signal) -> bool {
        !self.has_ended() && kill(Pid::from_raw(self.child.id().try_into().expect("small")), signal).is_ok()
    }

    /// A press that is one of its own.
    pub(crate) fn press_again(&mut self, signal: Signal) -> &mut Self {
        thread::sleep(NEXT_PRESS);
        self.signal(signal)
    }

    /// Types on its terminal, or into its stdin.
    pub(crate) fn input(&mut self, text: &str) -> &mut Self {
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("it reads");
        self
    }

    /// Waits until stderr has said `text`, and gives all of stderr so far.
    #[track_caller]
    pub(crate) fn expect_err(&mut self, text: &str) -> String {
        while !self.seen.contains(text) {
            match self.err.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.extend([line.as_str(), "\n"]),
                Err(error) => panic!("no `{text}` on stderr ({error}): {}", self.seen),
            }
        }
        self.seen.clone()
    }

    fn heard(&mut self) -> &str {
        let more: Vec<String> = self.err.try_iter().collect();
        self.seen.extend(more.iter().flat_map(|line| [line, "\n"]));
        &self.seen
    }

    /// Waits for the end; on stdout nothing more may come.
    #[track_caller]
    pub(crate) fn end(&mut self) -> End {
        let more = self.line();
        assert_eq!(more, None, "the child said more; stderr so far: {}", self.heard());
        self.exit()
    }

    /// Waits for the end, whatever else comes on stdout.
    #[track_caller]
    pub(crate) fn exit(&mut self) -> End {
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("it is ours") {
                Some(status) => break status,
                None if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
                None => panic!("the child does not end; stderr so far: {}", self.heard()),
            }
        };
        while let Ok(line) = self.err.recv_timeout(PATIENCE) {
            self.seen.extend([line.as_str(), "\n"]);
        }
        End { status, err: self.seen.clone() }
    }
}

/// A failed test leaves no process behind.
impl Drop for Proc {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A test run in the background of a shell ignores SIGINT, and children inherit that. What is caught here is at its default there.
fn hear_interrupts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        if ignored & 1 << (Signal::SIGINT as u64 - 1) != 0 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("can build");
            let _entered = runtime.enter();
            drop(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).expect("can listen"));
        }
    });
}

fn actor<'a>(command: &'a mut Command, scene: &str) -> &'a mut Command {
    // To look the symbols of a backtrace up takes longer than the budgets of some scenes.
    let quick = command.env("RUST_BACKTRACE", "0");
    quick.args(["--exact", "scenes::actor", "--nocapture"]).env("TESTUDO_SCENE", scene)
}

/// Reads on a thread, so that the child waits for its reader only if a test leaves very much unread.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = mpsc::sync_channel(1000);
    thread::spawn(move || {
        // A read error is the end, as at a closed terminal.
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if send.send(line.trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}
