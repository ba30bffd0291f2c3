//! The reward behind an endpoint.

use std::time::Duration;

use align_model::number::Positive;
use backon::{BlockingRetryable, ExponentialBuilder};
use serde::{Deserialize, Serialize};
use ureq::Agent;

use super::HttpConfig;
use crate::{
    function::{RewardError, RewardFn},
    rollout::Rollout,
    score::Score,
};

/// Scores by asking an endpoint, within the patience of its [configuration](HttpConfig).
#[derive(Debug)]
pub struct HttpReward {
    config: HttpConfig,
    agent: Agent,
}

impl HttpReward {
    /// Will ask this endpoint; nothing is sent yet.
    #[must_use]
    pub fn new(config: HttpConfig) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would turn the request into one without a body.
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(seconds(config.timeout_seconds)))
            .user_agent(concat!("align-kit/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self { config, agent }
    }

    fn request(&self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let body = serde_json::to_vec(&Request { rollouts }).map_err(|error| {
            self.error(&Failure::lasting(format!("cannot write the request: {error}")), 0)
        })?;
        let mut attempts = 0;
        let mut attempt = || {
            attempts += 1;
            self.attempt(&body)
        };
        let pauses = ExponentialBuilder::default()
            .with_factor(2.0)
            .with_min_delay(seconds(self.config.pause_seconds))
            .with_max_delay(LONGEST_PAUSE)
            .with_max_times(self.config.attempts.get() as usize - 1);
        let answer = (&mut attempt).retry(pauses).when(|failure| failure.may_pass).call();
        let answer = answer.map_err(|failure| self.error(&failure, attempts))?;
        if answer.scores.len() != rollouts.len() {
            let (expected, found) = (rollouts.len(), answer.scores.len());
            return Err(RewardError::WrongCount { function: self.config.name.clone(), expected, found });
        }
        Ok(answer.scores.into_iter().map(Score::from).collect())
    }

    fn attempt(&self, body: &[u8]) -> Result<Answer, Failure> {
        let mut request = self.agent.post(&self.config.url).header("content-type", "application/json");
        for (name, value) in &self.config.headers {
            request = request.header(name, value);
        }
        let mut response = request.send(body).map_err(|error| Failure::transport(&error))?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let text = text.map_err(|error| Failure::transport(&error))?;
        if !status.is_success() {
            let may_pass = status.is_server_error() || [408, 429].contains(&status.as_u16());
            let said: String = String::from_utf8_lossy(&text).chars().take(200).collect();
            return Err(Failure { may_pass, reason: format!("status {status}: {}", said.trim()) });
        }
        serde_json::from_slice(&text)
            .map_err(|error| Failure::lasting(format!("the answer is not of the expected form: {error}")))
    }

    fn error(&self, failure: &Failure, attempts: u32) -> RewardError {
        let reason = match attempts {
            0 | 1 => failure.reason.clone(),
            _ => format!("{}, after {attempts} attempts", failure.reason),
        };
        RewardError::Endpoint { function: self.config.name.clone(), url: self.config.url.clone(), reason }
    }
}

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

fn seconds(seconds: Positive) -> Duration {
    Duration::try_from_secs_f64(seconds.get()).unwrap_or(Duration::MAX)
}

/// Why an attempt brought nothing.
struct Failure {
    reason: String,
    /// Whether another attempt may help.
    may_pass: bool,
}

impl Failure {
    fn lasting(reason: String) -> Self {
        Self { reason, may_pass: false }
    }

    fn transport(error: &ureq::Error) -> Self {
        use ureq::Error::{BadUri, BodyExceedsLimit, Http, InvalidProxyUrl, Rustls, Tls};
        let lasting =
            matches!(error, BadUri(_) | BodyExceedsLimit(_) | Http(_) | InvalidProxyUrl | Rustls(_) | Tls(_));
        Self { reason: error.to_string(), may_pass: !lasting }
    }
}

#[derive(Serialize)]
struct Request<'r> {
    rollouts: &'r [Rollout],
}

#[derive(Deserialize)]
struct Answer {
    scores: Vec<AnsweredScore>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AnsweredScore {
    Value(f64),
    Unscored { unscored: String },
    Null(()),
}

impl From<AnsweredScore> for Score {
    fn from(answered: AnsweredScore) -> Self {
        match answered {
            AnsweredScore::Value(value) => value.into(),
            AnsweredScore::Unscored { unscored } => Self::unscored(unscored),
            AnsweredScore::Null(()) => Self::unscored("the endpoint gave no score"),
        }
    }
}

impl RewardFn for HttpReward {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let mut scores = Vec::with_capacity(rollouts.len());
        for batch in rollouts.chunks(self.config.batch_size.get()) {
            scores.extend(self.request(batch)?);
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::{TcpListener, TcpStream},
        thread,
    };

    use super::*;

    /// What a server does with a connection.
    enum Reply {
        /// Answers with this status and body.
        Answer(u16, &'static str),
        /// Reads and never answers.
        Hang,
        /// Closes the connection.
        Drop,
    }

