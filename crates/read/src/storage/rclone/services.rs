//! The remotes of rclone that the URLs of duplicity name, with the accounts that duplicity takes from the environment.

use super::encoding::percent_encode;
use super::obscure::obscure;
use super::remote::{RcloneRemote, trimmed};
use super::ssh;
use crate::storage::remote_location::RemoteService;
use crate::storage::secret_source::SecretSource;
use crate::storage::{RemoteLocation, StorageError, StoreOptions};
use dupfs_base::{ErrorKind, Secret};

impl RemoteLocation {
    /// The remotes to try, in their order, for rclone of this version.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the account is missing, [`ErrorKind::Unsupported`] or [`ErrorKind::Invalid`] for a place that
    /// rclone cannot read.
    pub(super) fn remotes(
        &self,
        version: (u32, u32),
        options: &StoreOptions,
    ) -> Result<Vec<RcloneRemote>, StorageError> {
        let secrets = &options.secrets;
        let password = self.password.clone().or_else(|| secrets.get("BACKEND_PASSWORD"));
        let password = password.or_else(|| secrets.get("FTP_PASSWORD"));
        let remote = match self.service {
            RemoteService::Ssh => return ssh::remotes(self, version, password, options),
            RemoteService::Ftp | RemoteService::FtpImplicitTls | RemoteService::FtpExplicitTls => self.ftp(password)?,
            RemoteService::Webdav | RemoteService::WebdavTls => self.webdav(password)?,
            RemoteService::Rclone => self.of_user()?,
            RemoteService::B2 => self.b2(password)?,
            RemoteService::Azure => self.azure(secrets)?,
            RemoteService::Swift => self.swift("SWIFT", secrets)?,
            RemoteService::Pca => self.swift("PCA", secrets)?,
            RemoteService::Dropbox => self.dropbox(secrets)?,
            RemoteService::GoogleDrive => self.google_drive(secrets)?,
            RemoteService::Mega => self.mega(password)?,
        };
        Ok(vec![remote])
    }

    fn configured(&self, kind: &str, dir: &str) -> RcloneRemote {
        RcloneRemote::configured(kind, &self.display(), dir)
    }

    fn missing(&self, reason: &str) -> StorageError {
        StorageError::new(ErrorKind::Denied, &self.display(), reason)
    }

    fn ftp(&self, password: Option<Secret>) -> Result<RcloneRemote, StorageError> {
        let tls = match self.service {
            RemoteService::FtpImplicitTls => Some("tls"),
            RemoteService::FtpExplicitTls => Some("explicit_tls"),
            _ => None,
        };
        // As lftp, which uses a password only with a user.
        let (user, password) = match &self.user {
            Some(user) => (user.clone(), password.unwrap_or_else(|| Secret::new(""))),
            None => ("anonymous".to_owned(), Secret::new("anonymous@")),
        };
        let remote = self
            .configured("ftp", &self.dir)
            .with("host", self.host.trim_matches(['[', ']']))
            .with_some("port", self.port.map(|port| port.to_string()))
            .with("user", user)
            .with("pass", obscure(&password)?.expose());
        Ok(match tls {
            Some(option) => remote.with(option, "true"),
            None => remote,
        })
    }

    fn webdav(&self, password: Option<Secret>) -> Result<RcloneRemote, StorageError> {
        let scheme = if self.service == RemoteService::WebdavTls { "https" } else { "http" };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let url = format!("{scheme}://{}{port}/{}", self.host, percent_encode(&trimmed(&self.dir)));
        let remote = self.configured("webdav", "").with("url", url).with("vendor", "other");
        let Some(user) = &self.user else { return Ok(remote) };
        let remote = remote.with("user", user);
        Ok(match password {
            Some(password) => remote.with("pass", obscure(&password)?.expose()),
            None => remote,
        })
    }

