//! A child process that cannot outlive its welcome.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use nix::{
    sys::{
        resource::{Resource, setrlimit},
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use wait_timeout::ChildExt;

/// What a child may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) timeout: Duration,
    pub(super) memory_bytes: u64,
    pub(super) file_bytes: u64,
    pub(super) output_bytes: usize,
}

/// How a child ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// `None` if its time was over.
    pub(super) status: Option<ExitStatus>,
    /// The beginning of its standard output.
    pub(super) stdout: Vec<u8>,
}

/// How long output may still come after everything was killed: only a process that left its group could send any.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs a command within limits, with `input` as its standard input, and leaves no process of its group behind.
pub(super) fn run(mut command: Command, input: &Path, limits: Limits) -> io::Result<Ended> {
    command.stdin(std::fs::File::open(input)?).stdout(Stdio::piped()).stderr(Stdio::null());
    command.process_group(0);
    limit(&mut command, limits);
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().map(|pipe| read_in_background(pipe, limits.output_bytes));
    let waited = child.wait_timeout(limits.timeout);
    kill_group(&mut child);
    let stdout = stdout.and_then(|receiver| receiver.recv_timeout(LAST_WORDS).ok()).unwrap_or_default();
    Ok(Ended { status: waited?, stdout })
}

/// Makes the child set its own limits before it becomes the program.
#[allow(unsafe_code)]
fn limit(command: &mut Command, limits: Limits) {
    // A process that leaves its group is not killed with it, but shall not compute for ever. The time of all its threads
    // counts, hence the factor.
    let seconds = limits.timeout.as_secs().saturating_add(1).saturating_mul(64);
    let set = move || {
        let bounds = [
            (Resource::RLIMIT_AS, limits.memory_bytes),
            (Resource::RLIMIT_FSIZE, limits.file_bytes),
            (Resource::RLIMIT_CPU, seconds),
            (Resource::RLIMIT_CORE, 0),
        ];
        for (resource, bound) in bounds {
            setrlimit(resource, bound, bound).map_err(io::Error::from)?;
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe functions may be called: it calls
    // setrlimit alone, allocates nothing, takes no lock, and an error is built from the number that the system gave.
    unsafe { command.pre_exec(set) };
}

/// Kills everything in the child's group, and takes the child's status so that it is no zombie.
fn kill_group(child: &mut Child) {
    // The group lives on after its leader where grandchildren do; where nothing is left there is nothing to do.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let _ = child.wait();
}

/// Reads to the end, keeps the beginning.
fn read_in_background(mut pipe: impl Read + Send + 'static, keep: usize) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        let _ = pipe.by_ref().take(keep as u64).read_to_end(&mut kept);
        // A program must not fail because it talks too much.
        let _ = io::copy(&mut pipe, &mut io::sink());
        let _ = sender.send(kept);
    });
    receiver
}
