//! What is to become of installed paths that others have changed.

use content::EntryPath;
use content::statement::{HealMode, HealRule};
use serde::{Deserialize, Serialize};

/// Rules for paths: the first that fits counts, and what none fits heals itself.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Vec<Kept>", into = "Vec<Kept>")]
pub(crate) struct Rules(Vec<HealRule>);

impl Rules {
    /// Goes by `rules`.
    pub(crate) fn new(rules: Vec<HealRule>) -> Self {
        Self(rules)
    }

    /// The rule for `path`.
    pub(crate) fn mode(&self, path: &EntryPath) -> HealMode {
        let fits = |rule: &&HealRule| rule.pattern.fits(path.as_str());
        let rule = self.0.iter().find(fits);
        rule.map_or(HealMode::SelfHeal, |rule| rule.mode)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A rule as a record keeps it: pattern and word.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Kept(String, String);

impl TryFrom<Vec<Kept>> for Rules {
    type Error = String;

    fn try_from(kept: Vec<Kept>) -> Result<Self, String> {
        let rule = |Kept(pattern, word)| {
            let mode = HealMode::from_word(&word);
            Ok(HealRule {
                pattern: pattern
                    .parse::<content::statement::PathPattern>()
                    .map_err(|error| format!("{error}"))?,
                mode: mode.ok_or_else(|| format!("not a way to heal: {word:?}"))?,
            })
        };
        kept.into_iter()
            .map(rule)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl From<Rules> for Vec<Kept> {
    fn from(Rules(rules): Rules) -> Self {
        let kept = |rule: HealRule| {
            let pattern = rule.pattern.as_str().to_owned();
            Kept(pattern, rule.mode.word().to_owned())
        };
        rules.into_iter().map(kept).collect()
    }
}