    type Server = thread::JoinHandle<(Vec<String>, Vec<TcpStream>)>;

    /// Serves one reply a connection; returns the address and, at the end, the bodies that came and what still hangs.
    fn serve(replies: Vec<Reply>) -> (String, Server) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/score", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut bodies, mut hanging) = (Vec::new(), Vec::new());
            for reply in replies {
                let (mut stream, _) = listener.accept().unwrap();
                bodies.push(read_request(&stream));
                match reply {
                    Reply::Answer(status, body) => {
                        let length = body.len();
                        let head = format!(
                            "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n"
                        );
                        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
                    }
                    Reply::Hang => hanging.push(stream),
                    Reply::Drop => {}
                }
            }
            (bodies, hanging)
        });
        (url, server)
    }

    fn read_request(stream: &TcpStream) -> String {
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim().to_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    fn reward(url: &str, attempts: u32) -> HttpReward {
        let json = serde_json::json!({
            "url": url, "attempts": attempts, "pause_seconds": 0.01, "timeout_seconds": 2.0, "batch_size": 2,
        });
        HttpReward::new(serde_json::from_value(json).unwrap())
    }

    fn rollouts(count: usize) -> Vec<Rollout> {
        (0..count).map(|n| Rollout::new("p", n.to_string())).collect()
    }

    fn fails(replies: Vec<Reply>, attempts: u32) -> String {
        let (url, server) = serve(replies);
        let error = reward(&url, attempts).score(&rollouts(2)).unwrap_err();
        server.join().unwrap();
        error.to_string().replace(&url, "URL")
    }

    #[test]
    fn batches_are_scored_in_order() {
        let answers =
            [r#"{"scores": [1, 0.5]}"#, r#"{"scores": [null, {"unscored": "odd"}]}"#, r#"{"scores": [-2]}"#];
        let (url, server) = serve(answers.map(|body| Reply::Answer(200, body)).into());
        let scores = reward(&url, 1).score(&rollouts(5)).unwrap();
        let unscored = ["the endpoint gave no score", "odd"].map(Score::unscored);
        let [null, odd] = unscored;
        assert_eq!(scores, [Score::Value(1.0), Score::Value(0.5), null, odd, Score::Value(-2.0)]);
        let (bodies, _) = server.join().unwrap();
        assert_eq!(bodies.len(), 3);
        let sent: serde_json::Value = serde_json::from_str(&bodies[1]).unwrap();
        assert_eq!(sent["rollouts"][0]["completion"], "2");
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let replies = vec![
            Reply::Drop,
            Reply::Answer(503, "busy"),
            Reply::Hang,
            Reply::Answer(429, ""),
            Reply::Answer(200, r#"{"scores": [1, 2]}"#),
        ];
        let (url, server) = serve(replies);
        let scores = reward(&url, 5).score(&rollouts(2)).unwrap();
        assert_eq!(scores, [Score::Value(1.0), Score::Value(2.0)]);
        assert_eq!(server.join().unwrap().0.len(), 5);
    }

    #[test]
    fn what_cannot_pass_is_not() {
        assert_eq!(
            fails(vec![Reply::Answer(401, "who are you?")], 3),
            "reward `http` got no scores from URL: status 401 Unauthorized: who are you?"
        );
        let error = fails(vec![Reply::Answer(200, "[1, 2]")], 3);
        assert!(error.contains("the answer is not of the expected form"), "{error}");
        assert_eq!(
            fails(vec![Reply::Answer(200, r#"{"scores": [1]}"#)], 3),
            "reward `http` returned 1 scores for 2 rollouts"
        );
        let redirect = fails(vec![Reply::Answer(302, "")], 3);
        assert!(redirect.contains("302"), "{redirect}");
    }

    #[test]
    fn an_endpoint_that_hangs_or_is_down_is_an_error() {
        let error = fails(vec![Reply::Hang, Reply::Hang], 2);
        assert!(error.contains("timeout") && error.ends_with("after 2 attempts"), "{error}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = reward(&url, 2).score(&rollouts(1)).unwrap_err();
        assert!(matches!(error, RewardError::Endpoint { .. }), "{error}");
        let error = reward("no address", 9).score(&rollouts(1)).unwrap_err();
        assert!(!error.to_string().contains("attempts"), "{error}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut config = reward("http://localhost", 1).config;
        config.headers.push(("authorization".into(), "Bearer hush".into()));
        let shown =
            format!("{:?} {}", HttpReward::new(config.clone()), serde_json::to_string(&config).unwrap());
        assert!(shown.contains("authorization") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_score_that_is_no_number_is_unscored() {
        let (url, server) = serve(vec![Reply::Answer(200, r#"{"scores": [1e308, 2]}"#)]);
        assert_eq!(reward(&url, 1).score(&rollouts(2)).unwrap()[0], Score::Value(1e308));
        server.join().unwrap();
    }
}
