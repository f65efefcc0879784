//! S3 and compatible services, over aws-sdk-s3. The only place with an async runtime: callers are threads and block.

mod blocking;
mod boto;
mod bucket;
mod client_config;
mod credentials;
mod failure;
mod kept_bytes;
mod list;
mod object_version;
mod part_task;
mod part_window;
mod probe;
mod retry_timer;
mod s3_stream;
mod store;

pub use store::S3Store;
