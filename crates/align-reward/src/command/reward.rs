//! The reward behind a program.

use std::{
    fs, io,
    path::{Component, Path},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    CommandConfig, CommandVerdict,
    process::{Ended, Limits, run},
};
use crate::{
    function::{RewardError, RewardFn},
    rollout::Rollout,
    score::Score,
};

/// Scores completions by running a program on each, within the limits of its [configuration](CommandConfig).
#[derive(Debug, Clone)]
pub struct CommandReward {
    config: CommandConfig,
}

impl CommandReward {
    /// Runs what the configuration says.
    ///
    /// # Errors
    /// [`RewardError::Failed`] if there is no program, or a file name leads out of the program's directory.
    pub fn new(config: CommandConfig) -> Result<Self, RewardError> {
        let failed = |reason: String| RewardError::Failed { function: NAME.into(), reason };
        if config.program.is_empty() {
            return Err(failed("`program` is empty".into()));
        }
        for name in config.files.keys().chain([&config.completion_file]) {
            if !is_plain(name) {
                return Err(failed(format!("`{name}` is no name of a file in the program's directory")));
            }
        }
        Ok(Self { config })
    }

    fn score_one(&self, rollout: &Rollout) -> Result<Score, RewardError> {
        let config = &self.config;
        let Some(answer) = config.answer.find(&rollout.completion) else { return Ok(Score::Value(0.0)) };
        let mut files = vec![(config.completion_file.as_str(), answer.to_owned())];
        for (name, column) in &config.files {
            match rollout.text_column(column) {
                Ok(text) => files.push((name, text)),
                Err(reason) => return Ok(Score::unscored(reason)),
            }
        }
        let directory = tempfile::tempdir().map_err(|source| self.error("make a directory for", source))?;
        for (name, text) in files {
            let written = fs::write(directory.path().join(name), text);
            written.map_err(|source| self.error("write the files of", source))?;
        }
        let ended = self.run_in(directory.path()).map_err(|source| self.error("run", source))?;
        Ok(self.verdict(&ended))
    }

    fn run_in(&self, directory: &Path) -> io::Result<Ended> {
        let CommandConfig { program, environment, timeout_seconds, .. } = &self.config;
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).current_dir(directory).env_clear().envs(environment);
        let limits = Limits {
            timeout: Duration::try_from_secs_f64(timeout_seconds.get()).unwrap_or(Duration::MAX),
            memory_bytes: self.config.memory_mebibytes.saturating_mul(1 << 20),
            file_bytes: self.config.file_mebibytes.saturating_mul(1 << 20),
            output_bytes: self.config.output_bytes,
        };
        run(command, &directory.join(&self.config.completion_file), limits)
    }

    fn verdict(&self, ended: &Ended) -> Score {
        // What runs for ever is wrong, as what fails is.
        let Some(status) = ended.status else { return Score::Value(0.0) };
        match self.config.verdict {
            CommandVerdict::ExitStatus => status.success().into(),
            CommandVerdict::LastLine if !status.success() => {
                Score::unscored(format!("the program ended with {status}"))
            }
            CommandVerdict::LastLine => {
                let text = String::from_utf8_lossy(&ended.stdout);
                let line =
                    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
                let number = line.parse::<f64>();
                number.map_err(|_| format!("the program's last line is no number: `{line}`")).into()
            }
        }
    }

    fn error(&self, action: &'static str, source: io::Error) -> RewardError {
        let program = self.config.program[0].clone();
        RewardError::Command { function: NAME.into(), action, program, source }
    }
}

const NAME: &str = "command";

/// Whether a name names a file right in a directory.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}