    /// A remote of the user's own configuration: `NAME:path`.
    fn of_user(&self) -> Result<RcloneRemote, StorageError> {
        let (name, path) = self.dir.split_once(':').unwrap_or((&self.dir, ""));
        // A remote that is described in place has colons of its own.
        let (fs, dir) = if name.is_empty() || name.contains([',', '=']) {
            (self.dir.clone(), "")
        } else if path.starts_with('/') {
            (format!("{name}:/"), path)
        } else {
            (format!("{name}:"), path)
        };
        if fs.contains(']') {
            let reason = "the description of a remote may not contain ]; give it a name with rclone config";
            return Err(StorageError::new(ErrorKind::Invalid, &self.display(), reason));
        }
        let mut remote = RcloneRemote { fs, options: None, ..self.configured("", dir) };
        for (name, value) in self.hidden_options() {
            remote.hide(value.trim_matches(['"', '\'']).as_bytes());
            // Also one whose value is short.
            remote.hide(format!("{name}={value}").as_bytes());
        }
        Ok(remote)
    }

    fn b2(&self, password: Option<Secret>) -> Result<RcloneRemote, StorageError> {
        let key =
            password.ok_or_else(|| self.missing("the key is missing: set BACKEND_PASSWORD to the application key"))?;
        let remote = self.configured("b2", &trimmed(&self.dir));
        Ok(remote.with_some("account", self.user.as_ref()).with("key", key.expose()))
    }

    fn azure(&self, secrets: &SecretSource) -> Result<RcloneRemote, StorageError> {
        let remote = self.configured("azureblob", &trimmed(&self.dir));
        let connection = secrets.get("AZURE_CONNECTION_STRING");
        let connection =
            connection.ok_or_else(|| self.missing("the account is missing: set AZURE_CONNECTION_STRING"))?;
        let text = std::str::from_utf8(connection.expose()).unwrap_or_default();
        // A key ends with `=`.
        let value = |name: &str| {
            let pair = text.split(';').filter_map(|pair| pair.trim().split_once('='));
            pair.filter(|(known, value)| known.eq_ignore_ascii_case(name) && !value.is_empty())
                .map(|(_, value)| value)
                .next()
        };
        let scheme = value("DefaultEndpointsProtocol").unwrap_or("https");
        let of_suffix = value("AccountName").zip(value("EndpointSuffix"));
        let of_suffix = of_suffix.map(|(account, suffix)| format!("{scheme}://{account}.blob.{suffix}"));
        let endpoint = value("BlobEndpoint").map(str::to_owned).or(of_suffix);
        if let Some((signature, endpoint)) = value("SharedAccessSignature").zip(endpoint.as_deref()) {
            let url = format!("{}/?{}", endpoint.trim_end_matches('/'), signature.trim_start_matches('?'));
            return Ok(remote.with("sas_url", url));
        }
        let (Some(account), Some(key)) = (value("AccountName"), value("AccountKey")) else {
            let reason = "AZURE_CONNECTION_STRING has neither AccountName and AccountKey nor a SharedAccessSignature";
            return Err(self.missing(reason));
        };
        // rclone knows the usual service by the account.
        let endpoint = endpoint.filter(|endpoint| !endpoint.contains(".blob.core.windows.net"));
        Ok(remote.with("account", account).with("key", key).with_some("endpoint", endpoint))
    }

    /// `prefix` begins the names of the variables.
    fn swift(&self, prefix: &str, secrets: &SecretSource) -> Result<RcloneRemote, StorageError> {
        let remote = self.configured("swift", &trimmed(&self.dir));
        let text = |name: &str| secrets.text(&format!("{prefix}_{name}"));
        let secret = |name: &str| secrets.get(&format!("{prefix}_{name}"));
        if let Some((url, token)) = text("PREAUTHURL").zip(secret("PREAUTHTOKEN")) {
            return Ok(remote.with("storage_url", url).with("auth_token", token.expose()));
        }
        let (Some(user), Some(password), Some(auth)) = (text("USERNAME"), secret("PASSWORD"), text("AUTHURL")) else {
            let reason =
                format!("the account is missing: set {prefix}_USERNAME, {prefix}_PASSWORD and {prefix}_AUTHURL");
            return Err(self.missing(&reason));
        };
        let version = text("AUTHVERSION").unwrap_or_else(|| if prefix == "PCA" { "2" } else { "1" }.to_owned());
        let domain = text("USER_DOMAIN_NAME").or_else(|| text("USER_DOMAIN_ID"));
        Ok(remote
            .with("user", user)
            .with("key", password.expose())
            .with("auth", auth)
            .with("auth_version", version)
            .with_some("domain", domain)
            .with_some("tenant", text("TENANTNAME").or_else(|| text("PROJECT_NAME")))
            .with_some("tenant_id", text("TENANTID").or_else(|| text("PROJECT_ID")))
            .with_some("tenant_domain", text("PROJECT_DOMAIN_NAME").or_else(|| text("PROJECT_DOMAIN_ID")))
            .with_some("user_id", text("USERID"))
            .with_some("region", text("REGIONNAME"))
            .with_some("endpoint_type", text("ENDPOINT_TYPE").map(|kind| kind.trim_end_matches("URL").to_lowercase())))
    }

