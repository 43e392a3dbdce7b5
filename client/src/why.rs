//! Why a device asks whom it asks: everybody who could be asked, where each is known from, how a
//! test of it went, and what follows.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use certs::Identity as Name;
use certs::tls::Expected;
use certs::trust::Revocation;
use content::FilesetName;
use content::statement::{Deployment, Statement};
use member::{Glance, Identity, Kind};
use protocol::SourceBytes;
use protocol::report::BypassReason;
use serde::Serialize;
use service::{Clock, Report};
use tokio::task::JoinSet;
use tokio::time::Instant;
use transport::{CallError, ContentJudge, Source, SourceSettings};

use crate::agent::{FilesetStatus, in_force, of_sources};
use crate::choose::{Candidate, KnownBy, View};
use crate::config::Config;
use crate::fetch::off_the_runtime;
use crate::guide::{Guide, Rest};
use crate::net;
use crate::pull::PullError;
use crate::session::SessionError;
use crate::status::time;

/// Whom a device asks, and why. Times are Unix seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Why {
    /// Those who are asked, in this order: whoever fails is gone round.
    pub sources: Vec<SourceWhy>,
    /// Those who are not.
    pub left_out: Vec<SourceWhy>,
    /// The first who would serve; none if nobody would.
    pub decision: Option<String>,
    /// How the fileset stands that was asked for.
    pub fileset: Option<FilesetWhy>,
    /// What stands in the way of all of it.
    pub hints: Vec<String>,
}

/// One source.
#[derive(Clone, Debug, Serialize)]
pub struct SourceWhy {
    /// Role and id.
    pub source: String,
    /// Where it is looked for.
    pub addresses: Vec<String>,
    /// `operator`, `origin` (which named it at the last check-in), or `document`.
    known_by: KnownBy,
    /// Why it is not asked.
    pub left_out: Option<&'static str>,
    /// Why it is asked after the origin for a while.
    pub rest: Option<RestWhy>,
    /// How a test of it went just now: a connection, both sides' certificates, an answer.
    pub test: Option<TestWhy>,
}

/// Why a booster is left alone for a while.
#[derive(Clone, Debug, Serialize)]
pub struct RestWhy {
    /// How often in a row it was gone round.
    pub failures: u32,
    /// When that was last.
    pub since: i64,
    /// Until when others are asked before it.
    pub until: i64,
    /// Why, in the word that the origin is told.
    pub reason: &'static str,
    /// What happened.
    pub note: String,
}

/// How a test went.
#[derive(Clone, Debug, Serialize)]
pub struct TestWhy {
    /// Whether it answered.
    pub answers: bool,
    /// How long that took, in milliseconds.
    pub milliseconds: u64,
    /// Why it is no good, in the word that the origin would be told.
    pub reason: Option<&'static str>,
    /// What happened.
    pub note: Option<String>,
}

/// How a fileset stands, and where it came from.
#[derive(Clone, Debug, Serialize)]
pub struct FilesetWhy {
    /// Its name.
    pub fileset: String,
    /// How it stands by the manifest; none if none names it.
    pub status: Option<FilesetStatus>,
    /// Where the bytes of what is wanted came from.
    pub sources: Vec<SourceBytes>,
}

/// Tells why the device of `config` asks whom it asks. Looks at what is kept, beside an agent that
/// is at work, and changes nothing; each source is asked for a word.
///
/// # Errors
///
/// Fails if nobody has enrolled there, or if what is kept cannot be read.
pub async fn why(
    config: &Config,
    fileset: Option<FilesetName>,
    clock: &Clock,
) -> Result<Why, PullError> {
    let (looked, config) = {
        let (config, clock) = (config.clone(), clock.clone());
        let fileset = fileset.clone();
        let look = move || {
            let looked = Looked::at(&config, fileset.as_ref(), &clock)?;
            Ok::<_, PullError>((looked, in_force(&config)?))
        };
        off_the_runtime(look).await??
    };
    let view = View {
        document: looked.document.as_deref(),
        origin: looked.origin(),
        wanted: config.sources(),
        site: config.site(),
        guide: &looked.guide,
        now: looked.clock.now(),
    };
    let candidates = view.candidates();
    let mut tests = looked.test(&candidates).await;
    let mut sources = Vec::new();
    for (index, candidate) in candidates.into_iter().enumerate() {
        sources.push(SourceWhy::new(candidate, tests[index].take()));
    }
    let (sources, left_out): (Vec<_>, Vec<_>) =
        sources.into_iter().partition(|it| it.left_out.is_none());
    let serves = |it: &&SourceWhy| it.test.as_ref().is_some_and(|test| test.answers);
    Ok(Why {
        decision: sources.iter().find(serves).map(|it| it.source.clone()),
        hints: looked.hints(&sources),
        fileset: fileset.map(|name| looked.of_fileset(&name)),
        sources,
        left_out,
    })
}

