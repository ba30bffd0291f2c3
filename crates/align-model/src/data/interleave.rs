//! Several sources mixed by weights.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::{DataError, Exhaustion, Located, Record, SourceConfig, source::SourceStream};

/// Draws the source of every record.
pub(super) struct Interleave<R> {
    sources: Vec<Source<R>>,
    stop: Exhaustion,
    total_weight: f64,
    rng: ChaCha8Rng,
    is_over: bool,
}

struct Source<R> {
    config: SourceConfig,
    weight: f64,
    /// The first reading: what it skips is what is reported.
    stream: SourceStream<R>,
    /// A later reading, where this source ran out before.
    again: Option<SourceStream<R>>,
    /// One item ahead, so that the last one is known to be the last.
    ahead: Option<Result<Located<R>, DataError>>,
    ran_out: bool,
}

impl<R: Record> Interleave<R> {
    pub(super) fn open(
        configs: &[SourceConfig],
        stop: Exhaustion,
        rng: ChaCha8Rng,
    ) -> Result<Self, DataError> {
        let source = |(index, config): (usize, &SourceConfig)| {
            Ok(Source {
                config: config.clone(),
                weight: config.weight.map_or(1.0, f64::from),
                stream: SourceStream::open(index, config.clone())?,
                again: None,
                ahead: None,
                ran_out: false,
            })
        };
        let sources: Vec<_> = configs.iter().enumerate().map(source).collect::<Result<_, DataError>>()?;
        let total_weight = sources.iter().map(|source| source.weight).sum();
        Ok(Self { sources, stop, total_weight, rng, is_over: false })
    }

    /// The first reading of each source.
    pub(super) fn into_streams(self) -> Vec<SourceStream<R>> {
        self.sources.into_iter().map(|source| source.stream).collect()
    }

    fn draw(&mut self) -> usize {
        // The upper 53 bits are a fraction of at least 0 and below 1.
        let fraction = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let mut left = fraction * self.total_weight;
        for (index, source) in self.sources.iter().enumerate() {
            left -= source.weight;
            if left < 0.0 {
                return index;
            }
        }
        self.sources.len() - 1
    }

    fn advance(&mut self) -> Result<Located<R>, DataError> {
        let index = self.draw();
        let record = self.sources[index].next(index)?;
        let ran_out = |source: &Source<R>| source.ran_out;
        self.is_over = match self.stop {
            Exhaustion::FirstExhausted => self.sources.iter().any(ran_out),
            Exhaustion::AllExhausted => self.sources.iter().all(ran_out),
        };
        Ok(record)
    }
}

impl<R: Record> Iterator for Interleave<R> {
    type Item = Result<Located<R>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let item = self.advance();
        self.is_over |= item.is_err();
        Some(item)
    }
}

impl<R: Record> Source<R> {
    /// The next record; from the beginning again, where there is no more.
    fn next(&mut self, index: usize) -> Result<Located<R>, DataError> {
        let record = match self.ahead.take() {
            Some(item) => item?,
            None => self.first(index)?,
        };
        self.ahead = self.again.as_mut().unwrap_or(&mut self.stream).next();
        self.ran_out |= self.ahead.is_none();
        Ok(record)
    }

    fn first(&mut self, index: usize) -> Result<Located<R>, DataError> {
        if self.ran_out {
            self.again = Some(SourceStream::open(index, self.config.clone())?);
        }
        let stream = self.again.as_mut().unwrap_or(&mut self.stream);
        let empty = || DataError::Empty { path: self.config.path.clone().into() };
        stream.next().unwrap_or_else(|| Err(empty()))
    }
}