    fn dropbox(&self, secrets: &SecretSource) -> Result<RcloneRemote, StorageError> {
        let token = secrets.get("DPBX_ACCESS_TOKEN");
        let token = token.ok_or_else(|| {
            let reason = "the account is missing: set DPBX_ACCESS_TOKEN, or make a remote with rclone config and mount \
                          rclone://NAME:/directory";
            self.missing(reason)
        })?;
        let token = String::from_utf8_lossy(token.expose()).into_owned();
        // It does not expire.
        let json =
            serde_json::json!({ "access_token": token, "token_type": "bearer", "expiry": "0001-01-01T00:00:00Z" });
        Ok(self.configured("dropbox", &trimmed(&self.dir)).with("token", json.to_string()))
    }

    fn google_drive(&self, secrets: &SecretSource) -> Result<RcloneRemote, StorageError> {
        let file = secrets.text("GOOGLE_SERVICE_JSON_FILE").ok_or_else(|| {
            let reason = "only service accounts can be taken over from duplicity (GOOGLE_SERVICE_JSON_FILE): make a remote with \
                          rclone config, and mount rclone://NAME:/directory";
            self.missing(reason)
        })?;
        let (drive, folder) = (self.parameter("driveID"), self.parameter("myDriveFolderID"));
        if drive.is_none() && folder.is_none() {
            let reason = "the URL needs the parameter driveID or myDriveFolderID, as for duplicity";
            return Err(StorageError::new(ErrorKind::Invalid, &self.display(), reason));
        }
        Ok(self
            .configured("drive", &trimmed(&self.dir))
            .with("scope", "drive.readonly")
            .with("service_account_file", file)
            .with_some("team_drive", drive)
            .with_some("root_folder_id", folder.filter(|_| drive.is_none())))
    }

