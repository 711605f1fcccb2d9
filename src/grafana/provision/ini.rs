//! grafana.ini of the managed server: loopback, no sign-up, no telemetry, no calls home.

use super::text::{Unwritable, ini_value, plain_path};
use super::{Secrets, Settings};
use crate::config::notify::{Email, Tls};
use crate::grafana::dashboards::FOLDER;

/// The first line of the file: what bears it was written by periscope.
pub const HEAD: &str = "# Written by periscope; changes are lost at its next start.";

/// Returns the text of grafana.ini.
///
/// # Errors
/// A path or name that no quoting can bring into the file.
pub fn text(settings: &Settings, secrets: &mut Secrets) -> Result<String, Unwritable> {
    let server = &settings.server;
    let path = |folder: &std::path::Path, name: &str| plain_path(&folder.join(name));
    let own_url = format!("http://{}:{}/", server.host, server.port);
    let root_url = server.url.clone().unwrap_or(own_url);
    let domain = domain(&root_url);
    // A cookie marked secure never comes back over plain http.
    let secure = root_url.starts_with("https://");
    let mut text = format!(
        "{HEAD}\n\
         [paths]\n\
         data = {}\n\
         logs = {}\n\
         plugins = {}\n\
         provisioning = {}\n\
         \n\
         [server]\n\
         protocol = http\n\
         http_addr = {}\n\
         http_port = {}\n\
         domain = {}\n\
         enforce_domain = true\n\
         root_url = {}\n\
         router_logging = false\n\
         \n\
         [database]\n\
         type = sqlite3\n\
         path = grafana.db\n\
         wal = true\n\
         \n\
         [security]\n\
         admin_user = admin\n\
         admin_password = {}\n\
         secret_key = {}\n\
         disable_gravatar = true\n\
         allow_embedding = false\n\
         cookie_secure = {secure}\n\
         cookie_samesite = lax\n\
         \n\
         [users]\n\
         allow_sign_up = false\n\
         allow_org_create = false\n\
         \n\
         [auth.basic]\n\
         enabled = true\n\
         \n\
         [auth.anonymous]\n\
         enabled = {}\n\
         org_role = Viewer\n\
         hide_version = true\n\
         \n\
         [analytics]\n\
         reporting_enabled = false\n\
         check_for_updates = false\n\
         check_for_plugin_updates = false\n\
         feedback_links_enabled = false\n\
         \n\
         [news]\n\
         news_feed_enabled = false\n\
         \n\
         [snapshots]\n\
         external_enabled = false\n\
         \n\
         [public_dashboards]\n\
         enabled = false\n\
         \n\
         [support_bundles]\n\
         enabled = false\n\
         \n\
         [plugins]\n\
         plugin_admin_enabled = false\n\
         preinstall_disabled = true\n\
         allow_loading_unsigned_plugins =\n\
         \n\
         [dataproxy]\n\
         logging = false\n\
         timeout = 60\n\
         dialTimeout = 5\n\
         row_limit = 200000\n\
         response_limit = 67108864\n\
         \n\
         [dashboards]\n\
         default_home_dashboard_path = {}\n\
         min_refresh_interval = 5s\n\
         versions_to_keep = 5\n\
         \n\
         [date_formats]\n\
         default_timezone = browser\n\
         \n\
         [unified_alerting]\n\
         enabled = true\n\
         min_interval = 10s\n\
         evaluation_timeout = 30s\n\
         \n\
         [unified_alerting.screenshots]\n\
         capture = false\n\
         \n\
         [metrics]\n\
         enabled = true\n\
         disable_total_stats = true\n\
         \n\
         [log]\n\
         mode = console\n\
         level = info\n\
         \n\
         [log.console]\n\
         format = text\n",
        path(&settings.state, "data")?,
        path(&settings.state, "logs")?,
        path(&settings.state, "plugins")?,
        path(&settings.folder, "provisioning")?,
        ini_value("grafana address", &server.host)?,
        server.port,
        ini_value("grafana url", domain)?,
        ini_value("grafana url", &root_url)?,
        secrets.reference("grafana-admin-password", &server.admin_password),
        secrets.reference("grafana-secret-key", &server.secret_key),
        server.anonymous_viewer,
        path(&settings.folder, &format!("dashboards/{FOLDER}/health.json"))?,
    );
    if let Some(email) = &settings.channels.email {
        text.push_str(&smtp(email, secrets)?);
    }
    Ok(text)
}

fn smtp(email: &Email, secrets: &mut Secrets) -> Result<String, Unwritable> {
    let policy = match email.tls {
        // Grafana speaks TLS from the first byte at port 465 whatever stands here; at another port
        // it can only do STARTTLS, and sends nothing in the clear.
        Tls::Implicit | Tls::Required => "MandatoryStartTLS",
        Tls::Off => "NoStartTLS",
    };
    let mut text = format!(
        "\n[smtp]\nenabled = true\nhost = {}\nfrom_address = {}\nfrom_name = periscope\n\
         startTLS_policy = {policy}\nskip_verify = false\n",
        ini_value("notify.email.server", &format!("{}:{}", email.host, email.port))?,
        ini_value("notify.email.from", &email.from)?,
    );
    if let Some(user) = &email.user {
        text.push_str(&format!("user = {}\n", ini_value("notify.email.user", user)?));
    }
    if let Some(password) = &email.password {
        let reference = secrets.reference("smtp-password", password);
        text.push_str(&format!("password = {reference}\n"));
    }
    Ok(text)
}

/// Returns the host of a URL, without port.
pub fn domain(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_the_host_of_the_url() {
        assert_eq!(domain("http://127.0.0.1:3000/"), "127.0.0.1");
        assert_eq!(domain("https://watch.example.org/grafana"), "watch.example.org");
        assert_eq!(domain("http://[::1]:3000"), "[::1]");
    }
}