/// What is kept.
struct Looked {
    identity: Identity,
    document: Option<Statement<Deployment>>,
    guide: Guide,
    has_agent: bool,
    clock: Clock,
    fileset: Option<(FilesetStatus, Vec<SourceBytes>)>,
}

impl Looked {
    fn at(
        config: &Config,
        fileset: Option<&FilesetName>,
        clock: &Clock,
    ) -> Result<Self, PullError> {
        let data: &Path = config.data();
        let glance = Glance::of(data, Kind::Client, config.grace(), clock);
        let Glance {
            clock,
            identity,
            state,
            ..
        } = glance.map_err(SessionError::Open)?;
        let Some(identity) = identity else {
            return Err(PullError::NotEnrolled);
        };
        let judge = ContentJudge::new(Arc::clone(&identity.trust));
        let document = state.document(&judge, clock.now());
        let (known, fileset) = of_sources(data, fileset, clock.now())?;
        Ok(Self {
            identity,
            document,
            has_agent: known.is_some(),
            guide: known.unwrap_or_default(),
            clock,
            fileset,
        })
    }

    fn origin(&self) -> &str {
        let document = self.document.as_ref();
        document.map_or(self.identity.origin.id.as_str(), |it| it.origin.id.as_str())
    }

    /// Asks all at once who are not left out.
    async fn test(&self, candidates: &[Candidate]) -> Vec<Option<TestWhy>> {
        let mut tests: Vec<Option<TestWhy>> = candidates.iter().map(|_| None).collect();
        let mut running = JoinSet::new();
        for (index, candidate) in candidates.iter().enumerate() {
            if candidate.left_out.is_some() {
                continue;
            }
            match self.source(candidate) {
                Ok(source) => {
                    running.spawn(async move {
                        let begun = Instant::now();
                        let said = source.hello().await;
                        (index, TestWhy::new(said.map(drop), begun.elapsed()))
                    });
                }
                Err(error) => tests[index] = Some(TestWhy::failed(&Report(&error).to_string())),
            }
        }
        while let Some(tested) = running.join_next().await {
            if let Ok((index, test)) = tested {
                tests[index] = Some(test);
            }
        }
        tests
    }

    fn source(&self, candidate: &Candidate) -> Result<Source, SessionError> {
        // Candidates without an id are left out.
        let id = candidate.id.parse().map_err(|_| SessionError::NoName)?;
        let name = Name {
            deployment: self.identity.name.deployment.clone(),
            role: candidate.role,
            id,
        };
        let settings = SourceSettings {
            addresses: candidate.addresses.clone(),
            expected: Expected::Exactly(name),
            revocation: Revocation::Required,
            trust: Arc::clone(&self.identity.trust),
            own: Some(Arc::clone(&self.identity.cell)),
            clock: self.clock.clone(),
            http2: false,
            limits: net::limits(),
            refusals: None,
        };
        Source::new(settings).map_err(|source| SessionError::Tls { source })
    }

    fn hints(&self, sources: &[SourceWhy]) -> Vec<String> {
        let mut hints = Vec::new();
        let now = self.clock.now();
        if let Some((_, ends)) = self.identity.cell.validity()
            && ends <= now
        {
            let ends = time(ends);
            hints.push(format!(
                "this device's certificate ended {ends}: nobody serves it"
            ));
        }
        if self.document.is_none() {
            let told = "no deployment document is at hand yet: boosters are found once the origin \
                        has been reached";
            hints.push(told.to_owned());
        }
        if !self.has_agent {
            let told = "the agent has not run here: the origin has named no boosters for this \
                        device (larder-client run, check-in)";
            hints.push(told.to_owned());
        }
        let booster = |it: &&SourceWhy| it.source.starts_with("booster ");
        if self.document.is_some() && !sources.iter().any(|it| booster(&it)) {
            hints.push("no booster is near: everything comes from the origin".to_owned());
        }
        hints
    }

