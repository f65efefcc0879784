//! Rank 2: from stored bytes to plaintext: gzip and OpenPGP as readers over readers, chosen by content.
