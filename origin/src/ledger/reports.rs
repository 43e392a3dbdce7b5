//! What parties reported.

pub mod drops;

use certs::Identity;
use content::Digest;
use protocol::Reported;
use protocol::report::{Bypass, BypassReason, Direction, Matter, Refusal, Stage};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, query};

use super::{LedgerError, failed, value};

/// One report as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept {
    /// Who reported: role and id.
    pub reporter: String,
    /// When it came first, by the origin's clock.
    pub received_at: i64,
    /// What was reported; a refusal comes with its certificate, if that ever came.
    pub report: Reported,
}

/// Which reports are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// Only refusals for this reason, or notices of this kind.
    pub reason: Option<&'a str>,
    /// Only those of this reporter: role and id.
    pub reporter: Option<&'a str>,
    /// Only those that came at this time or later.
    pub since: i64,
}

/// How a reporter is called here.
#[must_use]
pub fn reporter(name: &Identity) -> String {
    format!("{}/{}", name.role, name.id)
}

/// Counts `report` on, if it is there already: its counter and last time may rise, and nothing else
/// changes. Says whether it is there.
///
/// # Errors
///
/// Fails if the database does.
pub async fn raise(
    db: &mut SqliteConnection,
    reporter: &str,
    report: &Reported,
) -> Result<bool, LedgerError> {
    let known = query(
        "UPDATE reports SET count = max(count, $3), last_at = max(last_at, $4), \
         bytes = CASE WHEN bytes IS NULL THEN NULL ELSE max(bytes, coalesce($5, 0)) END \
         WHERE reporter = $1 AND id = $2",
    )
    .bind(reporter)
    .bind(&report.id)
    .bind(i64::try_from(report.count).unwrap_or(i64::MAX))
    .bind(report.last_at)
    .bind(bypass_bytes(report))
    .execute(&mut *db)
    .await
    .map_err(failed("count a report"))?;
    Ok(known.rows_affected() > 0)
}

/// How often what `report` tells of is known to have happened, and how many bytes it has cost; both
/// 0 if it is not there yet.
///
/// # Errors
///
/// Fails if the database does.
pub async fn known(
    db: &mut SqliteConnection,
    reporter: &str,
    report: &Reported,
) -> Result<(u64, u64), LedgerError> {
    let what = "look at a report";
    let row = query("SELECT count, bytes FROM reports WHERE reporter = $1 AND id = $2")
        .bind(reporter)
        .bind(&report.id)
        .fetch_optional(db)
        .await
        .map_err(failed(what))?;
    let Some(row) = row else { return Ok((0, 0)) };
    let count: i64 = value(&row, "count")?;
    let bytes: Option<i64> = value(&row, "bytes")?;
    let counted = |number| u64::try_from(number).unwrap_or_default();
    Ok((counted(count), counted(bytes.unwrap_or_default())))
}

/// What a bypass cost, as it is kept; none for other reports.
fn bypass_bytes(report: &Reported) -> Option<i64> {
    match &report.matter {
        Matter::Bypass(bypass) => Some(i64::try_from(bypass.bytes).unwrap_or(i64::MAX)),
        Matter::Notice(_) | Matter::Refusal(_) => None,
    }
}

