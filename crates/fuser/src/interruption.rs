/// The answer of a filesystem to the interrupt of a request
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// The filesystem answers the interrupted request, now or later.
    Accepted,
    /// The filesystem does not know the request: it was answered already, or another thread has
    /// read it and not dispatched it yet.
    Unknown,
    /// The filesystem never handles interrupts.
    Unsupported,
}
