//! The host of an S3 service.

/// Returns the host in a URL or in `host[:port]`. The brackets of an IPv6 address belong to it.
pub(super) fn host_of(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match authority.rsplit_once(':') {
        // A colon before the last bracket is part of the address.
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

/// Returns true if the endpoint is one of Amazon's own.
pub(super) fn is_aws(endpoint: &str) -> bool {
    let host = host_of(endpoint).to_ascii_lowercase();
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_found_in_every_form() {
        for (endpoint, host) in [
            ("minio", "minio"),
            ("minio:9000", "minio"),
            ("https://minio.example.com", "minio.example.com"),
            ("http://minio:9000/path:1/x", "minio"),
            ("https://user:p:w@minio:9000/", "minio"),
            ("user:pw@minio", "minio"),
            ("[::1]", "[::1]"),
            ("[::1]:9000", "[::1]"),
            ("https://[fd00::7]/", "[fd00::7]"),
            ("", ""),
        ] {
            assert_eq!(host_of(endpoint), host, "{endpoint}");
        }
    }

    #[test]
    fn amazons_hosts_are_known() {
        for endpoint in ["https://S3.eu-west-1.amazonaws.com:443/", "s3.cn-north-1.amazonaws.com.cn"] {
            assert!(is_aws(endpoint), "{endpoint}");
        }
        for endpoint in ["amazonaws.com.example.org", "https://minio/.amazonaws.com", ""] {
            assert!(!is_aws(endpoint), "{endpoint}");
        }
    }
}
