//! What all servers stand on: a deployment with its certificates and lists, and objects that were
//! published at its origin.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use service::{Clock, Output};
use tempfile::TempDir;

use super::args::Args;
use super::child::{self, Running};
use super::link::{FAR_ADDRESS, Link};
use super::lists::{self, Signer};
use super::point::{Object, Point};
use super::tools;

/// The deployment, and everybody's place in it.
pub(super) struct Ground {
    pub(super) args: Args,
    /// What has been published, by name.
    objects: BTreeMap<&'static str, Published>,
    /// Counts folders of servers.
    places: Cell<u32>,
    /// The line to where objects come from, if a point needs one.
    link: Option<Link>,
    /// Ends before the folder goes.
    _origin: Running,
    work: Option<TempDir>,
}

/// An object as it lies at the origin.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// All its bytes.
    pub(super) bytes: u64,
    /// Paths of its packs, for boosters.
    pub(super) packs: Vec<String>,
}

impl Ground {
    /// Makes a deployment, enrols a booster and a client, and publishes what `points` ask for.
    pub(super) fn lay(args: &Args, points: &[Point], output: Output) -> anyhow::Result<Self> {
        let mut work = tempfile::Builder::new()
            .prefix("larder-compare-")
            .tempdir_in(&args.stage.work)
            .context("cannot make a folder for the run")?;
        work.disable_cleanup(args.keep);
        if args.keep {
            output.note(format_args!("keeping {}", work.path().display()));
        }
        let folder = work.path().to_owned();
        // Some servers give up being root before they open what is in it.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
        let link = points.iter().any(Point::wants_link);
        let link = link
            .then(|| Link::lay(args.stage.load_cpu, &folder))
            .transpose()?;
        let (origin, joins) = start_origin(args, &folder, link.as_ref())?;
        let mut ground = Self {
            args: args.clone(),
            link,
            objects: BTreeMap::new(),
            places: Cell::new(0),
            _origin: origin,
            work: Some(work),
        };
        let objects: BTreeSet<Object> = points.iter().map(Point::object).collect();
        for &object in &objects {
            output.note(format_args!("publishing {}", object.name));
            let published = ground.publish(object);
            published.with_context(|| format!("cannot publish {}", object.name))?;
        }
        let (booster, port) = ground.enrol(&joins)?;
        for object in objects {
            let laid_out = ground.lay_out(object, port);
            let laid_out = laid_out.with_context(|| format!("cannot lay out {}", object.name))?;
            ground.objects.insert(object.name, laid_out);
        }
        drop(booster);
        Ok(ground)
    }

    /// The folder of the run.
    pub(super) fn folder(&self) -> &Path {
        self.work
            .as_ref()
            .expect("it stays as long as we do")
            .path()
    }

    /// The line to where objects come from.
    pub(super) fn link(&self) -> anyhow::Result<&Link> {
        self.link.as_ref().context("there is no line")
    }

