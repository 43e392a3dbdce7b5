//! Varnish behind hitch, which ends TLS for it. hitch cannot check revocation lists.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

use super::super::child::Running;
use super::super::ground::{Ground, free_port, identity_pem, path};
use super::super::needs;
use super::backend;

pub(super) fn start(ground: &Ground) -> anyhow::Result<(Vec<Running>, u16)> {
    let (backend, origin) = backend::start(ground)?;
    let (host, port) = origin.split_once(':').context("no port")?;
    let place = ground.place("varnish")?;
    let (vcl, socket) = (place.join("default.vcl"), place.join("socket"));
    let cpu = ground.args.stage.server_cpu;
    fs::write(
        &vcl,
        format!(
            "vcl 4.1;\nbackend default {{ .host = \"{host}\"; .port = \"{port}\"; }}\n\
             sub vcl_backend_response {{ set beresp.do_stream = true; }}\n"
        ),
    )?;
    let varnishd = needs::find("varnishd").context("cannot find varnishd")?;
    let (listen, work) = (
        format!("{},PROXY,mode=666", path(&socket)?),
        place.join("work"),
    );
    let mut args = vec!["-F", "-a", &listen, "-f", path(&vcl)?, "-n", path(&work)?];
    // Without its jail, which wants users of its own. Memory for all objects, and for their pieces
    // while they come.
    args.extend(["-j", "none", "-s", "malloc,2g", "-p", "feature=+http2"]);
    args.extend(["-p", "timeout_idle=600", "-p", "thread_pools=1"]);
    args.extend(["-p", "thread_pool_max=1000"]);
    let mut varnish = Running::start(cpu, &varnishd, args, &place.join("varnish.log"))?;
    varnish.says("Child starts", Duration::from_secs(60))?;
    let (port, config) = (free_port()?, place.join("hitch.conf"));
    let roots = ground.booster().join("identity/roots.pem");
    let pem = identity_pem(&place, &ground.booster())?;
    fs::write(
        &config,
        format!(
            "frontend = \"[127.0.0.1]:{port}\"\nbackend = \"{}\"\npem-file = \"{}\"\n\
             client-verify = required\nclient-verify-ca = \"{}\"\nworkers = 1\nuser = \"nobody\"\ngroup = \"nogroup\"\ndaemon = off\n\
             tls-protos = TLSv1.3\nalpn-protos = \"h2, http/1.1\"\nwrite-proxy-v2 = on\n\
             backlog = 4096\nlog-level = 1\n",
            socket.display(),
            pem.display(),
            roots.display()
        ),
    )?;
    let hitch = needs::find("hitch").context("cannot find hitch")?;
    let args = ["--config", path(&config)?];
    let mut hitch = Running::start(cpu, &hitch, args, &place.join("hitch.log"))?;
    hitch.listens(port, Duration::from_secs(10))?;
    Ok((vec![hitch, varnish, backend], port))
}
