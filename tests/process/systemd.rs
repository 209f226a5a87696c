//! A real systemd, as the first process of a namespace of its own: what it does with what a run tells it.

use std::fs;
use std::future::pending;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use testudo::{catch_cancelled, shield, spawn};
use tokio::time::sleep;

use crate::scenes::{leave, runner};

const SYSTEMD: &str = "/lib/systemd/systemd";

/// What makes the namespace fit for systemd, and then becomes it. `$1` is a folder of the test, `$2` this program.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/lock
umount -R /sys/fs/cgroup || true
mount -t cgroup2 none /sys/fs/cgroup
cd /run/systemd/system
printf '[Unit]\nDefaultDependencies=no\nWants=driver.service\n' > boot.target
for service in told mute; do
  type=notify variables=TESTUDO_SCENE=systemd_drain
  [ $service = told ] || { type=exec; variables="$variables TESTUDO_MUTE=1"; }
  cat > $service.service <<END
[Unit]
DefaultDependencies=no
[Service]
Type=$type
WatchdogSec=$([ $service = told ] && echo 400ms || echo 0)
TimeoutStopSec=1
Environment=RUST_BACKTRACE=0 $variables
ExecStart=$2 --exact scenes::actor --nocapture
END
done
cat > driver.service <<END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh $1/drive
END
export container=docker
exec /lib/systemd/systemd --system --unit=boot.target
"#;

/// Starts and stops both services, and writes down what became of them.
const DRIVE: &str = r#"
cd "$(dirname "$0")"
exec > said 2>&1
systemctl start told mute
sleep 1.2
systemctl show --value -p ActiveState told
systemctl stop told &
sleep 1.5
echo "status: $(systemctl show --value -p StatusText told)"
wait
systemctl show --value -p Result told
systemctl stop mute
systemctl show --value -p Result mute
echo end
"#;

pub(crate) fn play(scene: &str) {
    if scene == "systemd_drain" {
        drain();
    }
}

/// Takes three seconds to stop.
fn drain() -> ! {
    leave(runner().budget(Duration::from_secs(20)).run_and_exit(async {
        spawn(async {
            drop(catch_cancelled(pending::<()>()).await);
            shield(sleep(Duration::from_secs(3))).await;
        });
        if std::env::var_os("TESTUDO_MUTE").is_none() {
            testudo::ready().set(true);
        }
        pending::<()>().await;
    }))
}

/// Ends the namespace with everything in it.
struct Boot(Child);

impl Drop for Boot {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn systemd_waits_for_a_drain_that_asks_for_time_and_for_no_other() {
    if !Path::new(SYSTEMD).exists() {
        return eprintln!("skipped: there is no systemd");
    }
    let folder = std::env::temp_dir().join(format!("testudo-systemd-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("can make a folder");
    fs::write(folder.join("drive"), DRIVE).expect("can write");
    let own = std::env::current_exe().expect("a test knows its own file");
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--kill-child=SIGKILL",
        "-m",
        "-p",
        "-f",
        "-u",
        "-i",
        "-C",
        "--mount-proc",
        "sh",
        "-c",
        BOOT,
        "boot",
    ]);
    let boot = unshare.arg(&folder).arg(own).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut boot = Boot(boot.expect("a shell can be started"));
    let (said, began) = (folder.join("said"), Instant::now());
    let said = loop {
        let text = fs::read_to_string(&said).unwrap_or_default();
        let is_over = boot.0.try_wait().is_ok_and(|status| status.is_some());
        if text.ends_with("end\n") || is_over || began.elapsed() > Duration::from_secs(60) {
            break text;
        }
        thread::sleep(Duration::from_millis(20));
    };
    drop(boot);
    drop(fs::remove_dir_all(&folder));
    if said.is_empty() {
        return eprintln!("skipped: no namespace for systemd can be made here");
    }
    let lines: Vec<&str> = said.lines().collect();
    let ["active", status, "success", "timeout", "end"] = lines[..] else { panic!("{said}") };
    assert!(status.starts_with("status: shielded, ") && status.ends_with("s left"), "{status}");
}