    /// The address of those from whom objects come.
    pub(super) fn origin_address(&self) -> &'static str {
        address(self.link.as_ref())
    }

    /// Starts one of those from whom objects come, at the far end of the line if there is one.
    pub(super) fn start_afar(
        &self,
        program: &Path,
        args: &[&str],
        log: &Path,
    ) -> anyhow::Result<Running> {
        start_afar(&self.args, self.link.as_ref(), program, args, log)
    }

    /// A new folder for one server.
    pub(super) fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.places.set(self.places.get() + 1);
        let place = self.folder().join(format!("{name}-{}", self.places.get()));
        fs::create_dir(&place)?;
        Ok(place)
    }

    /// The data folder of a client that has enrolled.
    pub(super) fn client(&self) -> PathBuf {
        self.folder().join("client")
    }

    /// The data folder of a booster that has enrolled, and knows what is current.
    pub(super) fn booster(&self) -> PathBuf {
        self.folder().join("booster")
    }

    /// Where the objects lie as files.
    pub(super) fn www(&self) -> PathBuf {
        self.folder().join("www")
    }

    /// What was published as `object`.
    pub(super) fn object(&self, object: Object) -> anyhow::Result<&Published> {
        let published = self.objects.get(object.name);
        published.with_context(|| format!("{} was not published", object.name))
    }

    /// The name in the server's certificate.
    pub(super) fn server_name() -> String {
        format!("{BOOSTER}.{DEPLOYMENT}.larder.internal")
    }

    /// A booster's state folder in which the list of clients' certificates has so many entries.
    pub(super) fn state(&self, entries: u32) -> anyhow::Result<PathBuf> {
        if entries == 0 {
            return Ok(self.booster().join("state"));
        }
        let state = self.folder().join(format!("state-{entries}"));
        if !state.exists() {
            copy(&self.booster().join("state"), &state)?;
            let now = Clock::system().now();
            let signer = Signer::open(&self.folder().join("origin"), &self.client(), now)?;
            fs::write(state.join(signer.file_name()), signer.sign(entries)?)?;
        }
        Ok(state)
    }

    /// The same lists as one PEM file.
    pub(super) fn lists(&self, entries: u32) -> anyhow::Result<PathBuf> {
        let file = self.folder().join(format!("lists-{entries}.pem"));
        if !file.exists() {
            fs::write(&file, lists::as_pem(&self.state(entries)?)?)?;
        }
        Ok(file)
    }

    /// Publishes one object as a fileset of its own.
    fn publish(&self, object: Object) -> anyhow::Result<()> {
        let source = self.folder().join("source").join(object.name);
        fs::create_dir_all(&source)?;
        let seed = object.bytes;
        for part in 0..object.bytes.div_ceil(PART_BYTES) {
            let bytes = noise(object.bytes.min(PART_BYTES) as usize, seed + part);
            fs::write(source.join(format!("{part:03}")), bytes)?;
        }
        let name = fileset(object);
        self.run("larder-origin", &["publish", &name, path(&source)?])
    }

    /// Lays the packs of an object out as one file, in the order in which clients want them, as the
    /// booster on that port tells.
    fn lay_out(&self, object: Object, port: u16) -> anyhow::Result<Published> {
        let all = self.packs()?;
        // The index lies in packs of its own, which are small; so may be the last one of a run.
        let is_run = object.bytes > PART_BYTES;
        let least = if is_run {
            PART_BYTES / 16
        } else {
            object.bytes / 2
        };
        let mut small = Vec::new();
        fs::create_dir_all(self.www())?;
        let mut file = fs::File::create(self.www().join(object.name))?;
        let (mut bytes, mut packs) = (0, Vec::new());
        let mut add = |asked: String, pack: &[u8]| {
            bytes += pack.len() as u64;
            packs.push(asked);
            file.write_all(pack)
        };
        for asked in tools::packs(&self.client(), port, &fileset(object))? {
            let id = asked.rsplit_once('/').map_or("", |(_, id)| id);
            let pack = all.get(id).context("the origin has no such pack")?;
            let pack = fs::read(pack)?;
            if pack.len() as u64 > least {
                add(asked, &pack)?;
            } else {
                small.push((asked, pack));
            }
        }
        // A run of packs is all of them: who reads ahead would fetch what is left out. What is small
        // comes last, since the first frame is to be one of content.
        if is_run {
            for (asked, pack) in small {
                add(asked, &pack)?;
            }
        }
        let off = bytes as f64 / object.bytes as f64;
        ensure!((0.9..1.1).contains(&off), "its packs have {bytes} bytes");
        Ok(Published { bytes, packs })
    }

    /// All packs that the origin has, by name.
    fn packs(&self) -> anyhow::Result<BTreeMap<String, PathBuf>> {
        let mut packs = BTreeMap::new();
        let mut folders = vec![self.folder().join("origin/packs")];
        // Before the first publish there is no such folder.
        folders.retain(|folder| folder.exists());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let (path, name) = {
                    let entry = entry?;
                    (entry.path(), entry.file_name())
                };
                let name = name.to_string_lossy().into_owned();
                if path.is_dir() {
                    folders.push(path);
                } else if name.len() == 64 {
                    packs.insert(name, path);
                }
            }
        }
        Ok(packs)
    }

    /// Enrols the client and the booster, which then learns what is current: gives it at work, with
    /// its port.
    fn enrol(&self, joins: &[String; 2]) -> anyhow::Result<(Running, u16)> {
        let client = self.client();
        let args = ["enrol", &joins[1], "--id", "loader", "--data"];
        self.run("larder-client", &[&args[..], &[path(&client)?]].concat())?;
        let data = self.booster();
        let args = ["enrol", &joins[0], "--id", BOOSTER, "--data"];
        self.run("larder-booster", &[&args[..], &[path(&data)?]].concat())?;
        // Its first start gets the lists.
        let place = self.place("first")?;
        let (booster, port, _) = start_booster(self, &data, &place, "")?;
        Ok((booster, port))
    }

    /// Runs one of our own programs to its end.
    pub(super) fn run(&self, name: &str, args: &[&str]) -> anyhow::Result<()> {
        let origin = self.folder().join("origin.toml");
        let config: [&str; 2] = ["--config", path(&origin)?];
        let config = match name {
            "larder-origin" => &config[..],
            _ => &[],
        };
        let args = [args, config].concat();
        let program = self.args.stage.program(name)?;
        child::output(self.args.stage.load_cpu, &program, args, &[], PATIENCE).map(drop)
    }
}

