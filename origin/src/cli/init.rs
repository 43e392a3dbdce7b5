//! `init`: a new deployment.

use std::fmt;

use anyhow::Context as _;
use certs::{DeploymentId, DeviceId};
use clap::Args;
use content::Digest;
use serde::Serialize;
use service::{Clock, Output};

use super::{Place, RootPassphrase};
use crate::LEDGER_FILE;
use crate::audit::{Actor, acting_for};
use crate::authority::{self, Authority, NewDeployment};
use crate::fleet::{self, NewToken, TokenCreated};
use crate::ledger::Ledger;
use crate::server::reached_at;

/// What a new deployment needs to know.
#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// Where boosters and devices reach this origin: a host name or an address, without a port
    #[arg(long, value_name = "HOST", value_parser = host)]
    address: String,

    /// The deployment's name: 1 to 32 of a-z and 0-9; random if left out
    #[arg(long)]
    name: Option<DeploymentId>,

    #[command(flatten)]
    passphrase: RootPassphrase,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    deployment: String,
    data: String,
    root: String,
    root_key_encrypted: bool,
    booster: TokenCreated,
    client: TokenCreated,
}

pub(super) async fn run(args: InitArgs, place: &Place, output: Output) -> anyhow::Result<()> {
    let config = place.config()?;
    let (data, clock) = (config.data(), Clock::system());
    let id = match args.name {
        Some(name) => name,
        None => random_name()?,
    };
    let origin_id: DeviceId = ORIGIN_ID.parse()?;
    let new = NewDeployment {
        id: id.clone(),
        origin_id,
        host: args.address.clone(),
    };
    let passphrase = args.passphrase.load()?;
    let made = authority::init_with(data, new, passphrase.as_ref(), clock.now());
    acting_for(Actor::this_user(), made)
        .await
        .context("cannot make a deployment")?;

    let ledger = Ledger::open(&data.join(LEDGER_FILE)).await?;
    let lives = config.certificates().clone();
    let authority = Authority::open(data, ledger.clone(), lives, clock).await?;
    let listener = &config.enrol().listener;
    let addresses = reached_at(listener, &args.address, listener.listen.port());
    let token = |role: &str| {
        let new = NewToken {
            role: role.to_owned(),
            auto_approve: true,
            group: None,
            device: None,
            uses: 1,
            ttl_seconds: FIRST_TOKEN_TTL,
        };
        let (authority, addresses) = (authority.clone(), addresses.clone());
        let create = async move { fleet::create_token(&authority, &new, addresses).await };
        acting_for(Actor::this_user(), create)
    };
    let made = Made {
        deployment: id.to_string(),
        data: data.display().to_string(),
        root: Digest::from_raw(authority.root_pin()).to_string(),
        root_key_encrypted: passphrase.is_some(),
        booster: token("booster").await?,
        client: token("client").await?,
    };
    ledger.close().await;
    Ok(output.result(&made)?)
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "made the deployment {} in {}",
            self.deployment, self.data
        )?;
        writeln!(f, "its root key: {}", self.root)?;
        f.write_str(if self.root_key_encrypted {
            "its private half is encrypted: keep the passphrase elsewhere\n"
        } else {
            "its private half is NOT encrypted: whoever copies it is the deployment; \
             see larder-origin ca encrypt-root-key\n"
        })?;
        writeln!(
            f,
            "\nto enrol a booster (once, within a day):\n  {}",
            self.booster.join
        )?;
        writeln!(
            f,
            "to enrol a client (once, within a day):\n  {}",
            self.client.join
        )?;
        writeln!(
            f,
            "\nkeep a copy of {}/keys where nobody else can read it",
            self.data
        )?;
        write!(f, "next: larder-origin serve --data {}", self.data)
    }
}

/// Ten letters: enough that two deployments never meet by chance.
fn random_name() -> anyhow::Result<DeploymentId> {
    let bytes: [u8; 10] = certs::key::random()?;
    let letters = bytes.map(|byte| char::from(b'a' + byte % 26));
    Ok(letters.iter().collect::<String>().parse()?)
}

fn host(text: &str) -> Result<String, String> {
    let probe = if text.contains(':') {
        format!("[{text}]:1")
    } else {
        format!("{text}:1")
    };
    match probe.parse::<::config::HostPort>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("want a host name or an address, without a port".to_owned()),
    }
}

/// The origin's own id: there is one in a deployment.
const ORIGIN_ID: &str = "origin";
/// A day, in seconds.
const FIRST_TOKEN_TTL: i64 = 86_400;
