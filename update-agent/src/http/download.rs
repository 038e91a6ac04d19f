//! Downloads that survive cut connections: retried with backoff, resumed where the bytes stopped.

use std::ops::{ControlFlow, Range};

use http::StatusCode;
use http::header;

use super::range::{ContentRange, coalesce, well_ordered};
use super::segments::{SEGMENT, SEVERAL_FROM};
use super::{Answer, Client, HttpError, Request, Url};

/// 256 KiB: the largest piece a sink is given.
const PIECE: usize = 256 << 10;

/// A resource whose length is known from something signed, or named by something signed.
#[derive(Debug, Clone, Copy)]
pub struct Remote<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// The token scope.
    pub scope: &'a str,
    /// Its length in bytes.
    pub size: u64,
}

/// How ranges were answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// How many answers the bytes came from: with more than one, they may be of different
    /// versions, and only a digest over all of them tells.
    pub count: usize,
    /// The server knows ranges.
    pub(super) ranged: bool,
    /// The sink wanted no more.
    pub(super) stopped: bool,
}

/// A small document, fetched whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Small {
    /// 304: what we have is what is there.
    NotModified,
    /// 200.
    Found {
        /// The entity tag.
        etag: Option<String>,
        /// The media type the header claims.
        content_type: Option<String>,
        /// The bytes, untrusted.
        body: Vec<u8>,
    },
}

impl Client {
    /// Fetches a document of at most `limit` bytes, with retries from the start.
    pub fn small(&self, get: &Request<'_>, limit: u64) -> Result<Small, HttpError> {
        let mut retry = self.retry();
        loop {
            let error = match self.small_once(get, limit) {
                Err(error) if error.is_transient() => error,
                done => return done,
            };
            let Some(delay) = self.next_delay(&mut retry, &error) else { return Err(error) };
            tracing::debug!(%error, ?delay, "trying again");
            self.sleep(delay);
        }
    }

    fn small_once(&self, get: &Request<'_>, limit: u64) -> Result<Small, HttpError> {
        let mut answer = self.get(get)?;
        match answer.status() {
            StatusCode::NOT_MODIFIED if get.if_none_match.is_some() => {
                return Ok(Small::NotModified);
            }
            StatusCode::OK => {}
            _ => return Err(answer.refusal()),
        }
        if answer.content_length().is_some_and(|length| length > limit) {
            return Err(answer.too_long(limit));
        }
        // In one piece where the length is announced: growing takes three times as much.
        let announced = answer.content_length().and_then(|length| usize::try_from(length).ok());
        let mut body = Vec::with_capacity(announced.unwrap_or(0));
        while let Some(piece) = answer.read()? {
            if (body.len() + piece.len()) as u64 > limit {
                return Err(answer.too_long(limit));
            }
            body.extend_from_slice(&piece);
        }
        let text = |name| answer.header(name).map(str::to_owned);
        Ok(Small::Found {
            etag: text(header::ETAG),
            content_type: text(header::CONTENT_TYPE),
            body,
        })
    }