/// Makes an origin and starts it; gives the join strings for one booster and one client.
fn start_origin(
    args: &Args,
    folder: &Path,
    link: Option<&Link>,
) -> anyhow::Result<(Running, [String; 2])> {
    let ports = [free_port()?, free_port()?, free_port()?];
    let (data, config, host) = (
        folder.join("origin"),
        folder.join("origin.toml"),
        address(link),
    );
    fs::write(
        &config,
        format!(
            "data = {data:?}\ncontent.listen = \"{host}:{}\"\nenrol.listen = \"{host}:{}\"\n\
             ops.listen = \"127.0.0.1:{}\"\n",
            ports[0], ports[1], ports[2]
        ),
    )?;
    let program = args.stage.program("larder-origin")?;
    let file = path(&config)?;
    let init = ["init", "--json", "--address", host, "--name"];
    let init = [&init[..], &[DEPLOYMENT, "--config", file]].concat();
    let said = child::output(args.stage.load_cpu, &program, init, &[], PATIENCE)?;
    let said: Value = serde_json::from_slice(&said).context("cannot understand `init`")?;
    let join = |role: &str| {
        let join = said[role]["join"].as_str();
        join.map(str::to_owned)
            .with_context(|| format!("`init` made no token for a {role}"))
    };
    let joins = [join("booster")?, join("client")?];
    let log = folder.join("origin.log");
    let mut origin = start_afar(args, link, &program, &["serve", "--config", file], &log)?;
    origin.says(SERVING, PATIENCE)?;
    Ok((origin, joins))
}

fn start_afar(
    args: &Args,
    link: Option<&Link>,
    program: &Path,
    with: &[&str],
    log: &Path,
) -> anyhow::Result<Running> {
    let Some(link) = link else {
        return Running::start(args.stage.load_cpu, program, with, log);
    };
    let (nsenter, mut prefix) = link.prefix();
    prefix.push(path(program)?.to_owned());
    prefix.extend(with.iter().map(|arg| (*arg).to_owned()));
    Running::start(args.stage.load_cpu, &nsenter, prefix, log)
}

/// What an object is published as.
fn fileset(object: Object) -> String {
    format!("o{}", object.name.to_lowercase())
}

fn address(link: Option<&Link>) -> &'static str {
    link.map_or("127.0.0.1", |_| FAR_ADDRESS)
}

/// Starts the booster with that data folder; its settings, with `settings` besides, and its log go to
/// `place`. Gives the
/// ports of its content listener and of its operators' listener.
pub(super) fn start_booster(
    ground: &Ground,
    data: &Path,
    place: &Path,
    settings: &str,
) -> anyhow::Result<(Running, u16, u16)> {
    let ports = [free_port()?, free_port()?, free_port()?];
    let config = place.join("booster.toml");
    // All else is as it comes: a customer would not tune it either.
    fs::write(
        &config,
        format!(
            "data = {data:?}\ncontent.listen = \"127.0.0.1:{}\"\nenrol.listen = \"127.0.0.1:{}\"\n\
             ops.listen = \"127.0.0.1:{}\"\ncontent.connections = 16384\n{ANY_DISK}{settings}",
            ports[0], ports[1], ports[2]
        ),
    )?;
    let program = ground.args.stage.program("larder-booster")?;
    let args = ["serve", "--config", path(&config)?];
    let log = place.join("log");
    let mut running = Running::start(ground.args.stage.server_cpu, &program, args, &log)?;
    running.says(SERVING, PATIENCE)?;
    Ok((running, ports[0], ports[2]))
}

/// A setting by which a booster keeps packs however full the disk is of whoever measures. Without
/// it one passes them on unkept where less than 5 % is free, which other caches do not look at.
pub(crate) const ANY_DISK: &str = "cache.free_percent = 0\n";

/// Copies a folder with all below it.
pub(super) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to)?;
        } else if path.is_file() {
            fs::copy(&path, &to).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// Certificate and key of one who has enrolled, in one file in `place`, as many programs want it.
pub(super) fn identity_pem(place: &Path, data: &Path) -> anyhow::Result<PathBuf> {
    let (file, identity) = (place.join("identity.pem"), data.join("identity"));
    let cert = fs::read_to_string(identity.join("cert.pem"))?;
    fs::write(&file, "")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    fs::write(&file, cert + &fs::read_to_string(identity.join("key.pem"))?)?;
    Ok(file)
}

/// A port of loopback that nobody has.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// As text: we have chosen all paths ourselves, or they were typed.
pub(crate) fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("cannot use {}: it is not UTF-8", path.display()))
}

/// Bytes that do not compress, the same for the same `seed`: xorshift64 (Marsaglia 2003).
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise: Vec<u8> = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

const BOOSTER: &str = "edge";
/// Who it is, for those who know a server by name: `ID`.
pub(super) const SERVER_ID: &str = BOOSTER;
const DEPLOYMENT: &str = "bench";
/// What our programs print once they serve.
const SERVING: &str = ": content ";
/// Files of an object are no longer than that.
const PART_BYTES: u64 = 4 << 20;
/// How long a step of ours may take.
const PATIENCE: Duration = Duration::from_secs(60);
