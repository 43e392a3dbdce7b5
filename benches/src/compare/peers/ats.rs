//! Apache Traffic Server, with objects in memory, and readers let in while it writes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::super::child::{self, Running};
use super::super::ground::{Ground, free_port, identity_pem, path};
use super::super::needs;
use super::backend;

pub(super) fn start(ground: &Ground) -> anyhow::Result<(Vec<Running>, u16)> {
    let (backend, origin) = backend::start(ground)?;
    let (place, port) = (ground.place("ats")?, free_port()?);
    for folder in ["etc", "var", "log", "cache", "run"] {
        fs::create_dir(place.join(folder))?;
    }
    let (root, etc) = (place.display(), place.join("etc"));
    let pem = identity_pem(&place, &ground.booster())?;
    let roots = place.join("roots.pem");
    fs::copy(ground.booster().join("identity/roots.pem"), &roots)?;
    // Its files of rules lie where the package has put them.
    let runroot = format!(
        "prefix: /usr\nbindir: /usr/bin\nsbindir: /usr/bin\nsysconfdir: {root}/etc\n\
         datadir: {root}/cache\nincludedir: /usr/include\nlibdir: /usr/lib\n\
         libexecdir: /usr/lib/trafficserver/modules\nlocalstatedir: {root}/var\n\
         runtimedir: {root}/run\nlogdir: {root}/log\nmandir: /usr/share/man\n\
         infodir: /usr/share/info\ncachedir: {root}/cache\n"
    );
    fs::write(place.join("runroot.yaml"), runroot)?;
    let records = RECORDS
        .replace("{port}", &port.to_string())
        .replace("{roots}", path(&roots)?);
    fs::write(etc.join("records.config"), records)?;
    fs::write(
        etc.join("remap.config"),
        format!("map / http://{origin}/\n"),
    )?;
    fs::write(etc.join("storage.config"), format!("{root}/cache 2G\n"))?;
    fs::write(
        etc.join("ssl_multicert.config"),
        format!("dest_ip=* ssl_cert_name={}\n", pem.display()),
    )?;
    fs::write(
        etc.join("ip_allow.yaml"),
        "ip_allow:\n- apply: in\n  ip_addrs: 0/0\n  action: allow\n  methods: ALL\n",
    )?;
    for empty in ["plugin.config", "logging.yaml", "sni.yaml", "parent.config"] {
        fs::write(etc.join(empty), "")?;
    }
    // It does not serve as root.
    let owner = ["-R", "nobody", path(&place)?];
    let chown = Path::new("chown");
    child::output(
        ground.args.stage.load_cpu,
        chown,
        owner,
        &[],
        Duration::from_secs(10),
    )?;
    let program = needs::find("traffic_server").context("cannot find traffic_server")?;
    let run_root = format!("--run-root={}", path(&place.join("runroot.yaml"))?);
    let cpu = ground.args.stage.server_cpu;
    let mut running = Running::start(cpu, &program, [run_root], &place.join("log/said"))?;
    running.listens(port, Duration::from_secs(60))?;
    Ok((vec![running, backend], port))
}

/// One thread that serves; a large object is read while it is written; nothing is logged.
const RECORDS: &str = "\
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.exec_thread.affinity INT 0
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.task_threads INT 1
CONFIG proxy.config.admin.user_id STRING nobody
CONFIG proxy.config.http.server_ports STRING {port}:ssl:ip-in=127.0.0.1
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 600
CONFIG proxy.config.http.insert_request_via_str INT 0
CONFIG proxy.config.http.insert_response_via_str INT 0
CONFIG proxy.config.http.cache.required_headers INT 0
CONFIG proxy.config.http.cache.max_open_read_retries INT 5000
CONFIG proxy.config.http.cache.open_read_retry_time INT 10
CONFIG proxy.config.http.cache.open_write_fail_action INT 5
CONFIG proxy.config.http.background_fill_active_timeout INT 0
CONFIG proxy.config.http.background_fill_completed_threshold FLOAT 0.0
CONFIG proxy.config.cache.enable_read_while_writer INT 1
CONFIG proxy.config.cache.read_while_writer.max_retries INT 10
CONFIG proxy.config.cache.read_while_writer_retry.delay INT 50
CONFIG proxy.config.cache.ram_cache.size INT 1073741824
CONFIG proxy.config.cache.ram_cache_cutoff INT 134217728
CONFIG proxy.config.net.connections_throttle INT 16000
CONFIG proxy.config.net.default_inactivity_timeout INT 600
CONFIG proxy.config.net.max_connections_in INT 16000
CONFIG proxy.config.ssl.CA.cert.filename STRING {roots}
CONFIG proxy.config.ssl.client.certification_level INT 2
CONFIG proxy.config.ssl.server.cipher_suite STRING ECDHE-ECDSA-AES128-GCM-SHA256
CONFIG proxy.config.ssl.session_cache INT 0
CONFIG proxy.config.ssl.server.session_ticket.enable INT 0
CONFIG proxy.config.ssl.server.session_ticket.number INT 0
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.diags.output.diag STRING E
CONFIG proxy.config.http.response_server_enabled INT 0
CONFIG proxy.config.url_remap.pristine_host_hdr INT 0
";
