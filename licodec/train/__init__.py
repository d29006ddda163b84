"""Training: `licodec train` (see `loop`). Needs the extra `licodec[train]`."""
