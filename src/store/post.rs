//! One request to `/write`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::exec::Target;
use super::spool::scan::Record;
use super::verdict::{self, Verdict};
use crate::base::http::{Client, Limits};

/// Largest answer that is read, bytes.
const ANSWER_BYTES: usize = 64 * 1024;

/// Sends `body` to `target` and judges the answer.
pub async fn post(client: &Client, target: &Target, body: Bytes, limit: Duration) -> Verdict {
    let limits = Limits { time: limit, body: ANSWER_BYTES };
    match client.send(target.write_request(body), limits).await {
        Ok(answer) => {
            verdict::of_answer(answer.status.as_u16(), answer.retry_after(), &answer.body)
        }
        Err(error) => verdict::of_error(&error),
    }
}

/// Returns the lines of all `records`; of a single record without copying them.
pub fn joined(records: &[Record]) -> Bytes {
    if let [record] = records {
        return record.body.clone();
    }
    let mut body = BytesMut::with_capacity(records.iter().map(|record| record.body.len()).sum());
    records.iter().for_each(|record| body.extend_from_slice(&record.body));
    body.freeze()
}

/// Returns the number of lines in `body`.
pub fn lines(body: &[u8]) -> usize {
    body.iter().filter(|byte| **byte == b'\n').count()
}

/// Takes line `number`, counted from 1, out of `body`: that line and the rest; `None` when there
/// is no such line.
pub fn without_line(body: &Bytes, number: usize) -> Option<(Bytes, Bytes)> {
    let start = match number.checked_sub(1)? {
        0 => 0,
        before => end_of_line(body, before)?,
    };
    let end = end_of_line(body, number)?;
    let mut rest = BytesMut::with_capacity(body.len());
    rest.extend_from_slice(body.get(..start)?);
    rest.extend_from_slice(body.get(end..)?);
    Some((body.slice(start..end), rest.freeze()))
}

/// Finds out which part of a refused `body` is to blame: returns what can never be stored, if that is
/// known, and what is to be sent instead, in order. `line` is the one that the server named.
pub fn sort_out(body: &Bytes, line: Option<usize>) -> (Option<Bytes>, Vec<Bytes>) {
    if let Some((bad, rest)) = line.and_then(|line| without_line(body, line)) {
        return (Some(bad), if rest.is_empty() { Vec::new() } else { vec![rest] });
    }
    match halves(body) {
        Some((first, second)) => (None, vec![first, second]),
        None => (Some(body.clone()), Vec::new()),
    }
}

/// Splits `body` between two lines near its middle; `None` when it has only one.
pub fn halves(body: &Bytes) -> Option<(Bytes, Bytes)> {
    let middle = end_of_line(body, lines(body) / 2)?;
    Some((body.slice(..middle), body.slice(middle..)))
}

/// Returns the offset behind the line break of line `number`.
fn end_of_line(body: &[u8], number: usize) -> Option<usize> {
    let breaks = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    breaks.map(|(index, _)| index.saturating_add(1)).nth(number.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_out_and_bodies_split() {
        let body = Bytes::from_static(b"one\ntwo\nthree\n");
        assert_eq!(lines(&body), 3);
        for (number, line, rest) in [
            (1, "one\n", "two\nthree\n"),
            (2, "two\n", "one\nthree\n"),
            (3, "three\n", "one\ntwo\n"),
        ] {
            let (taken, left) = without_line(&body, number).unwrap();
            assert_eq!((&taken[..], &left[..]), (line.as_bytes(), rest.as_bytes()));
        }
        assert_eq!((without_line(&body, 0), without_line(&body, 4)), (None, None));
        let (first, second) = halves(&body).unwrap();
        assert_eq!((&first[..], &second[..]), (&b"one\n"[..], &b"two\nthree\n"[..]));
        let single = Bytes::from_static(b"one\n");
        assert_eq!(halves(&single), None);
        let part = |text: &'static str| Bytes::from(text);
        for (body, line, bad, rest) in [
            (&body, Some(2), Some(part("two\n")), vec![part("one\nthree\n")]),
            (&body, None, None, vec![part("one\n"), part("two\nthree\n")]),
            (&body, Some(9), None, vec![part("one\n"), part("two\nthree\n")]),
            (&single, Some(1), Some(part("one\n")), vec![]),
            (&single, None, Some(part("one\n")), vec![]),
        ] {
            assert_eq!(sort_out(body, line), (bad, rest));
        }
    }
}
