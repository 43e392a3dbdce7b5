//! `ca`: the certificate authorities. What needs the root's key is done here, beside the origin
//! that serves, which is told to take it up.

use std::fmt;

use ::config::Period;
use certs::CaKind;
use certs::pkcs11::Pkcs11Uri;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use service::unix::CallError;
use service::{Clock, Output};

use super::{Place, RootPassphrase};
use crate::LEDGER_FILE;
use crate::admin::AdminError;
use crate::audit::{Actor, acting_for};
use crate::authority::rotate::{self, CaView, NewCa, Retired, RootList, Which, in_words};
use crate::config::Config;
use crate::ledger::Ledger;

#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// List the CAs with their generations, lists and keys
    List,
    /// Announce a new generation, which issues after an overlap
    Rotate(Box<RotateArgs>),
    /// End an old generation, once its last certificate has ended
    Retire(Box<RetireArgs>),
    /// Sign the root's revocation list, which is due once a year
    SignRootList(RootPassphrase),
    /// Encrypt a root's key that lies in the data folder in the clear
    EncryptRootKey(RootPassphrase),
}

#[derive(Args, Debug)]
pub(super) struct RotateArgs {
    /// What to replace; with the root, all that hangs on it
    ca: Kind,

    /// A key in a token that it is to have, as a PKCS#11 URI that names the driver, too
    #[arg(long, value_name = "URI")]
    token: Option<Pkcs11Uri>,

    /// How long to announce it first; else as the settings say
    #[arg(long)]
    overlap: Option<Period>,

    #[command(flatten)]
    passphrase: RootPassphrase,
}

#[derive(Args, Debug)]
pub(super) struct RetireArgs {
    /// What kind of CA
    ca: Kind,

    /// Its generation
    generation: u32,

    /// Its key is in wrong hands: revoke it at once, with all that it certified
    #[arg(long)]
    stolen: bool,

    #[command(flatten)]
    passphrase: RootPassphrase,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Root,
    Node,
    Client,
    Content,
}

#[derive(Debug, Serialize)]
struct Cas {
    cas: Vec<CaView>,
}

#[derive(Debug, Serialize)]
struct Announced {
    announced: Vec<NewCa>,
    taken_up: bool,
}

#[derive(Debug, Serialize)]
struct Ended {
    #[serde(flatten)]
    retired: Retired,
    taken_up: bool,
}

#[derive(Debug, Serialize)]
struct Signed {
    lists: Vec<RootList>,
    taken_up: bool,
}

#[derive(Debug, Serialize)]
struct Encrypted {
    encrypted: Vec<u32>,
}

pub(super) async fn run(command: CaCommand, place: &Place, output: Output) -> anyhow::Result<()> {
    acting_for(Actor::this_user(), obey(command, place, output)).await
}

async fn obey(command: CaCommand, place: &Place, output: Output) -> anyhow::Result<()> {
    let config = place.config()?;
    let (data, now) = (config.data(), Clock::system().now());
    match command {
        CaCommand::List => {
            let mut db = Ledger::look(&data.join(LEDGER_FILE)).await?;
            let cas = rotate::view(data, &mut db, now).await?;
            Ok(output.result(&Cas { cas })?)
        }
        CaCommand::Rotate(args) => {
            let usual = config.certificates().overlap;
            let overlap = args.overlap.map_or(usual, |it| it.0);
            let overlap = i64::try_from(overlap.as_secs())?;
            let passphrase = args.passphrase.load()?;
            let (ledger, which) = (open(&config).await?, wanted(args.ca, args.token)?);
            let made = rotate::rotate(data, &ledger, &which, passphrase.as_ref(), overlap, now);
            let announced = closing(&ledger, made).await?;
            let taken_up = tell(place).await?;
            Ok(output.result(&Announced {
                announced,
                taken_up,
            })?)
        }
        CaCommand::Retire(args) => {
            let (ledger, passphrase) = (open(&config).await?, args.passphrase.load()?);
            let (which, number) = (args.ca.which(), args.generation);
            let ended = async {
                match (args.stolen, &which) {
                    (true, Which::Issuing(kind)) => {
                        rotate::revoke(data, &ledger, *kind, number, passphrase.as_ref(), now).await
                    }
                    (_, which) => rotate::retire(data, &ledger, which.as_str(), number, now).await,
                }
            };
            let retired = closing(&ledger, ended).await?;
            let taken_up = tell(place).await?;
            Ok(output.result(&Ended { retired, taken_up })?)
        }
        CaCommand::SignRootList(args) => {
            let (ledger, passphrase) = (open(&config).await?, args.load()?);
            let lists = rotate::sign_root_lists(data, &ledger, passphrase.as_ref(), now);
            let lists = closing(&ledger, lists).await?;
            let taken_up = tell(place).await?;
            Ok(output.result(&Signed { lists, taken_up })?)
        }
        CaCommand::EncryptRootKey(args) => {
            let (ledger, passphrase) = (open(&config).await?, args.need()?);
            let done = rotate::encrypt_root_keys(data, &ledger, &passphrase);
            let encrypted = closing(&ledger, done).await?;
            Ok(output.result(&Encrypted { encrypted })?)
        }
    }
}

