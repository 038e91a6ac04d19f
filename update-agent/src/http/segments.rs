//! Long ranges: a few requests in flight, delivered in order.
//!
//! One request at a time leaves a line idle for a round trip after each, and a lost packet or a
//! server that limits each connection halts everything. A few segments at a time do not, and what a
//! killed agent had fetched for nothing stays below one MiB.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::{ControlFlow, Range};
use std::pin::Pin;
use std::task::Poll;

use http::StatusCode;

use super::download::{Answers, Remote, Wanted, partial_span};
use super::{Client, HttpError, Request};

/// 256 KiB: what is asked for in one request.
pub(super) const SEGMENT: u64 = 256 << 10;
/// Four: 1 MiB of memory, and of bytes for each round trip.
const IN_FLIGHT: usize = 4;
/// 1 MiB: less is asked for in sequence.
pub(super) const SEVERAL_FROM: u64 = 1 << 20;

/// Why a segment did not come.
enum Failure {
    Http(HttpError),
    /// The server ignores ranges, or refuses this one.
    Unranged,
}

type Fetched = Result<(Vec<u8>, usize), Failure>;

/// A segment that was asked for.
struct Segment<'a> {
    start: u64,
    state: State<'a>,
}

enum State<'a> {
    Asked(Pin<Box<dyn Future<Output = Fetched> + 'a>>),
    Came(Option<Fetched>),
}

impl Client {
    /// Asks for what is still wanted. Ends early when the server turns out to ignore ranges.
    pub(super) fn in_flight(
        &self,
        remote: Remote<'_>,
        runs: &[Range<u64>],
        wanted: &mut Wanted<'_>,
        sink: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<Answers, HttpError> {
        let mut ended = Answers { count: 0, ranged: true, stopped: false };
        let mut next = segments(runs, wanted.next_byte().unwrap_or(remote.size));
        let mut flight: VecDeque<Segment<'_>> = VecDeque::new();
        loop {
            while flight.len() < IN_FLIGHT
                && let Some(range) = next.next()
            {
                let start = range.start;
                let state = State::Asked(Box::pin(self.segment(remote, range)));
                flight.push_back(Segment { start, state });
            }
            if flight.is_empty() {
                return Ok(ended);
            }
            let (at, fetched) = self.block_on(first(&mut flight));
            flight.pop_front();
            match fetched {
                Ok((bytes, answers)) => {
                    ended.count += answers;
                    if wanted.deliver(at, &bytes, sink).is_break() {
                        return Ok(Answers { stopped: true, ..ended });
                    }
                }
                Err(Failure::Unranged) => return Ok(Answers { ranged: false, ..ended }),
                Err(Failure::Http(error)) => return Err(error),
            }
        }
    }

    /// One segment, resumed where its bytes stopped, and how many answers it took.
    async fn segment(&self, remote: Remote<'_>, range: Range<u64>) -> Fetched {
        let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        let mut retry = self.retry();
        let mut answers = 0;
        loop {
            let left = range.start + bytes.len() as u64..range.end;
            if left.is_empty() {
                return Ok((bytes, answers));
            }
            answers += 1;
            let error = match self.rest_of(remote, left, &mut bytes).await {
                Ok(()) => continue,
                Err(Failure::Http(error)) if error.is_transient() => error,
                Err(failure) => return Err(failure),
            };
            let delay = retry.next_delay(error.retry_after());
            let Some(delay) = delay else { return Err(Failure::Http(error)) };
            tracing::debug!(%error, ?delay, at = range.start + bytes.len() as u64, "resuming");
            tokio::time::sleep(delay).await;
        }
    }

    async fn rest_of(
        &self,
        remote: Remote<'_>,
        run: Range<u64>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let range = Some(run.start..=run.end - 1);
        let get = Request { range, scope: remote.scope, ..Request::new(remote.url) };
        let mut answer = self.exchange(&get).await.map_err(Failure::Http)?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE => return Err(Failure::Unranged),
            _ => return Err(Failure::Http(answer.refusal())),
        }
        let span = partial_span(&answer, &run, remote.size).map_err(Failure::Http)?;
        let length = span.end - span.start;
        let wrong = |found| {
            let url = remote.url.to_string();
            Failure::Http(HttpError::Length { url, expected: length, found })
        };
        if let Some(announced) = answer.content_length().filter(|found| *found != length) {
            return Err(wrong(announced));
        }
        let mut came = 0u64;
        while let Some(piece) = answer.piece().await.map_err(Failure::Http)? {
            came += piece.len() as u64;
            if came > length {
                return Err(wrong(came));
            }
            bytes.extend_from_slice(&piece);
        }
        if came < length || span.end < run.end {
            let origin = remote.url.origin().to_string();
            let why = format!("{came} of {} bytes came", run.end - run.start);
            return Err(Failure::Http(HttpError::Broken { origin, why }));
        }
        Ok(())
    }
}

/// Waits for the first segment, and meanwhile drives the others.
async fn first(flight: &mut VecDeque<Segment<'_>>) -> (u64, Fetched) {
    poll_fn(|context| {
        for segment in flight.iter_mut() {
            if let State::Asked(future) = &mut segment.state
                && let Poll::Ready(fetched) = future.as_mut().poll(context)
            {
                segment.state = State::Came(Some(fetched));
            }
        }
        match flight.front_mut().map(|segment| (segment.start, &mut segment.state)) {
            Some((start, State::Came(fetched))) => match fetched.take() {
                Some(fetched) => Poll::Ready((start, fetched)),
                None => Poll::Pending,
            },
            _ => Poll::Pending,
        }
    })
    .await
}

/// Cuts runs from a byte on into segments.
fn segments(runs: &[Range<u64>], from: u64) -> impl Iterator<Item = Range<u64>> {
    runs.iter().flat_map(move |run| {
        let (start, end) = (run.start.max(from), run.end);
        let count = end.saturating_sub(start).div_ceil(SEGMENT);
        (0..count).map(move |number| {
            let at = start + number * SEGMENT;
            at..end.min(at + SEGMENT)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_into_segments() {
        const S: u64 = SEGMENT;
        let runs = [0..10, S..3 * S + 1, 9 * S..9 * S];
        let cut = |from| segments(&runs, from).collect::<Vec<_>>();
        assert_eq!(cut(0), [0..10, S..2 * S, 2 * S..3 * S, 3 * S..3 * S + 1]);
        assert_eq!(cut(2 * S + 5), vec![2 * S + 5..3 * S + 1]);
        assert_eq!(cut(u64::MAX), []);
    }
}
