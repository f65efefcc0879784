//! The configuration of S3 clients: endpoint, region, addressing, credentials.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use super::credentials;
use crate::storage::endpoint_host::{host_of, is_aws};
use crate::storage::{S3Addressing, S3Credentials, S3Location, StorageError, StoreOptions};
use dupfs_base::ErrorKind;

/// The time after which a connection that is not in use is closed, if there is a session token.
const IDLE_WITH_TOKEN: Duration = Duration::from_secs(3);
/// Upper bound of the time to connect by TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The configuration of a client, except for the region.
#[derive(Debug)]
pub(super) struct S3ClientConfig {
    bucket: String,
    prefix: String,
    url: String,
    /// The service's URL; `None` for AWS.
    endpoint: Option<String>,
    unencrypted: bool,
    path_style: bool,
    credentials: S3Credentials,
    /// Upper bound of the time to find credentials: no step of an opening exceeds its deadline.
    search_timeout: Duration,
    http: SharedHttpClient,
    /// The region of the first request.
    region: String,
}

/// A client for one region.
#[derive(Debug)]
pub(super) struct S3Client {
    pub(super) client: Client,
    pub(super) region: String,
    /// Number of renewals of the credentials before it. When many requests fail together, it lets one of them renew.
    pub(super) generation: u64,
    /// True if requests are signed.
    pub(super) signed: bool,
}

impl S3ClientConfig {
    /// The configuration that follows from the URL, the options and the environment. Sends no request.
    pub(super) fn new(location: &S3Location, options: &StoreOptions) -> Self {
        let aws_host = location.host.as_deref().filter(|host| is_aws(host));
        let endpoint = match (&options.s3_endpoint_url, &location.host) {
            (Some(url), _) => Some(url.clone()),
            (None, Some(host)) if aws_host.is_none() => Some(host.clone()),
            (None, Some(_)) => None,
            (None, None) => ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().find_map(|v| std::env::var(v).ok()),
        };
        let scheme = if options.s3_unencrypted { "http" } else { "https" };
        let endpoint = endpoint.filter(|e| !e.is_empty()).map(|endpoint| {
            let url = if endpoint.contains("://") { endpoint } else { format!("{scheme}://{endpoint}") };
            url.trim_end_matches('/').to_owned()
        });
        let named = endpoint.as_deref().or(aws_host).and_then(region_in_host);
        let environment = || ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|v| std::env::var(v).ok());
        let region = options.s3_region.clone().or(named).or_else(environment).filter(|r| !r.is_empty());
        let path_style = match options.s3_addressing {
            S3Addressing::Path => true,
            // Old scripts use the option for any name of a bucket.
            S3Addressing::VirtualHost => !is_host_name(&location.bucket) || endpoint.as_deref().is_some_and(is_ip),
            S3Addressing::Auto => endpoint.is_some() || !is_host_name(&location.bucket),
        };
        Self {
            bucket: location.bucket.clone(),
            prefix: location.prefix.clone(),
            url: location.display(),
            endpoint,
            unencrypted: options.s3_unencrypted,
            path_style,
            credentials: options.s3_credentials.clone(),
            search_timeout: options.timeout.min(credentials::SEARCH_TIMEOUT),
            http: http_client(&options.s3_credentials),
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        }
    }

    /// The bucket.
    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The common prefix of the keys: empty, or with a trailing slash.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The URL of the service; `None` for AWS.
    pub(super) fn service_url(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The store's URL without secrets.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The region of the first request.
    pub(super) fn first_region(&self) -> &str {
        &self.region
    }

    /// Returns true if the service is Amazon's own.
    pub(super) fn is_aws(&self) -> bool {
        self.endpoint.as_deref().is_none_or(is_aws)
    }

    /// The source of the credentials.
    pub(super) fn credentials(&self) -> &S3Credentials {
        &self.credentials
    }

    /// A client for `region`; its credentials are fetched now.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if credentials are configured and cannot be fetched, [`ErrorKind::Invalid`] for an invalid
    /// endpoint.
    pub(super) async fn connect(&self, region: &str, generation: u64) -> Result<S3Client, StorageError> {
        let http = self.http.clone();
        let provider = credentials::provider(&self.credentials, http, region, &self.url, self.search_timeout).await?;
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .http_client(self.http.clone())
            .force_path_style(self.path_style)
            .timeout_config(timeouts)
            // This module retries and limits times itself, because it resumes streams.
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Other services do not support the newer checksums. The backup has its own hashes.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        if let Some(endpoint) = self.endpoint(region) {
            if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
                // The URL is not shown: it may contain a password.
                let reason = "the endpoint's URL (--s3-endpoint-url) must begin with http:// or https://";
                return Err(StorageError::new(ErrorKind::Invalid, &self.url, reason));
            }
            config = config.endpoint_url(endpoint);
        }
        let signed = provider.is_some();
        if matches!(self.credentials, S3Credentials::Static { .. }) {
            // It needs no renewal, and the cache would have a copy of the secret.
            config = config.identity_cache(IdentityCache::no_cache());
        }
        config = match provider {
            Some(provider) => config.credentials_provider(provider),
            None => config.allow_no_auth(),
        };
        Ok(S3Client { client: Client::from_conf(config.build()), region: region.to_owned(), generation, signed })
    }

    fn endpoint(&self, region: &str) -> Option<String> {
        match &self.endpoint {
            Some(endpoint) => Some(endpoint.clone()),
            None if self.unencrypted => {
                let china = if region.starts_with("cn-") { ".cn" } else { "" };
                Some(format!("http://s3.{region}.amazonaws.com{china}"))
            }
            None => None,
        }
    }
}

