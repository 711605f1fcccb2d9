//! The official releases of `QuestDB` and Grafana: names, pinned checksums, and the digests that
//! GitHub publishes. Pure.

use serde::Deserialize;

use super::verify::Sha256;

/// Where release files are downloaded from: `BASE/VERSION/FILE`.
pub const RELEASES: &str = "https://github.com/questdb/questdb/releases/download";
/// Where GitHub tells about a release: `BASE/VERSION`.
pub const RELEASES_API: &str = "https://api.github.com/repos/questdb/questdb/releases/tags";

/// Where Grafana's archives are downloaded from: `BASE/VERSION/FILE`.
pub const GRAFANA: &str = "https://dl.grafana.com/grafana/release";

/// Version and archive of Grafana for this machine; the name holds the number of the build, so that
/// only known ones can be asked for.
#[cfg(target_arch = "x86_64")]
pub const GRAFANA_ARCHIVES: &[(&str, &str)] =
    &[("12.4.2", "grafana_12.4.2_23531306697_linux_amd64.tar.gz")];
/// See above.
#[cfg(target_arch = "aarch64")]
pub const GRAFANA_ARCHIVES: &[(&str, &str)] =
    &[("12.4.2", "grafana_12.4.2_23531306697_linux_arm64.tar.gz")];
/// See above: none for other machines.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const GRAFANA_ARCHIVES: &[(&str, &str)] = &[];

/// Checksums known when this program was built. A file of such a name must have exactly this one.
const PINNED: &[(&str, &str)] = &[
    ("questdb-9.2.3.jar", "ca3645bc6f442f535ac9f4f23d8f201d14c1010833afd8cc7351f86ffd632583"),
    ("questdb-9.3.4.jar", "939bc53ab22f93dbaa6545143a6e7c536d4904c07b7f2d381e8eef10436be062"),
    (
        "questdb-9.3.3-no-jre-bin.tar.gz",
        "cc83a90d0de5669ba4c11749fd1a8180149d9fa8fd39e8681f563994ad58bb0d",
    ),
    (
        "questdb-9.4.1-no-jre-bin.tar.gz",
        "2c53b236e79e138f7f7c97e2b4e876c2d2d9077bb16f22895232603138441739",
    ),
    (
        "grafana_12.4.2_23531306697_linux_amd64.tar.gz",
        "f240b200a803bf64592fae645331750c2681df5f07496743d714db12393a591f",
    ),
    (
        "grafana_12.4.2_23531306697_linux_arm64.tar.gz",
        "28f37f0952e923e90aed02c7d71cef7443705a9a37ba5439b76d7f72aeb1a63f",
    ),
];

/// Returns the checksum that is built into this program for the file `name`.
pub fn pinned(name: &str) -> Option<Sha256> {
    let (_, sum) = PINNED.iter().find(|(pinned, _)| *pinned == name)?;
    sum.parse().ok()
}

/// Returns the archives of `version` that can run here, the preferred one first. `has_java` says
/// whether a suitable Java was found.
pub fn archives(version: &str, has_java: bool) -> Vec<String> {
    let mut names = Vec::new();
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        names.push(format!("questdb-{version}-rt-linux-x86-64.tar.gz"));
    }
    if has_java {
        names.push(format!("questdb-{version}-no-jre-bin.tar.gz"));
    }
    names
}

/// Returns the digest of the asset `name` in GitHub's description of a release.
pub fn digest(description: &str, name: &str) -> Option<Sha256> {
    #[derive(Deserialize)]
    struct Release {
        assets: Vec<Asset>,
    }
    #[derive(Deserialize)]
    struct Asset {
        name: String,
        digest: Option<String>,
    }
    let release: Release = serde_json::from_str(description).ok()?;
    let asset = release.assets.into_iter().find(|asset| asset.name == name)?;
    asset.digest?.strip_prefix("sha256:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_checksum_is_one() {
        for (name, sum) in PINNED {
            assert_eq!(pinned(name).unwrap().to_string(), *sum);
        }
        assert_eq!(pinned("questdb-0.0.1.jar"), None);
    }

    #[test]
    fn the_default_grafana_has_a_pinned_archive() {
        let version = crate::config::defaults::GRAFANA_VERSION;
        let archive = GRAFANA_ARCHIVES.iter().find(|(of, _)| *of == version);
        assert!(archive.is_some_and(|(_, name)| pinned(name).is_some()), "{archive:?}");
    }

    #[test]
    fn the_digest_is_taken_from_the_asset_of_that_name() {
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let text = format!(
            r#"{{"tag_name":"9.3.4","assets":[{{"name":"a","digest":null,"size":1}},
               {{"name":"b","digest":"sha256:{sum}"}},{{"name":"c","digest":"md5:{sum}"}}]}}"#
        );
        assert_eq!(digest(&text, "b"), sum.parse().ok());
        for none in ["a", "c", "d"] {
            assert_eq!(digest(&text, none), None, "{none}");
        }
        assert_eq!(digest("<html>rate limit</html>", "b"), None);
    }

    #[test]
    fn the_archive_without_java_is_offered_only_where_there_is_one() {
        assert!(archives("9.3.4", false).iter().all(|name| name.contains("-rt-")));
        assert!(archives("9.3.4", true).last().unwrap().contains("no-jre"));
    }
}
