//! How often a new pack is fetched from the origin while revisions are rolled out, by the rules of
//! the booster's cache and by use alone. How to read it is in the README.

use std::process::ExitCode;

use benches::rollout::{Play, Rules, Scans};

#[expect(clippy::print_stdout, reason = "a bench reports to whoever ran it")]
fn main() -> ExitCode {
    println!("origin fetches per new pack: 20 revisions, 40 % new in each, 1000 packs");
    println!("| cache | clients | one-off scans | least recently used | ours | bound |");
    println!("|---|---|---|---|---|---|");
    let mut kept = true;
    for (cache_percent, clients, scans, bound) in POINTS {
        let ratio = |rules| {
            Play {
                cache_percent,
                clients,
                packs: 1000,
                revisions: 20,
                rules,
                scans,
            }
            .run()
            .ratio()
        };
        let (theirs, ours) = (ratio(Rules::LeastRecentlyUsed), ratio(Rules::Ours));
        kept &= bound.is_none_or(|bound| ours <= bound);
        let (scans, bound) = (
            match scans {
                Scans::None => "none",
                Scans::Random => "at any time",
                Scans::Worst => "at the worst time",
            },
            bound.map_or(String::new(), |bound| format!("{bound:.2}")),
        );
        let times = cache_percent as f64 / 100.0;
        println!("| {times:.2} x | {clients} | {scans} | {theirs:.2} | {ours:.2} | {bound} |");
    }
    if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Caches in hundredths of a revision, clients, scans, and the most that is allowed.
const POINTS: [(usize, usize, Scans, Option<f64>); 8] = [
    (133, 10, Scans::None, Some(1.05)),
    (133, 50, Scans::None, Some(1.05)),
    (133, 50, Scans::Random, Some(1.5)),
    (133, 50, Scans::Worst, Some(1.5)),
    (300, 50, Scans::None, Some(1.05)),
    (300, 50, Scans::Random, Some(1.05)),
    (80, 50, Scans::None, None),
    (80, 50, Scans::Random, None),
];