/// Returns true if the host is an IP address. The name of a bucket cannot be put before one.
fn is_ip(endpoint: &str) -> bool {
    host_of(endpoint).trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

/// The region in the host name of a service: `s3.eu-west-1.amazonaws.com`, `s3-eu-west-1.amazonaws.com`,
/// `s3.dualstack.eu-west-1...`, and `s3.<region>.<domain>` of most other services.
fn region_in_host(endpoint: &str) -> Option<String> {
    let host = host_of(endpoint).to_ascii_lowercase();
    let labels: Vec<&str> = host.split('.').filter(|label| *label != "dualstack").collect();
    let first = *labels.first()?;
    if let Some(region) = first.strip_prefix("s3-").filter(|_| is_aws(&host)) {
        return Some(if region.starts_with("external") { "us-east-1" } else { region }.to_owned());
    }
    let region = labels.get(1).filter(|_| first == "s3" && labels.len() >= 4)?;
    Some((*region).to_owned())
}

/// Returns true if a bucket can be part of a host name that a wildcard certificate covers.
fn is_host_name(bucket: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (3..=63).contains(&bucket.len()) && bucket.chars().all(fits) && !bucket.starts_with('-') && !bucket.ends_with('-')
}

/// An HTTP client. A connection holds the headers of its last request in memory that is not locked. With a session token,
/// which is one of them, a connection that is not in use is closed early, and its memory overwritten.
fn http_client(credentials: &S3Credentials) -> SharedHttpClient {
    let builder = aws_smithy_http_client::Builder::new();
    let builder = match credentials {
        S3Credentials::Static { token: Some(_), .. } => builder.pool_idle_timeout(IDLE_WITH_TOKEN),
        S3Credentials::Static { token: None, .. }
        | S3Credentials::Anonymous
        | S3Credentials::Chain
        | S3Credentials::Profile(_) => builder,
    };
    builder.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Location, parse_url};

    fn config(url: &str, change: impl FnOnce(&mut StoreOptions)) -> S3ClientConfig {
        let mut options = StoreOptions::default();
        change(&mut options);
        let Location::S3(location) = parse_url(url).unwrap() else { panic!("{url}") };
        S3ClientConfig::new(&location, &options)
    }

    #[test]
    fn endpoints_follow_the_url_and_the_options() {
        let endpoint = |url, change: fn(&mut StoreOptions)| config(url, change).endpoint("eu-west-1");
        assert_eq!(endpoint("s3://bucket/p", |_| {}), None);
        assert_eq!(endpoint("s3://s3.eu-west-1.amazonaws.com/bucket", |_| {}), None);
        assert_eq!(endpoint("s3://minio:9000/bucket", |_| {}).as_deref(), Some("https://minio:9000"));
        let plain = |o: &mut StoreOptions| o.s3_unencrypted = true;
        assert_eq!(endpoint("s3://minio:9000/bucket", plain).as_deref(), Some("http://minio:9000"));
        assert_eq!(endpoint("s3://bucket", plain).as_deref(), Some("http://s3.eu-west-1.amazonaws.com"));
        let given = |o: &mut StoreOptions| o.s3_endpoint_url = Some("http://127.0.0.1:1/".into());
        assert_eq!(endpoint("s3://bucket", given).as_deref(), Some("http://127.0.0.1:1"));
        assert!(config("s3://bucket", given).path_style && !config("s3://bucket", given).is_aws());
    }

    #[test]
    fn buckets_that_are_no_host_names_are_put_into_the_path() {
        for (bucket, path) in [("plain-bucket", false), ("Upper", true), ("dotted.name", true), ("under_score", true)] {
            assert_eq!(config(&format!("s3:///{bucket}/p"), |_| {}).path_style, path, "{bucket}");
        }
        assert!(config("s3:///bucket", |o| o.s3_addressing = S3Addressing::Path).path_style);
        let new_style = |url| config(url, |o| o.s3_addressing = S3Addressing::VirtualHost).path_style;
        assert!(!new_style("s3://bucket") && !new_style("s3://minio:9000/bucket"));
        assert!(new_style("s3:///Upper") && new_style("s3://10.0.0.1:9000/bucket"));
        assert!(new_style("s3://[::1]:9000/bucket") && new_style("s3://[::1]/bucket"));
    }

    #[test]
    fn regions_are_read_from_hosts() {
        for (host, region) in [
            ("s3.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("s3-ap-southeast-2.amazonaws.com", Some("ap-southeast-2")),
            ("s3.dualstack.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("s3-external-1.amazonaws.com", Some("us-east-1")),
            ("s3.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("https://s3.eu-central-003.backblazeb2.com:443/", Some("eu-central-003")),
            ("s3.amazonaws.com", None),
            ("minio.example.com", None),
        ] {
            assert_eq!(region_in_host(host).as_deref(), region, "{host}");
        }
    }

    #[test]
    fn requests_to_aws_go_to_the_right_host() {
        use aws_sdk_s3::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
        let url = |bucket: &str, region: &str| {
            let config = config(&format!("s3:///{bucket}"), |_| {});
            let params = Params::builder().bucket(bucket).region(region).force_path_style(config.path_style).build();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let endpoint = runtime.block_on(async { DefaultResolver::new().resolve_endpoint(&params.unwrap()).await });
            endpoint.unwrap().url().to_owned()
        };
        assert_eq!(url("plain", "eu-west-1"), "https://plain.s3.eu-west-1.amazonaws.com");
        assert_eq!(url("Upper.Dot_x", "us-east-1"), "https://s3.us-east-1.amazonaws.com/Upper.Dot_x");
        assert_eq!(url("plain", "cn-north-1"), "https://plain.s3.cn-north-1.amazonaws.com.cn");
    }
}
