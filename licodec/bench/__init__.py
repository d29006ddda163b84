"""The benchmark: real files, decoded again, and what they cost. Needs the extra `licodec[bench]`."""