fn wanted(ca: Kind, token: Option<Pkcs11Uri>) -> anyhow::Result<Which> {
    match (ca.which(), token) {
        (which, None) => Ok(which),
        (Which::Issuing(kind), Some(token)) => Ok(Which::InToken(kind, Box::new(token))),
        (Which::Root | Which::InToken(..), Some(_)) => {
            anyhow::bail!("cannot have a root's key in a token: only issuing CAs' keys lie there")
        }
    }
}

async fn open(config: &Config) -> anyhow::Result<Ledger> {
    let path = config.data().join(LEDGER_FILE);
    anyhow::ensure!(
        path.exists(),
        "cannot find a deployment in {}: run larder-origin init first",
        config.data().display()
    );
    Ok(Ledger::open(&path).await?)
}

async fn closing<T, E>(ledger: &Ledger, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let done = work.await;
    ledger.close().await;
    done
}

/// Tells the origin that serves, if one does, to take up what has changed. Whether it has.
async fn tell(place: &Place) -> anyhow::Result<bool> {
    match place.admin()?.post("/authority/reload", &()).await {
        Ok(()) => Ok(true),
        Err(AdminError::Call(CallError::Connect { .. })) => Ok(false),
        Err(other) => Err(anyhow::Error::from(other)
            .context("what was asked for is done, but the origin that serves could not be told")),
    }
}

impl Kind {
    fn which(self) -> Which {
        match self {
            Self::Root => Which::Root,
            Self::Node => Which::Issuing(CaKind::Node),
            Self::Client => Which::Issuing(CaKind::Client),
            Self::Content => Which::Issuing(CaKind::Content),
        }
    }
}

impl fmt::Display for Cas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CA        GEN  STATE        ENDS                  LIST   UNTIL"
        )?;
        write!(f, "                 KEY")?;
        for ca in &self.cas {
            let number = ca.crl_number.map(|number| number.to_string());
            let until = ca.crl_next_update.map(in_words);
            write!(
                f,
                "\n{:<8}  {:<3}  {:<11}  {:<20}  {:<5}  {:<20}  {}",
                ca.kind,
                ca.generation,
                ca.state,
                in_words(ca.not_after),
                number.as_deref().unwrap_or("none"),
                until.as_deref().unwrap_or("-"),
                ca.key.as_str()
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ca in &self.announced {
            let from = in_words(ca.issues_from);
            let (kind, generation) = (&ca.kind, ca.generation);
            writeln!(
                f,
                "announced {kind} generation {generation}: it issues from {from} on"
            )?;
        }
        f.write_str(taken_up(self.taken_up))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Retired { kind, generation } = &self.retired;
        writeln!(
            f,
            "retired {kind} generation {generation}: its key is needed no more"
        )?;
        f.write_str(taken_up(self.taken_up))
    }
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for list in &self.lists {
            let until = in_words(list.next_update);
            let (generation, number) = (list.generation, list.number);
            writeln!(
                f,
                "signed list {number} of root generation {generation}, until {until}"
            )?;
        }
        f.write_str(taken_up(self.taken_up))
    }
}

impl fmt::Display for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.encrypted.is_empty() {
            return f.write_str("no root's key lies here in the clear");
        }
        for generation in &self.encrypted {
            writeln!(f, "encrypted keys/root-g{generation}.pem")?;
        }
        f.write_str("copies made before are not: delete them, and backups that hold them")
    }
}

fn taken_up(taken_up: bool) -> &'static str {
    if taken_up {
        "the origin that serves has taken it up"
    } else {
        "no origin serves here: it will be taken up at the next start"
    }
}
