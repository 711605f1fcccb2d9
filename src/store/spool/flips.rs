//! Every single flipped bit of a spool of 64 KiB.

use std::path::{Path, PathBuf};

use super::disk::{Draft, Options};
use super::open::segment_base;
use super::scan::Record;
use super::tests::{due, open_with, options};
use crate::base::files::memory::MemoryFiles;

/// Body of record `number`; most of the spool is in long ones.
fn body(number: u64) -> String {
    let length = [40, 3000, 1200][usize::try_from(number % 3).unwrap()];
    format!("{number} {}\n", "x".repeat(length))
}

fn large() -> Options {
    Options { segment_bytes: 16 << 10, ..options() }
}

/// A spool of four segments with 64 KiB, one record in each commit, and the bodies in it.
fn spool_of_64_kib() -> (MemoryFiles, Vec<String>) {
    let files = MemoryFiles::default();
    let (mut spool, _) = open_with(&files, large());
    let bodies: Vec<String> = (0..45).map(body).collect();
    for body in &bodies {
        spool.append(vec![Draft::new(0, 1, body.as_bytes())]);
    }
    spool.close();
    (files, bodies)
}

/// Flips bit after bit of the `share`th half of `path` and opens the spool each time; returns how
/// many flips there were and how many cost nothing.
fn flip_all(files: &MemoryFiles, path: &Path, bodies: &[String], share: usize) -> (u64, u64) {
    let content = files.content(path).unwrap();
    let base = path.file_name().and_then(|name| segment_base(name.to_str().unwrap()));
    let count = u64::try_from(bodies.len()).unwrap();
    let (mut flips, mut harmless) = (0, 0);
    for bit in (share..content.len() * 8).step_by(2) {
        let mut flipped = content.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let files = files.copy();
        files.plant(path, flipped);
        let (mut spool, _) = open_with(&files, large());
        // Of a segment only that is read: the others are the same bytes as ever.
        let found = match base {
            Some(base) => spool.read(base).records,
            None => due(&mut spool),
        };
        for Record { seq, body, .. } in &found {
            let expected = usize::try_from(*seq - 1).ok().and_then(|index| bodies.get(index));
            assert!(expected.is_some_and(|expected| expected.as_bytes() == body), "seq {seq}");
        }
        let losses = spool.take_losses();
        let counted: u64 = losses.iter().map(|loss| loss.rows).sum();
        let lost = count - spool.figures().pending_rows;
        assert!(lost <= 1 && counted == lost, "{} bit {bit}: {losses:?}", path.display());
        flips += 1;
        harmless += u64::from(lost == 0);
    }
    (flips, harmless)
}

#[test]
fn no_flipped_bit_costs_more_than_its_record_and_that_is_counted() {
    let (files, bodies) = spool_of_64_kib();
    let paths: Vec<PathBuf> = files.paths();
    let total: usize = paths.iter().map(|path| files.content(path).unwrap().len()).sum();
    assert!(total >= 60 << 10, "{total}");
    let halves: Vec<_> = std::thread::scope(|scope| {
        let half = |share| {
            let (files, paths, bodies) = (files.clone(), &paths, &bodies);
            scope.spawn(move || {
                let done = paths.iter().map(|path| flip_all(&files, path, bodies, share));
                done.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
            })
        };
        [half(0), half(1)].map(|half| half.join().unwrap()).into_iter().collect()
    });
    let (flips, harmless) = halves.into_iter().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    println!("{flips} flips, {harmless} without any loss");
    assert_eq!(flips, u64::try_from(total * 8).unwrap());
}