impl RewardFn for CommandReward {
    fn name(&self) -> &'static str {
        NAME
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let next = AtomicUsize::new(0);
        let results: Vec<Mutex<Option<Result<Score, RewardError>>>> =
            rollouts.iter().map(|_| Mutex::new(None)).collect();
        let work = || {
            while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < rollouts.len())
            {
                let result = self.score_one(&rollouts[index]);
                *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.config.parallel.get().min(rollouts.len()) {
                scope.spawn(work);
            }
            work();
        });
        let lost = || Ok(Score::unscored("the program's thread ended early"));
        let taken =
            results.into_iter().map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner));
        taken.map(|result| result.unwrap_or_else(lost)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use align_model::number::Positive;

    use super::*;

    fn config(script: &str) -> CommandConfig {
        let json = serde_json::json!({"program": ["/bin/sh", "-c", script]});
        serde_json::from_value(json).unwrap()
    }

    fn score(config: CommandConfig, completion: &str) -> Score {
        let rollout = Rollout::new("p", completion).with_column("tests", "grep -q four completion.txt\n");
        CommandReward::new(config).unwrap().score(&[rollout]).unwrap().remove(0)
    }

    #[test]
    fn the_exit_status_decides() {
        let files = BTreeMap::from([("tests.sh".to_string(), "tests".to_string())]);
        let with_files = CommandConfig { files, ..config(". ./tests.sh") };
        assert_eq!(score(with_files.clone(), "It is four."), Score::Value(1.0));
        assert_eq!(score(with_files.clone(), "It is five."), Score::Value(0.0));
        let scores = CommandReward::new(with_files).unwrap().score(&[Rollout::new("p", "four")]).unwrap();
        assert_eq!(scores, [Score::unscored("the row has no column `tests`")]);
    }

    #[test]
    fn the_last_line_may_be_the_score() {
        let last_line = |script| CommandConfig { verdict: CommandVerdict::LastLine, ..config(script) };
        assert_eq!(score(last_line("echo 1; echo 0.25; echo"), ""), Score::Value(0.25));
        assert_eq!(score(last_line("wc -c"), "12345"), Score::Value(5.0));
        assert_eq!(
            score(last_line("echo done"), ""),
            Score::unscored("the program's last line is no number: `done`")
        );
        assert!(score(last_line("echo nan"), "").is_unscored());
        assert!(score(last_line("echo 1; exit 3"), "").is_unscored());
    }

    /// A minute passes if anything waits for the sleepers.
    #[test]
    fn what_hangs_is_killed_with_all_it_started() {
        let marker = tempfile::NamedTempFile::new().unwrap();
        let path = marker.path().display();
        let hang = format!("(sleep 3; echo late > {path}) & sleep 60 & wait");
        let timeout_seconds = Positive::new(0.3);
        assert_eq!(score(CommandConfig { timeout_seconds, ..config(&hang) }, ""), Score::Value(0.0));
        let leaves = format!("(sleep 3; echo late > {path}) & exit 0");
        assert_eq!(score(config(&leaves), ""), Score::Value(1.0));
        thread::sleep(Duration::from_millis(3500));
        assert_eq!(fs::read_to_string(marker.path()).unwrap(), "");
    }

    #[test]
    fn memory_files_and_output_are_limited() {
        // The shell itself fits into 512 MiB, what `dd` asks for does not.
        let greedy = "dd if=/dev/zero of=/dev/null bs=600M count=1";
        let small = CommandConfig { memory_mebibytes: 512, ..config(greedy) };
        assert_eq!(score(small, ""), Score::Value(0.0));
        let large = CommandConfig { memory_mebibytes: 4096, ..config(greedy) };
        assert_eq!(score(large, ""), Score::Value(1.0));
        let writes = "dd if=/dev/zero of=big bs=1M count=4";
        assert_eq!(score(CommandConfig { file_mebibytes: 1, ..config(writes) }, ""), Score::Value(0.0));
        assert_eq!(score(CommandConfig { file_mebibytes: 8, ..config(writes) }, ""), Score::Value(1.0));
        let talks = "i=0; while [ $i -lt 20000 ]; do echo 7; i=$((i+1)); done; echo 8";
        let capped = CommandConfig { output_bytes: 4, verdict: CommandVerdict::LastLine, ..config(talks) };
        assert_eq!(score(capped, ""), Score::Value(7.0));
    }

    #[test]
    fn the_environment_is_not_inherited() {
        // Cargo sets this one for every test.
        assert_eq!(
            score(config("test -z \"$CARGO_MANIFEST_DIR\" && test -n \"$PATH\""), ""),
            Score::Value(1.0)
        );
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let missing = CommandConfig { program: vec!["/no/such/program".into()], ..config("") };
        let error = CommandReward::new(missing).unwrap().score(&[Rollout::new("p", "c")]).unwrap_err();
        assert_eq!(error.to_string(), "reward `command` cannot run `/no/such/program`");
        assert!(CommandReward::new(CommandConfig { program: Vec::new(), ..config("") }).is_err());
        for name in ["../x", "/etc/x", "a/b", "", ".."] {
            let outside = CommandConfig { completion_file: name.into(), ..config("") };
            assert!(CommandReward::new(outside).is_err(), "{name}");
        }
    }

    #[test]
    fn programs_run_in_parallel_and_in_order() {
        let parallel = std::num::NonZeroUsize::new(4).unwrap();
        let config =
            CommandConfig { parallel, verdict: CommandVerdict::LastLine, ..config("sleep 0.1; wc -c") };
        let rollouts: Vec<Rollout> = (0..9).map(|n| Rollout::new("p", "x".repeat(n))).collect();
        let scores = CommandReward::new(config).unwrap().score(&rollouts).unwrap();
        assert_eq!(scores, (0..9).map(|n| Score::Value(f64::from(n))).collect::<Vec<_>>());
    }
}