    fn of_fileset(&self, name: &FilesetName) -> FilesetWhy {
        let (status, sources) = match self.fileset.clone() {
            Some((status, sources)) => (Some(status), sources),
            None => (None, Vec::new()),
        };
        FilesetWhy {
            fileset: name.to_string(),
            status,
            sources,
        }
    }
}

impl SourceWhy {
    fn new(candidate: Candidate, test: Option<TestWhy>) -> Self {
        let Candidate {
            role,
            id,
            addresses,
            known_by,
            rest,
            left_out,
        } = candidate;
        Self {
            source: format!("{role} {id}"),
            addresses,
            known_by,
            left_out,
            rest: rest.map(RestWhy::new),
            test,
        }
    }
}

impl RestWhy {
    fn new(rest: Rest) -> Self {
        Self {
            failures: rest.failures,
            since: rest.since,
            until: rest.until,
            reason: rest.reason.as_str(),
            note: rest.note,
        }
    }
}

impl TestWhy {
    fn new(said: Result<(), CallError>, took: Duration) -> Self {
        let failure = said.err();
        Self {
            answers: failure.is_none(),
            milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            reason: failure.as_ref().map(|error| net::reason(error).as_str()),
            note: failure.map(|error| Report(&error).to_string()),
        }
    }

    fn failed(note: &str) -> Self {
        Self {
            answers: false,
            milliseconds: 0,
            reason: Some(BypassReason::Other.as_str()),
            note: Some(note.to_owned()),
        }
    }
}

impl Why {
    /// Whether somebody would serve.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.decision.is_some()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("asked in this order; whoever fails is gone round:")?;
        for (index, source) in self.sources.iter().enumerate() {
            write!(f, "\n  {}. {source}", index + 1)?;
        }
        if self.sources.is_empty() {
            f.write_str("\n  nobody is known")?;
        }
        if !self.left_out.is_empty() {
            f.write_str("\nnot asked:")?;
        }
        for source in &self.left_out {
            write!(f, "\n  -  {source}")?;
        }
        match &self.decision {
            Some(source) => write!(f, "\ndecision: {source}")?,
            None => f.write_str("\ndecision: nobody; what is installed stays as it is")?,
        }
        for hint in &self.hints {
            write!(f, "\nnote: {hint}")?;
        }
        match &self.fileset {
            Some(fileset) => write!(f, "\n{fileset}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SourceWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.addresses.join(", ");
        let known_by = self.known_by.words();
        write!(f, "{}, {known_by}", self.source)?;
        if !addresses.is_empty() {
            write!(f, ", at {addresses}")?;
        }
        if let Some(why) = self.left_out {
            write!(f, "\n       {why}")?;
        }
        if let Some(rest) = &self.rest {
            let (until, since) = (time(rest.until), time(rest.since));
            let (failures, note) = (rest.failures, &rest.note);
            let times = if failures == 1 { "time" } else { "times" };
            write!(
                f,
                "\n       asked last until {until}: gone round {failures} {times}, last {since} \
                 ({}: {note})",
                rest.reason
            )?;
        }
        match &self.test {
            Some(test) if test.answers => {
                write!(f, "\n       test: answers in {} ms", test.milliseconds)
            }
            Some(test) => write!(
                f,
                "\n       test: {}: {}",
                test.reason.unwrap_or_default(),
                test.note.as_deref().unwrap_or_default()
            ),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FilesetWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.status {
            Some(status) => write!(f, "{status}")?,
            None => write!(
                f,
                "{}: no manifest that the agent knows names it",
                self.fileset
            )?,
        }
        for SourceBytes { id, bytes } in &self.sources {
            write!(f, "\n       {} came from {id}", ByteSize(*bytes))?;
        }
        Ok(())
    }
}
