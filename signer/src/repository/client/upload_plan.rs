//! How a blob goes up: in one request, or in pieces; what is tried after a failure. Pure.
//!
//! ```text
//!  one request ─┬─ broken off ──► pieces of 16 MiB, from where it was
//!               └─ 413 ─────────► pieces of at most half, halved until one is taken
//!  pieces ──────┬─ broken off, nothing gained ─► pieces of half the size
//!               └─ never one taken ────────────► one request: this registry takes no pieces
//! ```

/// 16 MiB: what is sent again at most once a line has broken; a registry may ask for more.
const PIECE: u64 = 16 << 20;

/// 256 KiB: no door is known that takes less; smaller ones would take hours for an image.
pub(super) const LEAST_PIECE: u64 = 256 << 10;

/// 1 GiB: no registry asks for more than this.
const LARGEST_PIECE: u64 = 1 << 30;

/// What stands against an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The request has more bytes than somebody on the way takes (413).
    TooLarge,
    /// The line broke, or the registry is busy.
    Passing,
    /// The registry wants other bytes than were sent, or knows nothing of them.
    OutOfStep,
    /// The registry does not know what is asked for: 400, 405, 501.
    Unknown,
    /// It will not get better.
    Final,
}

/// In how many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// In one.
    Whole,
    /// In pieces of so many bytes.
    Pieces(u64),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on, after the pause that so many failures in a row ask for.
    After(u32),
    /// Go on at once, with smaller requests.
    Smaller(u64),
    /// Give up.
    GiveUp,
}

/// How one upload proceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UploadPlan {
    pub(super) way: Way,
    len: u64,
    /// Pieces must not be smaller (`OCI-Chunk-Min-Length`).
    least: u64,
    failures: u32,
    /// The last one.
    trouble: Option<Trouble>,
    /// A piece was taken.
    took_one: bool,
    /// A request with all of it is refused.
    too_large: bool,
    /// The registry takes no pieces.
    no_pieces: bool,
}

impl UploadPlan {
    /// Of a blob of `len` bytes.
    pub(super) fn of(len: u64) -> Self {
        let (way, trouble) = (Way::Whole, None);
        let (took_one, too_large, no_pieces) = (false, false, false);
        UploadPlan { way, len, least: 0, failures: 0, trouble, took_one, too_large, no_pieces }
    }

    /// Pieces have at least so many bytes, as the registry says with each answer; requests at most
    /// so many, as another upload found out meanwhile.
    pub(super) fn within(&mut self, least: u64, most: u64) {
        self.least = least.min(LARGEST_PIECE);
        let most = most.max(self.least);
        self.way = match self.way {
            Way::Whole if self.len > most && !self.no_pieces => Way::Pieces(most),
            Way::Whole => Way::Whole,
            Way::Pieces(size) => Way::Pieces(size.clamp(self.least, most)),
        };
    }

    /// A piece was taken.
    pub(super) fn took(&mut self) {
        (self.took_one, self.failures) = (true, 0);
    }

    /// The registry says what it has. More than before is a gain, unless another request is still
    /// writing it.
    pub(super) fn found(&mut self, more: bool) {
        if more && self.trouble != Some(Trouble::OutOfStep) {
            self.failures = 0;
        }
    }

    /// Whether the upload goes on where it was, or begins anew: one request carries all of it, and
    /// an upload that is out of step again is not worth asking for.
    pub(super) fn goes_on(&self) -> bool {
        let lost = self.trouble == Some(Trouble::OutOfStep) && self.failures > 1;
        self.way != Way::Whole && !lost
    }

    /// After a failure.
    pub(super) fn failed(&mut self, trouble: Trouble) -> Next {
        let smallest = self.least.max(LEAST_PIECE);
        self.trouble = Some(trouble);
        match (trouble, self.way) {
            (Trouble::Final, _) => return Next::GiveUp,
            // What a registry says of an upload that it forgot.
            (Trouble::Unknown, Way::Pieces(_)) if self.took_one => {}
            (Trouble::Unknown, Way::Pieces(_)) if !self.too_large => self.without_pieces(),
            (Trouble::OutOfStep, Way::Pieces(_))
                if self.failures > 0 && !self.took_one && !self.too_large =>
            {
                self.without_pieces();
            }
            (Trouble::Unknown, _) => return Next::GiveUp,
            (Trouble::TooLarge, way) => {
                self.too_large = true;
                let tried = match way {
                    Way::Whole => self.len.min(2 * PIECE),
                    Way::Pieces(size) => size.min(self.len),
                };
                if self.no_pieces || tried <= smallest {
                    return Next::GiveUp;
                }
                // Limits are powers of two, mostly.
                let size = (1 << (tried / 2).max(1).ilog2()).max(smallest);
                self.way = Way::Pieces(size);
                return Next::Smaller(size);
            }
            (_, Way::Whole) if self.no_pieces => {}
            (_, Way::Whole) => self.way = Way::Pieces(PIECE.max(smallest)),
            // The refusal of a large request may be lost when the line is closed with it.
            (_, Way::Pieces(size)) if self.failures > 0 => {
                self.way = Way::Pieces((size.min(self.len) / 2).max(smallest));
            }
            (_, Way::Pieces(_)) => {}
        }
        self.failures += 1;
        Next::After(self.failures - 1)
    }