/// Keeps `report`, which is not there yet.
///
/// # Errors
///
/// Fails if the database does.
pub async fn put(
    db: &mut SqliteConnection,
    reporter: &str,
    report: &Reported,
    now: i64,
) -> Result<(), LedgerError> {
    let (kind, detail, refusal) = match &report.matter {
        Matter::Refusal(refusal) => (REFUSAL, None, Some(refusal)),
        Matter::Notice(notice) => (&notice.kind[..], Some(&notice.detail), None),
        Matter::Bypass(_) => (BYPASS, None, None),
    };
    let bypass = match &report.matter {
        Matter::Bypass(bypass) => Some(bypass),
        Matter::Notice(_) | Matter::Refusal(_) => None,
    };
    let reason = bypass.map(|it| it.reason.as_str());
    let party = bypass.map(|it| &it.booster);
    let sha256 = refusal.and_then(|it| Digest::from_hex(it.cert_sha256.as_deref()?).ok());
    query(
        "INSERT INTO reports (reporter, id, first_at, last_at, received_at, count, kind, detail, \
         direction, stage, reason, possession_proved, remote, party, cert_sha256, bytes) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(reporter)
    .bind(&report.id)
    .bind(report.first_at)
    .bind(report.last_at)
    .bind(now)
    .bind(i64::try_from(report.count).unwrap_or(i64::MAX))
    .bind(kind)
    .bind(detail)
    .bind(refusal.map(|it| direction(it.direction)))
    .bind(refusal.map(|it| stage(it.stage)))
    .bind(reason.or_else(|| refusal.map(|it| it.reason.as_str())))
    .bind(refusal.map(|it| it.possession_proved))
    .bind(refusal.map(|it| &it.remote))
    .bind(party.or_else(|| refusal.and_then(|it| it.party.as_ref())))
    .bind(sha256.as_ref().map(|digest| &digest.as_raw()[..]))
    .bind(bypass_bytes(report))
    .execute(&mut *db)
    .await
    .map_err(failed("keep a report"))?;
    if let (Some(sha256), Some(der)) = (sha256, refusal.and_then(Refusal::cert_der))
        && Digest::of(&der) == sha256
    {
        query(
            "INSERT INTO report_certificates (sha256, der) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        )
        .bind(&sha256.as_raw()[..])
        .bind(der)
        .execute(db)
        .await
        .map_err(failed("keep a certificate that was reported"))?;
    }
    Ok(())
}

/// How many reports of `reporter` came at `since` or later.
///
/// # Errors
///
/// Fails if the database does.
pub async fn count_since(
    db: &mut SqliteConnection,
    reporter: &str,
    since: i64,
) -> Result<i64, LedgerError> {
    let row = query("SELECT count(*) AS n FROM reports WHERE reporter = $1 AND received_at >= $2")
        .bind(reporter)
        .bind(since)
        .fetch_one(db)
        .await
        .map_err(failed("count reports"))?;
    value(&row, "n")
}

/// Reports that were found. To read them takes a while, since some carry certificates.
#[derive(Debug)]
pub struct Found(Vec<SqliteRow>);

impl Found {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// Fails if one is malformed.
    pub fn read(&self) -> Result<Vec<Kept>, LedgerError> {
        self.0.iter().map(kept).collect()
    }
}

/// The newest reports that are wanted, the newest first, at most `limit`.
///
/// # Errors
///
/// Fails if the database does.
pub async fn list(
    db: &mut SqliteConnection,
    wanted: &Wanted<'_>,
    limit: u32,
) -> Result<Found, LedgerError> {
    let rows = query(
        "SELECT reports.*, der FROM reports \
         LEFT JOIN report_certificates ON sha256 = cert_sha256 \
         WHERE received_at >= $1 AND ($2 IS NULL OR reason = $2 OR kind = $2) \
         AND ($3 IS NULL OR reporter = $3) \
         ORDER BY received_at DESC, reporter, id LIMIT $4",
    )
    .bind(wanted.since)
    .bind(wanted.reason)
    .bind(wanted.reporter)
    .bind(limit)
    .fetch_all(db)
    .await
    .map_err(failed("list the reports"))?;
    Ok(Found(rows))
}

/// Forgets reports that came before `before`, of each reporter what is beyond `rows_each` (what
/// proves nothing first, then the oldest), of all the oldest beyond `rows_max`, and certificates
/// that no report names any more. How many reports are gone.
///
/// # Errors
///
/// Fails if the database does.
pub async fn prune(
    db: &mut SqliteConnection,
    before: i64,
    rows_each: u32,
    rows_max: u32,
) -> Result<u64, LedgerError> {
    let what = "forget reports";
    let old = query("DELETE FROM reports WHERE received_at < $1")
        .bind(before)
        .execute(&mut *db)
        .await
        .map_err(failed(what))?;
    // Before the next: nobody's flood may push out what others have reported.
    let talkative = prune_each(db, rows_each).await?;
    let many = query(
        "DELETE FROM reports WHERE received_at < (SELECT received_at FROM reports \
         ORDER BY received_at DESC LIMIT 1 OFFSET $1)",
    )
    .bind(rows_max)
    .execute(&mut *db)
    .await
    .map_err(failed(what))?;
    let gone = old.rows_affected() + talkative + many.rows_affected();
    if gone > 0 {
        query(
            "DELETE FROM report_certificates WHERE sha256 NOT IN \
             (SELECT cert_sha256 FROM reports WHERE cert_sha256 IS NOT NULL)",
        )
        .execute(db)
        .await
        .map_err(failed(what))?;
    }
    Ok(gone)
}

async fn prune_each(db: &mut SqliteConnection, rows_each: u32) -> Result<u64, LedgerError> {
    let what = "forget reports of one party";
    let talkative = query("SELECT reporter FROM reports GROUP BY reporter HAVING count(*) > $1")
        .bind(rows_each)
        .fetch_all(&mut *db)
        .await
        .map_err(failed(what))?;
    let mut gone = 0;
    for row in talkative {
        let reporter: &str = value(&row, "reporter")?;
        let done = query(
            "DELETE FROM reports WHERE reporter = $1 AND id IN \
             (SELECT id FROM reports WHERE reporter = $1 \
             ORDER BY possession_proved IS 0, received_at DESC LIMIT -1 OFFSET $2)",
        )
        .bind(reporter)
        .bind(rows_each)
        .execute(&mut *db)
        .await
        .map_err(failed(what))?;
        gone += done.rows_affected();
    }
    Ok(gone)
}

fn kept(row: &SqliteRow) -> Result<Kept, LedgerError> {
    let kind: &str = value(row, "kind")?;
    let matter = if kind == REFUSAL {
        Matter::Refusal(refusal(row)?)
    } else if kind == BYPASS {
        let bytes: Option<i64> = value(row, "bytes")?;
        Matter::Bypass(Bypass {
            booster: value::<Option<String>>(row, "party")?.unwrap_or_default(),
            reason: BypassReason::from_word(value(row, "reason")?),
            bytes: u64::try_from(bytes.unwrap_or_default()).unwrap_or_default(),
        })
    } else {
        Matter::Notice(protocol::report::Notice {
            kind: kind.to_owned(),
            detail: value::<Option<String>>(row, "detail")?.unwrap_or_default(),
        })
    };
    let count: i64 = value(row, "count")?;
    Ok(Kept {
        reporter: value(row, "reporter")?,
        received_at: value(row, "received_at")?,
        report: Reported {
            id: value(row, "id")?,
            first_at: value(row, "first_at")?,
            last_at: value(row, "last_at")?,
            count: u64::try_from(count).unwrap_or_default(),
            matter,
        },
    })
}

fn refusal(row: &SqliteRow) -> Result<Refusal, LedgerError> {
    let malformed = |what| LedgerError::Malformed { what };
    let direction = match value(row, "direction")? {
        "inbound" => Direction::Inbound,
        "outbound" => Direction::Outbound,
        _ => return Err(malformed("direction")),
    };
    let stage = match value(row, "stage")? {
        "handshake" => Stage::Handshake,
        "registered" => Stage::Registered,
        "session" => Stage::Session,
        _ => return Err(malformed("stage")),
    };
    let sha256: Option<&[u8]> = value(row, "cert_sha256")?;
    let sha256 = sha256.map(|raw| raw.try_into().map(|raw| Digest::from_raw(raw).hex()));
    let der: Option<&[u8]> = row.try_get("der").map_err(failed("read a certificate"))?;
    Ok(Refusal {
        direction,
        stage,
        reason: value(row, "reason")?,
        possession_proved: value(row, "possession_proved")?,
        remote: value(row, "remote")?,
        party: value(row, "party")?,
        cert_sha256: sha256.transpose().map_err(|_| malformed("cert_sha256"))?,
        cert: der.and_then(Refusal::cert_text),
    })
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Handshake => "handshake",
        Stage::Registered => "registered",
        Stage::Session => "session",
    }
}

/// What `kind` says of a refusal. No notice is of that kind: its reporter would contradict itself.
const REFUSAL: &str = "refusal";
/// The same of a bypass.
const BYPASS: &str = "bypass";