    /// Gives `sink` the bytes of ascending, disjoint ranges, in order, each byte once, in pieces of
    /// at most 256 KiB that never straddle two ranges. Stops early when the sink breaks.
    ///
    /// Ranges at most `gap` bytes apart are fetched with one request. A server that ignores ranges
    /// is read once, from the start, for all of them. After a failure the rest only is asked for.
    /// Long ranges are asked for in segments, a few of them at a time.
    pub fn ranges(
        &self,
        remote: Remote<'_>,
        wanted: &[Range<u64>],
        gap: u64,
        sink: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<Answers, HttpError> {
        if !well_ordered(wanted, remote.size) {
            let why = "the ranges to fetch overlap or leave the blob";
            return Err(HttpError::Url { url: remote.url.to_string(), why });
        }
        let runs = coalesce(wanted, gap);
        let mut wanted = Wanted::new(wanted);
        let total: u64 = runs.iter().map(|run| run.end - run.start).sum();
        if total < SEVERAL_FROM {
            return self.in_sequence(remote, &runs, u64::MAX, &mut wanted, sink);
        }
        // The first answer tells whether this server knows ranges.
        let first = runs.first().map_or(0, |run| run.end.min(run.start + SEGMENT));
        let mut answers = self.in_sequence(remote, &runs, first, &mut wanted, sink)?;
        if answers.stopped {
            return Ok(answers);
        }
        if answers.ranged {
            let more = self.in_flight(remote, &runs, &mut wanted, sink)?;
            answers.count += more.count;
            if more.stopped {
                return Ok(Answers { stopped: true, ..answers });
            }
        }
        // What is left of a server that ignores ranges, or began to.
        let more = self.in_sequence(remote, &runs, u64::MAX, &mut wanted, sink)?;
        Ok(Answers { count: answers.count + more.count, ..more })
    }

    /// One request after the other, for wanted bytes below `until`; all of them from a server that
    /// ignores ranges.
    fn in_sequence(
        &self,
        remote: Remote<'_>,
        runs: &[Range<u64>],
        until: u64,
        wanted: &mut Wanted<'_>,
        sink: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<Answers, HttpError> {
        let mut retry = self.retry();
        let mut ended = Answers { count: 0, ranged: true, stopped: false };
        while let Some(next) = wanted.next_byte().filter(|next| *next < until || !ended.ranged) {
            let end = runs.iter().map(|run| run.end).find(|end| *end > next).unwrap_or(remote.size);
            let run = if ended.ranged { next..end.min(until) } else { 0..remote.size };
            let before = wanted.delivered;
            ended.count += 1;
            let error = match self.run(remote, run, wanted, sink) {
                Ok(Outcome::Stopped) => return Ok(Answers { stopped: true, ..ended }),
                Ok(Outcome::Delivered) => continue,
                // Some caches refuse any range of what they have not got whole: take the whole.
                Ok(Outcome::Unsatisfiable) if ended.ranged => {
                    ended.ranged = false;
                    continue;
                }
                Ok(Outcome::Unsatisfiable) => {
                    let (origin, why) = (remote.url.origin().to_string(), "416 without a Range");
                    return Err(HttpError::Protocol { origin, why: why.to_owned() });
                }
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error),
            };
            retry.delivered(wanted.delivered - before);
            let Some(delay) = self.next_delay(&mut retry, &error) else { return Err(error) };
            tracing::debug!(%error, ?delay, at = wanted.next_byte(), "resuming");
            self.sleep(delay);
        }
        Ok(ended)
    }

    /// One request for one run.
    fn run(
        &self,
        remote: Remote<'_>,
        run: Range<u64>,
        wanted: &mut Wanted<'_>,
        sink: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<Outcome, HttpError> {
        let whole = run == (0..remote.size);
        let range = (!whole).then(|| run.start..=run.end - 1);
        let mut answer =
            self.get(&Request { range, scope: remote.scope, ..Request::new(remote.url) })?;
        let span = match answer.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Outcome::Unsatisfiable),
            StatusCode::PARTIAL_CONTENT if !whole => partial_span(&answer, &run, remote.size)?,
            StatusCode::OK => 0..remote.size,
            _ => return Err(answer.refusal()),
        };
        let length = span.end - span.start;
        let wrong =
            |found| HttpError::Length { url: remote.url.to_string(), expected: length, found };
        if let Some(announced) = answer.content_length().filter(|announced| *announced != length) {
            return Err(wrong(announced));
        }
        let mut at = span.start;
        while let Some(piece) = answer.read()? {
            let end = at + piece.len() as u64;
            if end > span.end {
                return Err(wrong(end - span.start));
            }
            if wanted.deliver(at, &piece, sink).is_break() {
                return Ok(Outcome::Stopped);
            }
            at = end;
            // A server that sends everything need not go on to the end.
            if at < span.end && wanted.next_byte().is_none() {
                return Ok(Outcome::Delivered);
            }
        }
        if at < span.end || span.end < run.end {
            let why = format!("{at} of {} bytes came", run.end);
            return Err(HttpError::Broken { origin: remote.url.origin().to_string(), why });
        }
        Ok(Outcome::Delivered)
    }
}

