"""The servers of the embedded stack, one file each, all with the interface of `ServerProcess`."""