    fn mega(&self, password: Option<Secret>) -> Result<RcloneRemote, StorageError> {
        let (Some(user), Some(password)) = (&self.user, password) else {
            return Err(self.missing(
                "the account is missing: give the user in the URL, and the password there or in BACKEND_PASSWORD",
            ));
        };
        let remote = self.configured("mega", &trimmed(&self.dir)).with("user", user);
        Ok(remote.with("pass", obscure(&password)?.expose()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Location, parse_url};

    fn options(variables: &[(&str, &str)]) -> StoreOptions {
        let secrets = SecretSource::new(|_| None);
        let secrets = variables.iter().fold(secrets, |secrets, (name, value)| secrets.with(name, Secret::new(*value)));
        StoreOptions { secrets, ..StoreOptions::default() }
    }

    fn remote(url: &str, variables: &[(&str, &str)]) -> Result<RcloneRemote, StorageError> {
        let Ok(Location::Remote(location)) = parse_url(url) else { panic!("{url}") };
        location.remotes((1, 60), &options(variables)).map(|mut remotes| remotes.remove(0))
    }

    /// The place, and the options without obscured passwords.
    fn shown(url: &str, variables: &[(&str, &str)]) -> String {
        let remote = remote(url, variables).unwrap();
        let options = remote.options.unwrap_or_default();
        let options = options.iter().filter(|(name, _)| *name != "pass");
        let options = options.map(|(name, value)| format!(" {name}={}", std::str::from_utf8(value.expose()).unwrap()));
        format!("{}|{}{}", remote.fs, remote.dir, options.collect::<String>())
    }

    #[test]
    fn ftp_and_webdav_have_their_options() {
        assert_eq!(shown("ftp://joe:x@h:21/a", &[]), "dupfs:|a type=ftp host=h port=21 user=joe");
        assert_eq!(shown("ftps://h//a", &[]), "dupfs:/|a type=ftp host=h user=anonymous tls=true");
        assert_eq!(shown("ftpes://j@h/a", &[]), "dupfs:|a type=ftp host=h user=j explicit_tls=true");
        assert_eq!(
            shown("webdavs://joe:x@h:444/a b//c/", &[]),
            "dupfs:| type=webdav url=https://h:444/a%20b/c vendor=other user=joe"
        );
        assert_eq!(shown("http://h", &[]), "dupfs:| type=webdav url=http://h/ vendor=other");
    }

    #[test]
    fn the_password_is_that_of_the_url_or_of_the_environment() {
        let has_password = |url: &str, variables: &[(&str, &str)]| {
            remote(url, variables).unwrap().options.unwrap().iter().any(|(name, _)| *name == "pass")
        };
        assert!(has_password("webdav://j:x@h/", &[]));
        assert!(has_password("webdav://j@h/", &[("FTP_PASSWORD", "x")]));
        assert!(has_password("webdav://j@h/", &[("BACKEND_PASSWORD", "x")]));
        assert!(!has_password("webdav://j@h/", &[]));
    }

    #[test]
    fn remotes_of_the_user_are_used_as_they_are() {
        assert_eq!(shown("rclone://r:a/b", &[]), "r:|a/b");
        assert_eq!(shown("rclone://r://a/b", &[]), "r:/|a/b");
        assert_eq!(shown("rclone://r,x=1:a", &[]), "r,x=1:a|");
        assert_eq!(remote("rclone://r]:a", &[]).unwrap_err().kind, ErrorKind::Invalid);
    }

    #[test]
    fn accounts_of_the_environment_are_taken_over() {
        assert_eq!(shown("b2://id:se%2Fcret@Bucket/a/b", &[]), "dupfs:|Bucket/a/b type=b2 account=id key=se/cret");
        let azure = [(
            "AZURE_CONNECTION_STRING",
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=k==;EndpointSuffix=core.windows.net",
        )];
        assert_eq!(shown("azure://c", &azure), "dupfs:|c type=azureblob account=a key=k==");
        let signed = [("AZURE_CONNECTION_STRING", "BlobEndpoint=https://e/x;SharedAccessSignature=sv=1&sig=2")];
        assert_eq!(shown("azure://c", &signed), "dupfs:|c type=azureblob sas_url=https://e/x/?sv=1&sig=2");
        let swift = [
            ("SWIFT_USERNAME", "u"),
            ("SWIFT_PASSWORD", "p"),
            ("SWIFT_AUTHURL", "https://a"),
            ("SWIFT_REGIONNAME", "r"),
        ];
        assert_eq!(
            shown("swift://c//p/", &swift),
            "dupfs:|c/p type=swift user=u key=p auth=https://a auth_version=1 region=r"
        );
        assert!(
            shown("dpbx:///d", &[("DPBX_ACCESS_TOKEN", "t")]).contains("|d type=dropbox token={\"access_token\":\"t\"")
        );
        let drive = [("GOOGLE_SERVICE_JSON_FILE", "/k.json")];
        assert_eq!(
            shown("gdrive://j@p.iam/d/?driveID=0A", &drive),
            "dupfs:|d type=drive scope=drive.readonly service_account_file=/k.json team_drive=0A"
        );
        assert_eq!(shown("mega://j:x@mega.co.nz/d", &[]), "dupfs:|d type=mega user=j");
    }

    #[test]
    fn a_missing_account_is_named() {
        for (url, words) in [
            ("b2://id@b/a", "BACKEND_PASSWORD"),
            ("azure://c", "AZURE_CONNECTION_STRING"),
            ("swift://c", "SWIFT_USERNAME"),
            ("pca://c", "PCA_USERNAME"),
            ("dpbx:///d", "DPBX_ACCESS_TOKEN"),
            ("gdrive://j@h/d?driveID=0A", "GOOGLE_SERVICE_JSON_FILE"),
            ("mega://j@h/d", "BACKEND_PASSWORD"),
        ] {
            let error = remote(url, &[]).unwrap_err();
            assert!(error.kind == ErrorKind::Denied && error.to_string().contains(words), "{url}: {error}");
        }
    }
}
