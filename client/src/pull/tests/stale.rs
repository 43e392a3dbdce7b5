//! What was downloaded and never came to anything.

use super::*;

const DAY: i64 = 86_400;

/// Everything below `folder`, links not followed.
fn all_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path.clone());
            }
            let within = path.strip_prefix(folder).unwrap();
            found.push(within.to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn downloads_for_a_target_that_is_pulled_no_more_go_after_thirty_days() {
    let mut bed = Bed::new();
    bed.fill();
    let (stated, served) = bed.publish();
    let downloads = bed.folder.path().join("data/downloads");
    // Two targets whose pulls have broken off.
    let pull = |target: &str, days: i64, vice: Vice| {
        let mut job = bed.job(&stated, vec![Memory::new("origin o1", &served, vice)]);
        job.target = bed.folder.path().join(target);
        job.now += days * DAY;
        job.run()
    };
    pull("one", 0, Vice::DiesAfter(500_000)).await.unwrap_err();
    let one = all_below(&downloads);
    assert!(one.len() > 3, "{one:?}");
    // What is not called as we call things, or is no folder of ours, is not ours.
    let outside = bed.folder.path().join("outside");
    let digits = |count: usize| "0123456789abcdef".repeat(count / 16);
    let theirs = [
        "notes".to_owned(),
        digits(64),
        digits(32).to_uppercase(),
        format!("{}/x", digits(32)),
        format!("{}x/{}", digits(16), digits(64)),
        format!("{}/{}/mine", digits(32), digits(64)),
    ];
    for path in &theirs {
        fs::create_dir_all(downloads.join(path).parent().unwrap()).unwrap();
        fs::write(downloads.join(path), b"1").unwrap();
    }
    fs::create_dir_all(outside.join(digits(64))).unwrap();
    fs::write(outside.join(digits(64)).join(digits(64)), b"1").unwrap();
    symlink(
        &outside,
        downloads.join(digits(16).repeat(2).replace('0', "f")),
    )
    .unwrap();
    let foreign: Vec<_> = all_below(&downloads)
        .into_iter()
        .filter(|path| !one.contains(path))
        .collect();
    // A month is not over: it is all there, and taken up.
    pull("two", 29, Vice::None).await.unwrap();
    assert!(one.iter().all(|path| downloads.join(path).exists()));
    let error = pull("one", 29, Vice::DiesAfter(50_000)).await;
    error.unwrap_err();
    // Over: only a pull of another target makes it go.
    let error = pull("one", 31, Vice::DiesAfter(1)).await;
    error.unwrap_err();
    assert!(one.iter().all(|path| downloads.join(path).exists()));
    pull("two", 31, Vice::None).await.unwrap();
    let two = bed.folder.path().join("two").canonicalize().unwrap();
    let two = &content::Digest::of(two.as_os_str().as_encoded_bytes()).hex()[..32];
    let mut left = all_below(&downloads);
    left.retain(|path| !path.starts_with(two));
    assert_eq!(left, foreign);
    assert_eq!(all_below(&outside).len(), 2);
    pull("one", 31, Vice::None).await.unwrap();
    assert_eq!(look(&bed.folder.path().join("one")), look(&bed.source()));
}