enum Outcome {
    /// The answer was read as far as needed.
    Delivered,
    /// The sink wants no more.
    Stopped,
    /// 416.
    Unsatisfiable,
}

/// The bytes a 206 holds: they must start where we asked, and not go on beyond.
pub(super) fn partial_span(
    answer: &Answer<'_>,
    run: &Range<u64>,
    size: u64,
) -> Result<Range<u64>, HttpError> {
    let value = answer.header(header::CONTENT_RANGE).unwrap_or_default();
    let asked = format!("bytes {}-{}/{size}", run.start, run.end - 1);
    let lie = || HttpError::Protocol {
        origin: answer.url.origin().to_string(),
        why: format!(
            "asked for {asked}, it sends {:?}",
            value.chars().take(80).collect::<String>()
        ),
    };
    let sent = ContentRange::parse(value).ok_or_else(lie)?;
    match sent.total {
        Some(found) if found != size => {
            Err(HttpError::Length { url: answer.url.to_string(), expected: size, found })
        }
        _ if sent.first != run.start || sent.last >= run.end => Err(lie()),
        _ => Ok(sent.first..sent.last + 1),
    }
}

/// Where in the wanted ranges we are.
pub(super) struct Wanted<'a> {
    ranges: &'a [Range<u64>],
    /// Bytes of the first range that are delivered.
    done: u64,
    delivered: u64,
}

impl<'a> Wanted<'a> {
    fn new(ranges: &'a [Range<u64>]) -> Self {
        let mut wanted = Wanted { ranges, done: 0, delivered: 0 };
        wanted.skip_finished();
        wanted
    }

    pub(super) fn next_byte(&self) -> Option<u64> {
        self.ranges.first().map(|range| range.start + self.done)
    }

    fn skip_finished(&mut self) {
        while let [first, rest @ ..] = self.ranges
            && first.start + self.done >= first.end
        {
            self.ranges = rest;
            self.done = 0;
        }
    }

    /// Hands on the wanted part of `bytes`, which start at `at`, not after the next wanted byte.
    pub(super) fn deliver(
        &mut self,
        at: u64,
        bytes: &[u8],
        sink: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let end = at + bytes.len() as u64;
        while let Some(range) = self.ranges.first() {
            let from = range.start + self.done;
            let to = range.end.min(end);
            let part = usize::try_from(from.saturating_sub(at))
                .ok()
                .zip(usize::try_from(to.saturating_sub(at)).ok())
                .and_then(|(from, to)| bytes.get(from..to));
            let Some(part) = part.filter(|part| !part.is_empty()) else { break };
            let mut offset = from;
            for piece in part.chunks(PIECE) {
                sink(offset, piece)?;
                offset += piece.len() as u64;
            }
            self.done += part.len() as u64;
            self.delivered += part.len() as u64;
            self.skip_finished();
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wanted_bytes_are_handed_on_once_and_in_order() {
        let blob: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for step in [1_usize, 7, 100, 1000] {
            let ranges = [3..10, 10..11, 11..11, 500..700, 999..1000];
            let mut wanted = Wanted::new(&ranges);
            let mut got = Vec::new();
            for (i, piece) in blob.chunks(step).enumerate() {
                let at = (i * step) as u64;
                let flow = wanted.deliver(at, piece, &mut |offset, bytes| {
                    got.extend(bytes.iter().zip(offset..).map(|(byte, at)| (at, *byte)));
                    ControlFlow::Continue(())
                });
                assert!(flow.is_continue());
            }
            let expected: Vec<(u64, u8)> = ranges
                .iter()
                .cloned()
                .flatten()
                .map(|at| (at, blob[usize::try_from(at).unwrap()]))
                .collect();
            assert_eq!(got, expected, "pieces of {step}");
            assert_eq!(wanted.next_byte(), None);
        }
    }
}