    fn without_pieces(&mut self) {
        (self.no_pieces, self.way) = (true, Way::Whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const NO_LIMIT: u64 = u64::MAX;

    /// The ways an upload takes until it is given up or the troubles end.
    fn ways(len: u64, most: u64, least: u64, troubles: &[Trouble]) -> Vec<String> {
        let mut plan = UploadPlan::of(len);
        plan.within(least, most);
        let mut ways = vec![format!("{:?}", plan.way)];
        for trouble in troubles {
            match plan.failed(*trouble) {
                Next::GiveUp => {
                    ways.push("give up".to_owned());
                    break;
                }
                Next::After(_) | Next::Smaller(_) => ways.push(format!("{:?}", plan.way)),
            }
        }
        let short = |text: String| text.replace("Pieces", "").replace("Whole", "whole");
        ways.into_iter().map(short).collect()
    }

    #[test]
    fn an_upload_goes_on() {
        use Trouble::{Final, OutOfStep, Passing, TooLarge, Unknown};
        let piece = |mib: u64| format!("({})", mib * MIB);
        let whole = "whole".to_owned();
        let over = "give up".to_owned();
        for (case, len, most, least, troubles, expected) in [
            ("nothing", 50, NO_LIMIT, 0, vec![], vec![whole.clone()]),
            (
                "a broken line",
                50,
                NO_LIMIT,
                0,
                vec![Passing, Passing],
                vec![whole.clone(), piece(16), piece(8)],
            ),
            (
                "no piece was ever known",
                50,
                NO_LIMIT,
                0,
                vec![Passing, OutOfStep],
                vec![whole.clone(), piece(16), whole.clone()],
            ),
            (
                "413 until it fits",
                50,
                NO_LIMIT,
                0,
                vec![TooLarge; 2],
                vec![whole.clone(), piece(16), piece(8)],
            ),
            (
                "413 of a small blob",
                3,
                NO_LIMIT,
                0,
                vec![TooLarge; 4],
                vec![
                    whole.clone(),
                    piece(1),
                    format!("({})", MIB / 2),
                    format!("({LEAST_PIECE})"),
                    over.clone(),
                ],
            ),
            (
                "413 of what is asked for at least",
                50,
                NO_LIMIT,
                8 * MIB,
                vec![TooLarge; 3],
                vec![whole.clone(), piece(16), piece(8), over.clone()],
            ),
            ("known from the blob before", 50, 4 * MIB, 0, vec![], vec![piece(4)]),
            (
                "no pieces here",
                50,
                NO_LIMIT,
                0,
                vec![Passing, Unknown, Passing],
                vec![whole.clone(), piece(16), whole.clone(), whole.clone()],
            ),
            (
                "neither whole nor pieces",
                50,
                NO_LIMIT,
                0,
                vec![TooLarge, Unknown],
                vec![whole.clone(), piece(16), over.clone()],
            ),
            (
                "pieces that were asked for, and none are taken",
                50,
                4 * MIB,
                0,
                vec![Unknown, TooLarge],
                vec![piece(4), whole.clone(), over.clone()],
            ),
            ("no", 50, NO_LIMIT, 0, vec![Final], vec![whole.clone(), over.clone()]),
            ("whole, and it makes no sense", 50, NO_LIMIT, 0, vec![Unknown], vec![whole, over]),
        ] {
            assert_eq!(ways(len * MIB, most, least, &troubles), expected, "{case}");
        }
    }

    #[test]
    fn patience_is_for_failures_in_a_row() {
        let mut plan = UploadPlan::of(50 * MIB);
        assert_eq!(plan.failed(Trouble::Passing), Next::After(0));
        assert_eq!(plan.failed(Trouble::Passing), Next::After(1));
        plan.took();
        assert_eq!(plan.failed(Trouble::Passing), Next::After(0));
        // A smaller request is no failure of the line.
        assert_eq!(plan.failed(Trouble::TooLarge), Next::Smaller(4 * MIB));
        assert_eq!(plan.failed(Trouble::Passing), Next::After(1));
        plan.found(true);
        assert_eq!(plan.failed(Trouble::Passing), Next::After(0));
    }

    /// A request that was given up may still write for a while: its bytes are no gain, and after a
    /// second try the upload begins anew.
    #[test]
    fn an_upload_that_is_written_to_by_another_is_left() {
        let mut plan = UploadPlan::of(50 * MIB);
        assert_eq!(plan.failed(Trouble::Passing), Next::After(0));
        plan.took();
        for (nth, goes_on) in [(0, true), (1, false), (2, false)] {
            plan.found(true);
            let next = plan.failed(Trouble::OutOfStep);
            assert_eq!((next, plan.goes_on()), (Next::After(nth), goes_on));
        }
    }
}
