//! `token`: what lets devices in.

use ::config::Period;
use certs::DeviceId;
use clap::{Args, Subcommand};
use service::Output;

use super::Place;
use crate::admin::AdminClient;
use crate::fleet::{NewToken, PAGE, TokenCreated, TokenView, Tokens};
use crate::ledger::tokens::TokenId;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and print its join string, which is shown this once
    Create(CreateArgs),
    /// List tokens that have not expired, by id: the tokens themselves are not kept
    List,
    /// Make a token worth nothing; who came with it before stays
    Revoke {
        /// Its id, as `list` shows it
        id: TokenId,
    },
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// Who may enrol with it
    #[arg(long, value_parser = ["booster", "client"])]
    role: String,

    /// Let in whoever brings it, without an operator's look
    #[arg(long)]
    auto_approve: bool,

    /// The group that its devices join
    #[arg(long)]
    group: Option<String>,

    /// The one name that may be claimed with it
    #[arg(long)]
    id: Option<DeviceId>,

    /// How many devices may use it
    #[arg(long, default_value_t = 1)]
    uses: u32,

    /// How long it may be used
    #[arg(long, default_value = "24h")]
    ttl: Period,
}

pub(super) async fn run(
    command: TokenCommand,
    place: &Place,
    output: Output,
) -> anyhow::Result<()> {
    let admin = place.admin()?;
    match command {
        TokenCommand::Create(args) => {
            let created: TokenCreated = admin.post("/tokens", &args.new_token()).await?;
            Ok(output.result(&created)?)
        }
        TokenCommand::List => Ok(output.result(&list(&admin).await?)?),
        TokenCommand::Revoke { id } => {
            let path = format!("/tokens/{id}/revoke");
            let gone: TokenView = admin.post(&path, &()).await?;
            Ok(output.result(&gone)?)
        }
    }
}

impl CreateArgs {
    fn new_token(self) -> NewToken {
        NewToken {
            role: self.role,
            auto_approve: self.auto_approve,
            group: self.group,
            device: self.id.map(|id| id.to_string()),
            uses: self.uses,
            ttl_seconds: self.ttl.as_secs(),
        }
    }
}

/// All of them, page after page.
async fn list(admin: &AdminClient) -> anyhow::Result<Tokens> {
    let mut all = Tokens { tokens: Vec::new() };
    loop {
        let after = all.tokens.last().map_or("", |token| token.id.as_str());
        let page: Tokens = admin.get(&format!("/tokens?after={after}")).await?;
        let is_last = page.tokens.len() < PAGE as usize;
        all.tokens.extend(page.tokens);
        if is_last {
            return Ok(all);
        }
    }
}
