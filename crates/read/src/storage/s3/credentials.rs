//! The providers of credentials: AWS's chain with boto's files, a fixed key, or none.

use std::fmt;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_s3::config::{Credentials, ProvideCredentials, Region, SharedCredentialsProvider, SharedHttpClient};

use super::boto;
use super::failure::chain;
use crate::storage::{S3Credentials, StorageError};
use dupfs_base::{ErrorKind, Secret};

/// Upper bound of the time to find credentials.
pub(super) const SEARCH_TIMEOUT: Duration = Duration::from_secs(15);

/// The provider for `wanted`, or `None` for unsigned requests. A search for credentials ends after `limit`.
///
/// # Errors
/// [`ErrorKind::Denied`] if credentials are configured and cannot be fetched.
pub(super) async fn provider(
    wanted: &S3Credentials,
    http: SharedHttpClient,
    region: &str,
    url: &str,
    limit: Duration,
) -> Result<Option<SharedCredentialsProvider>, StorageError> {
    match wanted {
        S3Credentials::Anonymous => Ok(None),
        S3Credentials::Static { id, secret, token } => {
            let key = FixedKey { id: id.clone(), secret: secret.clone(), token: token.clone() };
            Ok(Some(SharedCredentialsProvider::new(key)))
        }
        S3Credentials::Chain => search(None, http, region, url, limit).await,
        S3Credentials::Profile(name) => search(Some(name), http, region, url, limit).await,
    }
}

/// An access key that does not change. The SDK gets a copy for each request, so that the only one that stays in memory is that
/// of the [`Secret`]s.
struct FixedKey {
    id: String,
    secret: Secret,
    token: Option<Secret>,
}

impl fmt::Debug for FixedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FixedKey({})", self.id)
    }
}

impl ProvideCredentials for FixedKey {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let text = |secret: &Secret| std::str::from_utf8(secret.expose()).map(str::to_owned);
        let key = text(&self.secret).and_then(|secret| Ok((secret, self.token.as_ref().map(text).transpose()?)));
        future::ProvideCredentials::ready(match key {
            Ok((secret, token)) => Ok(Credentials::new(&*self.id, secret, token, None, "static")),
            Err(error) => Err(CredentialsError::invalid_configuration(error)),
        })
    }
}

/// The providers of AWS's chain with boto's files: the environment, profiles (with assumed roles, SSO, processes), web identity and
/// boto's files. The last are providers that send a request to a metadata service: outside of a cloud it is not answered.
fn chain_of_providers(config: &ProviderConfig) -> CredentialsProviderChain {
    let profile = ProfileFileCredentialsProvider::builder().configure(config).build();
    let web = aws_config::web_identity_token::WebIdentityTokenCredentialsProvider::builder().configure(config).build();
    let providers = CredentialsProviderChain::first_try("environment", EnvironmentVariableCredentialsProvider::new())
        .or_else("profile", profile)
        .or_else("web identity", web);
    if let Some((key, file)) = boto::find() {
        log::debug!("{}: boto's credentials are the fallback", file.display());
        return providers.or_else("boto", FixedKey { id: key.id, secret: key.secret, token: None });
    }
    let ecs = aws_config::ecs::EcsCredentialsProvider::builder().configure(config).build();
    let client = imds::Client::builder().configure(config).max_attempts(2).build();
    let instance = imds::credentials::ImdsCredentialsProvider::builder().configure(config).imds_client(client);
    providers.or_else("container", ecs).or_else("instance", instance.build())
}

/// Finds credentials in the profile `named` alone, or without one in [`chain_of_providers`].
async fn search(
    named: Option<&str>,
    http: SharedHttpClient,
    region: &str,
    url: &str,
    limit: Duration,
) -> Result<Option<SharedCredentialsProvider>, StorageError> {
    let config =
        ProviderConfig::without_region().with_http_client(http).with_region(Some(Region::new(region.to_owned())));
    let providers = match named {
        Some(name) => {
            let profile = ProfileFileCredentialsProvider::builder().configure(&config).profile_name(name).build();
            CredentialsProviderChain::first_try("profile", profile)
        }
        None => chain_of_providers(&config),
    };
    let found = tokio::time::timeout(limit, providers.provide_credentials()).await;
    let denied = |reason: String| StorageError::new(ErrorKind::Denied, url, reason);
    match found {
        Ok(Ok(_)) => Ok(Some(SharedCredentialsProvider::new(providers))),
        Ok(Err(CredentialsError::CredentialsNotLoaded(_))) => {
            let of_environment = || std::env::var("AWS_PROFILE").ok().map(|name| (name, "AWS_PROFILE"));
            if let Some((name, source)) = named.map(|name| (name.to_owned(), "--s3-profile")).or_else(of_environment) {
                return Err(denied(format!("the profile '{name}' ({source}) has no credentials in ~/.aws")));
            }
            // The error of the first request reports it if the bucket is not public.
            log::info!("{url}: no credentials found (environment, ~/.aws, ~/.boto, roles); trying without credentials");
            Ok(None)
        }
        Ok(Err(e)) => {
            let (all, root) = chain(&e);
            // Asked last, and only where nothing else is configured.
            if all.contains("imds") {
                let status = if all.contains("forbidden") { "403: " } else { "" };
                let has_id = std::env::var_os("AWS_ACCESS_KEY_ID").is_some_and(|id| !id.is_empty());
                let variables = if has_id {
                    "no credentials: AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"
                } else {
                    "no credentials: AWS_ACCESS_KEY_ID is not set"
                };
                return Err(denied(format!(
                    "{variables}, ~/.aws has no profile, and this machine's role gives none ({status}{root}); set \
                     AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
                )));
            }
            // The AWS SDK names the cargo feature that it was built without.
            let hint = if !cfg!(feature = "sso") && root.contains("feature(s) enabled: sso") {
                "this build of dupfs has no SSO: set credential_process in the profile (docs/S3.md), or build with --features sso"
            } else {
                "check the profile, the role and the environment (aws sts get-caller-identity)"
            };
            Err(denied(format!("the configured credentials cannot be fetched: {root}; {hint}")))
        }
        Err(_) => Err(denied(format!(
            "no credentials within {} s: the configured profile or role does not answer; set AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, or another AWS_PROFILE",
            limit.as_secs_f64()
        ))),
    }
}
